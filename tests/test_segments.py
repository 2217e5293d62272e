"""Links that lead to audio, to something else, to nothing, or to where nobody may go; real servers on the loopback."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from tests.running import free_port
from tests.segment_server import AUDIO, Answer, SegmentServer
from tests.test_transport import Names
from webhook.addresses import AddressPolicy
from webhook.errors import EvidenceError, SegmentRefused, SegmentUnavailable
from webhook.segments import HOPS, LONGEST_LINK, Segment, Segments

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))


@pytest.fixture(scope="module")
def server() -> Iterator[SegmentServer]:
    with SegmentServer() as one:
        yield one


def fetch(
    url: str,
    *,
    policy: AddressPolicy = LOOPBACK,
    limit: int = 1 << 20,
    timeout_seconds: float = 30,
    names: Names | None = None,
) -> Segment:
    async def scenario() -> Segment:
        async with Segments(policy, timeout_seconds=timeout_seconds, limit=limit, resolver=names) as segments:
            return await segments.fetch(url)

    return asyncio.run(scenario())


def reason(kind: type[EvidenceError], url: str, **more: object) -> str:
    with pytest.raises(kind) as refusal:
        fetch(url, **more)  # type: ignore[arg-type]
    assert type(refusal.value) is kind
    return refusal.value.reason


@pytest.mark.parametrize(
    "content_type",
    ["audio/wav", "Audio/X-WAV", "video/mp2t", "application/octet-stream", "audio/ogg; codecs=opus", "audio/vnd.a-b+c"],
)
def test_audio_video_and_unnamed_bytes_are_fetched_as_they_are(server: SegmentServer, content_type: str) -> None:
    url = server.answer("/good", Answer(content_type=content_type))
    assert fetch(f"{url}?Signature=a%2Bb&x=1") == Segment(audio=AUDIO, content_type=content_type)
    assert server.headers["/good"]["Accept-Encoding"] == "identity"


def test_an_answer_without_a_type_is_of_unnamed_bytes(server: SegmentServer) -> None:
    assert fetch(server.answer("/untyped", Answer(content_type=None))).content_type == "application/octet-stream"


@pytest.mark.parametrize(
    "content_type",
    ["text/html", "application/json", "audio", "audio/", "audio/wav\x7f", "text/html; audio/wav", "image/png"],
)
def test_what_is_no_audio_is_refused(server: SegmentServer, content_type: str) -> None:
    url = server.answer("/page", Answer(body=b"<html>", content_type=content_type))
    assert reason(SegmentRefused, url) == "wrong_type"


def test_what_is_packed_is_refused_since_nobody_bounds_what_comes_out(server: SegmentServer) -> None:
    assert reason(SegmentRefused, server.answer("/gzip", Answer(headers={"Content-Encoding": "gzip"}))) == "wrong_type"


def test_audio_at_the_limit_is_fetched_and_a_byte_more_is_refused(server: SegmentServer) -> None:
    url = server.answer("/size", Answer())
    assert fetch(url, limit=len(AUDIO)).audio == AUDIO
    assert reason(SegmentRefused, url, limit=len(AUDIO) - 1) == "too_large"


def test_what_does_not_say_how_large_it_is_is_given_up_at_the_limit(server: SegmentServer) -> None:
    url = server.answer("/unsized", Answer(headers={"Content-Length": None}))  # type: ignore[dict-item]
    assert fetch(url, limit=len(AUDIO)).audio == AUDIO
    assert reason(SegmentRefused, url, limit=len(AUDIO) - 1) == "too_large"


def test_what_says_that_it_is_too_large_is_not_read(server: SegmentServer) -> None:
    url = server.answer("/huge", Answer(headers={"Content-Length": str(1 << 40)}, held=True))
    assert reason(SegmentRefused, url) == "too_large"


@pytest.mark.parametrize("status", [204, 206, 300, 304, 400, 403, 404, 410, 429, 500, 503])
def test_other_statuses_may_change(server: SegmentServer, status: int) -> None:
    url = server.answer("/status", Answer(status, b""))
    assert reason(SegmentUnavailable, url) == f"http_{status}"


def test_nothing_is_no_audio_yet(server: SegmentServer) -> None:
    assert reason(SegmentUnavailable, server.answer("/empty", Answer(body=b""))) == "empty"


def test_audio_that_is_cut_short_is_not_taken_for_the_whole(server: SegmentServer) -> None:
    url = server.answer("/cut", Answer(headers={"Content-Length": str(len(AUDIO) + 1)}))
    assert reason(SegmentUnavailable, url) == "invalid_response"


def test_audio_that_does_not_come_is_given_up(server: SegmentServer) -> None:
    url = server.answer("/slow", Answer(held=True))
    assert reason(SegmentUnavailable, url, timeout_seconds=0.2) == "timeout"


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\n\r\n"])
def test_audio_that_drips_is_given_up(head: bytes) -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head)
        try:
            with suppress(ConnectionError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
                    await asyncio.sleep(0.005)
        finally:
            writer.close()

    async def scenario() -> str:
        async with (
            await asyncio.start_server(drip, "127.0.0.1", 0) as server,
            Segments(LOOPBACK, timeout_seconds=0.2, limit=1 << 20) as segments,
        ):
            with pytest.raises(SegmentUnavailable) as refusal:
                await segments.fetch(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/a.wav")
            return refusal.value.reason

    assert asyncio.run(scenario()) == "timeout"


def test_nobody_there_may_change() -> None:
    assert reason(SegmentUnavailable, f"http://127.0.0.1:{free_port()}/x") == "connection_refused"
    assert reason(SegmentUnavailable, "https://a.example/", names=Names(OSError("no such name"))) == "dns"


def test_redirects_are_followed_a_few_times(server: SegmentServer) -> None:
    server.answer("/end", Answer())
    for hop in range(HOPS + 1):
        to = "/end" if hop == 0 else f"hop-{hop - 1}"
        server.answer(f"/hop-{hop}", Answer((301, 302, 303, 307)[hop], b"", headers={"Location": to}))
    assert fetch(server.url(f"/hop-{HOPS - 1}")).audio == AUDIO
    assert reason(SegmentRefused, server.url(f"/hop-{HOPS}")) == "too_many_redirects"


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://169.254.169.254/latest/meta-data/", "address_not_allowed"),
        ("https://10.0.0.1/", "address_not_allowed"),
        ("file:///etc/passwd", "invalid_url"),
        ("http://user:password@127.0.0.1/", "invalid_url"),
        ("//[::1", "invalid_url"),
    ],
)
def test_a_redirect_leads_nowhere_that_a_link_may_not(server: SegmentServer, location: str, why: str) -> None:
    url = server.answer("/away", Answer(302, b"", headers={"Location": location}))
    assert reason(SegmentRefused, url) == why


@pytest.mark.parametrize(
    "url", ["rtmp://127.0.0.1/x", "nonsense", "", "http://a b/", f"https://a.example/{'x' * LONGEST_LINK}"]
)
def test_what_is_no_link_is_refused(url: str) -> None:
    assert reason(SegmentRefused, url) == "invalid_url"


def test_a_long_signed_link_is_none_too_long(server: SegmentServer) -> None:
    url = server.answer("/signed", Answer())
    assert fetch(f"{url}?security-token={'x' * 4000}").audio == AUDIO


def test_a_private_address_is_not_connected_to_by_number_or_by_name(server: SegmentServer) -> None:
    url = server.answer("/private", Answer())
    assert reason(SegmentRefused, url, policy=AddressPolicy()) == "address_not_allowed"
    named = url.replace("127.0.0.1", "segments.example")
    names = Names(["127.0.0.1"])
    assert reason(SegmentRefused, named, policy=AddressPolicy(), names=names) == "address_not_allowed"
    assert names.asked
    assert server.requests("/private") == 0
    assert fetch(named, names=Names(["127.0.0.1"])).audio == AUDIO


@pytest.mark.parametrize(
    ("url", "port"),
    [
        ("http://store.example/a", 443),
        ("http://store.example:80/a", 443),
        ("http://store.example:8080/a", 8080),
        ("https://store.example/a", 443),
    ],
)
def test_a_plain_link_to_the_public_internet_is_asked_for_by_https(
    monkeypatch: pytest.MonkeyPatch, url: str, port: int
) -> None:
    asked: list[tuple[str, int]] = []

    async def refuse(_: object, __: socket.socket, address: tuple[str, int]) -> None:
        asked.append(address)
        raise ConnectionRefusedError(111, "nobody is there")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", refuse)
    assert reason(SegmentUnavailable, url, policy=AddressPolicy(), names=Names(["8.8.8.8"])) == "connection_refused"
    assert asked == [("8.8.8.8", port)]
