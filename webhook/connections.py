"""Connections out of the service; each one's address passes the `AddressPolicy` before it is made."""

from __future__ import annotations

import asyncio
import errno
import functools
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from webhook import __version__
from webhook.errors import AddressRefused

if TYPE_CHECKING:
    from types import TracebackType

    from aiohappyeyeballs import AddrInfoType

    from webhook.addresses import AddressPolicy

KEEPALIVE_SECONDS = 4.0
"""How long an idle connection is kept: less than the 5 s of Node and uvicorn, so that we close first and no
request meets a connection that its server is just closing."""
DNS_CACHE_SECONDS = 10
MAX_ADDRESSES = 16
"""How many of a name's addresses are looked at; a hostile name has thousands."""
MAX_SAID_BYTES = 1024 * 1024
"""How much a broker may say at once: its confirmations are a hundred bytes, its frames 128 KB at the most."""
LOOKUPS = 64
"""How many names are looked up at once; a thread each, and slow ones must not keep others from theirs."""

ERRORS = {
    errno.ECONNREFUSED: "connection_refused",
    errno.ECONNRESET: "connection_reset",
    errno.EPIPE: "connection_reset",
    errno.ETIMEDOUT: "timeout",
    errno.ENETUNREACH: "unreachable",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETDOWN: "unreachable",
    errno.EHOSTDOWN: "unreachable",
}
"""The word for each error of the operating system that the other side's owner can act on."""


class SaidTooMuch(OSError):
    """A broker announces more than it can have to say; nobody reads it."""


FAULTS: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (aiohttp.ClientConnectorDNSError, "dns"),
    (TimeoutError, "timeout"),
    ((aiohttp.ClientSSLError, ssl.SSLError), "tls"),
    ((aiohttp.ServerDisconnectedError, ConnectionResetError), "connection_reset"),
    ((aiohttp.ClientResponseError, aiohttp.ClientPayloadError, SaidTooMuch), "invalid_response"),
)
"""The word for each exception whose kind says more than its number; the first that fits."""
CERTIFICATE_FAULTS = {
    10: "certificate_expired",
    18: "certificate_untrusted",  # it has signed itself
    19: "certificate_untrusted",  # an authority that nobody knows has signed it
    20: "certificate_untrusted",  # nobody knows who has
    21: "certificate_untrusted",  # likewise, where nothing but itself was sent
    62: "certificate_misnamed",
    64: "certificate_misnamed",  # of an address
}
"""The word for what is wrong with a server's certificate, by OpenSSL's number, "X509_STORE_CTX_get_error"."""
_OTHER_CERTIFICATE_FAULT = "certificate_invalid"
PERMANENT = frozenset({*CERTIFICATE_FAULTS.values(), _OTHER_CERTIFICATE_FAULT})
"""The words for what does not pass by itself: the other side's owner must mend it."""


class AddressNotAllowed(OSError):
    """The policy refuses the address; an OSError, so that aiohttp goes on to the name's next address."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "address not allowed")


class Resolver(AbstractResolver):
    """Looks names up in threads of its own, so that slow names do not take those of the loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="lookup")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return a name's addresses.

        Raises:
            OSError: it has none, or they could not be had.
        """
        lookup = functools.partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=found_family,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for found_family, _, protocol, _, address in await asyncio.get_running_loop().run_in_executor(
                self._threads, lookup
            )
        ]

    async def close(self) -> None:
        """Let the threads end, without waiting for those that look something up."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Gate(AbstractResolver):
    """Lets only allowed addresses through, at both places where aiohttp takes one: from a name and for a socket.

    The socket's is the one that counts: it sees the very address that is connected to, and addresses that were
    written into the URL, which no resolver sees. The resolver's spares the attempts that it would refuse.
    """

    def __init__(self, policy: AddressPolicy, resolver: AbstractResolver, *, plaintext: bool) -> None:
        self._policy = policy
        self._resolver = resolver
        self._plaintext = plaintext

    def _allows(self, address: str) -> bool:
        try:
            self._policy.check(address, plaintext=self._plaintext)
        except AddressRefused:
            return False
        return True

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return those of a name's addresses, or of an address, that may be connected to.

        Raises:
            OSError: there is none.
        """
        found = (await self._resolver.resolve(host, port, family))[:MAX_ADDRESSES]
        if not found:
            raise OSError("the name has no address")
        allowed = [result for result in found if self._allows(result["host"])]
        if not allowed:
            raise AddressNotAllowed
        return allowed

    async def close(self) -> None:
        """Leave the resolver open: it is shared."""

    def open_socket(self, address: AddrInfoType) -> socket.socket:
        """Make the socket for an address.

        Raises:
            AddressNotAllowed: it may not be connected to.
        """
        family, kind, protocol, _, sockaddr = address
        if not self._allows(str(sockaddr[0])):
            raise AddressNotAllowed
        return socket.socket(family, kind, protocol)


class Connections:
    """Sessions whose every connection is checked, one for each scheme; an async context manager.

    They have no proxy, no cookies, no time limit, and as many connections as are asked for: whoever uses them bounds
    both.

    Args:
        policy: which addresses may be connected to; plain connections may go to fewer.
        resolver: what looks names up; it is not closed. By default the system's, in threads.
        ssl_context: by default the system's certificate authorities, and TLS 1.2 or later.
    """

    def __init__(
        self,
        policy: AddressPolicy,
        *,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._policy = policy
        self._resolver = resolver
        self._ssl_context = ssl_context or default_ssl_context()
        self._sessions: dict[str, aiohttp.ClientSession] = {}
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        resolver = self._resolver
        if resolver is None:
            resolver = Resolver()
            self._open.push_async_callback(resolver.close)
        for scheme in ("http", "https"):
            session = self._session(Gate(self._policy, resolver, plaintext=scheme == "http"))
            self._sessions[scheme] = await self._open.enter_async_context(session)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sessions.clear()
        await self._open.aclose()

    def __getitem__(self, scheme: str) -> aiohttp.ClientSession:
        return self._sessions[scheme]

    def _session(self, gate: Gate) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                resolver=gate,
                socket_factory=gate.open_socket,
                ssl=self._ssl_context,
                ttl_dns_cache=DNS_CACHE_SECONDS,
                keepalive_timeout=KEEPALIVE_SECONDS,
            ),
            headers={"User-Agent": f"webhook/{__version__}"},
            skip_auto_headers=["Accept-Encoding"],
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
        )


class BoundedReader(asyncio.StreamReader):
    """A stream of which a client cannot read any number of bytes into memory because a server says so."""

    async def readexactly(self, n: int) -> bytes:
        """Read a number of bytes.

        Raises:
            SaidTooMuch: there is no reason for so many.
        """
        if n > MAX_SAID_BYTES:
            raise SaidTooMuch
        return await super().readexactly(n)


async def open_bounded(host: str, port: int, **tls: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection as `asyncio.open_connection` does, with a bounded reader.

    Args:
        tls: `ssl` and `server_hostname`, where it is spoken.
    """
    loop = asyncio.get_running_loop()
    reader = BoundedReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport, _ = await loop.create_connection(lambda: protocol, host, port, **tls)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


@functools.cache  # reading the authorities takes 20 ms
def default_ssl_context() -> ssl.SSLContext:
    """Return the system's authorities with TLS 1.2 or later."""
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def word_of(fault: Exception) -> str:
    """Return the stable word for what went wrong before there was an answer."""
    reason = fault.os_error if isinstance(fault, aiohttp.ClientConnectorError) else fault
    if isinstance(reason, AddressNotAllowed):
        return "address_not_allowed"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return CERTIFICATE_FAULTS.get(reason.verify_code, _OTHER_CERTIFICATE_FAULT)
    for kinds, word in FAULTS:
        if isinstance(fault, kinds) or isinstance(reason, kinds):
            return word
    number = reason.errno if isinstance(reason, OSError) else None
    return ERRORS.get(number or 0, "connection_failed")
