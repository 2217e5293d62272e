"""The shapes of the REST API: what comes in is checked by them, what goes out is described by them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from webhook import events

LONGEST_URL = 2048


class In(BaseModel):
    """A body or query of a request: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Out(BaseModel):
    """A body of an answer."""


def _text(value: str) -> str:
    """Refuse what no database takes in a text."""
    if "\0" in value:
        raise ValueError("must not contain NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueError("must be UTF-8") from None
    return value


Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]

# The platform fetches what these name, not we: so a pattern that the document can show is all they must match.
_USER = r"([^\x00-\x20\x7f/?#@\[\]\\]*@)?"
_HOST = r"([^\x00-\x20\x7f/?#@:\[\]\\]+|\[[0-9A-Fa-f:.]+\])"
_PORT = r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_REST = r"([/?#][^\x00-\x20\x7f]*)?"


def _source_pattern(schemes: str) -> str:
    return f"^({schemes})://{_USER}{_HOST}{_PORT}{_REST}$"


FileUrl = Annotated[
    str,
    Field(pattern=_source_pattern("https?"), max_length=LONGEST_URL, examples=["https://example.com/a.mp3"]),
    AfterValidator(_text),
]
StreamUrl = Annotated[
    str,
    Field(
        pattern=_source_pattern("https?|rtmps?|rtsps?"), max_length=LONGEST_URL, examples=["rtmp://example.com/live/1"]
    ),
    AfterValidator(_text),
]
# vendor-docs/voice-moderation, "Table 1. ServiceParameters"
DataId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Referer = Annotated[Text, Field(max_length=256)]
Seed = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]
Uid = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]
CryptType = Literal["SHA256", "SM3"]
Kind = Literal["audio", "live"]
State = Literal["queued", "processing", "completed", "failed", "canceled", "expired"]
Service = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]


_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _utc(value: object) -> object:
    """Read RFC 3339 with its zone, and nothing else."""
    if isinstance(value, str) and re.match(r"^\d{4}-\d\d-\d\d[Tt ]", value):
        return value
    if isinstance(value, datetime):
        return value
    raise ValueError("must be a time after RFC 3339, such as 2026-01-31T12:00:00Z")


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("must have a time zone, such as Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:  # hours before the first or after the last time there is
        return _FIRST if value.year == _FIRST.year else _LAST


Time = Annotated[datetime, BeforeValidator(_utc), AfterValidator(_aware)]
Limit = Annotated[int, Field(ge=1, le=200)]


class Oss(In):
    """An object in the account's own storage."""

    bucket: Annotated[Text, Field(min_length=1, max_length=63)]
    object: Annotated[Text, Field(min_length=1, max_length=1024)]
    region: Annotated[Text, Field(min_length=1, max_length=64)]


def _one_source(*names: str) -> dict[str, Any]:
    """Say in JSON Schema that one of these is there, and the others are not or null."""
    return {
        "oneOf": [
            {"required": [name], "properties": {other: {"type": "null"} for other in names if other != name}}
            | {"not": {"properties": {name: {"type": "null"}}}}
            for name in names
        ]
    }


class TaskIn(In):
    """A file to be moderated; exactly one of `url` and `oss`."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_one_source("url", "oss"))

    url: FileUrl | None = None
    oss: Oss | None = None
    service: Service = "audio_detection_byllm_global"
    data_id: DataId | None = None
    referer: Referer | None = None
    crypt_type: CryptType = "SHA256"

    @model_validator(mode="after")
    def _one_source(self) -> TaskIn:
        if (self.url is None) == (self.oss is None):
            raise ValueError("give exactly one source: url or oss")
        return self


class StreamIn(In):
    """A live stream to be moderated."""

    url: StreamUrl
    live_id: Annotated[Text, Field(min_length=1, max_length=128)]
    service: Service = "live_detection_byllm_global"
    data_id: DataId | None = None
    referer: Referer | None = None
    crypt_type: CryptType = "SHA256"


class ReceiverIn(In):
    """A callback address for tasks that another system submits."""

    name: Annotated[Text, Field(min_length=1, max_length=128)]
    seed: Seed | None = None
    crypt_type: CryptType = "SHA256"
    uid: Uid | None = None


# A type, all of a noun, all of a verb, or all: a pattern that could match nothing is refused as a slip.
_NOUNS, _VERBS = (sorted({name.split(".")[part] for name in events.EVENT_TYPES}) for part in (0, 1))
_TYPE = "|".join(
    [
        *(name.replace(".", r"\.") for name in events.EVENT_TYPES),
        rf"({'|'.join(_NOUNS)})\.\*",
        rf"\*\.({'|'.join(_VERBS)})",
        r"\*",
    ]
)
EventType = Annotated[str, Field(pattern=f"^({_TYPE})$")]
EventTypes = Annotated[list[EventType], Field(max_length=32)]
Words = Annotated[list[Annotated[Text, Field(min_length=1, max_length=128)]], Field(max_length=100)]


class FilterIn(In):
    """What a subscription asks of an event beside its type."""

    risk_levels: Words | None = None
    labels: Words | None = None
    services: Words | None = None
    kinds: Annotated[list[Kind], Field(max_length=2)] | None = None
    data_id_prefix: Annotated[Text, Field(max_length=64)] | None = None


Format = Literal["standard", "cloudevents"]
_NAME = r"([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.?"
SubscriberUrl = Annotated[
    Text,
    Field(
        max_length=LONGEST_URL,
        description="An https URL. `http://` and addresses are taken as well, where they lie in the networks that "
        "WEBHOOK_ALLOWED_PRIVATE_NETWORKS names.",
        json_schema_extra={"pattern": f'^https://{_NAME}{_PORT}([/?][!-"$-\\[\\]-~]*)?$'},
        examples=["https://example.com/hook"],
    ),
]


class SubscriptionIn(In):
    """Where one consumer wants which events."""

    url: SubscriberUrl
    event_types: EventTypes = []
    filter: FilterIn = FilterIn()
    format: Format = "standard"
    description: Annotated[Text, Field(max_length=500)] | None = None


def _without_defaults(schema: dict[str, Any]) -> None:
    for property_ in schema["properties"].values():
        property_.pop("default", None)


class SubscriptionPatch(In):
    """What to change; what is left out stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

    url: SubscriberUrl = ""
    event_types: EventTypes = []
    filter: FilterIn = FilterIn()
    format: Format = "standard"
    description: Annotated[Text, Field(max_length=500)] | None = None
    state: Literal["active", "disabled"] = "active"


class RecoverIn(In):
    """Since when to send again what failed."""

    since: Time


# Cursors are for clients to give back. They name what the last item shown is sorted by; any such place is one
# to go on from, so their patterns say all there is to check.
Cursor = Annotated[str, Field(pattern=r"^[a-z]{1,8}_[0-9a-f]{28}$", description="`next_cursor` of the last page.")]
TaskCursor = Annotated[
    str, Field(pattern=r"^[0-9]{1,16}_task_[0-9a-f]{28}$", description="`next_cursor` of the last page.")
]
SliceCursor = Annotated[str, Field(pattern=r"^([0-9a-f]{2}){4,68}$", description="`next_cursor` of the last page.")]
FeedCursor = Annotated[str, Field(pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the last page.")]

LEVELS = r"^[A-Za-z0-9_-]+(, ?[A-Za-z0-9_-]+)*$"
Levels = Annotated[str, Field(pattern=LEVELS, description="One or more, comma separated.")]


class ListQuery(In):
    """Where to go on in a list, and how far."""

    limit: Limit = 50
    cursor: Cursor | None = None


class TaskQuery(In):
    """Which tasks to list; since and until are of `created_at`."""

    limit: Limit = 50
    cursor: TaskCursor | None = None
    state: State | None = None
    kind: Kind | None = None
    data_id: Text | None = None
    live_id: Text | None = None
    since: Time | None = None
    until: Time | None = None


class StreamQuery(In):
    """Which streams to list; queued ones are active."""

    limit: Limit = 50
    cursor: TaskCursor | None = None
    active: bool | None = None
    state: State | None = None
    data_id: Text | None = None
    live_id: Text | None = None
    since: Time | None = None
    until: Time | None = None


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
    label: Annotated[Text, Field(description="Exact, or with `*`.")] | None = None


class CallbackQuery(ListQuery):
    """Which callbacks to list."""

    state: Literal["accepted", "unreadable", "quarantined"] | None = None
    task_id: Text | None = None


class DeliveryQuery(ListQuery):
    """Which deliveries to list."""

    state: Literal["pending", "delivered", "dead"] | None = None


Types = Annotated[
    str,
    Field(description="Comma separated; `*` is allowed.", pattern=f"^({_TYPE})(,({_TYPE}))*$"),
]


class EventQuery(In):
    """From where to read the feed, what, and how long to wait for it."""

    after: FeedCursor | None = None
    types: Types | None = None
    limit: Limit = 100
    wait: Annotated[int, Field(ge=0, le=60)] = 0


class ErrorOut(Out):
    """Why a task failed."""

    code: int | None
    reason: str
    message: str


class TaskOut(Out):
    """One submitted file or stream."""

    id: str
    origin: Literal["submitted", "external"]
    kind: Kind
    service: str
    state: State
    source: dict[str, Any]
    data_id: str | None
    live_id: str | None
    referer: str | None
    crypt_type: CryptType
    platform_task_id: str | None
    error: ErrorOut | None
    risk_level: str | None
    action: str | None
    slice_count: int
    flagged_slice_count: int
    created_at: datetime
    submitted_at: datetime | None
    finished_at: datetime | None


class StreamOut(TaskOut):
    """A task of kind `live`."""

    last_slice_at: datetime | None
    silent_since: datetime | None


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
    """One moderated stretch of a task."""

    start_time: int | None
    end_time: int | None
    start_timestamp: int | None
    end_timestamp: int | None
    risk_level: str | None
    action: str | None
    text: str | None
    url: str | None
    results: list[FindingOut]


class ReceiverOut(Out):
    """A callback address for tasks submitted elsewhere."""

    id: str
    name: str
    crypt_type: CryptType
    uid: str | None
    created_at: datetime


class ReceiverMadeOut(ReceiverOut):
    """A new receiver; the callback URL and seed are shown this once."""

    callback_url: str
    seed: str


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
    """A callback with what came in it."""

    checksum: str
    stated_task_id: str | None
    content: str


class EventOut(Out):
    """An immutable fact."""

    id: str
    type: str
    timestamp: datetime
    data: dict[str, Any]


class FilterOut(Out):
    """What a subscription asks of an event beside its type."""

    risk_levels: list[str] | None = None
    labels: list[str] | None = None
    services: list[str] | None = None
    kinds: list[str] | None = None
    data_id_prefix: str | None = None


class SubscriptionOut(Out):
    """Where one consumer wants which events."""

    id: str
    url: str
    event_types: list[str]
    filter: FilterOut
    format: Format
    description: str | None
    state: Literal["active", "disabled"]
    disabled_reason: str | None
    created_at: datetime


class SubscriptionMadeOut(SubscriptionOut):
    """A new subscription; the secret is shown this once."""

    secret: str


class SecretOut(Out):
    """A new signing secret, shown this once."""

    secret: str


class RecoveredOut(Out):
    """How many deliveries are sent again."""

    recovered: int


class AttemptOut(Out):
    """One try of a delivery."""

    number: int
    at: datetime
    status: int | None
    error: str | None
    duration_ms: int


class DeliveryOut(Out):
    """One event owed to one subscription."""

    id: str
    event_id: str
    event_type: str
    subscription_id: str
    state: Literal["pending", "delivered", "dead"]
    next_attempt_at: datetime | None
    attempts: list[AttemptOut]


class Page(Out):
    """A stretch of a list; `next_cursor` is null at its end."""

    next_cursor: str | None


class TaskPage(Page):
    """Tasks, newest first."""

    items: list[TaskOut]


class StreamPage(Page):
    """Streams, newest first."""

    items: list[StreamOut]


class VerdictPage(Page):
    """Verdicts, newest first."""

    items: list[VerdictOut]


class SlicePage(Page):
    """Slices in time order."""

    items: list[SliceOut]


class ReceiverPage(Page):
    """Receivers, newest first."""

    items: list[ReceiverOut]


class CallbackPage(Page):
    """Callbacks, newest first."""

    items: list[CallbackOut]


class SubscriptionPage(Page):
    """Subscriptions, newest first."""

    items: list[SubscriptionOut]


class DeliveryPage(Page):
    """Deliveries, newest first."""

    items: list[DeliveryOut]


class EventPage(Out):
    """Events, oldest first; `next_cursor` goes on behind the last one."""

    items: list[EventOut]
    next_cursor: str


class FieldErrorOut(Out):
    """A field that is wrong, and why."""

    field: str
    message: str


class ProblemOut(Out):
    """An error, after RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[FieldErrorOut] | None = None
