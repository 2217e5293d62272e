"""Deliveries per second beside a bare sender, and what a hung subscriber costs the others.

`python -m tests.bench.deliveries` puts events into the database of a running `webhook serve`, and waits until every
delivery of them is made and noted there. The bare sender POSTs the same bodies to the same subscribers by aiohttp, as
many at once, and notes nothing. Then callbacks come at a steady rate, and subscribers' events are timed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import aiohttp
import click

from tests.bench import stage
from tests.bench.latency import register, send
from tests.bench.load import UID, content
from tests.bench.sink import HUNG
from tests.running import Running, environment
from tests.waiting import until
from webhook import bootstrap, clock, payloads, settings
from webhook.deliveries import CURSOR
from webhook.shapes import slice_shape
from webhook.store import deliveries as delivery_store
from webhook.store import events as event_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from webhook.bootstrap import Service

_SUBSCRIBERS = 10
_ROUNDS = 4
_UNTIMED_SECONDS = 8.0  # of the time given: starting, warming up, stopping
_EVENTS_PER_SECOND = 150  # as many as are delivered in about that time, both by the service and by the bare sender
_RATE = 50  # callbacks a second, each with one event, beside a hung subscriber
_TYPE = "slice.flagged"
_CALLBACKS_BEFORE = 40  # by which the hung subscriber has as many unanswered as it may have, twice over
_PATIENCE_SECONDS = 60.0
_ASK_SECONDS = 30
_TARGET = 0.5
_P99_WITH_HUNG = 1.5


class Sink:
    """The subscribers, seen from another process.

    Attributes:
        url: of all of them, without a path.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def arrived(self) -> dict[str, dict[str, float]]:
        """Return, by path, when the event about each task came since the last call, on `perf_counter`'s clock."""
        with urllib.request.urlopen(f"{self.url}/", timeout=_ASK_SECONDS) as answer:
            times: dict[str, dict[str, float]] = json.load(answer)
        return times


@contextmanager
def sink() -> Iterator[Sink]:
    """Run the subscribers."""
    port = stage.free_port()
    with stage.server([*stage.PYTHON, "tests.bench.sink", str(port)], port=port, environ={}):
        yield Sink(port)


class Events:
    """Puts events into a running service's database, and sees what becomes of them."""

    def __init__(self, running: Running) -> None:
        self.service: Service = bootstrap.build(settings.load(environment(running.directory, **running.variables)))
        self._numbers = itertools.count()
        result = payloads.parse(content(0, 10).encode())
        self._slice = next(slice_shape(piece, evidence=None) for piece in result.slices if piece.risk_level == "high")

    def put(self, count: int) -> list[bytes]:
        """Put events, as of flagged slices; return their bodies as subscribers get them."""
        service = self.service
        rows = [service.ingest.event(_TYPE, self._data()) for _ in range(count)]
        bodies = [service.deliveries.write_event(row, format="standard")[1] for row in rows]
        with service.database.transaction() as session:
            event_store.insert_events(session, rows)
        return bodies

    def all_delivered(self) -> bool:
        """Return whether nothing is owed any more, which is so once the last attempt is noted."""
        with self.service.database.read() as session:
            return event_store.behind(session, CURSOR) == 0 and not delivery_store.count_pending(session)

    def _data(self) -> dict[str, Any]:
        now, number = clock.rfc3339(clock.now()), next(self._numbers)
        task = {
            "id": f"task_{number:028x}",
            "origin": "external",
            "kind": "audio",
            "service": "audio_detection_byllm_global",
            "state": "processing",
            "platform_task_id": f"put_{number}",
            "risk_level": "high",
            "action": "block",
            "slice_count": 10,
            "flagged_slice_count": 1,
            "created_at": now,
            "submitted_at": now,
        }
        return {"task": task, "slice": self._slice}


async def bare_rate(urls: Sequence[str], bodies: Sequence[bytes], *, in_flight: int) -> float:
    """POST every body to every URL, so many at once; return how many were taken a second."""
    left = iter([(url, body) for body in bodies for url in urls])
    headers = {"Content-Type": "application/json"}

    async def post_all(session: aiohttp.ClientSession) -> None:
        for url, body in left:
            async with session.post(url, data=body, headers=headers) as answer:
                await answer.read()
                if answer.status != 204:
                    raise click.ClickException(f"The subscriber answered {answer.status}.")

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        start = time.perf_counter()
        await asyncio.gather(*[post_all(session) for _ in range(in_flight)])
        return len(urls) * len(bodies) / (time.perf_counter() - start)


def p99_ms(running: Running, subscribers: Sink, path: str, *, first: int, count: int) -> float:
    """Send callbacks; return the 99th percentile of the time until their events were at the subscribers that answer."""
    port = int(running.url.rpartition(":")[2])
    subscribers.arrived()
    sent = asyncio.run(send(port, path, rate=_RATE, count=count, first=first))
    times: list[float] = []
    came: dict[str, dict[str, float]] = {}

    def all_there() -> bool:
        for subscriber, arrived in subscribers.arrived().items():
            came.setdefault(subscriber, {}).update(arrived)
        answering = [arrived for subscriber, arrived in came.items() if subscriber != HUNG]
        return len(answering) == _SUBSCRIBERS - 1 and all(sent.keys() <= arrived.keys() for arrived in answering)

    until(all_there, seconds=_PATIENCE_SECONDS)
    for subscriber, arrived in came.items():
        if subscriber != HUNG:
            times += [(arrived[name] - at) * 1000 for name, at in sent.items()]
    return sorted(times)[int(len(times) * 0.99)]


def subscribe(running: Running, url: str) -> str:
    """Subscribe a URL to the events that are measured; return where the subscription is."""
    made = running.made("/v1/subscriptions", {"url": url, "event_types": [_TYPE]})
    return f"/v1/subscriptions/{made['id']}"


def throughput(running: Running, urls: Sequence[str], *, count: int) -> tuple[list[float], list[float]]:
    """Return, for each round, how many deliveries the service made a second, and how many the bare sender."""
    events = Events(running)
    loaded = events.service.settings
    in_flight = min(loaded.delivery_concurrency, len(urls) * loaded.subscription_concurrency)
    ours: list[float] = []
    bare: list[float] = []
    for round_ in range(_ROUNDS + 1):
        some = count if round_ else count // 4  # the first warms up
        bodies = events.put(some)
        start = time.perf_counter()
        until(events.all_delivered, seconds=_PATIENCE_SECONDS)
        rate = some * len(urls) / (time.perf_counter() - start)
        floor = asyncio.run(bare_rate(urls, bodies, in_flight=in_flight))
        if round_:
            ours.append(rate)
            bare.append(floor)
    events.service.database.close()
    return ours, bare


def beside_hung(running: Running, subscribers: Sink, *, count: int) -> tuple[list[float], list[float]]:
    """Return, for each round, the others' p99 in ms: without a hung subscriber, and with one."""
    _, path = register(running)
    number = itertools.count(step=count + _CALLBACKS_BEFORE)
    without: list[float] = []
    beside: list[float] = []
    for _ in range(_ROUNDS):
        p99_ms(running, subscribers, path, first=(first := next(number)), count=_CALLBACKS_BEFORE)
        without.append(p99_ms(running, subscribers, path, first=first + _CALLBACKS_BEFORE, count=count))
        hung = subscribe(running, f"{subscribers.url}{HUNG}")
        p99_ms(running, subscribers, path, first=(first := next(number)), count=_CALLBACKS_BEFORE)
        beside.append(p99_ms(running, subscribers, path, first=first + _CALLBACKS_BEFORE, count=count))
        running.delete(hung)
    return without, beside


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it may take altogether.")
def main(seconds: float) -> None:
    """Measure in alternating rounds, and print one table."""
    each = max((seconds - _UNTIMED_SECONDS) / _ROUNDS / 3, 1.0)
    count, callbacks = int(each * _EVENTS_PER_SECOND), int(each * _RATE)
    with tempfile.TemporaryDirectory() as directory, sink() as subscribers:
        running = Running(Path(directory), WEBHOOK_PLATFORM_UID=UID, WEBHOOK_LOG_LEVEL="error")
        try:
            running.start()
            urls = [f"{subscribers.url}/{number}" for number in range(_SUBSCRIBERS)]
            subscriptions = [subscribe(running, url) for url in urls]
            ours, bare = throughput(running, urls, count=count)
            running.delete(subscriptions.pop())
            without, beside = beside_hung(running, subscribers, count=callbacks)
        finally:
            running.command.kill()
    stage.show(
        f"{count} events to {_SUBSCRIBERS} subscribers, and {_RATE} events/s to {_SUBSCRIBERS - 1} of them for "
        f"{each:.0f} s; medians of {_ROUNDS} alternating rounds",
        ("", "measured", "target", ""),
        [
            ("bare sender: deliveries/s", f"{median(bare):.0f}", "", ""),
            ("service: deliveries/s, each attempt noted", f"{median(ours):.0f}", "", ""),
            ("ratio", *stage.judged(stage.ratio(ours, bare), _TARGET)),
            ("callback sent → event there, p99 ms", f"{median(without):.1f}", "", ""),
            ("the same beside a hung subscriber", f"{median(beside):.1f}", "", ""),
            ("ratio", *stage.judged(stage.ratio(beside, without), _P99_WITH_HUNG, at_most=True)),
        ],
    )


if __name__ == "__main__":
    main()
