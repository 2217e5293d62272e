"""What a look found: right, worth a look, or wrong, and how to mend it."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["ok", "warning", "wrong", "unseen"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        name: a stable word.
        state: a `warning` is worth a look, but nothing fails for it; what is `unseen` cannot be told from here.
        finding: how it is, in a sentence or two.
        mend: what to do about it.
    """

    name: str
    state: State
    finding: str
    mend: str | None = None


def ok(name: str, finding: str) -> Check:
    """Return that all is well."""
    return Check(name=name, state="ok", finding=finding)


def warning(name: str, finding: str, *, mend: str | None = None) -> Check:
    """Return what is worth a look."""
    return Check(name=name, state="warning", finding=finding, mend=mend)


def wrong(name: str, finding: str, *, mend: str | None = None) -> Check:
    """Return what is wrong."""
    return Check(name=name, state="wrong", finding=finding, mend=mend)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun, whose plural has an s where none is given."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"
