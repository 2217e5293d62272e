"""Tasks and streams: submitted, shown, listed, canceled; no platform is called here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients import AppClient
from tests.signed import content, form, piece
from webhook.app import create_app
from webhook.store import tasks as task_store
from webhook.tokens import open_secrets

if TYPE_CHECKING:
    from tests.conftest import MakeService
    from webhook.bootstrap import Service

TASK = {"url": "https://example.com/a.mp3"}
STREAM = {"url": "rtmp://example.com/live/1", "live_id": "room-1"}

QUEUED = {
    "origin": "submitted",
    "state": "queued",
    "referer": None,
    "crypt_type": "SHA256",
    "platform_task_id": None,
    "error": None,
    "risk_level": None,
    "action": None,
    "slice_count": 0,
    "flagged_slice_count": 0,
    "submitted_at": None,
    "finished_at": None,
    "queue_position": 1,
}


def answered(service: Service, client: AppClient, task: Any, said: str) -> None:
    """Let the platform call back for a task, at the address that its row has."""
    with service.database.read() as session:
        row = task_store.task(session, task["id"])
    assert row is not None
    assert row.secrets is not None
    own = open_secrets(service.keyring, row.secrets, table="tasks", row=row.id)
    assert client.callback(f"https://x/callbacks/{own.token}", form(said, seed=own.seed)) == 200


def test_a_submitted_file_is_queued_and_its_location_shows_it(client: AppClient) -> None:
    reply = client.post("/v1/tasks", {**TASK, "data_id": "d-1"})
    assert reply.status == 201
    made = reply.json
    assert reply.headers["Location"] == f"/v1/tasks/{made['id']}"
    assert made == client.shown(reply.headers["Location"])
    own = {
        "kind": "audio",
        "service": "audio_detection_byllm_global",
        "source": TASK,
        "data_id": "d-1",
        "live_id": None,
    }
    assert made == {**QUEUED, **own, "id": made["id"], "created_at": made["created_at"]}
    assert made["created_at"].endswith("Z")


def test_a_file_in_an_oss_bucket_is_its_own_source(client: AppClient) -> None:
    oss = {"bucket": "b", "object": "dir/a.mp3", "region": "ap-southeast-1"}
    assert client.made("/v1/tasks", {"oss": oss, "url": None})["source"] == {"oss": oss}


def test_neither_token_nor_seed_is_in_any_answer(client: AppClient, service: Service) -> None:
    made = client.made("/v1/tasks", TASK)
    with service.database.read() as session:
        row = task_store.task(session, made["id"])
    assert row is not None
    assert row.secrets is not None
    own = open_secrets(service.keyring, row.secrets, table="tasks", row=row.id)
    for path in (f"/v1/tasks/{made['id']}", "/v1/tasks", f"/v1/verdicts/{made['id']}", "/v1/events"):
        shown = client.get(path).body.decode()
        assert own.token not in shown
        assert own.seed not in shown


def test_a_stream_of_an_active_live_id_is_the_one_that_is_there(make_service: MakeService) -> None:
    client = AppClient(create_app(make_service(WEBHOOK_SERVICES="live:live_detection_other")))
    first = client.post("/v1/streams", STREAM)
    assert first.status == 201
    assert first.headers["Location"] == f"/v1/streams/{first.json['id']}"
    own = {
        "kind": "live",
        "service": "live_detection_byllm_global",
        "source": {"url": STREAM["url"]},
        "live_id": "room-1",
        "last_slice_at": None,
        "silent_since": None,
    }
    assert first.json == {**first.json, **QUEUED, **own}
    again = client.post("/v1/streams", {**STREAM, "url": "rtmp://example.com/live/2"})
    assert (again.status, again.json) == (200, first.json)
    elsewhere = client.post("/v1/streams", {**STREAM, "service": "live_detection_other"})
    assert elsewhere.status == 201


@pytest.mark.parametrize(
    "url", ["rtmp://h/1", "rtsp://h/1", "http://h/1.flv", "https://h/1.m3u8", "rtmps://u:p@h:1935/1"]
)
def test_every_protocol_of_the_vendor_is_a_stream(client: AppClient, url: str) -> None:
    assert client.made("/v1/streams", {"url": url, "live_id": "room-1"})["source"] == {"url": url}


def test_a_queued_stream_is_canceled_at_once(client: AppClient) -> None:
    made = client.made("/v1/streams", STREAM)
    reply = client.delete(f"/v1/streams/{made['id']}")
    assert (reply.status, reply.json["state"]) == (202, "canceled")
    assert reply.json["finished_at"] is not None
    again = client.delete(f"/v1/streams/{made['id']}")
    assert (again.status, again.json) == (200, reply.json)
    assert [event["type"] for event in client.feed()] == ["task.canceled"]
    assert client.post("/v1/streams", STREAM).status == 201


def test_a_file_cannot_be_canceled(client: AppClient) -> None:
    made = client.made("/v1/tasks", TASK)
    reply = client.post(f"/v1/tasks/{made['id']}/cancel")
    assert (reply.status, reply.headers["Content-Type"]) == (409, "application/problem+json")
    assert client.delete(f"/v1/streams/{made['id']}").status == 404


def test_a_stream_can_be_canceled_as_a_task(client: AppClient) -> None:
    made = client.made("/v1/streams", STREAM)
    assert client.post(f"/v1/tasks/{made['id']}/cancel").status == 202


def test_a_list_shows_each_task_once_newest_first_however_it_is_cut(client: AppClient) -> None:
    made = [client.made("/v1/tasks", {**TASK, "data_id": f"d-{number}"})["id"] for number in range(7)]
    for limit in (1, 2, 3, 7, 200):
        assert [task["id"] for task in client.items("/v1/tasks", limit=limit)] == made[::-1]


def test_a_list_goes_on_behind_its_cursor_whatever_comes_meanwhile(client: AppClient) -> None:
    made = [client.made("/v1/tasks", TASK)["id"] for _ in range(4)]
    page = client.shown("/v1/tasks", limit=2)
    client.made("/v1/tasks", TASK)
    rest = client.items("/v1/tasks", limit=2, cursor=page["next_cursor"])
    assert [task["id"] for task in page["items"] + rest] == made[::-1]


def test_filters_choose(client: AppClient, service: Service) -> None:
    file = client.made("/v1/tasks", {**TASK, "data_id": "d-1"})
    stream = client.made("/v1/streams", STREAM)
    over = client.made("/v1/streams", {**STREAM, "live_id": "room-2"})
    client.delete(f"/v1/streams/{over['id']}")
    answered(service, client, file, content(piece(0)))

    def ids(path: str, **query: Any) -> list[str]:
        return [task["id"] for task in client.items(path, **query)]

    assert ids("/v1/tasks", kind="audio") == ids("/v1/tasks", data_id="d-1") == [file["id"]]
    assert ids("/v1/tasks", live_id="room-1") == ids("/v1/tasks", state="queued") == [stream["id"]]
    assert ids("/v1/tasks", state="completed") == [file["id"]]
    assert ids("/v1/streams") == [over["id"], stream["id"]]
    assert ids("/v1/streams", active="true") == [stream["id"]]
    assert ids("/v1/streams", active="false") == [over["id"]]
    assert ids("/v1/streams", active="true", state="canceled") == []
    assert ids("/v1/streams", state="canceled", live_id="room-2") == [over["id"]]
    assert ids("/v1/tasks", data_id="nobody") == []


def test_since_is_inclusive_and_until_is_not(client: AppClient) -> None:
    made = [client.made("/v1/tasks", TASK) for _ in range(3)]
    at = made[1]["created_at"]
    assert {task["id"] for task in client.items("/v1/tasks", since=at)} >= {made[1]["id"], made[2]["id"]}
    assert made[1]["id"] not in {task["id"] for task in client.items("/v1/tasks", until=at)}
    same = datetime.fromisoformat(at) + timedelta(hours=5, minutes=30)
    with_zone = same.replace(tzinfo=None).isoformat() + "+05:30"
    assert client.items("/v1/tasks", since=with_zone) == client.items("/v1/tasks", since=at)


@pytest.mark.parametrize("edge", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_times_at_the_edge_of_the_calendar_are_times(client: AppClient, edge: str) -> None:
    client.made("/v1/tasks", TASK)
    assert len(client.items("/v1/tasks", since=edge)) + len(client.items("/v1/tasks", until=edge)) == 1


def test_a_verdict_without_a_result_is_null_and_never_none(client: AppClient) -> None:
    made = client.made("/v1/tasks", TASK)
    verdict = client.shown(f"/v1/verdicts/{made['id']}")
    assert (verdict["risk_level"], verdict["action"], verdict["labels"]) == (None, None, [])
    assert client.items(f"/v1/verdicts/{made['id']}/slices") == []


def test_a_callback_that_overtakes_the_submit_s_answer_completes_the_task(client: AppClient, service: Service) -> None:
    made = client.made("/v1/tasks", TASK)
    answered(service, client, made, content(piece(0), TaskId="p-1"))
    task = client.shown(f"/v1/tasks/{made['id']}")
    assert (task["state"], task["platform_task_id"]) == ("completed", "p-1")
    assert task["submitted_at"] is not None
    assert [event["type"] for event in client.feed()] == ["task.submitted", "task.completed"]


def test_a_code_without_data_fails_the_task_with_a_reason_and_a_mend(client: AppClient, service: Service) -> None:
    made = client.made("/v1/tasks", TASK)
    answered(service, client, made, content(code=404, message="vendor's own words"))
    task = client.shown(f"/v1/tasks/{made['id']}")
    assert task["state"] == "failed"
    assert (task["error"]["code"], task["error"]["reason"]) == (404, "source_unreachable")
    assert "vendor" not in client.get(f"/v1/tasks/{made['id']}").body.decode()
    answered(service, client, made, content(piece(0)))
    assert client.shown(f"/v1/tasks/{made['id']}")["state"] == "completed"


def test_the_same_idempotency_key_and_body_get_the_same_answer(client: AppClient) -> None:
    key = {"Idempotency-Key": "once"}
    first, again = client.post("/v1/tasks", TASK, headers=key), client.post("/v1/tasks", TASK, headers=key)
    assert (first.status, again.status) == (201, 201)
    assert (first.body, first.headers["Location"]) == (again.body, again.headers["Location"])
    assert len(client.items("/v1/tasks")) == 1


def test_an_idempotency_key_goes_with_one_body_and_one_route(client: AppClient) -> None:
    key = {"Idempotency-Key": "once"}
    client.made("/v1/tasks", TASK, headers=key)
    assert client.post("/v1/tasks", {**TASK, "data_id": "d"}, headers=key).fields == ["Idempotency-Key"]
    assert client.post("/v1/streams", STREAM, headers=key).status == 201


@pytest.mark.parametrize("key", ["", "a" * 256, "\x7f"])
def test_an_idempotency_key_is_short_and_printable(client: AppClient, key: str) -> None:
    assert client.post("/v1/tasks", TASK, headers={"Idempotency-Key": key}).fields == ["Idempotency-Key"]


def test_a_refused_request_does_not_use_up_its_idempotency_key(client: AppClient) -> None:
    key = {"Idempotency-Key": "once"}
    assert client.post("/v1/tasks", {}, headers=key).status == 422
    assert client.post("/v1/tasks", TASK, headers=key).status == 201


def test_a_secret_is_shown_again_to_whoever_repeats_the_request(client: AppClient) -> None:
    key = {"Idempotency-Key": "once"}
    body = {"url": "https://example.com/hook"}
    assert client.made("/v1/subscriptions", body, headers=key) == client.made("/v1/subscriptions", body, headers=key)
    assert client.made("/v1/receivers", {"name": "a"}, headers=key) == client.made(
        "/v1/receivers", {"name": "a"}, headers=key
    )


def test_without_a_public_url_a_receiver_s_address_is_the_one_that_was_asked(make_service: MakeService) -> None:
    client = AppClient(create_app(make_service(WEBHOOK_PUBLIC_URL="")))
    assert client.receiver()["callback_url"].startswith("http://localhost/callbacks/")


def test_a_service_that_is_not_known_is_refused_and_settings_can_name_more(make_service: MakeService) -> None:
    plain = AppClient(create_app(make_service()))
    for path, body in (("/v1/tasks", TASK), ("/v1/streams", STREAM)):
        for service in ("nonsense", "audio_new" if path == "/v1/tasks" else "live_new"):
            assert plain.post(path, {**body, "service": service}).fields == ["service"]
    wider = AppClient(create_app(make_service(WEBHOOK_SERVICES="audio:audio_new,live:live_new")))
    assert wider.made("/v1/tasks", {**TASK, "service": "audio_new"})["service"] == "audio_new"
    assert wider.made("/v1/streams", {**STREAM, "service": "live_new"})["service"] == "live_new"
    assert wider.post("/v1/tasks", {**TASK, "service": "live_new"}).fields == ["service"]


def test_waiting_tasks_show_their_place_with_streams_ahead(client: AppClient) -> None:
    file = client.made("/v1/tasks", TASK)
    stream = client.made("/v1/streams", {**STREAM, "live_id": "ahead"})
    assert (file["queue_position"], stream["queue_position"]) == (1, 1)
    shown = {task["id"]: task["queue_position"] for task in client.items("/v1/tasks")}
    assert shown == {stream["id"]: 1, file["id"]: 2}
    client.delete(f"/v1/streams/{stream['id']}")
    assert client.shown(f"/v1/streams/{stream['id']}")["queue_position"] is None


def test_a_task_that_the_platform_has_not_taken_cannot_be_refreshed(client: AppClient) -> None:
    task = client.made("/v1/tasks", TASK)
    assert client.post(f"/v1/tasks/{task['id']}/refresh").status == 409
    assert client.post("/v1/tasks/task_0/refresh").status == 404
