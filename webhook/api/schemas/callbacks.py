"""Callbacks that were kept."""

from datetime import datetime
from typing import Literal

from webhook.api.schemas.base import In, Out, Text
from webhook.api.schemas.lists import Cursor, ListQuery, Page


class CallbackQuery(ListQuery):
    """Which callbacks to list."""

    state: Literal["accepted", "unreadable", "quarantined"] | None = None
    task_id: Text | None = None


class CallbackOut(Out):
    """A request from the platform that was kept."""

    id: str
    address_id: str
    task_id: str | None
    state: Literal["accepted", "unreadable", "quarantined"]
    reason: str | None
    message: str | None
    size: int
    received_at: datetime


class CallbackContentOut(CallbackOut):
    """A callback with what came in it; `content` is null where it was not kept, or no longer is."""

    checksum: str
    stated_task_id: str | None
    content: str | None


class CallbackPage(Page):
    """Callbacks, newest first."""

    items: list[CallbackOut]


class CauseOut(Out):
    """Why callbacks are quarantined, and how to mend it."""

    reason: str
    message: str
    count: int
    first_received_at: datetime
    last_received_at: datetime


class CausePage(Page):
    """Causes, the most frequent first, all on one page."""

    items: list[CauseOut]


class VerifyIn(In):
    """Which quarantined callbacks to verify again: those with this `reason`, or all."""

    reason: Text | None = None
    cursor: Cursor | None = None


class VerifiedOut(Out):
    """What they are now; where there is a cursor, time was up, and the others are verified by asking with it."""

    accepted: int
    unreadable: int
    quarantined: int
    next_cursor: str | None
