"""Publishes to brokers over kept links, one for each subscription; each address passes the `AddressPolicy` first."""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, Self

import structlog

from webhook import destinations
from webhook.connections import Gate, word_of
from webhook.transports.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from aiohttp.abc import AbstractResolver

    from webhook.addresses import AddressPolicy
    from webhook.destinations import Destination
    from webhook.transports.outcome import Message

log = structlog.get_logger()

IDLE_SECONDS = 60.0
"""How long a link that nothing is published on is kept."""
CLOSE_SECONDS = 2.0
"""How long a broker may take to say goodbye."""
_MODULES = {kind: f"webhook.transports.{kind}" for kind in ("nats", "amqp", "redis")}


_OF_THE_ADDRESS = {"connection_refused", "connection_reset", "connection_failed", "unreachable"}  # another may do


class Unsent(Exception):
    """A broker has not taken a message, or has not said so.

    Attributes:
        word: why; one of `Outcome.error`.
    """

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


class Link(Protocol):
    """A connection to a broker."""

    @property
    def is_open(self) -> bool:
        """Whether it can still be published on."""

    async def publish(self, destination: Destination, message: Message, *, subscription_id: str) -> None:
        """Hand over a message, until the broker has confirmed it.

        Raises:
            Unsent, OSError: it is not known to be there.
        """

    async def close(self) -> None:
        """Say goodbye."""


class _Place:
    """One subscription's link, made by whoever needs it first."""

    def __init__(self) -> None:
        self.link: Link | None = None
        self.lock = asyncio.Lock()
        self.users = 0
        self.used_at = 0.0


class BrokerTransport:
    """Publishes to subscribers' brokers; an async context manager.

    Args:
        policy: which addresses may be connected to.
        resolver: what looks names up; it is not closed.
        timeout_seconds: after which an attempt has failed, whatever it is waiting for.
        clock: seconds, for durations.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        resolver: AbstractResolver,
        timeout_seconds: float = 15.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gates = {tls: Gate(policy, resolver, plaintext=not tls) for tls in (False, True)}
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._places: dict[tuple[str, str], _Place] = {}
        self._goodbyes: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in self._places.values():
            self._close(place)
        self._places.clear()
        await asyncio.gather(*self._goodbyes, return_exceptions=True)

    async def send(self, *, subscription_id: str, url: str, message: Message) -> Outcome:
        """Make one attempt; whatever the broker or the network does is in the outcome."""
        started = self._clock()
        try:
            destination = destinations.parse(url)
        except ValueError:
            return Outcome(error="invalid_url", duration_ms=0)
        self._close_idle(started)
        place = self._places.setdefault((subscription_id, url), _Place())
        place.users += 1
        link: Link | None = None
        error = None
        try:
            async with asyncio.timeout(self._timeout_seconds):
                link = await self._link(place, destination)
                await link.publish(destination, message, subscription_id=subscription_id)
        except (Unsent, OSError, ValueError) as fault:
            error = _word(fault)
            if link is place.link and link is not None and (error == "timeout" or not link.is_open):
                self._close(place)
        except Exception:  # a client's fault must not keep the attempt from being settled
            log.exception("A broker's client failed in a way that it does not document.", subscription=subscription_id)
            error = "connection_failed"
            self._close(place)
        finally:
            place.users -= 1
            place.used_at = self._clock()
        return Outcome(error=error, duration_ms=round((self._clock() - started) * 1000))

    async def _link(self, place: _Place, destination: Destination) -> Link:
        async with place.lock:
            if place.link is None or not place.link.is_open:
                self._close(place)
                place.link = await self._connect(destination)
            return place.link

    async def _connect(self, destination: Destination) -> Link:
        """Connect to the first of the host's addresses that is allowed and answers."""
        try:
            module: Any = import_module(_MODULES[destination.kind])
        except ModuleNotFoundError as error:
            raise Unsent("not_installed") from error
        found = await self._gates[destination.tls].resolve(destination.host, destination.port)
        for last, address in [(one is found[-1], one["host"]) for one in found]:
            try:
                link: Link = await module.connect(destination, address)
            except (Unsent, OSError) as fault:
                if last or _word(fault) not in _OF_THE_ADDRESS:
                    raise
            else:
                return link
        raise AssertionError("a name without addresses is an error of the resolver")

    def _close_idle(self, now: float) -> None:
        for key, place in list(self._places.items()):
            if place.users == 0 and now - place.used_at > IDLE_SECONDS:
                self._close(place)
                del self._places[key]

    def _close(self, place: _Place) -> None:
        if place.link is not None:
            goodbye = asyncio.create_task(_say_goodbye(place.link))
            self._goodbyes.add(goodbye)
            goodbye.add_done_callback(self._goodbyes.discard)
            place.link = None


async def _say_goodbye(link: Link) -> None:
    try:
        async with asyncio.timeout(CLOSE_SECONDS):
            await link.close()
    except (Unsent, OSError):  # it is lost already, which is as good
        return


def _word(fault: Exception) -> str:
    if isinstance(fault, Unsent):
        return fault.word
    if isinstance(fault, OSError):
        return word_of(fault)
    return "invalid_response"  # a line or a number that the client cannot read
