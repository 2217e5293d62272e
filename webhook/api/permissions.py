"""Who may do what, as a table for people, made from the table of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from webhook.roles import Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from webhook.api.routing import Route

_GAP = "  "


def table(routes: Sequence[Route]) -> str:
    """Return a line for each route: `yes` under the roles that may ask it, `part` where they may do a part of it."""
    names = [f"{route.method:<6} {route.path}" for route in routes]
    width = max(len(name) for name in names)
    lines = [_GAP.join([" " * width, *Role])]
    for name, route in zip(names, routes, strict=True):
        whole, part = route.roles()
        words = ["yes" if role in whole else "part" if role in part else "-" for role in Role]
        cells = [f"{word:<{len(role)}}" for word, role in zip(words, Role, strict=True)]
        lines.append(_GAP.join([f"{name:<{width}}", *cells]).rstrip())
    return "\n".join(lines)
