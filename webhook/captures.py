"""The worker's captures: the audio of slices that is due, fetched a few at once."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

import structlog

from webhook import clock
from webhook.errors import DatabaseError
from webhook.segments import Segments
from webhook.store import evidence as evidence_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from webhook.bootstrap import Service
    from webhook.evidence import Settlement
    from webhook.store.evidence import EvidenceRow

log = structlog.get_logger()

T = TypeVar("T")

_TICK_SECONDS = 1.0
_PAUSE_SECONDS = 0.1  # between looks: a link lives long enough, and every commit would have one


class InDatabase(Protocol):
    """Runs a function in the thread of the database."""

    async def __call__(self, function: Callable[..., T], /, *args: Any) -> T:
        """Return what the function returns."""


class Captures:
    """The captures of one worker; an async context manager.

    Args:
        stopping: nothing is taken up once it is set.

    Attributes:
        under_way: the captures that have not ended.
    """

    def __init__(self, service: Service, in_database: InDatabase, *, stopping: asyncio.Event) -> None:
        settings = service.settings
        self._service = service
        self._in_database = in_database
        self._stopping = stopping
        self._segments = Segments(
            service.address_policy,
            timeout_seconds=settings.evidence_timeout.total_seconds(),
            limit=settings.evidence_limit,
        )
        self._at_once = settings.evidence_concurrency
        self._look_now = asyncio.Event()
        self._look_now.set()  # there may be what another worker has left
        self.under_way: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._segments.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._segments.__aexit__(kind, error, trace)

    def wake(self) -> None:
        """Look for what is due soon."""
        self._look_now.set()

    async def step(self) -> None:
        """Take up what is due, as far as there is room."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._look_now.wait(), _TICK_SECONDS)
        self._look_now.clear()
        room = self._at_once - len(self.under_way)
        if self._stopping.is_set():
            return
        if room > 0 and await self._in_database(self._has_due):
            for row in await self._in_database(self._claim, room):
                task = asyncio.create_task(self._capture(row))
                self.under_way.add(task)
                task.add_done_callback(self.under_way.discard)
        await asyncio.sleep(_PAUSE_SECONDS)

    def _has_due(self) -> bool:
        with self._service.database.read(keep=True) as session:
            return evidence_store.has_due(session, now=clock.now())

    def _claim(self, room: int) -> list[EvidenceRow]:
        with self._service.database.transaction() as session:
            return self._service.evidence.claim(session, limit=room)

    def _settle(self, settlement: Settlement) -> None:
        with self._service.database.transaction() as session:
            self._service.evidence.settle(session, settlement)

    async def _capture(self, row: EvidenceRow) -> None:
        try:
            settlement = await self._service.evidence.capture(self._segments, row)
            await self._in_database(self._settle, settlement)
        except DatabaseError as error:
            log.warning("A capture could not be settled; it is made again.", task=row.task_id, error=str(error))
        except Exception:
            log.exception("A capture failed; it is made again.", task=row.task_id)
        self.wake()
