"""The worker process: deliveries, calls of the platform, housekeeping; stops on SIGTERM.

One asyncio loop. Whatever blocks runs in threads: the database in one, the platform's SDK in a few. The
loops wake when the database changes (`db.Bell`), and every second besides, which is the net beneath.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import structlog

from webhook import clock, logs, streams
from webhook.attempts import Attempts
from webhook.captures import Captures
from webhook.claims import Room, Step
from webhook.db import alone
from webhook.errors import DatabaseError, ServiceError
from webhook.grants import Places
from webhook.store import deliveries as delivery_store
from webhook.store import keys as key_store
from webhook.store import tasks as task_store
from webhook.transports import Transports

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from webhook.bootstrap import Service
    from webhook.claims import Call, Claimed
    from webhook.deliveries import Settlement, Turn
    from webhook.platform_client import PlatformClient

log = structlog.get_logger()

T = TypeVar("T")
P = ParamSpec("P")

_TICK_SECONDS = 1.0
_SILENCE_SHARE = 0.1  # of the silence that is waited for, between looks for it
_SILENCE_SECONDS = 5.0  # and no longer than that
_SWEEP_SECONDS = 0.2
_LOOK_SECONDS = 0.02  # between looks at the database where it has no bell
_SETTLE_SECONDS = 0.05  # that an attempt's end may wait for others
_SETTLED_TOGETHER = 100
_AFTER_FAULT_SECONDS = 1.0
_BEAT_SECONDS = 1.0
_LET_FINISH_SECONDS = 5.0  # attempts in flight when told to stop; the others are taken up after their lease
_KEEP_ANSWERS = timedelta(hours=24)
_RETENTION_SECONDS = 60.0  # between looks at what is past its time
_REMOVAL_SECONDS = 5.0  # and at what was erased
_REMOVAL_PAUSES = 2.0  # times as long as it took, while there is more of either
_LEAST_PAUSE_SECONDS = 0.01
_NO_PLACE_PAUSE = timedelta(seconds=0.25)
# The second is what an extension module, or the interpreter itself, makes of the first.
_RUINOUS = (MemoryError, SystemError)
_LANES = {
    Step.UPLOAD: "uploads",
    Step.SUBMIT: "submits",
    Step.SETTLE: "submits",
    Step.QUERY: "queries",
    Step.CANCEL: "queries",
}


class Worker:
    """The loops of one worker process.

    Args:
        make_client: makes the platform's client when the first call is due.
    """

    def __init__(self, service: Service, make_client: Callable[[], PlatformClient] | None) -> None:
        self._service = service
        self._make_client = make_client
        self._client: PlatformClient | None = None
        self._lease = secrets.token_hex(8)  # names this process's claims
        self._database_thread = ThreadPoolExecutor(1, thread_name_prefix="database")
        settings = service.settings
        self._platform_threads = ThreadPoolExecutor(
            settings.submit_concurrency + settings.upload_concurrency + settings.query_concurrency,
            thread_name_prefix="platform",
        )
        self._stopping = asyncio.Event()
        self._is_ruined = False
        self._deliver_now = asyncio.Event()
        self._call_now = asyncio.Event()
        self._attempts = Attempts(
            service.deliveries,
            total=settings.delivery_concurrency,
            share=settings.subscription_concurrency,
            ended=self._note_end,
        )
        self._settle_now = False
        self._settling: asyncio.TimerHandle | None = None
        self._more = False  # the last turn left something due
        self._unswept = True  # something changed since deliveries owed before were looked for
        self._swept_at = 0.0
        self._sweep_again_at = 0.0  # what is past its time
        self._calls: set[asyncio.Task[None]] = set()
        self._calling: Counter[str] = Counter()  # by lane: "submits", "uploads", "queries"
        self._call_again_at: datetime | None = None  # when the platform's limits let more through
        self._captures = Captures(service, self._in_database, stopping=self._stopping)

    def stop(self) -> None:
        """Take up nothing new, and end when what is in flight has ended."""
        self._stopping.set()
        self._service.calls.stop()
        self._wake()

    async def run(self) -> None:
        """Run until told to stop.

        Raises:
            ServiceError: it ran out of memory, and must be started anew.
        """
        settings = self._service.settings
        transports = Transports(
            self._service.address_policy,
            timeout_seconds=settings.delivery_timeout.total_seconds(),
            connections=settings.delivery_concurrency,
        )
        async with transports, self._captures:
            loops = [
                asyncio.create_task(self._forever(loop))
                for loop in (
                    self._watch(),
                    lambda: self._deliver(transports),
                    self._call_platform,
                    self._watch_streams,
                    self._keep_house,
                    self._remove,
                    *([self._captures.step] if settings.evidence else []),
                )
            ]
            await self._stopping.wait()
            in_flight = [*self._attempts.under_way, *self._calls, *self._captures.under_way]
            if in_flight:
                await asyncio.wait(in_flight, timeout=_LET_FINISH_SECONDS)
            ending = [*loops, *self._attempts.under_way, *self._captures.under_way]
            for task in ending:
                task.cancel()
            await asyncio.gather(*ending, return_exceptions=True)
            self._attempts.drop()
            await self._take_turn(sweep=False)  # what has been sent is noted, or it would be sent again
        self._database_thread.shutdown()
        self._platform_threads.shutdown(wait=False, cancel_futures=True)
        if self._is_ruined:
            raise ServiceError("The worker ran out of memory.")

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        """Repeat one loop's step; a fault is logged and does not end it."""
        while not self._stopping.is_set():
            try:
                await step()
            except DatabaseError as error:
                log.warning("The worker cannot use the database; it tries again.", error=str(error))
                await asyncio.sleep(_AFTER_FAULT_SECONDS)
            except _RUINOUS as error:
                self._give_up(error)
            except Exception:
                log.exception("A worker's step failed; it is tried again.")
                await asyncio.sleep(_AFTER_FAULT_SECONDS)

    def _give_up(self, error: Exception) -> None:
        """End, to be started anew: what was half-done when memory ran out, as a load of the SDK, would stay so."""
        log.error("The worker ran out of memory; it ends, to be started again.", exc_info=error)
        self._is_ruined = True
        self.stop()

    async def _in_database(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        call = functools.partial(function, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._database_thread, call)

    def _watch(self) -> Callable[[], Awaitable[None]]:
        """Wake the loops when anybody commits: at once by the bell, and by looking where a ring was lost."""
        changes = self._service.database.watch()
        bell = self._service.database.bell()
        if bell is not None:
            asyncio.get_running_loop().add_reader(bell, self._hear, bell)
        pause = _LOOK_SECONDS if bell is None else _TICK_SECONDS

        async def look() -> None:
            if changes.seen():
                self._wake()
            await asyncio.sleep(pause)

        return look

    def _hear(self, bell: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while bell.recv(1):
                pass
        self._wake()

    def _wake(self) -> None:
        self._deliver_now.set()
        self._call_now.set()
        self._captures.wake()

    async def _deliver(self, transports: Transports) -> None:
        """Take one turn of deliveries whenever there is something to do.

        New events wake us at once. What was owed before (retries, leases of a worker that died, deliveries a
        client wants again) is looked for every second, and a little sooner after any change.
        """
        clock_time = asyncio.get_running_loop().time
        woken = await _wait(self._deliver_now, _SWEEP_SECONDS if self._unswept else _TICK_SECONDS)
        self._unswept |= woken
        since_sweep = clock_time() - self._swept_at
        sweep = self._more or since_sweep >= (_SWEEP_SECONDS if self._unswept else _TICK_SECONDS)
        if self._stopping.is_set():
            return
        if sweep:
            self._swept_at, self._unswept = clock_time(), False
        turn = await self._take_turn(sweep=sweep)
        if turn is not None:
            self._more = turn.more
            if turn.behind:
                self._deliver_now.set()
            self._attempts.add(transports, turn.claims)

    def _has_deliveries(self, *, sweep: bool) -> bool:
        with self._service.database.read(keep=True) as session:
            return self._service.deliveries.has_new_events(session) or (
                sweep and bool(delivery_store.subscriptions_with_due(session, now=clock.now()))
            )

    def _note_end(self) -> None:
        """Have ended attempts written down: a few together, but at once where other deliveries wait for it."""
        settlements = self._attempts.settlements
        in_order = bool(settlements) and settlements[-1].delivery.order_key is not None
        if self._more or in_order or len(settlements) >= _SETTLED_TOGETHER:
            self._settle()
        elif self._settling is None:
            self._settling = asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._settle)

    def _settle(self) -> None:
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self._settle_now = True
        self._deliver_now.set()

    async def _take_turn(self, *, sweep: bool) -> Turn | None:
        """Take a turn, or None where a look tells that there is nothing to do; nothing is claimed once we stop."""
        attempts, stopping = self._attempts, self._stopping.is_set()
        settling, self._settle_now = self._settle_now or stopping, False
        settled, dropped = list(attempts.settlements) if settling else [], attempts.take_dropped()
        places = Places(total=0, share=0, taken={}) if stopping else attempts.places()
        try:
            turn = await self._in_database(
                self._turn, settled=settled, dropped=dropped, places=places, sweep=sweep and not stopping
            )
        except BaseException:
            self._settle_now |= settling
            raise
        del attempts.settlements[: len(settled)]
        return turn

    def _turn(
        self, *, settled: Sequence[Settlement], dropped: Sequence[str], places: Places, sweep: bool
    ) -> Turn | None:
        if not (settled or dropped or (places.total and self._has_deliveries(sweep=sweep))):
            return None
        # what is only fanned out and claimed would be so again: an event waits for the disk once, not twice
        with self._service.database.transaction(durable=bool(settled), keep=True) as session:
            delivery_store.release(session, dropped, lease=self._lease)
            return self._service.deliveries.turn(
                session, lease=self._lease, settlements=settled, places=places, sweep=sweep
            )

    async def _call_platform(self) -> None:
        """Claim what is due as far as threads are free, so that a claimed call is a call being made."""
        await self._wait_for_calls()
        settings, calling = self._service.settings, self._calling
        room = Room(
            submits=settings.submit_concurrency - calling["submits"],
            uploads=settings.upload_concurrency - calling["uploads"],
            queries=settings.query_concurrency - calling["queries"],
        )
        if self._stopping.is_set() or self._make_client is None or max(room.submits, room.uploads, room.queries) <= 0:
            return
        self._call_again_at = None
        if not await self._in_database(self._has_calls):
            return
        if self._client is None:
            loop = asyncio.get_running_loop()
            self._client = await loop.run_in_executor(self._platform_threads, self._make_client)
        claimed = await self._in_database(self._claim_calls, room)
        self._call_again_at = claimed.again_at
        if not claimed.calls and claimed.again_at is None:
            # what is due waits for a place of its own: nothing that changes meanwhile hastens it
            self._call_again_at = clock.now() + _NO_PLACE_PAUSE
        for call in claimed.calls:
            self._calling[_LANES[call.step]] += 1
            self._spawn(self._calls, self._call(self._client, call))
        for limit in claimed.probes:
            self._spawn(self._calls, self._probe(self._client, limit))
        if claimed.calls and claimed.again_at is None:
            self._call_now.set()  # there may be more than was looked for at once

    async def _wait_for_calls(self) -> None:
        """Wait for a change; where the platform's limits were the reason to stop, until they let more through."""
        if self._call_again_at is None:
            await _wait(self._call_now, _TICK_SECONDS)
            return
        left = (self._call_again_at - clock.now()).total_seconds()
        await _wait(self._stopping, min(max(left, _LEAST_PAUSE_SECONDS), _TICK_SECONDS), clear=False)
        self._call_now.clear()

    def _has_calls(self) -> bool:
        with self._service.database.read(keep=True) as session:
            return self._service.claims.has_due(session)

    def _claim_calls(self, room: Room) -> Claimed:
        with self._service.database.transaction() as session:
            return self._service.claims.claim(session, room=room)

    async def _call(self, client: PlatformClient, call: Call) -> None:
        def carry_out() -> None:
            self._service.calls.carry_out(self._service.database.transaction, client, call=call)

        try:
            await self._carry_out(carry_out, task=call.task.id)
        finally:
            self._calling[_LANES[call.step]] -= 1
        self._wake()

    async def _probe(self, client: PlatformClient, limit: str) -> None:
        def carry_out() -> None:
            self._service.calls.probe(self._service.database.transaction, client, limit=limit)

        await self._carry_out(carry_out, limit=limit)
        self._wake()

    async def _carry_out(self, call: Callable[[], None], **concerns: str) -> None:
        """Make a call in one of the platform's threads; a fault in it ends nothing else."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._platform_threads, call)
        except DatabaseError as error:
            log.warning("A call of the platform could not be settled.", error=str(error), **concerns)
        except _RUINOUS as error:
            self._give_up(error)
        except Exception:
            log.exception("A call of the platform failed.", **concerns)

    async def _watch_streams(self) -> None:
        """Notice streams that bring nothing."""
        pause = self._service.settings.stream_silence.total_seconds() * _SILENCE_SHARE
        await _wait(self._stopping, min(pause, _SILENCE_SECONDS), clear=False)
        await self._in_database(self._note_silence)

    def _note_silence(self) -> None:
        service, now, after = self._service, clock.now(), self._service.settings.stream_silence
        with service.database.read() as session:
            quiet = task_store.quiet_streams(session, since=now - after)
        if quiet:
            with service.database.transaction() as session:
                streams.note_silence(session, service.ingest, now=now, after=after)

    async def _keep_house(self) -> None:
        """Show that we are alive, and forget what has expired."""
        await self._in_database(self._keep_house_once)
        await _wait(self._stopping, key_store.HEARTBEAT.total_seconds(), clear=False)

    def _keep_house_once(self) -> None:
        now = clock.now()
        self._delete_abandoned_uploads()  # before anything is written, which a full disk would not let us
        with self._service.database.transaction() as session:
            alone(session, "housekeeping")
            key_store.beat(session, key_store.WORKER, now=now)
            key_store.forget_answers(session, before=now - _KEEP_ANSWERS)
            self._service.evidence.give_up(session)

    def _delete_abandoned_uploads(self) -> None:
        abandoned = list(self._service.uploads.abandoned())
        if abandoned:
            with self._service.database.read() as session:
                owned = task_store.with_uploads(session, [path.name for path in abandoned])
            for path in abandoned:
                if path.name not in owned:
                    path.unlink(missing_ok=True)

    async def _remove(self) -> None:
        """Take away what was erased or is past its time, and old keys: a little, then a pause, so that nobody waits."""
        database, clock_time = self._service.database, asyncio.get_running_loop().time
        began = clock_time()
        sweeps = began >= self._sweep_again_at
        more = False
        for step in (
            self._service.erasure.finish_some,
            self._service.evidence.erase_some,
            *([self._service.retention.sweep_some] if sweeps else []),
        ):
            # not in the thread of the database: a store or a vacuum may take its time
            more |= await asyncio.to_thread(step, database)
        if sweeps and not more:
            self._sweep_again_at = clock_time() + _RETENTION_SECONDS
        more |= await asyncio.to_thread(self._service.shredding.shred_some, database)
        pause = (clock_time() - began) * _REMOVAL_PAUSES if more else _REMOVAL_SECONDS
        await _wait(self._stopping, pause, clear=False)

    @staticmethod
    def _spawn(tasks: set[asyncio.Task[None]], work: Any) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)


async def _wait(event: asyncio.Event, seconds: float, *, clear: bool = True) -> bool:
    """Wait for an event or for some time, and take the event back; return whether it came."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    if clear:
        event.clear()
    return True


async def run_until_signal(
    service: Service, make_client: Callable[[], PlatformClient] | None, beat: Callable[[], None]
) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Args:
        beat: called every second.
    """
    worker = Worker(service, make_client)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(logs.note_failure)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)

    async def go_on_beating() -> None:
        while True:
            beat()
            await asyncio.sleep(_BEAT_SECONDS)

    beating = loop.create_task(go_on_beating())
    await worker.run()
    beating.cancel()
