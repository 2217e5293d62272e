"""The worker's loops: what is due is done soon, nothing that goes wrong ends them, and a stop loses nothing."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from tests.clients import AppClient
from tests.waiting import until
from webhook import clock
from webhook.app import create_app
from webhook.errors import DatabaseError, PlatformRefused, ServiceError
from webhook.store import keys as key_store
from webhook.store.keys import StoredAnswer
from webhook.workers import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import MakeService
    from tests.subscriber import Subscriber
    from webhook.bootstrap import Service

STREAM = {"url": "rtmp://example.com/live/1"}

_numbers = itertools.count()


@pytest.fixture
def client(make_service: MakeService) -> AppClient:
    """The API as another process has it: its commits wake the worker by the bell."""
    return AppClient(create_app(make_service()))


@pytest.fixture
def path() -> str:
    """A subscriber that no other test has."""
    return f"/worker-{next(_numbers)}"


@contextmanager
def working(service: Service, make_client: Callable[[], Any] | None = None) -> Iterator[Callable[[], None]]:
    """Run a worker in a thread; yield what tells it to stop."""
    loop = asyncio.new_event_loop()
    worker = Worker(service, make_client)

    def run() -> None:
        loop.run_until_complete(worker.run())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()

    def stop() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(worker.stop)

    thread = threading.Thread(target=run, name="worker")
    thread.start()
    try:
        yield stop
    finally:
        stop()
        thread.join(30)
        assert not thread.is_alive()


class Platform:
    """A platform that takes everything."""

    def __init__(self) -> None:
        self.submitted: list[dict[str, str]] = []
        self.canceled: list[str] = []

    def submit(self, *, service: str, parameters: dict[str, str]) -> str:
        self.submitted.append({"service": service, **parameters})
        return f"p-{len(self.submitted)}"

    def cancel(self, *, service: str, platform_task_id: str) -> None:
        assert service == "live_detection_byllm_global"
        self.canceled.append(platform_task_id)

    def query(self, **_: str) -> Any:
        raise PlatformRefused(code=401, reason="parameter_invalid", message="It is over.")


def raise_events(client: AppClient, count: int) -> None:
    """Raise `task.canceled` so many times."""
    for _ in range(count):
        made = client.made("/v1/streams", {**STREAM, "live_id": f"room-{next(_numbers)}"})
        assert client.delete(f"/v1/streams/{made['id']}").status == 202


def subscribe(client: AppClient, url: str, **fields: Any) -> str:
    return str(client.made("/v1/subscriptions", {"url": url, **fields})["id"])


def deliveries(client: AppClient, subscription: str) -> list[Any]:
    return client.items(f"/v1/subscriptions/{subscription}/deliveries")


def test_an_event_is_delivered_and_its_attempt_is_noted(
    client: AppClient, service: Service, subscriber: Subscriber, path: str
) -> None:
    subscription = subscribe(client, subscriber.url(path))
    with working(service):
        raise_events(client, 3)
        until(lambda: [each["state"] for each in deliveries(client, subscription)] == ["delivered"] * 3)
    assert sorted(each.id for each in subscriber.received(path)) == sorted(event["id"] for event in client.feed())
    for each in deliveries(client, subscription):
        [attempt] = each["attempts"]
        assert (attempt["number"], attempt["status"], attempt["error"]) == (1, 204, None)
        assert each["next_attempt_at"] is None


def test_what_fails_is_noted_and_owed_for_later(
    client: AppClient, service: Service, subscriber: Subscriber, path: str
) -> None:
    subscriber.answer(path, 500)
    subscription = subscribe(client, subscriber.url(path))
    with working(service):
        raise_events(client, 1)
        # on PostgreSQL a delivery may be read just before its attempt is noted, and the attempt just after
        [owed] = until(
            lambda: [
                each
                for each in deliveries(client, subscription)
                if each["attempts"] and each["next_attempt_at"] > each["attempts"][0]["at"]
            ]
        )
    assert owed["state"] == "pending"
    assert (owed["attempts"][0]["status"], owed["attempts"][0]["error"]) == (500, "http_500")


def test_a_redirect_is_not_followed(client: AppClient, service: Service, subscriber: Subscriber, path: str) -> None:
    subscriber.answer(path, (307, {"Location": subscriber.url(f"{path}-elsewhere")}))
    subscription = subscribe(client, subscriber.url(path))
    with working(service):
        raise_events(client, 1)
        until(lambda: [each for each in deliveries(client, subscription) if each["attempts"]])
    assert subscriber.received(f"{path}-elsewhere") == []


def test_a_subscriber_that_is_gone_is_disabled_and_the_others_hear_of_it(
    client: AppClient, service: Service, subscriber: Subscriber, path: str
) -> None:
    subscriber.answer(path, 410)
    gone = subscribe(client, subscriber.url(path))
    subscribe(client, subscriber.url(f"{path}-others"), event_types=["subscription.disabled"])
    with working(service):
        raise_events(client, 1)
        until(lambda: subscriber.received(f"{path}-others"))
    shown = client.shown(f"/v1/subscriptions/{gone}")
    assert (shown["state"], shown["disabled_reason"]) == ("disabled", "gone")
    [told] = subscriber.received(f"{path}-others")
    assert told.event["data"]["subscription"]["id"] == gone


def test_a_subscriber_that_never_answers_does_not_delay_the_others(
    make_service: MakeService, subscriber: Subscriber, path: str
) -> None:
    service = make_service(WEBHOOK_SUBSCRIPTION_CONCURRENCY="2", WEBHOOK_DELIVERY_CONCURRENCY="3")
    client = AppClient(create_app(service))
    release = subscriber.hold(f"{path}-slow")
    slow = subscribe(client, subscriber.url(f"{path}-slow"))
    subscribe(client, subscriber.url(path))
    try:
        with working(service):
            raise_events(client, 20)
            until(lambda: len(subscriber.received(path)) == 20)
            assert len(subscriber.received(f"{path}-slow")) == 2
            release.set()
            until(lambda: {each["state"] for each in deliveries(client, slow)} == {"delivered"})
    finally:
        release.set()
    assert len(subscriber.received(f"{path}-slow")) == 20


def test_a_stop_waits_for_what_is_in_flight_and_notes_it(
    make_service: MakeService, subscriber: Subscriber, path: str
) -> None:
    service, next_service = make_service(), make_service()
    client = AppClient(create_app(service))
    release = subscriber.hold(path)
    subscription = subscribe(client, subscriber.url(path))
    with working(service) as stop:
        raise_events(client, 1)
        until(lambda: subscriber.received(path))
        stop()
        raise_events(client, 1)
        release.set()
    assert deliveries(client, subscription)[-1]["state"] == "delivered"
    assert len(subscriber.received(path)) == 1
    with working(next_service):
        until(lambda: [each["state"] for each in deliveries(client, subscription)] == ["delivered"] * 2)
    assert len(subscriber.received(path)) == 2


@pytest.mark.parametrize("fault", [DatabaseError("the disk is full"), RuntimeError("a fault of ours")])
def test_a_fault_is_logged_and_ends_nothing(
    service: Service, subscriber: Subscriber, path: str, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    client = AppClient(create_app(service))
    turn, faults = service.deliveries.turn, [fault]

    def turn_after_a_fault(*args: Any, **kwargs: Any) -> Any:
        if faults:
            raise faults.pop()
        return turn(*args, **kwargs)

    monkeypatch.setattr(service.deliveries, "turn", turn_after_a_fault)
    subscribe(client, subscriber.url(path))
    with capture_logs() as logged, working(service):
        raise_events(client, 1)
        until(lambda: subscriber.received(path))
    levels = [entry["log_level"] for entry in logged]
    assert levels == ["warning" if isinstance(fault, DatabaseError) else "error"], logged


def test_tasks_are_submitted_and_canceled_through_the_client(client: AppClient, service: Service) -> None:
    platform = Platform()
    with working(service, lambda: platform):
        task = client.made("/v1/tasks", {"url": "https://example.com/a.mp3", "data_id": "d-1"})
        until(lambda: client.shown(f"/v1/tasks/{task['id']}")["state"] == "processing")
        stream = client.made("/v1/streams", {**STREAM, "live_id": "room-1"})
        until(lambda: client.shown(f"/v1/streams/{stream['id']}")["state"] == "processing")
        assert client.delete(f"/v1/streams/{stream['id']}").status == 202
        until(lambda: client.shown(f"/v1/streams/{stream['id']}")["state"] == "canceled")
    assert [each.get("dataId") for each in platform.submitted] == ["d-1", None]
    assert platform.submitted[1]["liveId"] == "room-1"
    assert platform.canceled == ["p-2"]
    assert client.shown(f"/v1/tasks/{task['id']}")["platform_task_id"] == "p-1"
    assert [event["type"] for event in client.feed()] == ["task.submitted", "task.submitted", "task.canceled"]


def test_a_client_that_cannot_be_made_is_made_later(client: AppClient, service: Service) -> None:
    platform, faults = Platform(), [RuntimeError("no SDK")]

    def make() -> Platform:
        if faults:
            raise faults.pop()
        return platform

    with capture_logs(), working(service, make):
        task = client.made("/v1/tasks", {"url": "https://example.com/a.mp3"})
        until(lambda: client.shown(f"/v1/tasks/{task['id']}")["state"] == "processing")


def test_a_call_that_fails_in_a_way_that_nobody_foresaw_does_not_end_the_others(
    client: AppClient, service: Service
) -> None:
    class Broken(Platform):
        def submit(self, *, service: str, parameters: dict[str, str]) -> str:
            if "broken" in parameters["url"]:
                raise RuntimeError("nobody foresaw it")
            return super().submit(service=service, parameters=parameters)

    with capture_logs() as logged, working(service, Broken):
        client.made("/v1/tasks", {"url": "https://example.com/broken.mp3"})
        task = client.made("/v1/tasks", {"url": "https://example.com/a.mp3"})
        until(lambda: client.shown(f"/v1/tasks/{task['id']}")["state"] == "processing")
        until(lambda: logged)
    assert {entry["event"] for entry in logged} == {"A call of the platform failed."}


def test_without_credentials_tasks_stay_queued_and_events_are_delivered(
    client: AppClient, service: Service, subscriber: Subscriber, path: str
) -> None:
    subscribe(client, subscriber.url(path))
    task = client.made("/v1/tasks", {"url": "https://example.com/a.mp3"})
    with working(service):
        raise_events(client, 1)
        until(lambda: subscriber.received(path))
    assert client.shown(f"/v1/tasks/{task['id']}")["state"] == "queued"


def test_the_worker_shows_that_it_is_alive_and_forgets_old_answers(client: AppClient, service: Service) -> None:
    old = StoredAnswer(
        client="c",
        route="r",
        key="k",
        request_digest=b"",
        status=201,
        body=b"",
        created_at=clock.now() - timedelta(hours=25),
    )
    with service.database.transaction() as session:
        key_store.store_answer(session, old)

    def kept() -> StoredAnswer | None:
        with service.database.read() as session:
            return key_store.stored_answer(session, client="c", route="r", key="k", since=old.created_at)

    assert kept() is not None
    with working(service):
        until(lambda: kept() is None)
        until(lambda: client.shown("/readyz")["dependencies"]["worker"] == "ok")


def test_uploads_that_no_task_owns_are_deleted_also_while_the_disk_is_full(
    client: AppClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = service.uploads
    assert client.upload(("file", "a.mp3", b"sound")).status == 201
    [owned] = uploads.directory.iterdir()
    lost, fresh = uploads.begin(), uploads.begin()
    for path in (owned, lost):
        os.utime(path, (0, 0))

    @contextmanager
    def full() -> Iterator[Any]:
        raise DatabaseError("disk full")
        yield

    monkeypatch.setattr(service.database, "transaction", full)
    with working(service):
        until(lambda: {*uploads.directory.iterdir()} == {owned, fresh})


def test_a_worker_that_has_run_out_of_memory_ends_to_be_started_anew(client: AppClient, service: Service) -> None:
    class Platform:
        def submit(self, **_: Any) -> str:
            raise MemoryError

    def make_client() -> Any:
        raise SystemError("error return without exception set")  # what the interpreter made of it

    makers: tuple[Callable[[], Any], ...] = (Platform, make_client)
    for make in makers:
        client.made("/v1/streams", {**STREAM, "live_id": f"room-{next(_numbers)}"})
        with pytest.raises(ServiceError, match="out of memory"):
            asyncio.run(asyncio.wait_for(Worker(service, make).run(), 30))


def test_a_probe_that_cannot_be_settled_is_told_as_a_call_is(service: Service) -> None:
    class Platform:
        def probe(self, **_: Any) -> None:
            raise DatabaseError("away")

    client: Any = Platform()
    with capture_logs() as logged:
        asyncio.run(Worker(service, None)._probe(client, "submits"))
    [line] = logged
    assert (line["log_level"], line["error"], line["limit"]) == ("warning", "away", "submits")


def test_attempts_that_end_while_the_database_fails_are_written_down_as_soon_as_it_can(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> None:
        worker = Worker(service, None)

        async def in_database(*_: Any, **__: Any) -> None:
            worker._settle()  # meanwhile the time comes
            raise DatabaseError("It is away.")

        monkeypatch.setattr(worker, "_in_database", in_database)
        with pytest.raises(DatabaseError):
            await worker._take_turn(sweep=False)
        assert worker._settle_now

    asyncio.run(fail())
