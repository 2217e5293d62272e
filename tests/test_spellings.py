"""Every spelling by which public lists reach private networks, at each place where an address is taken from others.

The vectors are those of "PayloadsAllTheThings" (its pages "Server-Side Request Forgery" and "SSRF URL for Cloud
Instances"), of EdOverflow's "bugbounty-cheatsheet" (its page "SSRF") and of the WHATWG's tests of URLs
("urltestdata.json"); the networks are those that Microsoft's "AntiSSRF" recommends to deny (`recommendedV1`), which
cites IANA's registries. `test_addresses` makes more of them by the rules of the RFCs.
"""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from tests.segment_server import Answer, SegmentServer
from tests.test_transport import Names
from webhook import destinations
from webhook.addresses import AddressPolicy
from webhook.errors import AddressRefused, SegmentRefused, SegmentUnavailable
from webhook.segments import Segments
from webhook.transports import Message
from webhook.transports.brokers import BrokerTransport
from webhook.transports.http import HttpTransport

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator

    from aiohttp.abc import ResolveResult

    from tests.clients import AppClient

LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))
EVERYTHING = AddressPolicy((ip_network("0.0.0.0/0"), ip_network("::/0")))
MESSAGE = Message(id="evt_1", type="task.failed", timestamp=1, signature="v1,x", content_type="text/plain", body=b"x")

LOOPBACK_HOSTS = (
    # "Default targets", "CIDR", "Rare address"
    *("127.0.0.1", "0.0.0.0", "127.127.127.127", "127.0.1.3", "127.0.0.0", "0", "00000", "127.1", "127.0.1"),
    # "IPv6 notation": `[::]` reaches this machine on Linux
    *("[::]", "[::1]", "[0000::1]", "[0:0:0:0:0:0:0:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::ffff:127.0.0.1]"),
    *("[::ffff:7f00:1]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]", "[64:ff9b::127.0.0.1]", "[64:ff9b:1::127.0.0.1]"),
    *("[2002:7f00:1::]", "[2001:0:7f00:1::]", "[2001:0:808:808::80ff:fffe]", "[2606:4700::5efe:127.0.0.1]"),
    # "Encoded IP address": decimal, octal, hexadecimal, mixed, padded
    *("2130706433", "017700000001", "0177.0.0.1", "0177.1", "0x7f000001", "0x7f.1", "0x7f.0x0.0x0.0x1"),
    *("127.0.0.0x1", "0x7F.1", "00000177.0.0.01", "0x000000000000007f.0.0.0x1", "127.0.0.1.", "2130706433."),
    # "Different encoding": enclosed, full-width and ideographic characters
    *("①②⑦.⓪.⓪.①", "１２７.０.０.１", "127。0。0。1", "127．0．0．1", "127｡0｡0｡1", "０ｘ７ｆ．１"),  # noqa: RUF001
)
METADATA_HOSTS = (
    # "AWS", with its ways to spell the address
    *("169.254.169.254", "2852039166", "0xA9.0xFE.0xA9.0xFE", "0xA9FEA9FE", "0251.0376.0251.0376", "169.254.43518"),
    *("0251.00376.000251.0000376", "0251.254.169.254", "[::ffff:a9fe:a9fe]", "[0:0:0:0:0:ffff:a9fe:a9fe]"),
    *("[0:0:0:0:0:ffff:169.254.169.254]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "[2002:a9fe:a9fe::]"),
    *("169.254.170.2", "①⑥⑨。②⑤④。①⑥⑨。②⑤④", "[fe80::a9fe:a9fe]"),  # ECS; OpenStack
    *("192.0.0.192", "100.100.100.200", "[fd00:100::100:200]"),  # Oracle Cloud, Alibaba Cloud
    *("168.63.129.16", "[::ffff:168.63.129.16]", "[fd20:ce::254]"),  # Azure, Google Cloud
    *("169.254.0.23", "169.254.42.42", "[fd00:42::42]", "[fd00:a9fe:a9fe::1]"),  # Tencent Cloud, Scaleway, Akamai
)
PRIVATE_HOSTS = ("3232235521", "3232235777", "192.168.1.1", "10.0.0.1", "172.16.0.1", "224.0.0.1", "255.255.255.255")
BROKEN_HOSTS = (
    # what overflows, what some parsers read as octal, what is unquoted by some, zones, and two hosts in one
    *("425.510.425.510", "7147006462", "0x41414141A9FEA9FE", "o177.0.0.1", "0o177.0.0.1", "q177.0.0.1", "256.0.0.1"),
    *(
        "127.0.0.1%00.example.com",
        "%31%32%37.0.0.1",
        "127%2e0.0.1",
        "%6c%6f%63alhost",
        "[::1%25lo]",
        "[fe80::1%25eth0]",
    ),
    *("127.1.1.1:80\\@127.2.2.2:80", "127.1.1.1:80\\@@127.2.2.2:80", "127.1.1.1:80:\\@@127.2.2.2:80", "0000::1:80"),
    *("127.1.1.1:80#\\@127.2.2.2:80", "1.1.1.1 &@2.2.2.2# @3.3.3.3", "localhost:+11211aaa", "localhost:00011211aaaa"),
    *("127.0.0.1\r\nHost: example.com", "127.0.0.1\t", "127.0.0.1\x00", "127.0.0.1\u200b"),
)
NAMES_OF_PRIVATE_HOSTS = (
    # each leads to a private address by what the resolver says, `hosts` and search lists among it
    *("localhost", "localhost.", "LOCALHOST", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "ｌｏｃａｌｈｏｓｔ", "localtest.me", "localh.st"),  # noqa: RUF001
    *("company.127.0.0.1.nip.io", "169.254.169.254.nip.io", "make-1.2.3.4-rebind-169.254-169.254-rr.1u.ms"),
    *("metadata", "MetaData", "metadata.google.internal", "metadata.google.internal.", "instance-data"),
    *("๑๒๗.๐.๐.๑", "xn--n3h.example", "127.0.0.1.example.com"),  # noqa: RUF001
)
ADDRESSES = (*LOOPBACK_HOSTS, *METADATA_HOSTS, *PRIVATE_HOSTS)
BROKERS = ("tls://u:p@{}/moderation", "amqps://u:p@{}/?queue=moderation", "rediss://u:p@{}/0?stream=moderation")
URLS = ("https://{}/hook", *BROKERS)
RECOMMENDED = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32", "169.254.0.0/16"),
    *("172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
    *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4"),
    *("240.0.0.0/4", "::1/128", "::/128", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64"),
    *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16", "fc00::/7"),
    *("fe80::/10", "fec0::/10", "ff00::/8"),
)


class Echo(Names):
    """A resolver that finds addresses alone, as the system's does with those of `inet_pton`."""

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        self.answers = [[str(ip_address(host))]]
        return await super().resolve(host, port, family)


@pytest.fixture(autouse=True)
def connected(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that were connected to, none of them really but the loopback's."""
    addresses: list[str] = []
    connect = asyncio.SelectorEventLoop.sock_connect

    async def watched(self: asyncio.SelectorEventLoop, sock: socket.socket, address: Any) -> None:
        addresses.append(address[0])
        if address[0] != "127.0.0.1":
            raise ConnectionRefusedError(111, "nobody is there")
        await connect(self, sock, address)

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", watched)
    return addresses


@pytest.fixture(scope="module")
def server() -> Iterator[SegmentServer]:
    with SegmentServer() as one:
        yield one


async def by_http(policy: AddressPolicy, names: Names, url: str, times: int = 1) -> list[str | None]:
    async with HttpTransport(policy, resolver=names) as transport:
        return [(await transport.send(url=url, headers={}, body=b"")).error for _ in range(times)]


async def by_broker(policy: AddressPolicy, names: Names, url: str, times: int = 1) -> list[str | None]:
    async with BrokerTransport(policy, resolver=names) as transport:
        sending = {"subscription_id": "sub_1", "url": url, "message": MESSAGE}
        return [(await transport.send(**sending)).error for _ in range(times)]  # type: ignore[arg-type]


async def by_segments(policy: AddressPolicy, names: Names, url: str, times: int = 1) -> list[str | None]:
    async with Segments(policy, timeout_seconds=10, limit=1000, resolver=names) as segments:
        reasons: list[str | None] = []
        for _ in range(times):
            try:
                await segments.fetch(url)
            except (SegmentRefused, SegmentUnavailable) as error:
                reasons.append(error.reason)
        return reasons


WAYS: list[tuple[Callable[..., Coroutine[Any, Any, list[str | None]]], str]] = [
    (by_http, "https://{}/hook"),
    (by_segments, "https://{}/a.wav"),
    *((by_broker, url) for url in BROKERS),
]
every_way = pytest.mark.parametrize(("send", "url"), WAYS, ids=["http", "segments", "nats", "amqp", "redis"])


# When it is created


@pytest.mark.parametrize("host", ADDRESSES)
@pytest.mark.parametrize("url", URLS)
def test_an_address_is_refused_when_it_is_created(url: str, host: str) -> None:
    with pytest.raises(AddressRefused):
        destinations.check_url(AddressPolicy(), url.format(host))


@pytest.mark.parametrize("host", METADATA_HOSTS)
@pytest.mark.parametrize("url", URLS)
def test_metadata_is_refused_though_everything_is_allowed(url: str, host: str) -> None:
    with pytest.raises(AddressRefused, match="never allowed"):
        destinations.check_url(EVERYTHING, url.format(host))


@pytest.mark.parametrize("host", BROKEN_HOSTS)
@pytest.mark.parametrize("url", URLS)
def test_what_parsers_read_in_several_ways_is_read_in_none(url: str, host: str) -> None:
    with pytest.raises(ValueError, match=r"^The URL"):
        destinations.check_url(EVERYTHING, url.format(host))


@pytest.mark.parametrize("network", RECOMMENDED)
def test_networks_that_others_deny_are_closed_from_end_to_end(network: str) -> None:
    for address in (ip_network(network)[0], ip_network(network)[-1]):
        with pytest.raises(AddressRefused):
            AddressPolicy().check(str(address))


def test_the_api_answers_422(client: AppClient) -> None:
    for host in (*METADATA_HOSTS, *BROKEN_HOSTS):
        reply = client.post("/v1/subscriptions", {"url": f"https://{host}/hook"})
        assert reply.fields == ["url"], host
    subscription = client.made("/v1/subscriptions", {"url": "https://example.com/hook"})
    for host in METADATA_HOSTS:
        assert client.patch(f"/v1/subscriptions/{subscription['id']}", {"url": f"https://{host}/"}).fields == ["url"]


# When it is connected to


@pytest.mark.parametrize("host", ADDRESSES)
@every_way
def test_an_address_is_not_connected_to(
    send: Callable[..., Coroutine[Any, Any, list[str | None]]], url: str, host: str, connected: list[str]
) -> None:
    """Not even where it was created while the settings still allowed it."""
    assert asyncio.run(send(AddressPolicy(), Echo(), url.format(host))) == ["address_not_allowed"]
    assert connected == []


@pytest.mark.parametrize("host", NAMES_OF_PRIVATE_HOSTS)
@every_way
def test_a_name_is_taken_and_leads_nowhere_that_its_address_may_not(
    send: Callable[..., Coroutine[Any, Any, list[str | None]]], url: str, host: str, connected: list[str]
) -> None:
    if send is not by_segments:
        destinations.check_url(AddressPolicy(), url.format(host))
    for address in ("127.0.0.1", "::1", "::ffff:10.0.0.1", "169.254.169.254", "64:ff9b::a9fe:a9fe", "fe80::1%eth0"):
        assert asyncio.run(send(AddressPolicy(), Names([address]), url.format(host))) == ["address_not_allowed"]
    assert connected == []


@every_way
def test_a_name_that_is_rebound_between_two_attempts_is_judged_anew(
    send: Callable[..., Coroutine[Any, Any, list[str | None]]],
    url: str,
    connected: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("webhook.connections.DNS_CACHE_SECONDS", 0)
    names = Names(["8.8.8.8"], ["169.254.169.254"], ["10.0.0.1"], ["8.8.8.8"])
    errors = asyncio.run(send(AddressPolicy(), names, url.format("rebind.example"), 4))
    assert errors == ["connection_refused", "address_not_allowed", "address_not_allowed", "connection_refused"]
    assert connected == ["8.8.8.8"] * 2


@every_way
def test_a_name_is_looked_up_once_for_an_attempt(
    send: Callable[..., Coroutine[Any, Any, list[str | None]]], url: str, connected: list[str]
) -> None:
    names = Names(["8.8.8.8"], ["169.254.169.254"])
    assert asyncio.run(send(AddressPolicy(), names, url.format("rebind.example"))) == ["connection_refused"]
    assert (names.asked, connected) == (1, ["8.8.8.8"])


@pytest.mark.parametrize("host", [*METADATA_HOSTS, *PRIVATE_HOSTS])
def test_a_redirect_of_audio_leads_to_no_address_that_a_link_may_not(
    host: str, server: SegmentServer, connected: list[str]
) -> None:
    away = server.answer("/away", Answer(302, b"", headers={"Location": f"https://{_quoted(host)}/a.wav"}))
    assert asyncio.run(by_segments(LOOPBACK, Names([]), away)) == ["address_not_allowed"]
    assert set(connected) == {"127.0.0.1"}


def _quoted(host: str) -> str:
    """Return a host as a header can hold it: `http.server` writes Latin-1."""
    return host if host.isascii() else host.encode("idna").decode()
