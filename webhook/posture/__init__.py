"""Posture: what the vendor asks of whoever uses its models, and how it is met here, each with what shows it.

The asks are those of the vendor's pages "Security" and "Safety" (`vendor-docs/qwen-security`, `qwen-safety`). Each has
one item or more; each item is found out anew, from the settings, the database and what is in use, and says so where it
cannot be seen from here. Nothing is written, and no secret is in what it says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from webhook.checks import State  # noqa: TC001 - msgspec reads the annotations
from webhook.posture import encryption, entrances, keeping, keys, links, watching
from webhook.posture.subject import Finding, Subject

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.db import Session

__all__ = ["Item", "Subject", "examine"]


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        id: a stable word.
        ask: what is asked for.
        source: the page that asks for it.
        finding: how it is, in a sentence or two.
        mend: what to do about it, or how to see what cannot be seen from here.
        evidence: the numbers, times and names that it was told by.
    """

    id: str
    ask: str
    source: str
    state: State
    finding: str
    mend: str | None
    evidence: dict[str, Any]


class _Row(NamedTuple):
    id: str
    ask: str
    source: str
    look: Callable[[Subject, Session], Finding]


_SECURITY, _SAFETY, _OWASP = "qwen-security", "qwen-safety", "OWASP REST Security"
_TLS = "TLS 1.2 or later for all connections"
_AT_REST = "AES-256 encryption for stored data"
_ROTATED = "Rotate keys regularly"
_OUTSIDE = "Never hardcode keys: environment variables or a secrets manager"
_SEPARATE = "Separate keys for development and production"
_RESTRICTED = "Restrict access: appropriate permissions"
_RATE = "Rate limiting at the application layer"
_VALIDATED = "Validate inputs before they are passed on: length and format"
_CHECKED = "Verify outputs before they are used"
_MONITORED = "Monitor both inputs and outputs"
_LOGGED = "Audit and access logs"
_KEPT = "Zero data retention, and no longer than is promised"
_HARDENED = "Headers that tell browsers and caches what not to do"

_ROWS = (
    _Row("tls_platform", _TLS, _SECURITY, links.platform),
    _Row("tls_callbacks", _TLS, _SECURITY, links.callbacks),
    _Row("tls_deliveries", _TLS, _SECURITY, links.deliveries),
    _Row("tls_database", _TLS, _SECURITY, links.database),
    _Row("tls_evidence", _TLS, _SECURITY, links.evidence),
    _Row("encryption_at_rest", _AT_REST, _SECURITY, encryption.at_rest),
    _Row("data_keys", _ROTATED, _SECURITY, encryption.data_keys),
    _Row("master_keys", _ROTATED, _SECURITY, encryption.master_keys),
    _Row("api_keys_rotated", _ROTATED, _SECURITY, keys.rotated),
    _Row("platform_key", _ROTATED, _SECURITY, keys.platform),
    _Row("secrets_outside_code", _OUTSIDE, _SECURITY, keys.outside_code),
    _Row("files_private", _OUTSIDE, _SECURITY, keys.files),
    _Row("separate_environments", _SEPARATE, _SECURITY, keys.environments),
    _Row("api_keys_restricted", _RESTRICTED, _SECURITY, keys.restricted),
    _Row("addresses", _RESTRICTED, _SECURITY, entrances.addresses),
    _Row("trusted_proxies", _RESTRICTED, _SECURITY, entrances.proxies),
    _Row("subscriber_networks", _RESTRICTED, _SECURITY, entrances.subscriber_networks),
    _Row("rate_limits", _RATE, _SAFETY, entrances.rates),
    _Row("input_bounds", _VALIDATED, _SAFETY, entrances.bounds),
    _Row("callbacks_verified", _CHECKED, _SAFETY, watching.callbacks),
    _Row("monitoring", _MONITORED, _SECURITY, watching.monitoring),
    _Row("audit_log", _LOGGED, _SECURITY, watching.audit_log),
    _Row("access_log", _LOGGED, _SECURITY, watching.access_log),
    _Row("retention", _KEPT, _SECURITY, keeping.retention),
    _Row("zero_retention", _KEPT, _SECURITY, keeping.zero_retention),
    _Row("erasure", _KEPT, _SECURITY, keeping.erasure),
    _Row("security_headers", _HARDENED, _OWASP, entrances.headers),
)


def examine(subject: Subject, session: Session) -> list[Item]:
    """Look at everything.

    Raises:
        DatabaseError: the database cannot be read.
    """
    return [_item(row, row.look(subject, session)) for row in _ROWS]


def _item(row: _Row, found: Finding) -> Item:
    return Item(id=row.id, ask=row.ask, source=row.source, **msgspec.structs.asdict(found))
