"""RabbitMQ: publisher confirms, persistent messages, and nothing that no queue takes."""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import aiormq
from aiormq import exceptions
from aiormq.connection import TransportFactory
from pamqp.commands import Basic
from yarl import URL

from webhook.connections import default_ssl_context, open_bounded, word_of
from webhook.transports.brokers import Unsent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiormq.abc import AbstractChannel, AbstractConnection

    from webhook.destinations import Destination
    from webhook.transports.outcome import Message

logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # each attempt's outcome is noted

_PERSISTENT = 2
_FAULTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        (
            exceptions.AuthenticationError,
            exceptions.ProbableAuthenticationError,
            exceptions.ConnectionNotAllowed,
            exceptions.ChannelAccessRefused,
        ),
        "unauthorized",
    ),
    ((exceptions.PublishError, exceptions.ChannelNotFoundEntity), "no_destination"),
    (exceptions.ChannelPreconditionFailed, "too_large"),  # RabbitMQ's max_message_size
    (exceptions.DeliveryError, "refused"),
    # a goodbye where the answer to opening is due: there is no such virtual host, or it is not for this user
    (exceptions.InvalidFrameError, "no_destination"),
    (exceptions.AMQPException, "connection_reset"),
    (exceptions.ChannelInvalidStateError, "connection_reset"),
)


@contextmanager
def _told() -> Iterator[None]:
    """Say what the client raises in our words."""
    try:
        yield
    except (exceptions.AMQPException, exceptions.ChannelInvalidStateError) as fault:
        cause = fault.__cause__
        if isinstance(cause, OSError) and not isinstance(cause, exceptions.AMQPException):
            raise Unsent(word_of(cause)) from fault
        raise Unsent(next(word for kind, word in _FAULTS if isinstance(fault, kind))) from fault


@contextmanager
def _cancelled_by_the_client() -> Iterator[None]:
    """Tell a channel that is lost, where the client cancels what waits for it, from a cancellation of ours."""
    try:
        yield
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Unsent("connection_reset") from None


class _Link:
    def __init__(self, connection: AbstractConnection, channel: AbstractChannel) -> None:
        self._connection = connection
        self._channel = channel

    @property
    def is_open(self) -> bool:
        return self._connection.is_opened and not self._channel.is_closed

    async def publish(self, destination: Destination, message: Message, *, subscription_id: str) -> None:  # noqa: ARG002 - NATS needs it
        exchange = destination.option("exchange", event_type=message.type)
        key = destination.option("queue" if not exchange else "routing_key", event_type=message.type)
        with _told(), _cancelled_by_the_client():
            await self._channel.basic_publish(
                message.body,
                exchange=exchange,
                routing_key=key or message.type,
                mandatory=True,
                properties=Basic.Properties(
                    message_id=message.id,
                    message_type=message.type,
                    content_type=message.content_type,
                    timestamp=None,
                    delivery_mode=_PERSISTENT,
                    app_id="webhook",
                    headers=dict(message.headers),
                ),
            )

    async def close(self) -> None:
        with _told():
            await self._connection.close()


class _Bounded(TransportFactory):
    """Opens the connection: to an address, whose certificate is for a name."""

    def __init__(self, destination: Destination) -> None:
        self._name = destination.host if destination.tls else None

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls = {"ssl": default_ssl_context(), "server_hostname": self._name} if self._name else {}
        return await open_bounded(str(url.host), int(url.port or 0), **tls)


async def connect(destination: Destination, address: str) -> _Link:
    """Connect to a server.

    Raises:
        Unsent, OSError: it did not come to that.
    """
    url = URL.build(
        scheme="amqps" if destination.tls else "amqp",
        host=address,
        port=destination.port,
        user=destination.user,
        password=destination.password,
        path="/" + destination.place.replace("/", "%2F") if destination.place != "/" else "/",
        query={"name": "webhook"},
    )
    connection = aiormq.Connection(url, transport_factory=_Bounded(destination))
    with _told():
        await connection.connect()
        try:
            channel = await connection.channel(on_return_raises=True)
        except BaseException:
            await connection.close()
            raise
    return _Link(connection, channel)
