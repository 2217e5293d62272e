"""Roles of API keys, and what each of them may do; which permission a route takes stands in its row."""

from __future__ import annotations

from enum import Enum, StrEnum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Permission(Enum):
    """What a route takes."""

    SEE_STATES = auto()  # tasks, streams, subscriptions, deliveries, receivers, callbacks: nothing that was said
    SEE_CONTENT = auto()  # verdicts, transcripts, evidence, events
    SUBMIT = auto()  # what is charged: new tasks and streams, and their end
    REFRESH = auto()  # asking the platform again, which costs nothing
    OPERATE = auto()  # what mends a trouble, and sends nothing to where it did not go before
    MANAGE = auto()  # receivers, subscriptions and their secrets
    SEE_RAW = auto()  # callbacks as they came
    MANAGE_KEYS = auto()
    SEE_AUDIT = auto()  # who did what
    SEE_POSTURE = auto()  # how well it is guarded, and so where it is not
    ERASE = auto()  # and hold against it


class Role(StrEnum):
    """What a key is for."""

    READER = "reader"
    REVIEWER = "reviewer"
    SUBMITTER = "submitter"
    OPERATOR = "operator"
    ADMIN = "admin"


_SEES = frozenset({Permission.SEE_STATES, Permission.SEE_CONTENT})
PERMISSIONS: Mapping[Role, frozenset[Permission]] = {
    Role.READER: _SEES,
    Role.REVIEWER: _SEES,
    Role.SUBMITTER: _SEES | {Permission.SUBMIT, Permission.REFRESH},
    Role.OPERATOR: frozenset({Permission.SEE_STATES, Permission.REFRESH, Permission.OPERATE, Permission.SEE_POSTURE}),
    Role.ADMIN: frozenset(Permission),
}


def roles_with(permission: Permission) -> tuple[Role, ...]:
    """Return the roles that have a permission."""
    return tuple(role for role in Role if permission in PERMISSIONS[role])
