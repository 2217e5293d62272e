"""Subscriptions and their deliveries."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from webhook.api.schemas.base import IS_NUMBER, In, Kind, OrDefault, Out, Text, Time
from webhook.api.schemas.events import EventType
from webhook.api.schemas.lists import ListQuery, Page
from webhook.api.schemas.urls import SubscriberUrl

EventTypes = Annotated[list[EventType], Field(max_length=32)]
Words = Annotated[list[Annotated[Text, Field(min_length=1, max_length=128)]], Field(max_length=100)]
Format = Literal["standard", "cloudevents"]


Ordering = Annotated[
    Literal["task"] | None,
    Field(description="`task`: the events of one task are sent one after the other, each once the last was taken."),
]
MaxInFlight = Annotated[
    Annotated[int, Field(ge=1, le=1000), IS_NUMBER] | None,
    Field(description="Attempts at once, by each worker; null for WEBHOOK_SUBSCRIPTION_CONCURRENCY."),
]
MaxPerSecond = Annotated[
    Annotated[int, Field(ge=1, le=10_000), IS_NUMBER] | None, Field(description="Attempts, by all workers together.")
]


class FilterIn(In):
    """What a subscription asks of an event beside its type."""

    risk_levels: Words | None = None
    labels: Annotated[Words, Field(description="In each, `*` stands for any characters.")] | None = None
    services: Words | None = None
    kinds: Annotated[list[Kind], Field(max_length=2)] | None = None
    data_id_prefix: Annotated[Text, Field(max_length=64)] | None = None


class SubscriptionIn(In):
    """Where one consumer wants which events."""

    url: SubscriberUrl
    event_types: OrDefault[EventTypes] = Field(default=[])
    filter: OrDefault[FilterIn] = FilterIn()
    format: OrDefault[Format] = "standard"
    description: Annotated[Text, Field(max_length=500)] | None = None
    ordering: Ordering = None
    max_in_flight: MaxInFlight = None
    max_per_second: MaxPerSecond = None


def _without_defaults(schema: dict[str, Any]) -> None:
    for property_ in schema["properties"].values():
        property_.pop("default", None)


class SubscriptionPatch(In):
    """What to change; what is left out stays, and null brings a default back."""

    model_config = ConfigDict(extra="forbid", json_schema_extra=_without_defaults)

    url: SubscriberUrl = ""
    event_types: OrDefault[EventTypes] = Field(default=[])
    filter: OrDefault[FilterIn] = FilterIn()
    format: OrDefault[Format] = "standard"
    description: Annotated[Text, Field(max_length=500)] | None = None
    ordering: Ordering = None
    max_in_flight: MaxInFlight = None
    max_per_second: MaxPerSecond = None
    state: Literal["active", "disabled"] = "active"


class RecoverIn(In):
    """Since when to send again what failed."""

    since: Time


class DeliveryQuery(ListQuery):
    """Which deliveries to list."""

    state: Literal["pending", "delivered", "dead"] | None = None


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
    ordering: Literal["task"] | None
    max_in_flight: int | None
    max_per_second: int | None
    failing_since: datetime | None
    paused_until: Annotated[
        datetime | None, Field(description="Nothing is sent before: it has failed again and again.")
    ]
    pending: Annotated[int, Field(description="Deliveries that it is still owed.")]
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


class SubscriptionPage(Page):
    """Subscriptions, newest first."""

    items: list[SubscriptionOut]


class DeliveryPage(Page):
    """Deliveries, newest first."""

    items: list[DeliveryOut]
