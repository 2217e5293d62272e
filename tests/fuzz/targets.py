"""The targets, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.fuzz.callbacks import Callbacks
from tests.fuzz.connections import Connections
from tests.fuzz.parser import Parser
from tests.fuzz.routes import Routes

if TYPE_CHECKING:
    from tests.fuzz.runs import Target

TARGETS: dict[str, type[Target[Any]]] = {each.name: each for each in (Parser, Callbacks, Connections, Routes)}
