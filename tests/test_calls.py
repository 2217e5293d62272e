"""What was submitted gets its verdict or a clear reason: queries, limits, uploads, streams watched."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests import signed
from tests.calling import BUSY, FILE, LOST, REFUSED, ROOM, RUNNING, STREAM, UNKNOWN, Bench, Client
from webhook import limits, payloads, streams
from webhook.claims import UPLOAD_LEASE
from webhook.crypto import Keyring
from webhook.errors import Conflict, PlatformBusy, PlatformRefused
from webhook.store import events as event_store
from webhook.store import limits as limit_store
from webhook.store import lists as list_store

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from tests.conftest import Clock, MakeService
    from webhook.bootstrap import Service
    from webhook.db import Session
    from webhook.errors import PlatformError
    from webhook.payloads import Result
    from webhook.tasks import NewTask

NOT_AUTHORIZED = PlatformBusy(code=408, reason="not_authorized", message="Pay.")
UNREACHABLE = PlatformBusy(code=None, reason="platform_unreachable", message="?")
TOO_MANY_STREAMS = PlatformBusy(code=480, reason="concurrency_limited", message="Wait.")
DAY = timedelta(days=1)


@pytest.fixture
def bench(service: Service, clock: Clock) -> Bench:
    return Bench(service, clock)


def result(*slices: dict[str, Any], **data: Any) -> Result:
    return payloads.parse(signed.content(*slices, **data).encode())


def failed(code: int) -> Result:
    return payloads.parse(f'{{"Code": {code}, "Message": "failed"}}'.encode())


def quiet(start: int) -> dict[str, Any]:
    return signed.piece(start, risk="none", label="specified_nontalk")


def test_a_task_whose_key_a_worker_lacks_is_left_to_another_and_is_never_thought_submitted(bench: Bench) -> None:
    task, own = bench.submit(FILE), bench.calls._keyring
    bench.calls._keyring = Keyring({"other": bytes(32)})
    client = Client("p1")
    bench.work(client)
    before = bench.task(task)
    assert (before.state, before.error and before.error["reason"], client.submitted) == ("queued", "key_missing", [])
    bench.calls._keyring = own
    bench.clock.advance(minutes=5)
    bench.work(client)
    after = bench.task(task)
    assert (after.state, after.error, len(client.submitted)) == ("processing", None, 1)


# a result that never comes


def test_a_file_is_asked_for_with_growing_gaps_and_its_result_completes_it(bench: Bench) -> None:
    task = bench.submit(FILE)
    client = Client("p1", queries=(RUNNING,))
    bench.work(client)
    asked_after = []
    started = bench.clock()
    while len(client.asked) < 5:
        bench.clock.advance(seconds=1)
        if bench.work(client):
            asked_after.append((bench.clock() - started).total_seconds())
    assert asked_after == [30, 90, 210, 450, 930], "30 s, then gaps of 60, 120, 240 and 480 s"
    client.queries = [result(signed.piece(0, risk="high", label="political_entity"))]
    bench.clock.advance(hours=1)
    bench.work(client)
    after = bench.task(task)
    assert (after.state, after.risk_level, after.next_attempt_at) == ("completed", "high", None)
    assert bench.events() == ["task.submitted", "slice.flagged", "task.completed"]


def test_a_callback_that_came_leaves_nothing_to_ask_for(bench: Bench) -> None:
    task = bench.submit(FILE)
    client = Client("p1")
    bench.work(client)
    bench.receive(task, signed.content(signed.piece(0)))
    bench.clock.advance(hours=2)
    assert bench.work(client) == 0
    assert client.asked == []


def test_a_callback_and_a_query_with_the_same_result_tell_of_it_once(bench: Bench) -> None:
    piece = signed.piece(0, risk="high", label="political_entity")
    task = bench.submit(FILE)
    bench.work(Client("p1"))
    bench.refresh(task)
    claimed = bench.claim()
    bench.receive(task, signed.content(piece))
    (call,) = claimed
    bench.carry_out(Client(queries=(result(piece),)), call)
    after = bench.task(task)
    assert (after.state, after.slice_count, after.flagged_slice_count) == ("completed", 1, 1)
    assert bench.events() == ["task.submitted", "slice.flagged", "task.completed"]


@pytest.mark.parametrize("answer", [RUNNING, UNKNOWN, PlatformBusy(code=500, reason="platform_error", message="?")])
def test_a_file_without_a_result_expires_after_a_last_query_with_no_verdict(bench: Bench, answer: Any) -> None:
    task = bench.submit(FILE)
    client = Client("p1", queries=(answer,))
    bench.work(client)
    submitted = bench.clock()
    last = None
    while bench.task(task).state == "processing":
        bench.clock.advance(minutes=3)
        if bench.work(client) and bench.clock() < submitted + DAY:
            last = bench.clock()
    after = bench.task(task)
    assert (after.state, after.risk_level) == ("expired", None)
    assert after.error
    assert after.error["reason"] == "result_expired"
    assert last
    assert timedelta(minutes=10) < submitted + DAY - last < timedelta(minutes=20)
    assert bench.events() == ["task.submitted", "task.expired"]


def test_a_result_after_the_expiry_still_counts(bench: Bench) -> None:
    task = bench.submit(FILE)
    client = Client("p1")
    bench.work(client)
    while bench.task(task).state == "processing":
        bench.clock.advance(minutes=30)
        bench.work(client)
    bench.receive(task, signed.content(signed.piece(0, risk="low")))
    assert (bench.task(task).state, bench.task(task).risk_level) == ("completed", "low")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (404, "source_unreachable"),
        (405, "source_unreachable"),
        (406, "source_too_large"),
        (407, "format_not_supported"),
    ],
)
def test_a_failure_that_a_query_tells_fails_the_task_at_once(bench: Bench, code: int, reason: str) -> None:
    task = bench.submit(FILE)
    client = Client("p1", queries=(failed(code),))
    bench.work(client)
    bench.clock.advance(seconds=30)
    bench.work(client)
    after = bench.task(task)
    assert after.state == "failed"
    assert after.error
    assert (after.error["code"], after.error["reason"]) == (code, reason)
    assert len(client.submitted) == 1, "no paid resubmit"


def test_a_refresh_asks_now_and_ahead_of_all_others(bench: Bench) -> None:
    first = bench.submit(FILE)
    bench.clock.advance(seconds=1)
    second = bench.submit(FILE)
    client = Client("p1", "p2", queries=(RUNNING,))
    bench.work(client)
    bench.refresh(second)
    assert bench.work(client) == 1
    assert client.asked == ["audio_detection_byllm_global p2"]
    assert bench.task(first).attempt_count == 1


def test_what_the_platform_is_not_known_to_have_cannot_be_asked_for(bench: Bench) -> None:
    task = bench.submit(FILE)
    with pytest.raises(Conflict):
        bench.refresh(task)
    bench.work(Client(LOST))
    with pytest.raises(Conflict):
        bench.refresh(task)


def test_a_file_whose_answer_was_lost_is_asked_for_once_a_callback_has_named_it(bench: Bench) -> None:
    task = bench.submit(FILE)
    client = Client(LOST, queries=(result(signed.piece(0)),))
    bench.work(client)
    bench.receive(task, '{"Code": 280, "Data": {"TaskId": "p7"}}')
    bench.refresh(task)
    bench.work(client)
    assert client.asked == ["audio_detection_byllm_global p7"]
    assert bench.task(task).state == "completed"


# limits shared by all


def test_a_refused_account_stops_all_submissions_and_a_probe_tries_it_again(bench: Bench) -> None:
    tasks = [bench.submit(FILE) for _ in range(5)]
    client = Client(*[NOT_AUTHORIZED] * 5)
    bench.work(client)
    assert len(client.submitted) == 5, "they were claimed together"
    assert bench.work(client) == 0
    client = Client(probes=(NOT_AUTHORIZED,))
    bench.clock.advance(minutes=15)
    assert bench.work(client) == 0
    assert client.probed == 1
    bench.clock.advance(minutes=15)
    client = Client("p1", "p2", "p3", "p4", "p5")
    assert bench.work(client) == 1, "one goes first"
    assert bench.work(client) == 4, "open again"
    assert {bench.task(task).state for task in tasks} == {"processing"}
    assert {bench.task(task).error is None for task in tasks} == {True}


def test_a_closed_limit_uses_up_no_attempt(bench: Bench) -> None:
    first = bench.submit(FILE)
    for _ in range(30):
        bench.work(Client(NOT_AUTHORIZED))
        bench.clock.advance(minutes=15)
    after = bench.task(first)
    assert (after.state, after.attempt_count) == ("queued", 0)
    assert after.error
    assert after.error["reason"] == "not_authorized"
    bench.clock.advance(hours=1)
    bench.work(Client("p1"))
    assert bench.task(first).platform_task_id == "p1"


@pytest.mark.parametrize("refusal", [NOT_AUTHORIZED, BUSY, UNREACHABLE, LOST])
@pytest.mark.parametrize("refused", [STREAM, FILE])
def test_a_task_that_is_always_turned_away_does_not_stop_the_others(
    bench: Bench, refused: NewTask, refusal: PlatformError
) -> None:
    bench.submit(msgspec.structs.replace(refused, source={"url": "https://example.com/refused"}))
    bench.work(Client(refusal))
    others = [bench.submit(FILE) for _ in range(3)]
    client = Client()

    def submit(*, service: str, parameters: dict[str, str]) -> str:
        if parameters["url"].endswith("refused"):
            raise refusal
        client.submitted.append({"Service": service})
        return f"p{len(client.submitted)}"

    client.submit = submit  # type: ignore[method-assign]
    for _ in range(10):
        bench.clock.advance(seconds=2)
        bench.work(client)
    assert {bench.task(other).state for other in others} == {"processing"}


def test_a_task_whose_query_is_always_turned_away_does_not_stop_the_others_queries(bench: Bench) -> None:
    client = Client("refused", "other")
    refused = bench.submit(FILE)
    bench.work(client)
    other = bench.submit(FILE)
    bench.work(client)

    def query(*, service: str, platform_task_id: str) -> Result:  # noqa: ARG001 - the client's signature
        if platform_task_id == "refused":
            raise BUSY
        return result(signed.piece(0))

    client.query = query  # type: ignore[method-assign]
    bench.clock.advance(seconds=30)
    for _ in range(10):
        bench.work(client)
        bench.clock.advance(seconds=2)
    assert bench.task(other).state == "completed"
    assert bench.task(refused).state == "processing"


def test_where_only_submits_are_lost_one_file_is_risked_at_a_time(bench: Bench) -> None:
    """A probe passes, since queries are answered; the first burst and then one a pause are as good as lost."""
    for _ in range(30):
        bench.submit(FILE)
    client = Client(*[LOST] * 30)
    bench.work(client)
    assert len(client.submitted) == ROOM.submits
    for _ in range(60):
        bench.clock.advance(seconds=1)
        bench.work(client)
    assert len(client.submitted) <= ROOM.submits + 7


def test_a_refused_query_is_probed_and_holds_up_no_task_for_long(bench: Bench) -> None:
    files = [bench.submit(FILE)]
    client = Client("refused", "good", queries=(NOT_AUTHORIZED,))
    bench.work(client)
    bench.clock.advance(seconds=30)
    bench.work(client)
    files.append(bench.submit(FILE))
    bench.work(client)
    client.queries = [result(signed.piece(0))]
    for _ in range(40):
        bench.clock.advance(seconds=1)
        bench.work(client)
    assert client.probed
    assert {bench.task(file).state for file in files} == {"completed"}


def test_what_was_turned_away_at_once_counts_as_one(bench: Bench) -> None:
    for _ in range(8):
        bench.submit(FILE)
    bench.work(Client(*[NOT_AUTHORIZED] * 8))
    bench.clock.advance(seconds=10)
    client = Client(*[f"p{number}" for number in range(8)])
    for _ in range(12):
        bench.work(client)
        bench.clock.advance(seconds=1)
    assert len(client.submitted) == 8


def test_a_stop_is_probed_once_at_a_time(bench: Bench) -> None:
    bench.submit(FILE)
    bench.work(Client(NOT_AUTHORIZED))
    bench.clock.advance(minutes=15)
    with bench.service.database.transaction() as session:
        assert bench.claims.claim(session, room=ROOM).probes == [limits.SUBMITS]
        assert bench.claims.claim(session, room=ROOM).probes == []


def close(session: Session, *, now: datetime) -> None:
    limits.close(session, limits.SUBMITS, reason="not_authorized", called_at=now, now=now, dice=lambda: 0.5)


def test_pauses_grow_until_a_task_passes_and_not_only_a_probe(service: Service, clock: Clock) -> None:
    with service.database.transaction() as session:
        for times in range(4):
            close(session, now=clock())
            closed = limit_store.limit(session, limits.SUBMITS)
            assert closed.closed_until == clock() + timedelta(seconds=5 * 2**times)
            clock.advance(minutes=15)
            limits.reopen(session, limits.SUBMITS, probed=True)
        limits.reopen(session, limits.SUBMITS)
        assert limit_store.limit(session, limits.SUBMITS).closed_count == 0


def test_too_fast_slows_all_down(bench: Bench) -> None:
    bench.submit(FILE)
    bench.submit(FILE)
    client = Client(BUSY, BUSY, "p1", "p2")
    assert bench.work(client) == 2
    assert bench.work(client) == 0
    bench.clock.advance(minutes=1)
    assert bench.work(client) == 1
    assert bench.work(client) == 1


def test_a_query_that_is_turned_away_stops_queries_and_no_submissions(bench: Bench) -> None:
    bench.submit(FILE)
    client = Client("p1", "p2", queries=(BUSY,))
    bench.work(client)
    bench.clock.advance(seconds=30)
    assert bench.work(client) == 1
    bench.submit(FILE)
    assert bench.work(client) == 1, "the submit, and not the query"
    assert len(client.asked) == 1
    bench.clock.advance(seconds=10)
    client.queries = [result(signed.piece(0))]
    assert bench.work(client) == 1
    assert len(client.asked) == 2


def test_submissions_stay_within_the_rate_in_any_second(make_service: MakeService, clock: Clock) -> None:
    bench = Bench(make_service(WEBHOOK_SUBMITS_PER_SECOND="20"), clock)
    for _ in range(100):
        bench.submit(FILE)
    sent: list[float] = []
    client = Client(*[f"p{number}" for number in range(100)])
    started = clock()
    while len(client.submitted) < 100:
        before = len(client.submitted)
        bench.work(client)
        sent += [(clock() - started).total_seconds()] * (len(client.submitted) - before)
        clock.advance(seconds=0.01)
    assert max(sum(at <= other < at + 1 for other in sent) for at in sent) <= 20
    assert sent[-1] < 6, "and not far below it"


def test_streams_wait_for_a_place_and_go_before_files(make_service: MakeService, clock: Clock) -> None:
    bench = Bench(make_service(WEBHOOK_RUNNING_STREAMS="2"), clock)
    file = bench.submit(FILE)
    rooms = []
    for number in range(3):
        clock.advance(seconds=1)
        rooms.append(bench.submit(msgspec.structs.replace(STREAM, live_id=f"room-{number}")))
    client = Client("s1", "s2", "p1", queries=(RUNNING,))
    bench.work(client)
    assert [bench.task(room).state for room in rooms] == ["processing", "processing", "queued"]
    assert [sent.get("liveId") for sent in client.submitted] == ["room-0", "room-1", None]
    assert bench.task(file).state == "processing"
    bench.receive(rooms[0], '{"Code": 404, "Message": "gone"}')
    client.answers = ["s3"]
    bench.work(client)
    assert bench.task(rooms[2]).state == "processing"


def test_too_many_streams_hold_back_streams_and_no_files(bench: Bench) -> None:
    stream = bench.submit(STREAM)
    client = Client(TOO_MANY_STREAMS)
    bench.work(client)
    file = bench.submit(FILE)
    client.answers = ["p1"]
    assert bench.work(client) == 1
    assert (bench.task(stream).state, bench.task(file).state) == ("queued", "processing")
    bench.clock.advance(seconds=20)
    client.answers = ["s1"]
    bench.work(client)
    assert bench.task(stream).state == "processing"


def test_the_queue_is_in_the_order_of_submission_with_streams_ahead(bench: Bench) -> None:
    files = []
    for _ in range(3):
        files.append(bench.submit(FILE))
        bench.clock.advance(seconds=1)
    stream = bench.submit(STREAM)
    with bench.service.database.read() as session:
        places = list_store.queue_places(session, [files[2], stream, files[0]])
        assert places == {stream.id: 1, files[0].id: 2, files[2].id: 4}
        assert list_store.queue_places(session, [files[1]]) == {files[1].id: 3}
        assert list_store.queue_places(session, []) == {}


# uploads


@pytest.fixture
def upload(bench: Bench) -> Path:
    path = bench.service.uploads.begin()
    path.write_bytes(b"sound")
    return path


def test_an_upload_goes_to_the_platforms_storage_then_is_submitted_and_deleted(bench: Bench, upload: Path) -> None:
    task = bench.submit(msgspec.structs.replace(FILE, source={"file": {"name": "A.MP3", "size": 5}}, file=upload))
    assert not upload.exists()
    client = Client("p1")
    bench.work(client)
    assert client.uploaded == [b"sound"]
    assert bench.service.uploads.path(task).exists(), "until the platform has taken the task"
    bench.work(client)
    sent = client.submitted[0]
    assert (sent["ossBucketName"], sent["ossObjectName"]) == ("uploads", "1.mp3")
    assert list(bench.service.uploads.directory.iterdir()) == []
    assert bench.task(task).state == "processing"


def test_an_upload_that_waited_too_long_is_uploaded_again(bench: Bench, upload: Path) -> None:
    bench.submit(msgspec.structs.replace(FILE, source={"file": {"name": "a.mp3", "size": 5}}, file=upload))
    client = Client(PlatformBusy(code=500, reason="platform_error", message="?"))
    client.answers.clear()
    bench.work(client)
    bench.clock.advance(minutes=25)
    client.answers = ["p1"]
    bench.work(client)
    bench.work(client)
    assert client.uploaded == [b"sound", b"sound"]
    assert client.submitted[0]["ossObjectName"] == "2.mp3"


def test_a_worker_that_dies_in_the_middle_of_an_upload_leaves_it_to_the_next(bench: Bench, upload: Path) -> None:
    task = bench.submit(msgspec.structs.replace(FILE, source={"file": {"name": "a.mp3", "size": 5}}, file=upload))
    assert len(bench.claim()) == 1
    client = Client("p1")
    assert bench.work(client) == 0, "the lease holds"
    bench.clock.advance(seconds=UPLOAD_LEASE.total_seconds() + 1)
    bench.work(client)
    bench.work(client)
    assert len(client.uploaded) == 1
    assert bench.task(task).state == "processing"


def test_a_worker_that_dies_in_the_submit_of_an_upload_does_not_make_another_pay_twice(
    bench: Bench, upload: Path
) -> None:
    task = bench.submit(msgspec.structs.replace(FILE, source={"file": {"name": "a.mp3", "size": 5}}, file=upload))
    client = Client()
    bench.work(client)
    assert len(bench.claim()) == 1
    bench.clock.advance(hours=1)
    bench.work(client)
    assert (client.submitted, len(client.uploaded)) == ([], 1)
    assert (bench.task(task).state, bench.task(task).platform_task_id) == ("processing", None)
    assert list(bench.service.uploads.directory.iterdir()) == []


def test_an_upload_that_is_lost_on_our_disk_fails_with_a_reason(bench: Bench, upload: Path) -> None:
    task = bench.submit(msgspec.structs.replace(FILE, source={"file": {"name": "a.mp3", "size": 5}}, file=upload))
    bench.service.uploads.path(task).unlink()
    lost = PlatformRefused(code=None, reason="upload_lost", message="Again.")
    client: Any = Client()

    def upload_fails(*_: object, **__: object) -> dict[str, str]:
        raise lost

    client.upload = upload_fails
    bench.work(client)
    after = bench.task(task)
    assert after.state == "failed"
    assert after.error
    assert after.error["reason"] == "upload_lost"


# streams


def test_a_stream_starts_with_the_platforms_first_word_and_ends_by_a_query(bench: Bench) -> None:
    task = bench.submit(STREAM)
    client = Client("s1", queries=(RUNNING,))
    bench.work(client)
    assert bench.task(task).started_at is None
    bench.clock.advance(seconds=30)
    bench.work(client)
    assert bench.task(task).started_at == bench.clock()
    bench.receive(task, signed.content(signed.piece(0), LiveId="room"))
    assert bench.task(task).state == "processing", "a callback does not end a stream"
    client.queries = [result(signed.piece(0), signed.piece(1), LiveId="room")]
    bench.clock.advance(seconds=30)
    bench.work(client)
    after = bench.task(task)
    assert (after.state, after.slice_count) == ("completed", 2)
    assert bench.events() == ["task.submitted", "stream.started", "task.completed", "stream.ended"]


def test_a_stream_is_asked_for_as_long_as_the_platform_tells_of_it(bench: Bench) -> None:
    task = bench.submit(STREAM)
    client = Client("s1", queries=(RUNNING,))
    bench.work(client)
    for _ in range(80):
        bench.clock.advance(hours=1)
        bench.work(client)
    assert bench.task(task).state == "processing", "after three days"
    client.queries = [UNKNOWN]
    for _ in range(100):
        bench.clock.advance(minutes=30)
        bench.work(client)
    assert bench.task(task).state == "expired"
    assert bench.events()[-2:] == ["task.expired", "stream.ended"]


def test_a_stream_whose_end_we_slept_through_is_ended_by_the_first_query(bench: Bench) -> None:
    task = bench.submit(STREAM)
    client = Client("s1", queries=(result(*[signed.piece(number) for number in range(50)], LiveId="room"),))
    bench.work(client)
    bench.clock.advance(hours=30)
    bench.work(client)
    assert (bench.task(task).state, bench.task(task).slice_count) == ("completed", 50)


def test_a_stream_that_ended_is_registered_anew(bench: Bench) -> None:
    first = bench.submit(STREAM)
    client = Client("s1", queries=(result(signed.piece(0)),))
    bench.work(client)
    bench.clock.advance(seconds=30)
    bench.work(client)
    assert bench.task(first).state == "completed"
    assert bench.submit(STREAM).id != first.id


def test_slices_in_which_nobody_speaks_make_a_stream_silent_once(bench: Bench) -> None:
    task = bench.submit(STREAM)
    bench.work(Client("s1"))
    for number, piece in enumerate([signed.piece(0), quiet(1), quiet(2), signed.piece(3), quiet(4)]):
        bench.receive(task, signed.content(piece, LiveId="room", RequestId=str(number)))
    assert [type_ for type_ in bench.events() if type_ == "stream.silent"] == ["stream.silent"] * 2
    assert bench.task(task).silent_since is not None
    bench.receive(task, signed.content(signed.piece(5), LiveId="room"))
    assert bench.task(task).silent_since is None


def test_a_late_slice_of_silence_says_nothing_of_the_present(bench: Bench) -> None:
    task = bench.submit(STREAM)
    bench.work(Client("s1"))
    bench.receive(task, signed.content(signed.piece(5), LiveId="room"))
    bench.receive(task, signed.content(quiet(1), LiveId="room"))
    assert bench.task(task).silent_since is None
    assert "stream.silent" not in bench.events()


def test_a_stream_that_brings_nothing_is_silent_until_it_brings_something(bench: Bench) -> None:
    task = bench.submit(STREAM)
    bench.work(Client("s1"))
    bench.receive(task, signed.content(signed.piece(0), LiveId="room"))
    heard_at = bench.clock()

    def watch() -> int:
        with bench.service.database.transaction() as session:
            return streams.note_silence(session, bench.service.ingest, now=bench.clock(), after=timedelta(seconds=120))

    bench.clock.advance(seconds=119)
    assert watch() == 0
    bench.clock.advance(seconds=1)
    assert (watch(), watch()) == (1, 0)
    assert bench.task(task).silent_since == heard_at
    bench.receive(task, signed.content(signed.piece(1), LiveId="room"))
    assert bench.task(task).silent_since is None
    assert bench.events() == ["task.submitted", "stream.started", "stream.silent"]


def test_a_cancel_is_believed_when_a_query_says_that_the_stream_is_over(bench: Bench) -> None:
    task = bench.submit(STREAM)
    last = result(signed.piece(0, risk="high", label="political_entity"), LiveId="room")
    client = Client("s1", queries=(RUNNING, last))
    bench.work(client)
    bench.cancel(task)
    bench.work(client)
    assert bench.task(task).state == "processing", "the platform still runs it"
    bench.clock.advance(minutes=5)
    bench.work(client)
    after = bench.task(task)
    assert (after.state, after.slice_count, after.risk_level) == ("canceled", 1, "high")
    assert bench.events() == ["task.submitted", "stream.started", "slice.flagged", "task.canceled", "stream.ended"]


@pytest.mark.parametrize("left", ["lost", "killed"])
@pytest.mark.parametrize("turned_away", [BUSY, PlatformBusy(code=500, reason="platform_error", message="?")])
def test_a_stream_that_may_run_already_is_canceled_on_the_platform_too(
    bench: Bench, left: str, turned_away: PlatformBusy
) -> None:
    task = bench.submit(STREAM)
    if left == "lost":
        bench.work(Client(LOST))
    else:
        bench.claim()
    bench.clock.advance(minutes=5)
    bench.work(Client(turned_away))
    assert bench.cancel(task).state == "queued"
    bench.clock.advance(minutes=5)
    client = Client("s1")
    bench.work(client)
    bench.work(client)
    assert client.canceled == ["live_detection_byllm_global s1"]
    assert bench.task(task).state == "canceled"


def test_a_file_that_waits_for_its_callback_shows_no_error_of_an_earlier_submit(bench: Bench) -> None:
    task = bench.submit(FILE)
    bench.work(Client(BUSY))
    assert bench.task(task).error
    bench.clock.advance(minutes=5)
    bench.work(Client(LOST))
    assert (bench.task(task).state, bench.task(task).error) == ("processing", None)


def test_a_canceled_stream_shows_no_error_of_its_submit(bench: Bench) -> None:
    task = bench.submit(STREAM)
    bench.work(Client(LOST))
    bench.receive(task, signed.content(signed.piece(0), TaskId="s1", LiveId="room"))
    bench.cancel(task)
    bench.work(Client())
    assert (bench.task(task).state, bench.task(task).error) == ("canceled", None)


@pytest.mark.parametrize("refusal", [UNKNOWN, NOT_AUTHORIZED, UNREACHABLE, TOO_MANY_STREAMS])
def test_a_cancel_that_is_refused_is_asked_after(bench: Bench, refusal: PlatformError) -> None:
    """The stream may go on, and cost; or it is over, and has brought something."""
    task = bench.submit(STREAM)
    over = result(signed.piece(0, risk="high"), TaskId="s1")
    client = Client("s1", refusal, refusal, queries=(RUNNING, RUNNING, over))
    bench.work(client)
    bench.cancel(task)
    for times in (1, 2):
        bench.work(client)
        assert (bench.task(task).state, len(client.asked)) == ("processing", times)
        bench.clock.advance(minutes=15)
    bench.work(client)
    after = bench.task(task)
    assert (after.state, after.slice_count, after.risk_level) == ("canceled", 1, "high")


def test_cancels_stay_within_the_rate_of_queries(make_service: MakeService, clock: Clock) -> None:
    bench = Bench(make_service(WEBHOOK_QUERIES_PER_SECOND="2"), clock)
    streams = [bench.submit(msgspec.structs.replace(STREAM, live_id=f"room-{number}")) for number in range(9)]
    bench.work(Client(*[f"s{number}" for number in range(9)]))
    for stream in streams:
        bench.cancel(stream)
    client = Client(queries=(RUNNING,))
    for _ in range(10):
        bench.work(client)
        clock.advance(seconds=0.1)
    assert 1 <= len(client.asked) <= 2


def test_a_cancel_goes_out_while_queries_are_turned_away(bench: Bench) -> None:
    for _ in range(15):
        bench.submit(FILE)
    client = Client(*[f"p{number}" for number in range(15)], queries=(BUSY,))
    while bench.work(client):
        pass
    bench.clock.advance(seconds=30)
    bench.work(client)
    stream = bench.submit(STREAM)
    client.answers = ["s1"]
    bench.work(client)
    bench.cancel(stream)
    bench.clock.advance(seconds=0.1)
    client.queries = [UNKNOWN]
    bench.work(client)
    assert bench.task(stream).state == "canceled"


def test_a_stream_whose_callback_came_and_whose_answer_got_lost_is_registered_again(bench: Bench) -> None:
    task = bench.submit(STREAM)
    bench.claim()
    bench.receive(task, signed.content(signed.piece(0)))
    assert (bench.task(task).state, bench.task(task).platform_task_id) == ("processing", None)
    bench.clock.advance(minutes=5)
    client = Client("s1")
    bench.work(client)
    after = bench.task(task)
    assert (after.state, after.platform_task_id) == ("processing", "s1")


def test_an_upload_that_is_stopped_is_begun_anew_by_another_worker(bench: Bench, upload: Path) -> None:
    task = bench.submit(msgspec.structs.replace(FILE, source={"file": {"name": "a.mp3", "size": 5}}, file=upload))
    bench.calls.stop()
    bench.work(Client())
    assert (bench.task(task).lease, bench.task(task).attempt_count) == (None, 0)
    assert bench.task(task).uploaded is None


def test_a_stream_that_the_platform_never_started_raises_no_end(bench: Bench) -> None:
    bench.submit(STREAM)
    bench.work(Client(REFUSED))
    assert bench.events() == ["task.failed"]


# limits in themselves


def test_a_limit_that_was_closed_opens_for_all_once_a_call_passes(service: Service, clock: Clock) -> None:
    with service.database.transaction() as session:
        close(session, now=clock())
        assert limits.room(session, limits.SUBMITS, wanted=7, now=clock())[0] == 0
        limits.reopen(session, limits.SUBMITS)
        assert limits.room(session, limits.SUBMITS, wanted=7, now=clock()) == (7, None)
        assert event_store.events_after(session, 0, limit=1) == []
