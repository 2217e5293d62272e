"""What is looked at, and what a look finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from webhook.checks import State  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from webhook.crypto import Keyring
    from webhook.db import Database
    from webhook.settings import Settings

_ROWS = 1000


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A service, running or not.

    Attributes:
        headers: of an answer of the API.
        thorough: whether all rows are looked at, and connections tried, however long that takes; else the newest rows
            of each table, and nobody is called.
    """

    settings: Settings
    database: Database
    keyring: Keyring
    headers: Mapping[str, str]
    now: datetime
    thorough: bool

    @property
    def rows(self) -> int | None:
        """How many rows of a table are looked at; None is all."""
        return None if self.thorough else _ROWS


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a look found; see `Item`."""

    state: State
    finding: str
    mend: str | None = None
    evidence: dict[str, Any]
