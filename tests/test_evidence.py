"""Evidence on its way from link to store: tried while the link lives, once at a time, and settled whatever happens."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from tests import databases
from tests.segment_server import AUDIO, Answer, SegmentServer
from webhook import backoff
from webhook.addresses import AddressPolicy
from webhook.crypto import Keyring
from webhook.errors import DecryptionError, EvidenceLost
from webhook.evidence import LINK_LIFETIME, Evidence, wanted
from webhook.evidence_stores import Directory
from webhook.segments import Segments
from webhook.store import evidence as evidence_store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from tests.conftest import Clock
    from webhook.bootstrap import Service
    from webhook.evidence import Settlement
    from webhook.evidence_stores import EvidenceStore
    from webhook.store.evidence import EvidenceRow

KEYRING = Keyring({"k1": bytes(32)})
LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))
TIMEOUT = timedelta(seconds=20)


def key_of(start: int) -> bytes:
    return start.to_bytes(4, "big")


class Desk:
    """Evidence of one task, and a worker's part played by hand."""

    def __init__(self, service: Service, *, store: EvidenceStore, clock: Clock) -> None:
        self.database = service.database
        self.clock = clock
        self.timeout = TIMEOUT
        self.use(store)

    def use(self, store: EvidenceStore, *, timeout: timedelta = TIMEOUT, keyring: Keyring = KEYRING) -> None:
        self.timeout = timeout
        self.evidence = Evidence(keyring=keyring, store=store, timeout=timeout, now=self.clock, dice=lambda: 0.5)

    def want(self, url: str, start: int = 0) -> EvidenceRow:
        row = wanted(KEYRING, "task_1", key_of(start), url, now=self.clock())
        with self.database.transaction() as session:
            evidence_store.insert_evidence(session, [row])
        return row

    def claim(self, limit: int = 10) -> list[EvidenceRow]:
        with self.database.transaction() as session:
            return self.evidence.claim(session, limit=limit)

    def capture(self, row: EvidenceRow) -> Settlement:
        async def scenario() -> Settlement:
            seconds = self.timeout.total_seconds()
            async with Segments(LOOPBACK, timeout_seconds=seconds, limit=1 << 20) as segments:
                return await self.evidence.capture(segments, row)

        return asyncio.run(scenario())

    def settle(self, settlement: Settlement) -> None:
        with self.database.transaction() as session:
            self.evidence.settle(session, settlement)

    def work(self) -> EvidenceRow:
        """Do all that is due, which is one thing, and return it as it is then."""
        [row] = self.claim()
        self.settle(self.capture(row))
        return self.row(row)

    def row(self, row: EvidenceRow) -> EvidenceRow:
        with self.database.read() as session:
            found = evidence_store.find_evidence(session, row.task_id, row.slice_key)
        assert found is not None
        return found

    def give_up(self) -> None:
        with self.database.transaction() as session:
            self.evidence.give_up(session)


@pytest.fixture(scope="module")
def server() -> Iterator[SegmentServer]:
    with SegmentServer() as one:
        yield one


@pytest.fixture
def desk(service: Service, tmp_path: Path, clock: Clock) -> Desk:
    return Desk(service, store=Directory(tmp_path / "evidence"), clock=clock)


def test_audio_is_saved_and_given_back(desk: Desk, server: SegmentServer, tmp_path: Path) -> None:
    row = desk.want(server.answer("/good", Answer(content_type="audio/ogg; codecs=opus")))
    after = desk.work()
    assert (after.state, after.reason, after.attempt_count) == ("saved", None, 1)
    assert (after.content_type, after.size) == ("audio/ogg; codecs=opus", len(AUDIO))
    assert (after.next_attempt_at, after.lease, after.lease_until) == (None, None, None)
    assert desk.evidence.load(after) == AUDIO
    assert desk.claim() == []
    [file] = [path for path in (tmp_path / "evidence").rglob("*") if path.is_file()]
    assert str(file).endswith(f"/evidence/task_1/{row.slice_key.hex()}")


@databases.needs_sqlite
def test_neither_audio_nor_link_lies_open_on_the_disk(desk: Desk, server: SegmentServer, tmp_path: Path) -> None:
    desk.want(f"{server.answer('/private-link', Answer())}?Signature=a-signature")
    desk.work()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 1
    for file in files:
        content = file.read_bytes()
        for secret in (AUDIO[12:44], AUDIO[-32:], b"private-link", b"a-signature"):
            assert secret not in content, file


@pytest.mark.parametrize("status", [403, 404, 410, 503])
def test_what_cannot_be_had_is_tried_while_its_link_lives_and_has_expired_then(
    desk: Desk, server: SegmentServer, status: int
) -> None:
    row = desk.want(server.answer(f"/away-{status}", Answer(status, b"")))
    began = desk.clock()
    times: list[datetime] = []
    while (row := desk.row(row)).state == "pending":
        assert row.next_attempt_at is not None
        desk.clock.time = row.next_attempt_at - timedelta(microseconds=1)
        assert desk.claim() == []
        desk.clock.time = row.next_attempt_at
        times.append(desk.clock())
        desk.work()
    assert (row.state, row.reason, row.attempt_count) == ("expired", f"http_{status}", len(times))
    assert row.next_attempt_at is None
    since = [round((time - began).total_seconds()) for time in times]
    assert since == [0, 1, 3, 8, 18, 48, 108, 228, 528, 828, 1128, 1428, 1728, 1800]


def test_audio_that_comes_late_is_saved_also_after_the_link_s_time(desk: Desk, server: SegmentServer) -> None:
    desk.want(server.answer("/late", Answer(404, b""), Answer()))
    assert desk.work().state == "pending"
    desk.clock.advance(hours=2)
    after = desk.work()
    assert (after.state, after.reason, after.attempt_count) == ("saved", None, 2)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(content_type="text/html"), "wrong_type"),
        (Answer(body=bytes((1 << 20) + 1)), "too_large"),
        (Answer(302, b"", headers={"Location": "http://169.254.169.254/"}), "address_not_allowed"),
    ],
)
def test_what_will_never_be_saved_is_not_tried_again(
    desk: Desk, server: SegmentServer, answer: Answer, reason: str
) -> None:
    desk.want(server.answer(f"/never-{reason}", answer))
    with capture_logs() as logged:
        after = desk.work()
    assert (after.state, after.reason, after.next_attempt_at) == ("failed", reason, None)
    assert [(entry["state"], entry["reason"]) for entry in logged] == [("failed", reason)]


def test_our_own_trouble_is_tried_again_and_is_no_fault_of_the_link(
    desk: Desk, server: SegmentServer, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    desk.use(Directory(disk / "evidence"))
    desk.want(server.answer("/kept-at-last", Answer()))
    with capture_logs() as logged:
        after = desk.work()
    assert (after.state, after.reason) == ("pending", "store_unavailable")
    assert str(disk) in logged[0]["error"]
    disk.mkdir()
    desk.clock.advance(minutes=1)
    assert desk.work().state == "saved"

    disk.rename(tmp_path / "away")
    row = desk.want(server.url("/kept-at-last"), start=10)
    while desk.row(row).state == "pending":
        desk.clock.advance(minutes=10)
        desk.work()
    assert (desk.row(row).state, desk.row(row).reason) == ("failed", "store_unavailable")


def test_a_store_that_hangs_is_given_up(desk: Desk, server: SegmentServer) -> None:
    over = threading.Event()

    class Hanging:
        def put(self, _name: str, _content: bytes) -> None:
            over.wait(60)

        def get(self, _name: str) -> bytes:
            raise EvidenceLost

        def delete(self, _name: str) -> None:
            raise AssertionError

    desk.use(Hanging(), timeout=timedelta(seconds=0.5))
    desk.want(server.answer("/hangs", Answer()))
    [row] = desk.claim()

    async def scenario() -> Settlement:
        async with Segments(LOOPBACK, timeout_seconds=30, limit=1 << 20) as segments:
            try:
                return await desk.evidence.capture(segments, row)
            finally:
                over.set()  # the loop ends only with its threads

    settlement = asyncio.run(scenario())
    assert (settlement.reason, settlement.final) == ("store_unavailable", False)


def test_a_link_that_does_not_open_is_our_own_trouble(desk: Desk, server: SegmentServer, tmp_path: Path) -> None:
    desk.want(server.answer("/sealed", Answer()))
    desk.use(Directory(tmp_path / "evidence"), keyring=Keyring({"k2": bytes(32)}))
    assert (desk.work().state, server.requests("/sealed")) == ("pending", 0)


def test_audio_that_was_altered_or_moved_does_not_open(desk: Desk, server: SegmentServer, tmp_path: Path) -> None:
    url = server.answer("/two", Answer())
    first, second = desk.want(url), desk.want(url, start=10)
    for row in desk.claim():
        desk.settle(desk.capture(row))
    one, other = (tmp_path / "evidence" / (desk.row(row).object or "") for row in (first, second))
    other.write_bytes(one.read_bytes())
    with pytest.raises(DecryptionError):
        desk.evidence.load(desk.row(second))
    one.unlink()
    with pytest.raises(EvidenceLost):
        desk.evidence.load(desk.row(first))


def test_nobody_else_takes_what_is_claimed_until_its_lease_ends(desk: Desk, server: SegmentServer) -> None:
    desk.want(server.answer("/once", Answer()))
    [first] = desk.claim()
    assert desk.claim() == []
    desk.clock.advance(seconds=3 * TIMEOUT.total_seconds() - 1)
    assert desk.claim() == []
    desk.clock.advance(seconds=1)
    [second] = desk.claim()
    assert second.lease != first.lease

    # the first was only slow: what it has to say comes too late, whatever it is
    desk.settle(desk.capture(first))
    assert desk.row(first) == second
    desk.settle(desk.capture(second))
    assert desk.row(first).state == "saved"


def test_as_many_are_claimed_as_there_is_room_for_the_longest_due_first(desk: Desk) -> None:
    for start in (0, 10, 20):
        desk.want("http://127.0.0.1/x", start)
        desk.clock.advance(seconds=1)
    keys = [key_of(start) for start in (0, 10, 20)]
    assert sorted(row.slice_key for row in desk.claim(limit=2)) == keys[:2]
    assert [row.slice_key for row in desk.claim(limit=2)] == keys[2:]


def test_what_is_wanted_already_stays_as_it_is(desk: Desk, server: SegmentServer) -> None:
    desk.want(server.answer("/wanted", Answer()))
    after = desk.work()
    desk.want("http://127.0.0.1/another")
    assert desk.row(after) == after


def test_what_nobody_captures_is_given_up_in_the_end(desk: Desk) -> None:
    taken_up, left, recent = (desk.want("http://127.0.0.1/x", start) for start in (0, 10, 20))
    desk.clock.advance(hours=1, seconds=1)
    with desk.database.transaction() as session:
        due = desk.clock() - timedelta(minutes=1)
        assert evidence_store.settle_evidence(session, recent, state="pending", next_attempt_at=due)
    assert [row.slice_key for row in desk.claim(limit=1)] == [taken_up.slice_key]
    desk.give_up()
    assert [desk.row(row).state for row in (taken_up, left, recent)] == ["pending", "expired", "pending"]


def test_states_are_told_of_the_slices_that_are_asked_for(desk: Desk) -> None:
    row = desk.want("http://127.0.0.1/x")
    with desk.database.read() as session:
        assert evidence_store.states(session, "task_1", [row.slice_key, b"other"]) == {row.slice_key: "pending"}
        assert evidence_store.states(session, "task_2", [row.slice_key]) == {}
        assert evidence_store.states(session, "task_1", []) == {}
        assert evidence_store.count_pending(session) == 1


def test_the_schedule_fits_into_the_link_s_life_and_jitters_a_little() -> None:
    assert sum(backoff.CAPTURE_SCHEDULE, timedelta()) < LINK_LIFETIME
    for dice in (0.0, 1.0):
        delay = backoff.capture_delay(attempts_made=100, dice=lambda dice=dice: dice)  # type: ignore[misc]
        assert abs(delay - backoff.CAPTURE_SCHEDULE[-1]) == backoff.CAPTURE_SCHEDULE[-1] * backoff.DELIVERY_JITTER


def test_rows_are_told_apart_by_task_and_slice(desk: Desk) -> None:
    row = desk.want("http://127.0.0.1/x")
    with desk.database.read() as session:
        for task_id, key in (("task_1", b"?"), ("task_2", row.slice_key)):
            assert evidence_store.find_evidence(session, task_id, key) is None
