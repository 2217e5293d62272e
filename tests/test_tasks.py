"""A task is submitted once: whatever the platform answers, and whenever its callback comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests import signed
from tests.calling import FILE, LOST, REFUSED, RUNNING, STREAM, UNKNOWN, Bench, Client
from webhook.claims import LEASE
from webhook.errors import Conflict, PlatformBusy

if TYPE_CHECKING:
    from tests.conftest import Clock, MakeService
    from webhook.bootstrap import Service


@pytest.fixture
def bench(service: Service, clock: Clock) -> Bench:
    return Bench(service, clock)


def test_a_file_goes_out_with_a_callback_a_seed_and_a_crypt_type_of_its_own(bench: Bench) -> None:
    full = msgspec.structs.replace(FILE, data_id="d-1", referer="example.com", crypt_type="SM3")
    first = bench.submit(full)
    bench.clock.advance(seconds=1)
    second = bench.submit(FILE)
    client = Client("p1", "p2")
    assert bench.work(client) == 2
    sent = client.submitted[0]
    assert {name: sent[name] for name in ("Service", "url", "dataId", "referer", "cryptType")} == {
        "Service": "audio_detection_byllm_global",
        "url": "https://example.com/a.mp3",
        "dataId": "d-1",
        "referer": "example.com",
        "cryptType": "SM3",
    }
    assert sent["callback"].startswith("https://hooks.example.com/callbacks/")
    assert len({call[name] for call in client.submitted for name in ("callback", "seed")}) == 4
    assert "liveId" not in sent
    for task, platform_task_id in ((first, "p1"), (second, "p2")):
        after = bench.task(task)
        assert (after.state, after.platform_task_id) == ("processing", platform_task_id)
        assert after.submitted_at == bench.clock()
    assert bench.events() == ["task.submitted", "task.submitted"]


def test_an_object_in_storage_goes_out_by_its_three_names(bench: Bench) -> None:
    oss = {"bucket": "b", "object": "o.mp3", "region": "ap-southeast-1"}
    bench.submit(msgspec.structs.replace(FILE, source={"oss": oss}))
    client = Client("p1")
    bench.work(client)
    sent = client.submitted[0]
    assert (sent["ossBucketName"], sent["ossObjectName"], sent["ossRegionId"]) == ("b", "o.mp3", "ap-southeast-1")
    assert "url" not in sent


def test_without_a_public_url_no_callback_is_asked_for(make_service: MakeService, clock: Clock) -> None:
    service = make_service(WEBHOOK_PUBLIC_URL="")
    bench = Bench(service, clock)
    bench.submit(FILE)
    client = Client("p1")
    bench.work(client)
    assert client.submitted[0].keys() == {"Service", "url"}


def test_a_refused_task_fails_with_the_platforms_code_and_a_reason(bench: Bench) -> None:
    task = bench.submit(FILE)
    bench.work(Client(REFUSED))
    after = bench.task(task)
    assert after.state == "failed"
    assert after.error == {"code": 406, "reason": "source_too_large", "message": "Too large."}
    assert bench.events() == ["task.failed"]


def test_a_busy_platform_is_asked_again_later_until_it_takes_the_task(bench: Bench) -> None:
    task = bench.submit(FILE)
    busy = PlatformBusy(code=500, reason="platform_error", message="Later.")
    client = Client(*[busy] * 9, "p1")
    for _ in range(9):
        assert bench.work(client) == 1
        assert bench.work(client) == 0, "not before its time"
        assert bench.task(task).state == "queued"
        bench.clock.advance(minutes=5)
    bench.work(client)
    assert bench.task(task).state == "processing"


def test_a_source_that_cannot_be_downloaded_is_given_up_after_a_few_tries(bench: Bench) -> None:
    task = bench.submit(FILE)
    unreachable = PlatformBusy(code=404, reason="source_unreachable", message="Check it.")
    client = Client(*[unreachable] * 5)
    while bench.work(client):
        bench.clock.advance(minutes=5)
    assert len(client.submitted) == 3
    after = bench.task(task)
    assert (after.state, after.error) == (
        "failed",
        {"code": 404, "reason": "source_unreachable", "message": "Check it."},
    )


def test_a_file_whose_answer_was_lost_is_never_sent_again_and_completed_by_its_callback(bench: Bench) -> None:
    task = bench.submit(FILE)
    client = Client(LOST)
    bench.work(client)
    assert (bench.task(task).state, bench.task(task).platform_task_id) == ("processing", None)
    bench.clock.advance(minutes=59)
    assert bench.work(client) == 0
    bench.receive(task, signed.content(signed.piece(0), TaskId="p9"))
    after = bench.task(task)
    assert (after.state, after.platform_task_id) == ("completed", "p9")
    bench.clock.advance(hours=2)
    assert bench.work(client) == 0
    assert len(client.submitted) == 1
    assert bench.events() == ["task.submitted", "task.completed"]


def test_a_file_whose_answer_was_lost_fails_when_no_callback_comes(bench: Bench) -> None:
    task = bench.submit(FILE)
    client = Client(LOST)
    bench.work(client)
    bench.clock.advance(minutes=61)
    assert bench.work(client) == 1
    after = bench.task(task)
    assert after.state == "failed"
    assert after.error
    assert after.error["reason"] == "submit_outcome_unknown"
    assert len(client.submitted) == 1


def test_a_file_whose_answer_was_lost_fails_at_once_where_no_callback_can_come(
    make_service: MakeService, clock: Clock
) -> None:
    service = make_service(WEBHOOK_PUBLIC_URL="")
    bench = Bench(service, clock)
    task = bench.submit(FILE)
    bench.work(Client(LOST))
    assert bench.task(task).state == "failed"


def test_a_stream_whose_answer_was_lost_is_sent_again_since_its_live_id_makes_it_safe(bench: Bench) -> None:
    task = bench.submit(STREAM)
    client = Client(LOST, "p1")
    bench.work(client)
    bench.clock.advance(minutes=5)
    bench.work(client)
    assert bench.task(task).platform_task_id == "p1"
    assert [sent["liveId"] for sent in client.submitted] == ["room", "room"]


def test_a_worker_that_dies_in_the_middle_of_a_submit_does_not_make_another_pay_twice(bench: Bench) -> None:
    file, stream = bench.submit(FILE), bench.submit(STREAM)
    assert len(bench.claim()) == 2
    client = Client("p1")
    assert bench.work(client) == 0, "the lease holds"
    bench.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert bench.work(client) == 2
    assert [sent.get("liveId") for sent in client.submitted] == ["room"]
    assert (bench.task(file).state, bench.task(file).platform_task_id) == ("processing", None)
    assert bench.task(stream).platform_task_id == "p1"


def test_a_callback_that_overtakes_the_submits_answer_is_taken_and_not_undone_by_it(bench: Bench) -> None:
    task = bench.submit(FILE)

    def overtaken() -> str:
        bench.receive(task, signed.content(signed.piece(0, risk="high", label="political_entity")))
        return "p1"

    bench.work(Client(overtaken))
    after = bench.task(task)
    assert (after.state, after.platform_task_id, after.risk_level) == ("completed", "p1", "high")
    assert after.lease is None
    assert bench.events() == ["task.submitted", "slice.flagged", "task.completed"]
    assert bench.work(Client()) == 0


def test_a_stream_is_registered_once_while_it_is_active(bench: Bench) -> None:
    first, again = bench.submit(STREAM), bench.submit(STREAM)
    assert first.id == again.id
    other = bench.submit(msgspec.structs.replace(STREAM, live_id="another room"))
    assert other.id != first.id
    bench.cancel(first)
    assert bench.submit(STREAM).id != first.id


def test_a_stream_that_the_platform_has_not_heard_of_is_canceled_at_once(bench: Bench) -> None:
    task = bench.submit(STREAM)
    assert bench.cancel(task).state == "canceled"
    client = Client()
    assert bench.work(client) == 0
    assert bench.events() == ["task.canceled"]


def test_a_running_stream_is_canceled_when_the_platform_has_confirmed_it(bench: Bench) -> None:
    task = bench.submit(STREAM)
    busy = PlatformBusy(code=500, reason="platform_error", message="Later.")
    client = Client("p1", busy, queries=(RUNNING, UNKNOWN))
    bench.work(client)
    assert bench.cancel(task).state == "processing"
    bench.work(client)
    assert bench.task(task).state == "processing"
    bench.clock.advance(minutes=5)
    bench.work(client)
    assert bench.task(task).state == "canceled"
    assert client.canceled == ["live_detection_byllm_global p1"] * 2
    assert bench.events() == ["task.submitted", "task.canceled"]


def test_a_stream_that_the_platform_no_longer_knows_counts_as_canceled(bench: Bench) -> None:
    task = bench.submit(STREAM)
    bench.work(Client("p1"))
    bench.cancel(task)
    bench.work(Client(UNKNOWN))
    assert bench.task(task).state == "canceled"


def test_a_stream_canceled_during_its_submit_is_canceled_after_it(bench: Bench) -> None:
    task = bench.submit(STREAM)

    def canceled_meanwhile() -> str:
        assert bench.cancel(task).state == "queued"
        return "p1"

    client = Client(canceled_meanwhile)
    bench.work(client)
    assert bench.task(task).state == "processing"
    bench.work(client)
    assert client.canceled == ["live_detection_byllm_global p1"]
    assert bench.task(task).state == "canceled"


def test_a_callback_between_the_wish_to_cancel_and_its_call_does_not_undo_the_wish(bench: Bench) -> None:
    task = bench.submit(STREAM)
    client = Client("p1")
    bench.work(client)
    bench.cancel(task)
    bench.receive(task, signed.content(signed.piece(0), LiveId="room"))
    bench.work(client)
    assert bench.task(task).state == "canceled"
    assert client.canceled == ["live_detection_byllm_global p1"]


def test_a_file_cannot_be_canceled(bench: Bench) -> None:
    with pytest.raises(Conflict):
        bench.cancel(bench.submit(FILE))


def test_a_stream_that_is_over_stays_as_it_is_when_canceled(bench: Bench) -> None:
    task = bench.submit(STREAM)
    bench.work(Client(REFUSED))
    assert bench.cancel(task).state == "failed"


def test_a_settlement_after_the_lease_was_lost_does_not_fail_the_task(bench: Bench) -> None:
    bench.submit(FILE)
    (claimed,) = bench.claim()
    bench.clock.advance(seconds=LEASE.total_seconds() + 1)
    bench.claim()
    client: Any = Client(REFUSED)
    bench.carry_out(client, claimed)
    assert bench.task(claimed.task).state == "queued"
