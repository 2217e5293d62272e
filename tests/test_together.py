"""Several processes at one database, as PostgreSQL allows: nothing is lost, doubled or passed over."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import sqlalchemy as sa

from tests import databases, signed
from tests.calling import FILE, STREAM
from tests.clients import AppClient
from tests.waiting import until
from webhook import clock
from webhook.app import create_app
from webhook.claims import Room
from webhook.db import alone
from webhook.errors import DatabaseError
from webhook.store import events as event_store
from webhook.store import limits as limit_store
from webhook.store.events import EventRow

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.conftest import MakeService
    from webhook.bootstrap import Service
    from webhook.db import Database, Session

pytestmark = databases.needs_postgresql

WRITERS = 6


@pytest.fixture
def services(make_service: MakeService) -> list[Service]:
    """The same service in four processes, as far as the database can tell."""
    return [make_service() for _ in range(4)]


def at_once(*work: Callable[[], Any]) -> list[Any]:
    """Run all in threads of their own, and return or raise what they do."""
    begin = threading.Barrier(len(work))

    def run(one: Callable[[], Any]) -> Any:
        begin.wait()
        return one()

    with ThreadPoolExecutor(len(work)) as threads:
        return list(threads.map(run, work))


def insert_event(session: Session) -> str:
    row = EventRow(id=clock.new_id("evt", clock.now()), type="t", task_id=None, created_at=clock.now(), data=b"")
    event_store.insert_events(session, [row])
    return row.id


def test_a_reader_of_the_feed_sees_each_event_once_however_commits_overlap(services: list[Service]) -> None:
    database = services[0].database
    over = threading.Event()

    def write(seed: int) -> list[str]:
        dice, kept = random.Random(seed), []
        for _ in range(60):
            made = []
            try:
                with database.transaction() as session:
                    for _ in range(dice.randrange(1, 4)):
                        made.append(insert_event(session))
                        session.execute(sa.text("SELECT pg_sleep(:pause)"), {"pause": dice.random() / 200})
                    if dice.random() < 0.1:
                        session.exec_driver_sql("SELECT 1 / 0")  # and all of it is rolled back
            except DatabaseError:
                continue
            kept += made
        return kept

    def read() -> list[str]:
        seen, place = [], 0
        while True:
            last = over.is_set()
            with database.read() as session:
                rows = event_store.events_after(session, place, limit=50)
            seen += [row.id for row in rows]
            place = rows[-1].seq if rows else place
            if last and not rows:
                return seen

    with ThreadPoolExecutor(WRITERS + 2) as threads:
        readers = [threads.submit(read) for _ in range(2)]
        written = [each for made in threads.map(write, range(WRITERS)) for each in made]
        over.set()
        for reader in readers:
            assert sorted(reader.result()) == sorted(written)


def test_a_transaction_that_has_not_ended_holds_back_only_what_comes_after_it(services: list[Service]) -> None:
    first, second = services[0].database, services[1].database

    def feed(database: Database) -> list[str]:
        with database.read() as session:
            return [row.id for row in event_store.events_after(session, 0, limit=9)]

    with first.transaction() as session:
        before = insert_event(session)
    with first.transaction() as session:
        early = insert_event(session)
        with second.transaction() as other:
            late = insert_event(other)
        assert feed(second) == [before]
    assert feed(second) == [before, early, late]


def test_callbacks_of_one_task_that_come_everywhere_at_once_are_all_worked_into_it(services: list[Service]) -> None:
    client = AppClient(create_app(services[0]))
    receiver, making = client.receiver(), threading.Lock()

    def post(service: Service, at: int) -> int | None:
        body = signed.form(
            signed.content(signed.piece(at * 10, risk="high", label=f"l{at}"), TaskId="one"), seed=receiver["seed"]
        )
        with making:  # CPython 3.11 has one depth for all threads that parse, as werkzeug does for its routes
            app = create_app(service)  # a receiver of callbacks belongs to the thread that made it, as to its process
        return AppClient(app).callback(receiver["callback_url"], body)

    for turn in range(5):
        work = [partial(post, service, turn * 2 + number % 2) for number, service in enumerate(services)]
        assert at_once(*work) == [200] * len(work)
    [verdict] = client.items("/v1/verdicts")
    assert (verdict["slice_count"], verdict["flagged_slice_count"]) == (10, 10)
    assert {label["label"]: label["slices"] for label in verdict["labels"]} == {f"l{at}": 1 for at in range(10)}
    types = [event["type"] for event in client.feed()]
    assert sorted(types) == ["slice.flagged"] * 10 + ["task.completed"]


def test_a_key_used_everywhere_at_once_makes_one_task(services: list[Service]) -> None:
    clients = [AppClient(create_app(service)) for service in services]
    body, key = {"url": "https://example.com/a.mp3"}, {"Idempotency-Key": "one"}
    replies = at_once(*[partial(client.post, "/v1/tasks", body, headers=key) for client in clients])
    assert {reply.status for reply in replies} == {201}
    assert len({reply.json["id"] for reply in replies}) == 1
    assert len(clients[0].items("/v1/tasks")) == 1


def test_a_stream_registered_everywhere_at_once_is_one(services: list[Service]) -> None:
    clients = [AppClient(create_app(service)) for service in services]
    body = {"url": "rtmp://example.com/1", "live_id": "room"}
    replies = at_once(*[partial(client.post, "/v1/streams", body) for client in clients])
    assert {reply.status for reply in replies} <= {200, 201}
    assert len(clients[0].items("/v1/streams")) == 1


def test_workers_share_the_platform_s_limits_and_no_task(make_service: MakeService) -> None:
    services = [make_service(WEBHOOK_SUBMITS_PER_SECOND="20", WEBHOOK_RUNNING_STREAMS="3") for _ in range(4)]
    with services[0].database.transaction() as session:
        for _ in range(60):
            services[0].tasks.submit(session, FILE)
        for number in range(9):
            services[0].tasks.submit(session, msgspec.structs.replace(STREAM, live_id=f"room-{number}"))

    def claim(service: Service) -> list[str]:
        taken = []
        for _ in range(3):
            with service.database.transaction() as session:
                claimed = service.claims.claim(session, room=Room(submits=30, uploads=30, queries=30))
            taken += [f"{call.task.kind} {call.task.id}" for call in claimed.calls]
        return taken

    began = clock.now()
    taken = [each for found in at_once(*[partial(claim, one) for one in services]) for each in found]
    seconds = (clock.now() - began).total_seconds()
    assert len(taken) == len(set(taken))
    assert sum(each.startswith("live") for each in taken) == min(3, len(taken))
    assert len(taken) <= 2 + 18 * seconds + 1, "the burst, and the rate since"
    with services[0].database.read() as session:
        assert limit_store.limit(session, "submits").spent_until is not None


def test_what_is_done_alone_is_done_by_one(services: list[Service]) -> None:
    with services[0].database.transaction() as session:
        assert alone(session, "it", wait=False)
        with services[1].database.transaction() as other:
            assert not alone(other, "it", wait=False)
            assert alone(other, "something else", wait=False)
    with services[1].database.transaction() as other:
        assert alone(other, "it", wait=False)


def test_commits_are_heard_of_by_others_and_by_those_who_watch(services: list[Service]) -> None:
    first, second = services[0].database, services[1].database
    changes = second.watch()
    bell = second.bell()
    assert bell
    until(changes.seen, seconds=10)  # it listens
    with first.transaction() as session:
        insert_event(session)
    until(changes.seen, seconds=10)

    def rung() -> bool:
        try:
            return bool(bell.recv(100))
        except BlockingIOError:
            return False

    until(rung, seconds=10)


def test_connections_that_the_server_ended_while_nobody_used_them_cost_no_request(services: list[Service]) -> None:
    database = services[0].database
    with ExitStack() as at_the_same_time:
        for _ in range(4):
            at_the_same_time.enter_context(database.read())
    with database.read(keep=True), database.transaction(keep=True):
        pass  # and those that this thread keeps
    with services[1].database.read() as session:
        session.exec_driver_sql(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE pid != pg_backend_pid() AND datname = current_database()"
        )
    for keep in [True, *[False] * 8, True]:
        with database.transaction(keep=keep) as session:
            insert_event(session)
        with database.read(keep=keep) as session:
            assert event_store.events_after(session, 0, limit=1)
    assert database.trouble is None


def test_a_lost_connection_is_told_in_words_and_replaced(services: list[Service]) -> None:
    database = services[0].database
    with database.transaction() as session:
        kept = insert_event(session)

    def lose() -> None:
        with database.transaction() as session:
            insert_event(session)
            session.exec_driver_sql("SELECT pg_terminate_backend(pg_backend_pid())")

    with pytest.raises(DatabaseError, match="server"):
        lose()
    assert database.trouble
    with database.transaction() as session:
        later = insert_event(session)
    assert database.trouble is None
    with database.read() as session:
        assert [row.id for row in event_store.events_after(session, 0, limit=9)] == [kept, later]


def test_what_would_only_be_done_again_does_not_wait_for_the_disk(services: list[Service]) -> None:
    first, second = services[0].database, services[1].database
    with first.transaction(durable=False) as session:
        assert session.exec_driver_sql("SHOW synchronous_commit").scalar() == "off"
        insert_event(session)
    with first.transaction() as session:
        assert session.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
    with second.read() as session:
        assert len(event_store.events_after(session, 0, limit=9)) == 1
