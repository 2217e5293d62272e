"""Nothing that a user or a platform names begins a header, or a broker's command, of its own."""

from __future__ import annotations

import asyncio
from ipaddress import ip_network
from typing import Any

import pytest

from tests.test_transport import Names, listening
from webhook import destinations, events
from webhook.addresses import AddressPolicy
from webhook.transports import Message, Outcome
from webhook.transports.brokers import BrokerTransport
from webhook.transports.http import HttpTransport

LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))
INJECTIONS = [
    "x\r\nInjected: 1",
    "x\nInjected: 1",
    "x\rInjected",
    "x\x00",
    "x\x0b",
    "x\x85",
    "x\u2028Injected: 1",
    "\x7f",
]
QUOTED = ["%0D%0AInjected:%201", "%0aPUB%20x%200", "%0d", "%00", "%7f", "%C2%85"]
FIELDS = {"id": "evt_1", "type": "task.failed", "signature": "v1,x", "content_type": "application/json"}


def message(**fields: str) -> Message:
    return Message(timestamp=1, body=b"{}", **FIELDS | fields)


@pytest.mark.parametrize("injection", INJECTIONS)
@pytest.mark.parametrize("field", FIELDS)
def test_a_message_whose_headers_would_be_more_than_they_are_is_none(field: str, injection: str) -> None:
    with pytest.raises(ValueError, match="header"):
        message(**{field: injection})


@pytest.mark.parametrize("type_", events.EVENT_TYPES)
@pytest.mark.parametrize("content_type", events.FORMATS.values())
def test_what_we_publish_is_one(type_: str, content_type: str) -> None:
    assert message(type=type_, content_type=content_type).headers["content-type"] == content_type


@pytest.mark.parametrize("quoted", QUOTED)
@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1/moderation.{}",
        "nats://{}@127.0.0.1/moderation",
        "nats://u:p{}@127.0.0.1/moderation",
        "amqp://127.0.0.1/{}?queue=a",
        "amqp://127.0.0.1/?queue={}",
        "amqp://127.0.0.1/?exchange=a&routing_key={}",
        "amqp://{}:p@127.0.0.1/?queue=a",
        "redis://127.0.0.1/0?stream={}",
        "redis://127.0.0.1/{}?stream=a",
        "redis://u:{}@127.0.0.1/0?stream=a",
    ],
)
def test_a_broker_is_told_no_control_characters_by_its_url(url: str, quoted: str) -> None:
    with pytest.raises(ValueError, match=r"^(The URL|Each name)") as refusal:
        destinations.check_url(LOOPBACK, url.format(quoted))
    assert quoted not in str(refusal.value)


@pytest.mark.parametrize("injection", INJECTIONS)
def test_a_url_is_one_line_of_a_request(injection: str) -> None:
    for url in (f"http://127.0.0.1:9/{injection}", f"http://127.0.0.1:9/?a={injection}", f"http://{injection}/"):
        with pytest.raises(ValueError, match=r"^The URL"):
            LOOPBACK.check_url(url)


@pytest.mark.parametrize("quoted", QUOTED)
def test_what_is_quoted_in_a_url_stays_quoted_in_the_request(quoted: str) -> None:
    async def scenario() -> bytes:
        async with listening() as subscriber, HttpTransport(LOOPBACK) as transport:
            url = f"{subscriber.url}/{quoted}?a={quoted}"
            assert (await transport.send(url=url, headers=message().headers, body=b"{}")).delivered
            return subscriber.requests[0]

    head, _, _ = asyncio.run(scenario()).partition(b"\r\n\r\n")
    assert head.startswith(f"POST /hook/{quoted}?a={quoted} HTTP/1.1\r\n".encode())
    assert b"\nInjected" not in head


@pytest.mark.parametrize(("scheme", "place"), [("nats", "moderation"), ("amqp", "?queue=a"), ("redis", "0?stream=a")])
def test_a_password_of_any_signs_is_one_word_to_a_broker(scheme: str, place: str) -> None:
    """It is told in JSON, in a counted string, or with its length before it: no sign ends it."""

    async def scenario() -> tuple[Outcome, bytes]:
        said = b""
        heard = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal said
            if scheme == "nats":
                writer.write(b'INFO {"server_id": "x", "version": "2.10.0", "max_payload": 1000000}\r\n')
            said += await reader.read(65536)
            heard.set()
            writer.close()

        async with await asyncio.start_server(listen, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with BrokerTransport(LOOPBACK, resolver=Names(["127.0.0.1"]), timeout_seconds=5) as transport:
                url = f"{scheme}://u:a%20b%22%27%5C%2B%C3%BC@127.0.0.1:{port}/{place}"
                sending: dict[str, Any] = {"subscription_id": "sub_1", "url": url, "message": message()}
                outcome = await transport.send(**sending)
                await heard.wait()
        return outcome, said

    outcome, said = asyncio.run(scenario())
    assert not outcome.delivered
    lines = said.split(b"\r\n")
    if scheme == "nats":
        assert lines[0].startswith(b"CONNECT {")
        assert rb"a b\"'\\+" in lines[0]
        assert {line for line in lines[1:] if line} <= {b"PING"}
    elif scheme == "redis":
        assert b"$9\r\n" + "a b\"'\\+ü\r\n".encode() in said
    else:
        assert said.startswith(b"AMQP")
