"""Sends to subscribers: over HTTP, or to a broker, as the URL says."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from webhook.connections import Resolver
from webhook.destinations import is_broker
from webhook.transports.brokers import BrokerTransport
from webhook.transports.http import HttpTransport
from webhook.transports.outcome import Message, Outcome

if TYPE_CHECKING:
    from types import TracebackType

    from webhook.addresses import AddressPolicy

__all__ = ["Message", "Outcome", "Transports"]


class Transports:
    """All ways to a subscriber; an async context manager.

    Args:
        policy: which addresses may be connected to.
        timeout_seconds: after which an attempt has failed.
        connections: how many HTTP attempts there may be at once.
    """

    def __init__(self, policy: AddressPolicy, *, timeout_seconds: float = 15.0, connections: int = 512) -> None:
        resolver = Resolver()
        self._http = HttpTransport(policy, timeout_seconds=timeout_seconds, connections=connections, resolver=resolver)
        self._brokers = BrokerTransport(policy, timeout_seconds=timeout_seconds, resolver=resolver)
        self._open = AsyncExitStack()
        self._open.push_async_callback(resolver.close)

    async def __aenter__(self) -> Self:
        await self._open.enter_async_context(self._http)
        await self._open.enter_async_context(self._brokers)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._open.aclose()

    async def send(self, *, subscription_id: str, url: str, message: Message) -> Outcome:
        """Make one attempt; whatever the subscriber or the network does is in the outcome."""
        if is_broker(url):
            return await self._brokers.send(subscription_id=subscription_id, url=url, message=message)
        return await self._http.send(url=url, headers=message.headers, body=message.body)
