"""The audio of flagged slices: shown on its way, streamed whole and in parts, and told of when it is not to be had."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from tests.clients import NO_KEY, AppClient
from tests.s3 import BUCKET, needs_s3, s3_server
from tests.segment_server import AUDIO, Answer, SegmentServer
from tests.signed import content, form, piece
from tests.test_workers import working
from tests.waiting import until
from webhook.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.clients import Reply
    from tests.conftest import MakeService
    from webhook.bootstrap import Service


@pytest.fixture(scope="module")
def server() -> Iterator[SegmentServer]:
    with SegmentServer() as one:
        yield one


class Stream:
    """A stream that another system submits, as its callbacks tell of it."""

    def __init__(self, client: AppClient) -> None:
        self.client = client
        self._receiver = client.receiver()

    def tell(self, *slices: dict[str, Any], **data: Any) -> None:
        told = content(*slices, **{"TaskId": "p-1", "LiveId": "room-1", **data})
        assert self.client.callback(self._receiver["callback_url"], form(told, seed=self._receiver["seed"])) == 200

    @property
    def task_id(self) -> str:
        return str(self.client.items("/v1/tasks")[0]["id"])

    def slices(self) -> list[Any]:
        return self.client.items(f"/v1/verdicts/{self.task_id}/slices")

    def states(self) -> list[str | None]:
        return [each["evidence"] for each in self.slices()]

    def get(self, number: int = 0, *, method: str = "GET", **headers: str) -> Reply:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/v1/tasks/{self.task_id}/evidence/{self.slices()[number]['id']}"
        return self.client.request(method, path, headers=fields)


@pytest.fixture
def stream(client: AppClient) -> Stream:
    return Stream(client)


@pytest.fixture
def saved(stream: Stream, service: Service, server: SegmentServer) -> Stream:
    """A stream with one slice, whose audio is saved."""
    stream.tell(flagged(server.answer("/saved.wav", Answer())))
    with working(service):
        until(lambda: stream.states() == ["saved"])
    return stream


def flagged(url: str | None, start: int = 0, *, risk: str = "high") -> dict[str, Any]:
    return piece(start, risk=risk) | ({} if url is None else {"Url": url})


def test_a_flagged_slice_of_a_stream_shows_that_its_audio_is_on_its_way(stream: Stream, server: SegmentServer) -> None:
    stream.tell(flagged(server.url("/x")), flagged(server.url("/y"), 10, risk="low"), flagged(None, 20))
    assert stream.states() == ["pending", None, None]
    events = [event["data"]["slice"] for event in stream.client.feed(types="slice.flagged")]
    assert events == [stream.slices()[0], stream.slices()[2]]
    ids = [each["id"] for each in stream.slices()]
    assert len(set(ids)) == 3
    reply = stream.get()
    assert (reply.status, reply.headers["Content-Type"]) == (409, "application/problem+json")


def test_an_id_of_a_slice_stays_whatever_comes_after(stream: Stream) -> None:
    stream.tell(flagged(None, 10, risk="low"))
    [first] = stream.slices()
    stream.tell(flagged("http://127.0.0.1:1/", 10), flagged(None, 0))
    assert stream.slices()[1]["id"] == first["id"]
    assert stream.states() == [None, "pending"]


@pytest.mark.parametrize("first", ["risk", "link"])
def test_risk_and_link_may_come_one_after_the_other(stream: Stream, first: str) -> None:
    risk, link = flagged(None), flagged("http://127.0.0.1:1/", risk="none")
    stream.tell(*([risk] if first == "risk" else [link]))
    assert stream.states() == [None]
    stream.tell(*([link] if first == "risk" else [risk]))
    assert stream.states() == ["pending"]
    stream.tell(link, risk, flagged("http://127.0.0.1:1/another"))
    assert stream.states() == ["pending"]


def test_risk_and_link_may_come_together_in_two_versions(stream: Stream) -> None:
    stream.tell(flagged(None), flagged("http://127.0.0.1:1/", risk="none"))
    assert stream.states() == ["pending"]


def test_the_audio_of_what_shows_to_be_a_stream_later_is_saved_too(client: AppClient) -> None:
    stream = Stream(client)
    url = "http://127.0.0.1:1/"
    stream.tell(flagged(url), flagged(None, 10), flagged(url, 20, risk="none"), LiveId=None)
    assert stream.states() == [None, None, None]
    stream.tell(flagged(url, 30), flagged(url, 0))
    assert stream.states() == ["pending", None, None, "pending"]


def test_what_shows_to_be_a_stream_without_slices_has_its_audio_saved_too(client: AppClient) -> None:
    stream = Stream(client)
    stream.tell(flagged("http://127.0.0.1:1/"), LiveId=None)
    stream.tell()
    assert stream.states() == ["pending"]


def test_the_audio_of_files_is_nobody_s_to_save(client: AppClient) -> None:
    stream = Stream(client)
    stream.tell(flagged("http://127.0.0.1:1/"), LiveId=None)
    assert stream.states() == [None]
    assert stream.get().status == 404


def test_switched_off_nothing_is_wanted_and_nothing_fetched(make_service: MakeService, server: SegmentServer) -> None:
    service = make_service(WEBHOOK_EVIDENCE="off")
    stream = Stream(AppClient(create_app(service)))
    stream.tell(flagged(server.answer("/unwanted", Answer())))
    with working(service):
        until(lambda: stream.client.shown("/readyz")["dependencies"]["worker"] == "ok")
    assert stream.states() == [None]
    assert [event["data"]["slice"]["evidence"] for event in stream.client.feed(types="slice.flagged")] == [None]
    assert server.requests("/unwanted") == 0


def test_switched_off_later_what_was_wanted_is_left_alone(make_service: MakeService, server: SegmentServer) -> None:
    stream = Stream(AppClient(create_app(make_service())))
    stream.tell(flagged(server.answer("/left", Answer())))
    service = make_service(WEBHOOK_EVIDENCE="off")
    with working(service):
        until(lambda: stream.client.shown("/readyz")["dependencies"]["worker"] == "ok")
    assert stream.states() == ["pending"]
    assert server.requests("/left") == 0


def test_saved_audio_is_streamed_and_no_browser_shows_or_runs_it(saved: Stream) -> None:
    reply = saved.get()
    assert (reply.status, reply.body) == (200, AUDIO)
    [shown] = saved.slices()
    assert {name: reply.headers[name] for name in ("Content-Type", "X-Content-Type-Options", "Accept-Ranges")} == {
        "Content-Type": "audio/wav",
        "X-Content-Type-Options": "nosniff",
        "Accept-Ranges": "bytes",
    }
    name = f"{saved.task_id}-{shown['id']}.wav"
    assert reply.headers["Content-Disposition"] == f"attachment; filename={name}"
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["Content-Length"] == str(len(AUDIO))


def test_a_head_tells_all_but_the_audio(saved: Stream) -> None:
    whole, head = saved.get(X_Request_Id="one"), saved.get(method="HEAD", X_Request_Id="one")
    assert (head.status, head.body) == (200, b"")
    of_its_own = {name: head.headers[name] for name in ("Date", "RateLimit")}
    assert dict(head.headers) == {**whole.headers, **of_its_own}


@pytest.mark.parametrize(
    ("range_", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=0-99", 0, 99),
        ("bytes=100-", 100, len(AUDIO) - 1),
        ("bytes=-7", len(AUDIO) - 7, len(AUDIO) - 1),
        ("bytes=-99999999", 0, len(AUDIO) - 1),
        ("bytes=5-99999999", 5, len(AUDIO) - 1),
    ],
)
def test_a_range_is_cut_out(saved: Stream, range_: str, first: int, last: int) -> None:
    reply = saved.get(Range=range_)
    assert (reply.status, reply.body) == (206, AUDIO[first : last + 1])
    assert reply.headers["Content-Range"] == f"bytes {first}-{last}/{len(AUDIO)}"
    assert reply.headers["Content-Length"] == str(last - first + 1)
    assert reply.headers["Content-Type"] == "audio/wav"
    assert reply.headers["ETag"] == saved.get().headers["ETag"]


@pytest.mark.parametrize("range_", [f"bytes={len(AUDIO)}-", "bytes=-0", "bytes=5-2", "bytes=x", "bytes"])
def test_a_range_that_cannot_be_met_is_told_the_length(saved: Stream, range_: str) -> None:
    reply = saved.get(Range=range_)
    assert (reply.status, reply.json["status"]) == (416, 416)
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert reply.headers["Content-Range"] == f"bytes */{len(AUDIO)}"


@pytest.mark.parametrize("range_", ["lines=0-1", "bytes=0-1,5-6"])
def test_a_range_of_another_kind_is_not_heeded(saved: Stream, range_: str) -> None:
    reply = saved.get(Range=range_)
    assert (reply.status, reply.body) == (200, AUDIO)


def test_a_client_that_has_it_is_not_sent_it_again(saved: Stream) -> None:
    etag = saved.get().headers["ETag"]
    assert etag.startswith('"')
    fresh = saved.get(If_None_Match=etag)
    assert (fresh.status, fresh.body, fresh.headers["ETag"]) == (304, b"", etag)
    assert saved.get(If_None_Match='"another"').status == 200
    assert saved.get(Range="bytes=0-1", If_Range=etag).status == 206
    assert saved.get(Range="bytes=0-1", If_Range='"another"').body == AUDIO
    assert saved.get(If_Match=etag).status == 200
    changed = saved.get(If_Match='"another"')
    assert (changed.status, changed.json["title"]) == (412, "Precondition failed")


def test_who_gets_audio_stands_in_the_audit_log(saved: Stream) -> None:
    [shown] = saved.slices()
    etag = saved.get().headers["ETag"]
    saved.get(Range="bytes=0-1")
    saved.get(If_None_Match=etag)
    saved.get(Range="bytes=999999-")
    found = saved.client.items("/v1/audit", action="evidence.read")
    assert [(one["object_id"], one["details"]) for one in found] == [(saved.task_id, {"slice_id": shown["id"]})] * 3
    assert [one["status"] for one in found] == [304, 206, 200]


def test_what_there_is_none_of_is_not_found(saved: Stream) -> None:
    [shown] = saved.slices()
    good = f"/v1/tasks/{saved.task_id}/evidence/{shown['id']}"
    assert saved.client.get(good).status == 200
    for path in (
        f"/v1/tasks/nobody/evidence/{shown['id']}",
        f"/v1/tasks/{saved.task_id}/evidence/{'00' * 4}",
        f"/v1/tasks/{saved.task_id}/evidence/nonsense",
        f"/v1/tasks/{saved.task_id}/evidence/{shown['id'].upper()}",
        f"/v1/tasks/{saved.task_id}/evidence/{shown['id']} ",
    ):
        reply = saved.client.get(path)
        assert (reply.status, reply.json["status"]) == (404, 404), path
    assert saved.client.get(good, key=NO_KEY).status == 401
    assert saved.client.get(f"{good}?x=1").status == 422


def test_what_will_never_be_saved_is_gone_and_says_why(stream: Stream, service: Service, server: SegmentServer) -> None:
    stream.tell(flagged(server.answer("/page", Answer(body=b"<html>", content_type="text/html"))))
    with working(service):
        until(lambda: stream.states() == ["failed"])
    reply = stream.get()
    assert (reply.status, reply.json["status"]) == (410, 410)
    assert "wrong_type" in reply.json["detail"]


def test_a_slice_without_audio_does_not_keep_others_from_theirs(
    stream: Stream, service: Service, server: SegmentServer
) -> None:
    stream.tell(
        flagged(server.answer("/missing", Answer(404, b""))),
        flagged(server.answer("/other.wav", Answer()), 10),
    )
    with working(service):
        until(lambda: stream.states() == ["pending", "saved"])
        server.asked("/missing")
    assert stream.get().status == 409


def test_a_private_address_is_never_asked(make_service: MakeService, server: SegmentServer) -> None:
    service = make_service(WEBHOOK_ALLOWED_PRIVATE_NETWORKS="")
    stream = Stream(AppClient(create_app(service)))
    stream.tell(flagged(server.answer("/inside", Answer())))
    with working(service):
        until(lambda: stream.states() == ["failed"])
    assert "address_not_allowed" in stream.get().json["detail"]
    assert server.requests("/inside") == 0


def test_audio_over_the_limit_is_not_saved(make_service: MakeService, server: SegmentServer) -> None:
    service = make_service(WEBHOOK_EVIDENCE_LIMIT_BYTES=str(len(AUDIO) - 1))
    stream = Stream(AppClient(create_app(service)))
    stream.tell(flagged(server.answer("/long", Answer())))
    with working(service):
        until(lambda: stream.states() == ["failed"])
    assert "too_large" in stream.get().json["detail"]


def test_audio_that_has_gone_from_the_store_is_gone_and_a_store_that_is_away_is_our_own_trouble(
    saved: Stream, tmp_path: Path
) -> None:
    root = tmp_path / "webhook.db.evidence"
    root.rename(tmp_path / "elsewhere")
    with capture_logs() as logged:
        assert saved.get().status == 503
    assert "does not exist" in logged[0]["error"]
    root.mkdir()
    assert saved.get().status == 410
    root.rmdir()
    (tmp_path / "elsewhere").rename(root)
    assert saved.get().body == AUDIO


def test_evidence_may_lie_elsewhere(make_service: MakeService, server: SegmentServer, tmp_path: Path) -> None:
    service = make_service(WEBHOOK_EVIDENCE_STORE=f"file://{tmp_path}/kept%20here")
    stream = Stream(AppClient(create_app(service)))
    stream.tell(flagged(server.answer("/elsewhere", Answer())))
    with working(service):
        until(lambda: stream.states() == ["saved"])
    assert stream.get().body == AUDIO
    assert [path for path in (tmp_path / "kept here").rglob("*") if path.is_file()]
    assert not Path(f"{tmp_path}/webhook.db.evidence").exists()


@needs_s3
def test_evidence_may_lie_in_s3(
    make_service: MakeService, server: SegmentServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    with s3_server(monkeypatch) as url:
        service = make_service(WEBHOOK_EVIDENCE_STORE=f"s3://{BUCKET}/of/us")
        stream = Stream(AppClient(create_app(service)))
        stream.tell(flagged(server.answer("/to-s3", Answer())))
        with working(service):
            until(lambda: stream.states() == ["saved"])
        assert stream.get(Range="bytes=1-3").body == AUDIO[1:4]
        objects = boto3.session.Session().client("s3", endpoint_url=url)
        key = f"of/us/{stream.task_id}/{stream.slices()[0]['id']}"
        assert AUDIO[12:44] not in objects.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        objects.delete_object(Bucket=BUCKET, Key=key)
        assert stream.get().status == 410
    with capture_logs() as logged:
        assert stream.get().status == 503
    assert "a-very-secret-secret" not in json.dumps(logged, default=str)


def test_no_link_is_in_the_log(stream: Stream, service: Service, server: SegmentServer) -> None:
    url = server.answer("/logged", Answer(404, b""))
    bad = server.answer("/logged-too", Answer(content_type="text/html"))
    stream.tell(flagged(f"{url}?Signature=of-a-link"), flagged(f"{bad}?Signature=of-a-link", 10))
    with capture_logs() as logged, working(service):
        until(lambda: stream.states() == ["pending", "failed"])
        server.asked("/logged")
    assert logged
    assert "of-a-link" not in json.dumps(logged, default=str)


def test_how_much_is_still_to_be_saved_is_a_metric(stream: Stream) -> None:
    def pending() -> bool:
        return b"webhook_evidence_pending 1.0" in stream.client.get("/metrics", key=NO_KEY).body

    assert not pending()
    stream.tell(flagged("http://127.0.0.1:1/"))
    assert pending()


def test_every_answer_is_described(client: AppClient) -> None:
    operation = client.shown("/openapi.json")["paths"]["/v1/tasks/{task_id}/evidence/{slice_id}"]["get"]
    assert operation["responses"].keys() == {
        *("200", "206", "304"),
        *("400", "401", "403", "404", "409", "410", "412", "416", "422", "429", "503"),
    }
    assert operation["responses"]["206"]["content"].keys() == {"audio/*", "video/*", "application/octet-stream"}
    assert "Range" in {parameter["name"] for parameter in operation["parameters"]}
