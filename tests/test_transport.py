"""Real servers on the loopback; every connection is seen by `connected`."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import aiohttp.connector
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.certificates import Certificate
from webhook import __version__, connections
from webhook.addresses import AddressPolicy
from webhook.connections import Resolver
from webhook.transports import Outcome, http
from webhook.transports.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from pathlib import Path

LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))
EVERYTHING = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Subscriber:
    """A server that answers every request with the same bytes, or as a function of the test does."""

    def __init__(self, answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._met = asyncio.Semaphore(0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def has_met(self, *, connections: int) -> None:
        for _ in range(connections):
            await self._met.acquire()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._met.release()
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                self.requests.append(head + await reader.readexactly(int(length.split(b":")[1])))
                if isinstance(self.answer, bytes):
                    writer.write(self.answer)
                    await writer.drain()
                else:
                    await self.answer(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(
    answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]] = NO_CONTENT, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber(answer)
    meetings: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        meetings.add(asyncio.create_task(subscriber.meet(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    subscriber.port = server.sockets[0].getsockname()[1]
    try:
        yield subscriber
    finally:
        server.close()
        for meeting in meetings:
            meeting.cancel()
        await asyncio.gather(*meetings, return_exceptions=True)


class Names(AbstractResolver):
    """A name server that tells what the test says, and how often it was asked."""

    def __init__(self, *answers: list[str] | OSError) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:  # noqa: ARG002
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, OSError):
            raise answer
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=0, flags=0)
            for address in answer
        ]

    async def close(self) -> None:
        raise AssertionError("the resolver is its owner's to close")


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were connected to; none beyond the loopback, whatever the code under test does."""
    addresses: list[str] = []
    loop = asyncio.SelectorEventLoop
    connect = loop.sock_connect

    async def watched(self: asyncio.SelectorEventLoop, sock: socket.socket, address: Any) -> None:
        addresses.append(address[0])
        assert ip_address(address[0]).is_loopback, address
        await connect(self, sock, address)

    monkeypatch.setattr(loop, "sock_connect", watched)
    return addresses


async def attempt(url: str, policy: AddressPolicy = LOOPBACK, **options: Any) -> Outcome:
    async with HttpTransport(policy, **options) as sender:
        return await sender.send(url=url, headers={}, body=b"{}")


def attempt_with(answer: bytes | Callable[[asyncio.StreamWriter], Awaitable[None]], **options: Any) -> Outcome:
    async def scenario() -> Outcome:
        async with listening(answer) as subscriber:
            return await attempt(subscriber.url, **options)

    return asyncio.run(scenario())


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


# What goes out


def test_a_request_carries_the_bytes_and_headers_it_was_given() -> None:
    async def scenario() -> tuple[Outcome, Subscriber]:
        async with listening() as subscriber, HttpTransport(LOOPBACK) as http:
            outcome = await http.send(
                url=f"{subscriber.url}/%2F..%7e?sig=%2B%3D+x",
                headers={"Content-Type": "application/json", "webhook-id": "evt_1"},
                body=b'{"a": 1}',
            )
            return outcome, subscriber

    outcome, subscriber = asyncio.run(scenario())
    assert outcome.delivered
    assert (outcome.status, outcome.error, outcome.retry_after, outcome.gone) == (204, None, None, False)
    head, _, body = subscriber.requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /hook/%2F..%7e?sig=%2B%3D+x HTTP/1.1"
    assert f"Host: 127.0.0.1:{subscriber.port}" in lines
    assert "Content-Type: application/json" in lines
    assert "webhook-id: evt_1" in lines
    assert f"User-Agent: webhook/{__version__}" in lines
    assert not [line for line in lines if line.lower().startswith(("accept-encoding", "cookie", "transfer-encoding"))]
    assert body == b'{"a": 1}'


def test_a_large_body_goes_out_whole() -> None:
    async def scenario() -> bytes:
        async with listening() as subscriber, HttpTransport(LOOPBACK) as http:
            outcome = await http.send(url=subscriber.url, headers={}, body=b"x" * 5_000_000)
            assert outcome.delivered
            return subscriber.requests[0]

    assert asyncio.run(scenario()).endswith(b"\r\n\r\n" + b"x" * 5_000_000)


def test_the_environments_proxy_is_not_asked(monkeypatch: pytest.MonkeyPatch, connected: list[str]) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.9:1")
    assert attempt_with(NO_CONTENT).delivered
    assert connected == ["127.0.0.1"]


def test_cookies_are_not_kept() -> None:
    async def scenario() -> list[bytes]:
        async with (
            listening(answer("200 OK", "Set-Cookie: a=b; Path=/")) as subscriber,
            HttpTransport(LOOPBACK, resolver=Names(["127.0.0.1"])) as http,
        ):
            for _ in range(2):  # by name, since no jar keeps those of an address
                await http.send(url=f"http://a.example:{subscriber.port}/", headers={}, body=b"")
            return subscriber.requests

    requests = asyncio.run(scenario())
    assert len(requests) == 2
    assert not any(b"ookie" in request for request in requests)


# What comes back


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    outcome = attempt_with(answer(f"{status} Fine", body=b"" if status == 204 else b"thanks"))
    assert outcome.delivered
    assert (outcome.status, outcome.error) == (status, None)


@pytest.mark.parametrize("status", [301, 304, 400, 401, 404, 410, 418, 429, 500, 503, 599])
def test_anything_else_is_an_error_with_its_status(status: int) -> None:
    outcome = attempt_with(answer(f"{status} Not so fine"))
    assert not outcome.delivered
    assert (outcome.status, outcome.error, outcome.gone) == (status, f"http_{status}", status == 410)


def test_retry_after_is_handed_on_as_it_came() -> None:
    assert attempt_with(answer("503 Busy", "retry-after:  Sun, 06 Nov 1994 08:49:37 GMT")).retry_after == (
        "Sun, 06 Nov 1994 08:49:37 GMT"
    )
    assert attempt_with(answer("429 Slow down", "Retry-After: 120")).retry_after == "120"


@pytest.mark.parametrize("location", ["http://169.254.169.254/latest/meta-data/", "/elsewhere", "//[::1]/", "\\\\x"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int, location: str, connected: list[str]) -> None:
    outcome = attempt_with(answer(f"{status} Over there", f"Location: {location}"), policy=EVERYTHING)
    assert (outcome.status, outcome.error) == (status, f"http_{status}")
    assert connected == ["127.0.0.1"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 " + b"a" * 1_000_000 + b"\r\n\r\n",
    ],
)
def test_what_is_not_http_is_an_invalid_response(garbage: bytes) -> None:
    assert attempt_with(garbage).error == "invalid_response"


heads = st.sampled_from(
    [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
)
pieces = st.lists(
    st.binary(max_size=20)
    | st.sampled_from(
        [b"\r\n", b"\r\n\r\n", b"Content-Length: 5", b"HTTP/1.1 100 Continue\r\n\r\n", b"Connection: Upgrade"]
    ),
    max_size=8,
).map(b"".join)


@settings(max_examples=100, deadline=None)
@given(heads, pieces)
def test_no_answer_makes_send_raise(head: bytes, rest: bytes) -> None:
    async def scenario() -> Outcome:
        async def speak(writer: asyncio.StreamWriter) -> None:
            writer.write(head + rest)
            writer.close()

        async with listening(speak) as subscriber:
            return await attempt(subscriber.url, timeout_seconds=5, ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))

    outcome = asyncio.run(scenario())
    assert outcome.delivered == (outcome.error is None)


def test_a_status_settles_the_attempt_though_the_rest_breaks_off() -> None:
    async def break_off(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        writer.close()

    assert attempt_with(break_off).delivered
    assert attempt_with(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope").delivered


def test_small_answers_keep_their_connection_and_huge_ones_lose_it_unread() -> None:
    written = 0

    async def pour(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            written += 65536

    async def scenario() -> tuple[int, int]:
        async with (
            listening(answer("200 OK", body=b"x" * 60_000)) as small,
            listening(pour) as huge,
            HttpTransport(LOOPBACK) as http,
        ):
            for subscriber in (small, small, small, huge, huge):
                assert (await http.send(url=subscriber.url, headers={}, body=b"")).delivered
            return small.connections, huge.connections

    assert asyncio.run(scenario()) == (1, 2)
    assert written < 50_000_000  # what the sockets' buffers took, of two answers of 1 GB


# What takes long


async def drip(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.005)


async def hang(writer: asyncio.StreamWriter) -> None:
    await writer.drain()
    await asyncio.Event().wait()


async def drip_header(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    await drip(writer)


async def drip_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    await drip(writer)


async def continue_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
        await writer.drain()
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("slow", [hang, drip_header, continue_for_ever])
def test_an_answer_that_does_not_come_in_time_is_a_timeout(
    slow: Callable[[asyncio.StreamWriter], Awaitable[None]],
) -> None:
    outcome = attempt_with(slow, timeout_seconds=0.1)
    assert (outcome.status, outcome.error) == (None, "timeout")
    assert 100 <= outcome.duration_ms < 60_000, "hardly more, but for a busy machine"


def test_a_body_that_drips_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attempt_with(drip_body, timeout_seconds=0.1).delivered
    monkeypatch.setattr(http, "DRAIN_SECONDS", 0.05)
    assert attempt_with(drip_body, timeout_seconds=120).duration_ms < 60_000


def test_a_server_that_reads_nothing_is_a_timeout() -> None:
    async def scenario() -> Outcome:
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            async with HttpTransport(LOOPBACK, timeout_seconds=0.2) as http:
                url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
                return await http.send(url=url, headers={}, body=b"x" * 20_000_000)

    assert asyncio.run(scenario()).error == "timeout"


def test_hanging_subscribers_do_not_delay_the_others() -> None:
    async def scenario() -> Outcome:
        async with listening(hang) as slow, listening() as quick, HttpTransport(LOOPBACK, timeout_seconds=5) as http:
            hanging = [asyncio.create_task(http.send(url=slow.url, headers={}, body=b"")) for _ in range(300)]
            await slow.has_met(connections=len(hanging))
            outcome = await http.send(url=quick.url, headers={}, body=b"")
            for task in hanging:
                task.cancel()
            assert all(
                isinstance(o, asyncio.CancelledError) for o in await asyncio.gather(*hanging, return_exceptions=True)
            )
            return outcome

    assert asyncio.run(scenario()).delivered


def test_connections_bound_the_attempts_of_both_schemes_together() -> None:
    async def scenario() -> Outcome:
        async with listening(hang) as slow, listening() as quick, HttpTransport(LOOPBACK, connections=1) as http:
            holding = asyncio.create_task(
                http.send(url=slow.url.replace("http:", "https:"), headers={}, body=b""),
            )
            await slow.has_met(connections=1)
            waiting = asyncio.create_task(http.send(url=quick.url, headers={}, body=b""))
            await asyncio.wait({waiting}, timeout=0.05)
            assert not quick.connections
            holding.cancel()
            return await waiting

    assert asyncio.run(scenario()).delivered


def test_cancellation_passes() -> None:
    async def scenario() -> None:
        async with listening(hang) as subscriber, HttpTransport(LOOPBACK) as http:
            task = asyncio.create_task(http.send(url=subscriber.url, headers={}, body=b""))
            await subscriber.has_met(connections=1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())


def test_durations_are_the_clocks() -> None:
    ticks = iter([10.0, 11.25])
    assert attempt_with(NO_CONTENT, clock=lambda: next(ticks)).duration_ms == 1250


# What does not connect


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_a_closed_port_is_connection_refused() -> None:
    assert asyncio.run(attempt(f"http://127.0.0.1:{free_port()}/")).error == "connection_refused"


def test_a_connection_cut_before_the_answer_is_connection_reset() -> None:
    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    assert attempt_with(close).error == "connection_reset"
    assert attempt_with(reset).error == "connection_reset"


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (101, "unreachable"),
        (113, "unreachable"),
        (110, "timeout"),
        (13, "connection_failed"),
        (None, "connection_failed"),
    ],
)
def test_errors_of_the_network_have_their_words(monkeypatch: pytest.MonkeyPatch, number: int | None, word: str) -> None:
    async def fail(*_: object) -> None:
        raise OSError(number, "as the system says") if number else OSError("as nobody says")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", fail)
    assert asyncio.run(attempt("http://127.0.0.1:9/")).error == word


@pytest.mark.parametrize(
    "url", ["", "ftp://127.0.0.1/", "http://a b/", "http://user@127.0.0.1/", "http://[::1", "http://x/#y"]
)
def test_a_url_that_we_do_not_send_to_is_invalid(url: str, connected: list[str]) -> None:
    outcome = asyncio.run(attempt(url))
    assert (outcome.status, outcome.error, outcome.duration_ms) == (None, "invalid_url", 0)
    assert connected == []


# Names


def test_a_name_is_looked_up_by_the_system() -> None:
    async def scenario() -> Outcome:
        async with listening() as subscriber:
            return await attempt(subscriber.url.replace("127.0.0.1", "localhost"))

    assert asyncio.run(scenario()).delivered


def test_the_systems_resolver_finds_addresses_of_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(_: str, port: int, **__: object) -> list[Any]:
        stream = (socket.SOCK_STREAM, 6, "")
        return [
            (socket.AF_INET6, *stream, ("fe80::1%eth0", port, 0, 2)),
            (socket.AF_INET, *stream, ("10.0.0.1", port)),
        ]

    monkeypatch.setattr(socket, "getaddrinfo", found)

    async def scenario() -> list[str]:
        resolver = Resolver()
        results = await resolver.resolve("a.example", 443)
        await resolver.close()
        return [result["host"] for result in results]

    assert asyncio.run(scenario()) == ["fe80::1%eth0", "10.0.0.1"]


@pytest.mark.parametrize("answer_", [socket.gaierror(-2, "Name or service not known"), [], OSError("no such name")])
def test_a_name_without_addresses_is_a_dns_error(answer_: list[str] | OSError, connected: list[str]) -> None:
    assert asyncio.run(attempt("http://a.example/", resolver=Names(answer_))).error == "dns"
    assert connected == []


def test_a_name_is_looked_up_once_and_the_address_that_was_judged_is_connected_to(
    monkeypatch: pytest.MonkeyPatch, connected: list[str]
) -> None:
    async def ask_again(*_: object, **__: object) -> None:
        raise AssertionError("a second resolution could have another answer")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", ask_again)
    names = Names(["127.0.0.1"], ["169.254.169.254"])

    async def scenario() -> list[Outcome]:
        # the answer closes the connection, so that the second attempt opens one of its own
        async with (
            listening(answer("200 OK", "Connection: close")) as subscriber,
            HttpTransport(LOOPBACK, resolver=names) as http,
        ):
            url = f"http://rebind.example:{subscriber.port}/"
            first = await http.send(url=url, headers={}, body=b"")
            monkeypatch.setattr(aiohttp.connector, "monotonic", lambda: time.monotonic() + 60)
            return [first, await http.send(url=url, headers={}, body=b"")]

    first, second = asyncio.run(scenario())
    assert first.delivered
    assert second.error == "address_not_allowed"
    assert names.asked == 2
    assert connected == ["127.0.0.1"]


@pytest.mark.parametrize(
    "addresses",
    [
        ["169.254.169.254"],
        ["10.0.0.1"],
        ["8.8.8.8"],  # public, but http:// is plain
        ["::1"],
        ["::ffff:10.0.0.1"],
        ["64:ff9b::a00:1"],
        ["fe80::1%eth0"],
        ["10.0.0.1", "8.8.8.8", "::1"],
        ["localhost"],
        ["0x7f.1"],
        [f"10.{n >> 8}.{n & 255}.1" for n in range(5000)],
    ],
)
def test_a_name_that_leads_elsewhere_is_not_connected_to(addresses: list[str], connected: list[str]) -> None:
    outcome = asyncio.run(attempt("http://a.example/", resolver=Names(addresses)))
    assert (outcome.status, outcome.error) == (None, "address_not_allowed")
    assert connected == []


@pytest.mark.parametrize("addresses", [["10.0.0.1", "127.0.0.1"], ["::1", "127.0.0.1"], ["127.0.0.1", "10.0.0.1"]])
def test_of_a_names_addresses_the_allowed_ones_are_connected_to(addresses: list[str], connected: list[str]) -> None:
    async def scenario() -> Outcome:
        async with listening() as subscriber:
            return await attempt(f"http://a.example:{subscriber.port}/", resolver=Names(addresses))

    assert asyncio.run(scenario()).delivered
    assert connected == ["127.0.0.1"]


def test_if_one_of_a_names_addresses_refuses_the_next_is_tried(connected: list[str]) -> None:
    async def scenario() -> Outcome:
        async with listening() as subscriber:
            return await attempt(f"http://a.example:{subscriber.port}/", resolver=Names(["127.0.0.2", "127.0.0.1"]))

    assert asyncio.run(scenario()).delivered
    assert connected == ["127.0.0.2", "127.0.0.1"]


def test_of_a_name_with_thousands_of_addresses_a_few_are_tried(connected: list[str]) -> None:
    names = Names([f"127.1.{n >> 8}.{n & 255}" for n in range(5000)])
    assert asyncio.run(attempt(f"http://a.example:{free_port()}/", resolver=names)).error == "connection_refused"
    assert len(set(connected)) == connections.MAX_ADDRESSES


# Addresses in the URL, which no resolver sees


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.254.169.254.",
        "\uff11\uff16\uff19.254.169.254",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[fd00:ec2::254]",
        "100.100.100.200",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_metadata_is_never_connected_to_in_any_spelling(scheme: str, host: str, connected: list[str]) -> None:
    outcome = asyncio.run(attempt(f"{scheme}://{host}/latest", EVERYTHING, resolver=Names(OSError("not asked"))))
    assert outcome.error == "address_not_allowed"
    assert connected == []


@pytest.mark.parametrize("host", ["[::1]", "[0:0::1]", "10.0.0.1", "0.0.0.0", "[::]", "8.8.8.8", "[2606:4700::1111]"])
def test_addresses_beyond_the_allowed_network_are_not_connected_to(host: str, connected: list[str]) -> None:
    assert asyncio.run(attempt(f"http://{host}:9/", LOOPBACK)).error == "address_not_allowed"
    assert connected == []


def test_the_socket_is_refused_even_if_the_resolver_let_the_address_pass(
    monkeypatch: pytest.MonkeyPatch, connected: list[str]
) -> None:
    names = Names(["10.0.0.1", "127.0.0.1"])
    monkeypatch.setattr(connections.Gate, "resolve", lambda _, *args, **options: names.resolve(*args, **options))

    async def scenario() -> list[Outcome]:
        async with listening() as subscriber, HttpTransport(LOOPBACK, resolver=names, timeout_seconds=0.2) as http:
            return [
                await http.send(url=f"{scheme}://a.example:{subscriber.port}/", headers={}, body=b"")
                for scheme in ("http", "https")
            ]

    plain, _ = asyncio.run(scenario())
    assert plain.delivered
    assert "10.0.0.1" not in connected


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1."])
def test_an_allowed_address_is_reached_in_every_spelling(spelling: str) -> None:
    async def scenario() -> Outcome:
        async with listening() as subscriber:
            return await attempt(subscriber.url.replace("127.0.0.1", spelling))

    assert asyncio.run(scenario()).delivered


# TLS


def attempt_tls(certificate: Certificate, **options: Any) -> Outcome:
    async def scenario() -> Outcome:
        async with listening(tls=certificate.context) as subscriber:
            url = f"https://hooks.example:{subscriber.port}/"
            return await attempt(url, resolver=Names(["127.0.0.1"]), **options)

    return asyncio.run(scenario())


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate(tmp_path, "hooks.example")


def test_a_certificate_that_is_trusted_and_the_names_is_accepted(certificate: Certificate) -> None:
    assert attempt_tls(certificate, ssl_context=certificate.trust).delivered


def test_a_server_that_speaks_no_tls_is_an_error_with_a_word() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def scenario(meet: Callable[..., Coroutine[Any, Any, None]]) -> str | None:
        server = await asyncio.start_server(meet, "127.0.0.1", 0)
        async with server:
            return (await attempt(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")).error

    assert asyncio.run(scenario(plain)) == "tls"
    assert asyncio.run(scenario(hang_up)) == "connection_reset"


def test_by_default_tls_is_verified_and_of_version_1_2_or_later() -> None:
    context = connections.default_ssl_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_https_to_a_public_address_is_let_through_to_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def refuse(_: object, __: object, address: tuple[str, int]) -> None:
        asked.append(address[0])
        raise ConnectionRefusedError(111, "nobody is there")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", refuse)
    outcome = asyncio.run(attempt("https://a.example/", AddressPolicy(), resolver=Names(["8.8.8.8", "10.0.0.1"])))
    assert outcome.error == "connection_refused"
    assert asked == ["8.8.8.8"]
