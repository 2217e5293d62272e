"""Who may come in: the key that a request shows, where it comes from, and how often it asks.

What is counted is counted by each web process for itself, in its memory: nothing of it can fail, and nothing is written
for it. Long polls count once. Callbacks of the platform come another way, and are never counted.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING

import gevent
import structlog

from webhook import clock
from webhook.errors import DatabaseError, Forbidden, TooManyRequests, Unauthorized
from webhook.proxies import is_within
from webhook.quotas import Buckets
from webhook.roles import PERMISSIONS, Role
from webhook.store import keys as key_store
from webhook.store.keys import LIVE
from webhook.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from webhook.bootstrap import Service
    from webhook.roles import Permission
    from webhook.store.keys import ApiKey

log = structlog.get_logger()

_BOOTSTRAP = "bootstrap"  # id of the settings' key
_FAILURES_PER_SECOND, _FAILURES_AT_ONCE = 10, 300  # wrong keys from one address
_MOST_KNOWN = 10_000
_NOTE_USE_EVERY = timedelta(minutes=1)
_NEVER = datetime.min.replace(tzinfo=UTC)
_POLICY = "key"  # the limit's name in the headers
_IPV6_NETWORK_BITS = 64  # what one customer of a provider has at least


@dataclass(frozen=True, kw_only=True)
class Client:
    """Who asks.

    Attributes:
        id: of the API key, `bootstrap` for the key of the settings.
        name: which the key was made for.
    """

    id: str
    name: str
    role: Role

    @property
    def party(self) -> str:
        """Whose idempotency keys these are: those of a client, whichever of its API keys it shows."""
        if self.id == _BOOTSTRAP:
            return self.id
        return f"client_{hashlib.sha256(self.name.encode()).hexdigest()[:32]}"

    def may(self, permission: Permission) -> bool:
        """Return whether the client's role has a permission."""
        return permission in PERMISSIONS[self.role]


class Access:
    """Lets requests in. Make it in the web process, after the fork; it is used by the hub's thread alone.

    Args:
        now: the time, for keys that expire.
        ticks: nanoseconds of a clock that only goes forward, for rates.
    """

    def __init__(
        self,
        service: Service,
        *,
        now: Callable[[], datetime] = clock.now,
        ticks: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        settings = service.settings
        self._service = service
        self._now = now
        self._ticks = ticks
        self._admin = None if settings.admin_key is None else service.api_keys.digest(settings.admin_key.encode())
        self._requests = Buckets(per_second=settings.requests_per_second, size=settings.requests_at_once)
        self._failures = Buckets(per_second=_FAILURES_PER_SECOND, size=_FAILURES_AT_ONCE)
        self._known: dict[bytes, None] = {}  # digests of keys that were right when they were last shown
        self._noted: dict[str, datetime] = {}  # when a key's use was last noted, or tried to be

    def enter(self, *, authorization: str, address: str) -> tuple[Client, dict[str, str]]:
        """Return who holds this `Authorization: Bearer` key, and the headers that tell how often they may ask.

        An address that showed many wrong keys may show no more for a while, but for those that were right before: who
        shares an address with a guesser (behind a proxy, say) is not locked out.

        Args:
            address: of the client.

        Raises:
            Unauthorized: nobody holds it.
            Forbidden: the key is not for this address.
            TooManyRequests: the key, or wrong ones from this address, were shown too often.
            DatabaseError: our own trouble.
        """
        digest = self._digest(authorization)
        neighbourhood = _neighbourhood(address)
        wait = self._failures.left(neighbourhood, now=self._ticks()).wait_seconds
        if wait and digest not in self._known:
            raise TooManyRequests("Too many wrong API keys came from this address.", wait_seconds=wait, headers={})
        try:
            client = self._client(digest, address)
        except (Unauthorized, Forbidden):
            self._known.pop(digest, None)
            self._failures.take(neighbourhood, now=self._ticks())
            raise
        self._known.pop(digest, None)
        self._known[digest] = None
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]  # the one that was longest not shown
        return client, self._count(client)

    def confirm(self, *, authorization: str, address: str) -> None:
        """Look once more at a key that was let in, and whose request has waited since; it is not counted again.

        Raises:
            Unauthorized: it was revoked meanwhile, or expired.
            Forbidden: it is not for this address.
            DatabaseError: our own trouble.
        """
        self._client(self._digest(authorization), address)

    def _digest(self, authorization: str) -> bytes:
        scheme, _, key = authorization.partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise Unauthorized("Send `Authorization: Bearer KEY`; `webhook keys create` makes one.")
        return self._service.api_keys.digest(key.strip().encode())

    def _client(self, digest: bytes, address: str) -> Client:
        if self._admin is not None and hmac.compare_digest(digest, self._admin):
            return Client(id=_BOOTSTRAP, name=_BOOTSTRAP, role=Role.ADMIN)
        found: ApiKey | None = in_thread(self._find, digest)
        if found is None:
            raise Unauthorized("The API key is not known, or was revoked.")
        now = self._now()
        if found.state(now) != LIVE:
            raise Unauthorized("The API key has expired.")
        if found.networks is not None and not is_within(address, map(ip_network, found.networks)):
            raise Forbidden("The API key is not for the network that this request comes from.")
        if now - max(found.last_used_at or _NEVER, self._noted.get(found.id, _NEVER)) >= _NOTE_USE_EVERY:
            self._noted[found.id] = now
            gevent.spawn(self._note_use, found.id, now)
        return Client(id=found.id, name=found.name, role=Role(found.role))

    def _find(self, digest: bytes) -> ApiKey | None:
        with self._service.database.read() as session:
            return self._service.api_keys.find(session, digest)

    def _count(self, client: Client) -> dict[str, str]:
        now = self._ticks()
        taken = self._requests.take(client.id, now=now)
        left = self._requests.left(client.id, now=now)
        headers = {  # after draft-ietf-httpapi-ratelimit-headers-10
            "RateLimit-Policy": f'"{_POLICY}";q={self._requests.size};w={self._requests.full_seconds}',
            "RateLimit": f'"{_POLICY}";r={left.requests};t={left.full_seconds if taken else left.wait_seconds}',
        }
        if not taken:
            message = "The API key was used too often; the RateLimit headers say how often it may be."
            raise TooManyRequests(message, wait_seconds=left.wait_seconds, headers=headers)
        return headers

    def _note_use(self, key_id: str, now: datetime) -> None:
        """Note that a key is in use, beside the request that showed it; a minute later is as good."""
        try:
            in_thread(self._write_use, key_id, now)
        except DatabaseError as error:
            log.warning("The use of an API key could not be noted.", key=key_id, error=str(error))

    def _write_use(self, key_id: str, now: datetime) -> None:
        with self._service.database.transaction() as session:
            key_store.note_use(session, key_id, now=now)


def _neighbourhood(address: str) -> str:
    """Return what counts as one address: of IPv6, a network in which anybody has as many as they like."""
    if ":" not in address:
        return address
    bits = int(ip_address(address.partition("%")[0])) >> _IPV6_NETWORK_BITS
    return f"{bits:x}"
