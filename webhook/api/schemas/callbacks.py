"""Callbacks that were kept."""

from datetime import datetime
from typing import Literal

from webhook.api.schemas.base import Out, Text
from webhook.api.schemas.lists import ListQuery, Page


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
