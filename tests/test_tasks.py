"""A task is submitted once: whatever the platform answers, and whenever its callback comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests import signed
from webhook.errors import Conflict, OutcomeUnknown, PlatformBusy, PlatformRefused
from webhook.quarantine import Claim
from webhook.store import events as event_store
from webhook.store import tasks as task_store
from webhook.tasks import LEASE, NewTask, Tasks
from webhook.tokens import open_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from tests.conftest import Clock, MakeService
    from webhook.bootstrap import Service
    from webhook.store.tasks import Task

FILE = NewTask(kind="audio", service="audio_detection_byllm_global", source={"url": "https://example.com/a.mp3"})
STREAM = NewTask(
    kind="live", service="live_detection_byllm_global", source={"url": "rtmp://example.com/1"}, live_id="room"
)

REFUSED = PlatformRefused(code=406, reason="source_too_large", message="Too large.")
BUSY = PlatformBusy(code=403, reason="rate_limited", message="Slower.")
LOST = OutcomeUnknown(code=None, reason="submit_outcome_unknown", message="Lost.")


class Client:
    """A platform that answers what it is told to, and remembers what it was asked."""

    def __init__(self, *answers: str | Exception | Callable[[], str]) -> None:
        self.answers = list(answers)
        self.submitted: list[dict[str, str]] = []
        self.canceled: list[str] = []

    def submit(self, *, service: str, parameters: dict[str, str]) -> str:
        self.submitted.append({"Service": service, **parameters})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, str) else answer()

    def cancel(self, *, service: str, platform_task_id: str) -> None:
        self.canceled.append(f"{service} {platform_task_id}")
        if self.answers and isinstance(answer := self.answers.pop(0), Exception):
            raise answer


class Bench:
    """A service with a clock that stands still, and the steps of its worker."""

    def __init__(self, service: Service, clock: Clock, *, unknown_outcome_wait: timedelta) -> None:
        self.service = service
        self.clock = clock
        self.tasks = Tasks(
            keyring=service.keyring,
            ingest=service.ingest,
            callback_base_url=service.settings.callback_base_url,
            unknown_outcome_wait=unknown_outcome_wait,
            now=clock,
            dice=lambda: 0.5,
        )

    def submit(self, new: NewTask) -> Task:
        with self.service.database.transaction() as session:
            return self.tasks.submit(session, new)[0]

    def claim(self, lease: str = "worker") -> list[Task]:
        with self.service.database.transaction() as session:
            return self.tasks.claim(session, lease=lease, limit=10)

    def work(self, client: Any, lease: str = "worker") -> int:
        """Carry out all that is due; return how much that was."""
        claimed = self.claim(lease)
        for task in claimed:
            self.tasks.carry_out(self.service.database.transaction, client, task=task, lease=lease)
        return len(claimed)

    def cancel(self, task: Task) -> Task:
        with self.service.database.transaction() as session:
            return self.tasks.cancel(session, self.task(task))

    def task(self, task: Task) -> Task:
        with self.service.database.read() as session:
            found = task_store.task(session, task.id)
        assert found
        return found

    def events(self) -> list[str]:
        with self.service.database.read() as session:
            return [row.type for row in event_store.events_after(session, 0, limit=100)]

    def receive(self, task: Task, content: str) -> None:
        """Take a callback in, as the web process does."""
        with self.service.database.transaction() as session:
            address = task_store.address_of(session, task.id)
            assert address
            seed = open_secrets(self.service.keyring, address.secrets, table="tasks", row=task.id).seed
            arrival = self.service.quarantine.verify(
                Claim(
                    address=address,
                    checksum=signed.checksum(content, seed=seed),
                    content=content.encode(),
                    stated_task_id=None,
                    received_at=self.clock(),
                )
            )
            assert arrival
            self.service.ingest.accept(session, [arrival])


@pytest.fixture
def bench(service: Service, clock: Clock) -> Bench:
    return Bench(service, clock, unknown_outcome_wait=service.settings.unknown_outcome_wait)


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
    bench = Bench(service, clock, unknown_outcome_wait=service.settings.unknown_outcome_wait)
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
    client = Client(*[BUSY] * 12, "p1")
    for _ in range(12):
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
    bench = Bench(service, clock, unknown_outcome_wait=service.settings.unknown_outcome_wait)
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
    assert len(bench.claim("the dead one")) == 2
    client = Client("p1")
    assert bench.work(client, "the next one") == 0, "the lease holds"
    bench.clock.advance(seconds=LEASE.total_seconds() + 1)
    assert bench.work(client, "the next one") == 2
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
    client = Client("p1", PlatformBusy(code=500, reason="platform_error", message="Later."))
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
    bench.work(Client(PlatformRefused(code=401, reason="parameter_invalid", message="Unknown.")))
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
    (claimed,) = bench.claim("the slow one")
    bench.clock.advance(seconds=LEASE.total_seconds() + 1)
    bench.claim("the next one")
    client: Any = Client(REFUSED)
    bench.tasks.carry_out(bench.service.database.transaction, client, task=claimed, lease="the slow one")
    assert bench.task(claimed).state == "queued"
