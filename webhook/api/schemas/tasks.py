"""Tasks and streams: submitted, shown, listed."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from webhook import services
from webhook.api.schemas.base import AudioService, CryptType, In, Kind, LiveService, Out, State, Text, Time
from webhook.api.schemas.lists import Limit, Page, TaskCursor
from webhook.api.schemas.urls import FileUrl, StreamUrl

# vendor-docs/voice-moderation, "Table 1. ServiceParameters"
DataId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
Referer = Annotated[str, Field(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]  # it becomes a header


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
    service: AudioService = services.DEFAULTS["audio"]
    data_id: DataId | None = None
    referer: Referer | None = None
    crypt_type: CryptType = "SHA256"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.url is None) == (self.oss is None):
            raise ValueError("give exactly one source: url or oss")
        return self


def _empty_is_none(schema: dict[str, Any]) -> None:
    """Leave out the defaults that stand for none: no value of the field looks like them."""
    for field in schema["properties"].values():
        if field.get("default") == "":
            del field["default"]


class UploadIn(In):
    """A file to be moderated, sent along in a form; its name's extension says what it is."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_empty_is_none)

    file: Annotated[str, Field(json_schema_extra={"format": "binary", "minLength": 1})]
    service: AudioService = services.DEFAULTS["audio"]
    data_id: DataId = ""
    referer: Referer = ""
    crypt_type: CryptType = "SHA256"


class StreamIn(In):
    """A live stream to be moderated."""

    url: StreamUrl
    live_id: Annotated[Text, Field(min_length=1, max_length=128)]
    service: LiveService = services.DEFAULTS["live"]
    data_id: DataId | None = None
    referer: Referer | None = None
    crypt_type: CryptType = "SHA256"


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
    queue_position: int | None


class StreamOut(TaskOut):
    """A task of kind `live`."""

    last_slice_at: datetime | None
    silent_since: datetime | None


class TaskPage(Page):
    """Tasks, newest first."""

    items: list[TaskOut]


class StreamPage(Page):
    """Streams, newest first."""

    items: list[StreamOut]
