"""Redis Streams: an entry for each event, and as many as the stream is to keep."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from redis import asyncio as client
from redis import exceptions
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from typing_extensions import override

from webhook.connections import default_ssl_context, open_bounded, word_of
from webhook.transports.brokers import Unsent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.destinations import Destination
    from webhook.transports.outcome import Message

_SECONDS = 60.0  # whoever publishes gives up sooner
_FAULTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        (exceptions.AuthenticationError, exceptions.AuthorizationError, exceptions.NoPermissionError),
        "unauthorized",
    ),
    (exceptions.TimeoutError, "timeout"),
    (exceptions.BusyLoadingError, "refused"),
    (exceptions.ConnectionError, "connection_reset"),
    (exceptions.RedisError, "refused"),
)


@contextmanager
def _told() -> Iterator[None]:
    """Say what the client raises in our words."""
    try:
        yield
    except exceptions.RedisError as fault:
        cause = fault.__cause__ or fault.__context__
        if type(fault) is exceptions.ConnectionError and isinstance(cause, OSError):
            raise Unsent(word_of(cause)) from fault
        raise Unsent(next(word for kind, word in _FAULTS if isinstance(fault, kind))) from fault


class _Link:
    """A pool of connections: Redis answers one command of a connection after the other."""

    def __init__(self, destination: Destination, address: str) -> None:
        named: dict[str, Any] = {"name": destination.host} if destination.tls else {}
        self._pool = ConnectionPool(
            connection_class=_TlsConnection if destination.tls else _Bounded,
            host=address,
            port=destination.port,
            db=int(destination.place),
            username=destination.user,
            password=destination.password,
            socket_timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            retry=Retry(NoBackoff(), 0),  # when to try again is not its business
            client_name="webhook",
            **named,
        )
        self._redis = client.Redis(connection_pool=self._pool)
        self.is_open = True

    async def open(self) -> None:
        with _told():
            await self._redis.ping()

    async def publish(self, destination: Destination, message: Message, *, subscription_id: str) -> None:  # noqa: ARG002 - NATS needs it
        fields: dict[Any, Any] = {**message.headers, "type": message.type, "body": message.body}
        try:
            with _told(), self._watched():
                await self._redis.xadd(
                    destination.option("stream", event_type=message.type),
                    fields,
                    maxlen=int(destination.options["max_length"]),
                    approximate=True,
                )
        finally:
            if not self.is_open:  # closing passed over the connection that was in use here
                await self.close()

    async def close(self) -> None:
        self.is_open = False
        with _told():
            await self._pool.disconnect(inuse_connections=False)

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Where one connection is lost, the others that wait in the pool are, too."""
        try:
            yield
        except (exceptions.ConnectionError, OSError):
            self.is_open = False
            raise


class _Bounded(Connection):
    """A connection on which no answer is longer than it can have to be."""

    @override
    async def _connect(self) -> None:
        self._reader, self._writer = await open_bounded(**self._connection_arguments())


class _TlsConnection(_Bounded, SSLConnection):
    """A connection to an address whose certificate is for a name."""

    def __init__(self, *, name: str, **options: Any) -> None:
        super().__init__(**options)
        self._name = name

    @override
    def _connection_arguments(self) -> Mapping[str, Any]:
        arguments = dict(super()._connection_arguments())
        return arguments | {"ssl": default_ssl_context(), "server_hostname": self._name}


async def connect(destination: Destination, address: str) -> _Link:
    """Connect to a server.

    Raises:
        Unsent, OSError: it did not come to that.
    """
    link = _Link(destination, address)
    try:
        await link.open()
    except BaseException:
        await link.close()
        raise
    return link
