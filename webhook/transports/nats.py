"""NATS JetStream: the server confirms what a stream has stored, and drops what it has by the same id."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js.api import Header
from nats.protocol.parser import Parser

from webhook.connections import MAX_SAID_BYTES, default_ssl_context
from webhook.destinations import with_type
from webhook.transports.brokers import Unsent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from webhook.destinations import Destination
    from webhook.transports.outcome import Message

logging.getLogger("nats").setLevel(logging.CRITICAL)  # each attempt's outcome is noted

_CONNECT_SECONDS = 10
_CONFIRM_SECONDS = 60.0  # whoever publishes gives up sooner
_CLOSE_SECONDS = 0.5
_LOOK_SECONDS = 0.25  # between looks whether the connection is lost: the client lets those that wait go on waiting
_FAULTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (nats.errors.AuthorizationError, "unauthorized"),
    (nats.js.errors.NoStreamResponseError, "no_destination"),
    (nats.errors.MaxPayloadError, "too_large"),
    ((nats.errors.TimeoutError, asyncio.TimeoutError), "timeout"),
    ((nats.errors.SecureConnRequiredError, nats.errors.SecureConnWantedError), "tls"),
    ((nats.js.errors.Error, nats.errors.BadSubjectError), "refused"),
    (nats.errors.Error, "connection_reset"),
)
_DENIED = re.compile(r'permissions violation for (publish|subscription) to "([^"]*)"', re.IGNORECASE)
_CONFIRMATIONS = "_inbox"  # stands for where the server confirms what it has stored
_UNAUTHORIZED = ("authorization", "authentication", "permissions")


@contextmanager
def _told() -> Iterator[None]:
    """Say what the client raises in our words."""
    try:
        yield
    except (nats.errors.Error, nats.js.errors.Error) as fault:
        word = next(word for kind, word in _FAULTS if isinstance(fault, kind))
        if any(said in str(fault).lower() for said in _UNAUTHORIZED):
            word = "unauthorized"
        raise Unsent(word) from fault


class _Parser(Parser):
    """A parser that does not wait for more than a server can have to say."""

    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        if len(self.buf) > MAX_SAID_BYTES:
            raise nats.errors.ProtocolError


class _Client(Client):
    """A client that says nothing in the clear where TLS is asked for: left alone, it does what the server offers."""

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)

    def _connect_command(self) -> bytes:
        if "tls" in self.options and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()


class _Link:
    """A connection that is given up when it is lost: a server's word of other servers is not followed."""

    def __init__(self) -> None:
        self._client = _Client()
        self._stream = self._client.jetstream()
        self._is_connecting = False
        self._denied: set[str] = set()  # subjects in lower case, as the client tells of them

    async def open(self, destination: Destination, address: str) -> None:
        host = f"[{address}]" if ":" in address else address
        user, password = destination.user, destination.password
        self._is_connecting = True
        with _told():
            await self._client.connect(
                f"nats://{host}:{destination.port}",
                allow_reconnect=False,
                connect_timeout=_CONNECT_SECONDS,
                verbose=True,  # else the client sends on before the server's word about the password, and may lose it
                tls=default_ssl_context() if destination.tls else None,
                tls_hostname=destination.host if destination.tls else None,
                user=user if password is not None else None,
                password=password,
                token=user if password is None else None,
                name="webhook",
                error_cb=self._meet,
            )
        self._is_connecting = False

    @property
    def is_open(self) -> bool:
        return self._client.is_connected and _CONFIRMATIONS not in self._denied

    async def publish(self, destination: Destination, message: Message, *, subscription_id: str) -> None:
        subject = with_type(destination.place, message.type)
        self._denied.discard(subject.lower())
        publishing = asyncio.ensure_future(
            self._stream.publish(
                subject,
                message.body,
                timeout=_CONFIRM_SECONDS,
                # a stream drops what comes twice by this, and may have the subjects of several subscriptions
                headers=message.headers | {Header.MSG_ID.value: f"{message.id}.{subscription_id}"},
            )
        )
        try:
            while not publishing.done():
                await asyncio.wait((publishing,), timeout=_LOOK_SECONDS)
                if not publishing.done() and self._denied & {subject.lower(), _CONFIRMATIONS}:
                    raise Unsent("unauthorized")
                if not (publishing.done() or self.is_open):
                    raise Unsent("connection_reset")
            with _told():
                publishing.result()
        finally:
            publishing.cancel()

    async def close(self) -> None:
        with _told():
            await self._client.close()

    async def _meet(self, fault: Exception) -> None:
        """End a connect at its first fault, which the client would repeat for minutes; later ones end a publish.

        Who may not publish is told so beside the publish, which goes on waiting.
        """
        if self._is_connecting:
            raise fault
        if denied := _DENIED.search(str(fault)):
            what, subject = denied.groups()
            self._denied.add(subject if what == "publish" else _CONFIRMATIONS)


async def connect(destination: Destination, address: str) -> _Link:
    """Connect to a server.

    Raises:
        Unsent, OSError: it did not come to that.
    """
    link = _Link()
    try:
        await link.open(destination, address)
    except BaseException:
        with suppress(TimeoutError, Unsent):
            async with asyncio.timeout(_CLOSE_SECONDS):  # the client waits for a handshake that has failed
                await link.close()
        raise
    return link
