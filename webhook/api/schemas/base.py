"""What all shapes are made of: bodies that come in and go out, texts, times, and the words of several nouns."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticUseDefault, core_schema


class In(BaseModel):
    """A body or query of a request: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Out(BaseModel):
    """A body of an answer."""


def _not_null(value: object) -> object:
    if value is None:
        raise PydanticUseDefault
    return value


class _NullIsDefault:
    """Takes null for the field's default, and lets the document say so."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema = handler(source)
        return core_schema.no_info_before_validator_function(
            _not_null, schema, json_schema_input_schema=core_schema.nullable_schema(schema)
        )


_T = TypeVar("_T")
OrDefault = Annotated[_T, _NullIsDefault()]


def _text(value: str) -> str:
    """Refuse what no database takes in a text."""
    if "\0" in value:
        raise ValueError("must not contain NUL")
    return value


Text = Annotated[str, AfterValidator(_text), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
Service = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$")]
SERVICE_OF = "x-service-of"  # which services there are depends on settings: the document names them in its place
AudioService = Annotated[str, Field(json_schema_extra={SERVICE_OF: "audio"})]
LiveService = Annotated[str, Field(json_schema_extra={SERVICE_OF: "live"})]
CryptType = Literal["SHA256", "SM3"]
Kind = Literal["audio", "live"]
State = Literal["queued", "processing", "completed", "failed", "canceled", "expired"]


def _number(value: object) -> object:
    """Let through what JSON calls a number, and nothing that only looks like one to Python."""
    if isinstance(value, bool | str):
        raise ValueError("must be a whole number")  # noqa: TRY004 - the only kind that pydantic takes for a refusal
    return value


IS_NUMBER = BeforeValidator(_number)

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def _rfc3339(value: object) -> object:
    """Let RFC 3339 through, and none of the other times that pydantic reads."""
    if isinstance(value, str) and re.match(r"^\d{4}-\d\d-\d\d[Tt ]", value):
        return value
    raise ValueError("must be a time after RFC 3339, such as 2026-01-31T12:00:00Z")


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("must have a time zone, such as Z")
    try:
        return value.astimezone(UTC)
    except OverflowError:  # hours before the first or after the last time there is
        return _FIRST if value.year == _FIRST.year else _LAST


Time = Annotated[datetime, BeforeValidator(_rfc3339), AfterValidator(_aware)]


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
