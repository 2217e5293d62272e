"""Receivers: made, shown, listed."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from webhook.api.schemas.base import CryptType, In, Out, Text
from webhook.api.schemas.lists import Page

Seed = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,64}$")]
Uid = Annotated[str, Field(pattern=r"^[0-9A-Za-z]{1,64}$")]


class ReceiverIn(In):
    """A callback address for tasks that another system submits."""

    name: Annotated[Text, Field(min_length=1, max_length=128)]
    seed: Seed | None = None
    crypt_type: CryptType = "SHA256"
    uid: Uid | None = None


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


class ReceiverPage(Page):
    """Receivers, newest first."""

    items: list[ReceiverOut]
