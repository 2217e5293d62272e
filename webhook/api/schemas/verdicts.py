"""Verdicts, and the slices and findings under them."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from webhook.api.schemas.base import In, Kind, Out, State, Text, Time
from webhook.api.schemas.lists import Limit, Page, SliceCursor, TaskCursor

Levels = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_-]+(, ?[A-Za-z0-9_-]+)*$", description="One or more, comma separated.")
]


class VerdictQuery(In):
    """Which verdicts to list; since and until are of `updated_at`."""

    limit: Limit = 50
    cursor: TaskCursor | None = None
    risk_level: Levels | None = None
    action: Literal["block", "review", "pass"] | None = None
    label: Annotated[str, Field(pattern=r"^[^*\x00]*\*?$", description="Exact, or a prefix and `*`.")] | None = None
    kind: Kind | None = None
    service: Text | None = None
    data_id: Text | None = None
    live_id: Text | None = None
    since: Time | None = None
    until: Time | None = None


class SliceQuery(In):
    """Which slices of a task to list."""

    limit: Limit = 50
    cursor: SliceCursor | None = None
    risk_level: Levels | None = None
    label: Annotated[Text, Field(description="Exact, or with `*`, which stands for any characters.")] | None = None


class LabelOut(Out):
    """One label over all slices of a task."""

    label: str
    risk_level: str | None
    confidence: float | None
    slices: int


class VerdictOut(Out):
    """A task's results seen together; `risk_level` is null while there is none."""

    task_id: str
    platform_task_id: str | None
    kind: Kind
    service: str
    state: State
    data_id: str | None
    live_id: str | None
    url: str | None
    risk_level: str | None
    action: str | None
    labels: list[LabelOut]
    slice_count: int
    flagged_slice_count: int
    updated_at: datetime


class CustomHitOut(Out):
    """Words of a custom library that were heard."""

    library: str | None
    keywords: list[str]


class RiskPositionOut(Out):
    """Where in the text a risk word stands; the platform does not define base and order."""

    risk_word: str | None
    start: int | None
    end: int | None


class FindingOut(Out):
    """One label on a slice."""

    label: str | None
    description: str | None
    confidence: float | None
    risk_level: str | None
    risk_words: list[str]
    custom_hits: list[CustomHitOut]
    risk_positions: list[RiskPositionOut]


class SliceOut(Out):
    """One moderated stretch of a task; `evidence` tells of its audio, and is null where none is wanted."""

    id: str
    start_time: int | None
    end_time: int | None
    start_timestamp: int | None
    end_timestamp: int | None
    risk_level: str | None
    action: str | None
    text: str | None
    url: str | None
    evidence: Literal["pending", "saved", "expired", "failed"] | None
    results: list[FindingOut]


class VerdictPage(Page):
    """Verdicts, newest first."""

    items: list[VerdictOut]


class SlicePage(Page):
    """Slices in time order."""

    items: list[SliceOut]
