"""What stands in the audit log of a request, and that nothing is given or done without it."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from structlog.testing import capture_logs

from tests.api.test_access import make_key
from tests.clients import ADMIN_KEY, NO_KEY, AppClient
from tests.signed import content, form, piece
from webhook import audit
from webhook.api.http import ROUTES
from webhook.app import create_app
from webhook.errors import DatabaseError
from webhook.roles import Role

if TYPE_CHECKING:
    from tests.clients import Reply
    from webhook.bootstrap import Service

# what shows transcripts, evidence and raw callbacks, and the log itself
CONTENTS = {
    "/v1/verdicts/{task_id}/slices",
    "/v1/tasks/{task_id}/evidence/{slice_id}",
    "/v1/callbacks/{callback_id}",
    "/v1/events",
    "/v1/audit",
}
SAID = "a word that was said"


@pytest.fixture
def task(client: AppClient) -> str:
    """A task with a slice, told of by callback."""
    receiver = client.receiver()
    said = content(piece(0, risk="high", text=SAID), TaskId="t-1")
    assert client.callback(receiver["callback_url"], form(said, seed=receiver["seed"])) == 200
    [verdict] = client.items("/v1/verdicts")
    return str(verdict["task_id"])


def entries(client: AppClient, **query: Any) -> list[Any]:
    """Return what stood in the log, oldest first, without the look at it."""
    return [one for one in client.items("/v1/audit", **query) if one["action"] != "audit.read"][::-1]


def last(client: AppClient) -> Any:
    return entries(client)[-1]


def test_every_change_and_every_read_of_content_has_a_word_in_the_log() -> None:
    words = [route.audit for route in ROUTES if route.audit is not None]
    assert len(words) == len(set(words))
    assert all(re.fullmatch(r"[a-z]+\.[a-z_]+", word) for word in words)
    assert {
        f"{route.method} {route.path}" for route in ROUTES if route.audit is None and route.method != "GET"
    } == set()
    assert {route.path for route in ROUTES if route.audit is not None and route.method == "GET"} == CONTENTS


def test_every_change_that_succeeds_is_one_row(client: AppClient) -> None:
    stream = client.made("/v1/streams", {"url": "rtmp://example.com/1", "live_id": "1"})
    client.delete(f"/v1/streams/{stream['id']}")
    task = client.made("/v1/tasks", {"url": "https://example.com/a.mp3", "data_id": "d"})
    subscription = client.made("/v1/subscriptions", {"url": "https://example.com/a-secret"})
    path = f"/v1/subscriptions/{subscription['id']}"
    client.patch(path, {"state": "active", "url": "https://example.com/other-secret"})
    client.post(f"{path}/rotate-secret")
    delivery = client.made(f"{path}/test", None)
    client.post(f"{path}/recover", {"since": "2026-01-01T00:00:00Z"})
    client.post(f"/v1/deliveries/{delivery['id']}/retry")
    client.delete(path)
    receiver = client.receiver(seed="aSecretSeed")
    client.delete(f"/v1/receivers/{receiver['id']}")
    found = [(one["action"], one["object_id"], one["status"], one["details"]) for one in entries(client)]
    assert found == [
        ("stream.created", stream["id"], 201, {"fields": ["live_id", "url"]}),
        ("stream.canceled", stream["id"], 202, {}),
        ("task.created", task["id"], 201, {"fields": ["data_id", "url"]}),
        ("subscription.created", subscription["id"], 201, {"fields": ["url"]}),
        ("subscription.changed", subscription["id"], 200, {"fields": ["state", "url"]}),
        ("subscription.secret_rotated", subscription["id"], 200, {}),
        ("subscription.tested", subscription["id"], 202, {}),
        ("subscription.recovered", subscription["id"], 202, {"fields": ["since"]}),
        ("delivery.retried", delivery["id"], 202, {}),
        ("subscription.deleted", subscription["id"], 204, {}),
        ("receiver.created", receiver["id"], 201, {"fields": ["name", "seed"]}),
        ("receiver.deleted", receiver["id"], 204, {}),
    ]
    assert "secret" not in json.dumps(client.items("/v1/audit")).lower().replace("secret_rotated", "")


def test_a_row_tells_who_from_where_and_in_which_request(client: AppClient, service: Service) -> None:
    key = make_key(service, Role.SUBMITTER)
    sent = {"X-Request-Id": "from-the-proxy.17"}
    made = client.post("/v1/tasks", {"url": "https://example.com/a.mp3"}, key=key, headers=sent)
    assert made.headers["X-Request-Id"] == "from-the-proxy.17"
    one = last(client)
    assert re.fullmatch(r"key_[0-9a-f]{28}", one["actor"])
    assert (one["actor_name"], one["role"], one["address"]) == ("a submitter", "submitter", "127.0.0.1")
    assert (one["request_id"], one["object_id"]) == ("from-the-proxy.17", made.json["id"])
    client.made("/v1/receivers", {"name": "x"})
    assert (last(client)["actor"], last(client)["actor_name"], last(client)["role"]) == (
        "bootstrap",
        "bootstrap",
        "admin",
    )


def test_every_read_of_content_is_one_row_without_the_content(client: AppClient, task: str) -> None:
    assert SAID in client.get(f"/v1/verdicts/{task}/slices", risk_level="high", limit=7).body.decode()
    assert SAID in client.get("/v1/events", types="slice.*").body.decode()
    [callback] = client.items("/v1/callbacks", state="accepted")
    assert SAID in client.get(f"/v1/callbacks/{callback['id']}").body.decode()
    client.get("/v1/audit", action="callback.read")
    found = [(one["action"], one["object_id"], one["status"], one["details"]) for one in client.items("/v1/audit")]
    assert found[::-1][1:] == [
        ("slices.read", task, 200, {"query": {"limit": 7, "risk_level": "high"}}),
        ("events.read", None, 200, {"query": {"types": "slice.*"}}),
        ("callback.read", callback["id"], 200, {}),
        ("audit.read", None, 200, {"query": {"action": "callback.read"}}),
    ]
    assert SAID not in json.dumps(client.items("/v1/audit"))


def test_what_shows_no_content_is_not_written_down(client: AppClient, task: str) -> None:
    before = len(entries(client))
    client.get(f"/v1/verdicts/{task}")
    client.get(f"/v1/tasks/{task}")
    client.get("/v1/subscriptions")
    client.get("/v1/callbacks")
    client.get("/v1/verdicts/task_of-nobody/slices")
    client.get("/v1/callbacks/cb_of-nobody")
    client.get("/v1/events", after=client.shown("/v1/events")["next_cursor"])  # nothing is there yet
    assert [one["action"] for one in entries(client)[before:]] == ["events.read"]


def test_a_wait_for_events_is_one_row_once_they_are_given(client: AppClient, service: Service) -> None:
    other = AppClient(create_app(service))
    waiting = gevent.spawn(other.get, "/v1/events", wait=20)
    gevent.sleep(0.2)
    stream = client.made("/v1/streams", {"url": "rtmp://example.com/1", "live_id": "1"})
    client.delete(f"/v1/streams/{stream['id']}")
    reply: Reply = waiting.get(timeout=10)
    assert [event["type"] for event in reply.json["items"]] == ["task.canceled"]
    assert [one["action"] for one in entries(client)] == ["stream.created", "stream.canceled", "events.read"]


def test_who_may_not_is_written_down_and_a_stranger_is_not(client: AppClient, service: Service) -> None:
    key = make_key(service, Role.READER)
    some = "sub_0123456789abcdef0123456789ab"
    assert client.delete(f"/v1/subscriptions/{some}", key=key).status == 403
    assert client.delete(f"/v1/subscriptions/{'%F0%9F%8E%B5' * 100}", key=key).status == 403
    assert client.get("/v1/callbacks/cb_x", key=key).status == 403
    assert client.upload(("file", "a.mp3", b"x"), Authorization=f"Bearer {key}").status == 403
    for wrong in (NO_KEY, "wk_nobodys"):
        assert client.delete(f"/v1/subscriptions/{some}", key=wrong).status == 401
        assert client.get("/v1/events", key=wrong).status == 401
    found = [(one["action"], one["object_id"], one["status"], one["role"]) for one in entries(client)]
    assert found == [
        ("subscription.deleted", some, 403, "reader"),
        ("subscription.deleted", None, 403, "reader"),
        ("callback.read", "cb_x", 403, "reader"),
        ("task.created", None, 403, "reader"),
    ]


def test_an_answer_given_again_is_written_down_as_such(client: AppClient) -> None:
    for _ in range(2):
        client.post("/v1/subscriptions", {"url": "https://example.com/"}, headers={"Idempotency-Key": "one"})
    first, again = entries(client)
    assert first["object_id"] == again["object_id"]
    assert (first["details"], again["details"]) == ({"fields": ["url"]}, {"fields": ["url"], "replayed": True})


def test_a_change_that_fails_is_not_written_down(client: AppClient) -> None:
    client.post("/v1/tasks", {"url": "nonsense"})
    client.delete("/v1/receivers/rcv_0")
    assert entries(client) == []


@pytest.mark.parametrize("fails", ["audit.append", "store.audit.insert"])
def test_what_cannot_be_written_down_is_neither_done_nor_given(
    client: AppClient, service: Service, task: str, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("the disk is full")

    reader = make_key(service, Role.READER)
    with monkeypatch.context() as patch:
        patch.setattr(f"webhook.{fails}", fail)
        for path in (f"/v1/verdicts/{task}/slices", "/v1/events", "/v1/audit"):
            reply = client.get(path)
            assert reply.status == 503
            assert SAID.encode() not in reply.body
        assert client.post("/v1/receivers", {"name": "never"}).status == 503
        assert client.post("/v1/receivers", {"name": "never"}, key=reader).status == 503
        assert client.get(f"/v1/verdicts/{task}").status == 200
    assert [one["name"] for one in client.items("/v1/receivers")] == ["a test"]
    with service.database.read() as session:
        assert audit.verify(session, service.keyring).fault is None


def test_a_callback_is_taken_though_the_log_cannot_be_written(
    client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = client.receiver()

    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("the disk is full")

    monkeypatch.setattr("webhook.audit.append", fail)
    assert client.callback(receiver["callback_url"], form(content(piece(0)), seed=receiver["seed"])) == 200


def test_the_log_is_paged_and_filtered(client: AppClient) -> None:
    made = [client.receiver()["id"] for _ in range(5)]
    client.delete(f"/v1/receivers/{made[2]}")
    assert [one["object_id"] for one in entries(client, limit=2)] == [*made, made[2]]
    assert [one["action"] for one in entries(client, object_id=made[2])] == ["receiver.created", "receiver.deleted"]
    assert [one["object_id"] for one in entries(client, action="receiver.deleted")] == [made[2]]
    assert entries(client, actor="key_of-nobody") == []
    third = entries(client)[2]
    assert [one["object_id"] for one in entries(client, until=third["at"])] == made[:2]
    assert entries(client, since=third["at"], actor="bootstrap")[0] == third
    numbers = [one["number"] for one in client.items("/v1/audit", limit=200)]
    assert numbers == sorted(numbers, reverse=True) == [*range(len(numbers), 0, -1)]
    assert client.get("/v1/audit", cursor="1").fields == ["cursor"]


@pytest.mark.parametrize("role", [Role.READER, Role.SUBMITTER])
def test_only_an_admin_sees_the_log(client: AppClient, service: Service, role: Role) -> None:
    assert client.get("/v1/audit", key=make_key(service, role)).status == 403


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129, "a\x7fb", "né", '"><'])
def test_a_request_without_a_fit_id_gets_one(client: AppClient, given: str | None) -> None:
    headers = {} if given is None else {"X-Request-Id": given}
    ids = {client.get("/v1/tasks", headers=headers).headers["X-Request-Id"] for _ in range(2)}
    assert len(ids) == 2
    assert all(re.fullmatch(r"[0-9a-f]{32}", one) for one in ids)


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/livez", NO_KEY, 200),
        ("/v1/tasks", NO_KEY, 401),
        ("/v1/nothing", ADMIN_KEY, 404),
        ("/v1/tasks?x=1", ADMIN_KEY, 422),
    ],
)
def test_every_answer_has_the_request_s_id(client: AppClient, path: str, key: str, status: int) -> None:
    reply = client.get(path, key=key, headers={"X-Request-Id": "a.1-b_2"})
    assert (reply.status, reply.headers["X-Request-Id"]) == (status, "a.1-b_2")


def test_a_failure_is_logged_with_the_request_s_id(client: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status in ((DatabaseError("away"), 503), (ZeroDivisionError(), 500)):

        def fail(*_: object, _error: Exception = error, **__: object) -> None:
            raise _error

        monkeypatch.setattr("webhook.store.lists.list_tasks", fail)
        with capture_logs() as logged:
            reply = client.get("/v1/tasks", headers={"X-Request-Id": "the-one"})
        assert (reply.status, reply.headers["X-Request-Id"]) == (status, "the-one")
        assert [entry["request_id"] for entry in logged] == ["the-one"]
