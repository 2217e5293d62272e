"""How a state looks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from webhook.checks import State

# with and without Unicode, and in which colour
_MARKS: dict[State, tuple[str, str, str]] = {
    "ok": ("✓", "+", "green"),
    "warning": ("!", "!", "yellow"),
    "wrong": ("✗", "x", "red"),
    "unseen": ("?", "?", "cyan"),
}


def mark_of(state: State, console: Console) -> Text:
    """Return a state's mark."""
    mark, plain, style = _MARKS[state]
    return Text(plain if console.options.ascii_only else mark, style=style)
