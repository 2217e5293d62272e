"""Brokers that say too much, too little at a time, or nonsense: an outcome with a word, soon, and no memory for it."""

from __future__ import annotations

import asyncio
import json
import struct
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from tests.test_transport import Names
from webhook.addresses import AddressPolicy
from webhook.transports import Message, Outcome
from webhook.transports.brokers import BrokerTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    Meet = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[None, None, None]]

LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))
MESSAGE = Message(id="evt_1", type="task.failed", timestamp=1, signature="v1,x", content_type="text/plain", body=b"x")
KINDS = {"nats": "moderation", "amqp": "?queue=moderation", "redis": "0?stream=moderation"}
FEW_BYTES = 20_000_000  # what the sockets' buffers take, of answers that never end
HUGE = 4_000_000_000
INFO = (
    b"INFO %s\r\n" % json.dumps({"server_id": "x", "version": "2.10.0", "max_payload": 1000, "headers": True}).encode()
)
POURED = {
    "no protocol": (b"", b"x" * 65536),
    "empty lines": (b"", b"\r\n" * 30000),
    "a string of Redis": (b"$%d\r\n" % HUGE, b"x" * 65536),
    "a list of Redis": (b"*%d\r\n" % HUGE, b":1\r\n" * 16384),
    "an error of Redis": (b"-ERR ", b"x" * 65536),
    "a frame of AMQP": (b"\x01\x00\x00" + struct.pack(">I", HUGE), b"x" * 65536),
    "a first line of NATS": (b'INFO {"server_id": "', b"x" * 65536),
    "a message of NATS": (INFO + b"PONG\r\nMSG a 1 %d\r\n" % HUGE, b"x" * 65536),
}


def send(kind: str, meet: Meet, *, seconds: float = 0.5) -> Outcome:
    async def scenario() -> Outcome:
        meetings: set[asyncio.Task[None]] = set()

        async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await meet(reader, writer)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            meeting = asyncio.create_task(kept(reader, writer))
            meeting.add_done_callback(lambda _: writer.transport.abort())  # though it be cancelled before it began
            meetings.add(meeting)

        async with (
            await asyncio.start_server(accept, "127.0.0.1", 0) as server,
            BrokerTransport(LOOPBACK, resolver=Names(["127.0.0.1"]), timeout_seconds=seconds) as transport,
        ):
            url = f"{kind}://user:password@127.0.0.1:{server.sockets[0].getsockname()[1]}/{KINDS[kind]}"
            outcome = await transport.send(subscription_id="sub_1", url=url, message=MESSAGE)
            for meeting in meetings:
                meeting.cancel()
            await asyncio.gather(*meetings, return_exceptions=True)
            return outcome

    return asyncio.run(scenario())


@pytest.mark.parametrize("what", POURED)
@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_that_never_ends_is_not_listened_to(kind: str, what: str) -> None:
    head, body = POURED[what]
    poured = 0

    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal poured
        writer.write(head)
        while True:
            writer.write(body)
            await writer.drain()
            poured += len(body)
            await asyncio.sleep(0)

    outcome = send(kind, pour)
    assert outcome.error in {"invalid_response", "connection_reset", "refused", "timeout"}
    assert poured < FEW_BYTES


def test_a_server_of_nats_that_is_connected_to_may_not_say_more_either() -> None:
    poured = 0

    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal poured
        writer.write(INFO)
        await reader.readuntil(b"}\r\n")  # CONNECT
        writer.write(b"+OK\r\n")
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await reader.readuntil(b"HPUB ")
        writer.write(b"MSG a 1 %d\r\n" % HUGE)
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            poured += 65536
            await asyncio.sleep(0)

    assert send("nats", pour, seconds=10).error == "connection_reset"
    assert 0 < poured < FEW_BYTES


@pytest.mark.parametrize("kind", KINDS)
def test_a_broker_that_drips_is_a_timeout(kind: str) -> None:
    beginnings = {"nats": b'INFO {"server_id": "', "amqp": b"\x01\x00\x00\x00\x01\x00\x00", "redis": b"$1000\r\n"}

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(beginnings[kind])
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.005)

    assert send(kind, drip).error == "timeout"


def test_a_url_that_leads_nowhere_has_no_attempt() -> None:
    async def scenario() -> Outcome:
        async with BrokerTransport(LOOPBACK, resolver=Names(["127.0.0.1"])) as transport:
            return await transport.send(subscription_id="sub_1", url="redis://127.0.0.1/none", message=MESSAGE)

    outcome = asyncio.run(scenario())
    assert (outcome.error, outcome.duration_ms) == ("invalid_url", 0)
