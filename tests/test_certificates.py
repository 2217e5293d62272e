"""Certificates that do not hold: a clear word each, whatever is connected to, and no further attempt by itself.

The servers are real and speak TLS on the loopback; what is wrong with their certificates is OpenSSL's to find.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import warnings
from contextlib import asynccontextmanager
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING

import pytest

from tests.certificates import Certificate
from tests.test_deliveries import Bench, Transport
from tests.test_transport import Names, listening
from webhook import destinations
from webhook.addresses import AddressPolicy
from webhook.connections import CERTIFICATE_FAULTS, PERMANENT, default_ssl_context
from webhook.errors import PlatformBusy, SegmentRefused
from webhook.platform_client import PlatformClient
from webhook.segments import Segments
from webhook.store import deliveries as delivery_store
from webhook.transports import Message, Outcome
from webhook.transports.brokers import BrokerTransport
from webhook.transports.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.conftest import Clock
    from webhook.bootstrap import Service

NAME = "hooks.example"
LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))
MESSAGE = Message(id="evt_1", type="task.failed", timestamp=1, signature="v1,x", content_type="text/plain", body=b"x")

Presented = tuple[Certificate, ssl.SSLContext]


def good(folder: Path) -> Presented:
    certificate = Certificate(folder, NAME)
    return certificate, certificate.trust


def expired(folder: Path) -> Presented:
    certificate = Certificate(folder, NAME, days=(-10, -1))
    return certificate, certificate.trust


def not_yet_valid(folder: Path) -> Presented:
    certificate = Certificate(folder, NAME, days=(1, 10))
    return certificate, certificate.trust


def of_another_name(folder: Path) -> Presented:
    certificate = Certificate(folder, "other.example")
    return certificate, certificate.trust


def self_signed(folder: Path) -> Presented:
    return Certificate(folder, NAME), default_ssl_context()


def of_an_unknown_issuer(folder: Path) -> Presented:
    authority = Certificate(folder, "authority.example")
    return Certificate(folder, NAME, issuer=authority), default_ssl_context()


def of_an_unknown_issuer_that_is_sent_along(folder: Path) -> Presented:
    authority = Certificate(folder, "authority.example")
    certificate = Certificate(folder, NAME, issuer=authority)
    with certificate.file.open("a") as file:
        file.write(authority.pem)
    certificate.context.load_cert_chain(certificate.file)
    return certificate, default_ssl_context()


FAULTS = [
    (expired, "certificate_expired"),
    (not_yet_valid, "certificate_invalid"),
    (of_another_name, "certificate_misnamed"),
    (self_signed, "certificate_untrusted"),
    (of_an_unknown_issuer, "certificate_untrusted"),
    (of_an_unknown_issuer_that_is_sent_along, "certificate_untrusted"),
]
every_fault = pytest.mark.parametrize(("present", "word"), FAULTS)


def over_http(certificate: Certificate, trust: ssl.SSLContext, *, host: str = NAME) -> tuple[Outcome, int]:
    """Return the outcome of an attempt, and how many requests the server has seen."""

    async def scenario() -> tuple[Outcome, int]:
        async with (
            listening(tls=certificate.context) as subscriber,
            HttpTransport(LOOPBACK, resolver=Names(["127.0.0.1"]), ssl_context=trust) as transport,
        ):
            url = f"https://{host}:{subscriber.port}/"
            outcome = await transport.send(url=url, headers=MESSAGE.headers, body=MESSAGE.body)
            return outcome, len(subscriber.requests)

    return asyncio.run(scenario())


@every_fault
def test_a_subscriber_whose_certificate_does_not_hold_gets_nothing(
    present: Callable[[Path], Presented], word: str, tmp_path: Path
) -> None:
    outcome, requests = over_http(*present(tmp_path))
    assert (outcome.delivered, outcome.error, outcome.permanent, requests) == (False, word, True, 0)


def test_a_certificate_that_holds_is_taken(tmp_path: Path) -> None:
    outcome, requests = over_http(*good(tmp_path))
    assert (outcome.delivered, outcome.permanent, requests) == (True, False, 1)


def test_a_certificate_of_a_name_is_none_of_its_address(tmp_path: Path) -> None:
    assert over_http(*good(tmp_path), host="127.0.0.1")[0].error == "certificate_misnamed"


def test_other_faults_are_tried_again() -> None:
    for word in ("tls", "timeout", "dns", "connection_refused", "address_not_allowed", "http_500"):
        assert not Outcome(error=word, duration_ms=1).permanent
    assert not Outcome(status=200, duration_ms=1).permanent
    assert set(CERTIFICATE_FAULTS.values()) < PERMANENT


# Brokers: AMQP and Redis speak TLS at once, NATS after its first line


@asynccontextmanager
async def broker(certificate: Certificate, *, greets: bool) -> AsyncIterator[int]:
    """Listen as a broker does until TLS is spoken; nothing comes after it."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if greets:
                greeting = {"server_id": "x", "version": "2.10.0", "max_payload": 1_000_000, "tls_required": True}
                writer.write(b"INFO %s\r\n" % json.dumps(greeting).encode())
                await writer.start_tls(certificate.context)
            await reader.read()
        except OSError:  # who connects turns away
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=None if greets else certificate.context)
    async with server:
        yield server.sockets[0].getsockname()[1]


@every_fault
@pytest.mark.parametrize(
    ("module", "url"),
    [
        ("nats", f"tls://u:p@{NAME}:PORT/moderation"),
        ("amqp", f"amqps://u:p@{NAME}:PORT/?queue=moderation"),
        ("redis", f"rediss://u:p@{NAME}:PORT/0?stream=moderation"),
    ],
)
def test_a_broker_whose_certificate_does_not_hold_gets_nothing(
    *,
    module: str,
    url: str,
    present: Callable[[Path], Presented],
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    certificate, trust = present(tmp_path)
    monkeypatch.setattr(f"webhook.transports.{module}.default_ssl_context", lambda: trust)

    async def scenario() -> Outcome:
        async with (
            broker(certificate, greets=module == "nats") as port,
            BrokerTransport(LOOPBACK, resolver=Names(["127.0.0.1"])) as transport,
        ):
            place = url.replace("PORT", str(port))
            return await transport.send(subscription_id="sub_1", url=place, message=MESSAGE)

    outcome = asyncio.run(scenario())
    assert (outcome.error, outcome.permanent) == (word, True)


def test_an_address_in_a_brokers_url_is_what_its_certificate_must_name() -> None:
    for url in ("tls://[::1]:4222/moderation", "amqps://[::1]/?queue=a", "rediss://[::1]/0?stream=a"):
        assert destinations.parse(url).host == "::1", "OpenSSL takes what has brackets for a name"


# What a delivery, a capture and a call of the platform make of it


@pytest.fixture
def bench(service: Service, clock: Clock) -> Bench:
    return Bench(service, clock)


@pytest.mark.parametrize("word", sorted(PERMANENT))
def test_a_delivery_is_dead_at_once_and_goes_out_when_it_is_recovered(bench: Bench, word: str) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    assert bench.deliver(Transport(word)) == 1
    bench.clock.advance(days=2)
    assert bench.deliver(Transport()) == 0
    (dead,) = bench.owed(subscription)
    assert (dead.state, dead.next_attempt_at) == ("dead", None)
    assert [attempt.error for attempt in bench.attempts(dead)] == [word]
    with bench.service.database.transaction() as session:
        since = bench.clock() - timedelta(days=3650)
        assert delivery_store.make_failed_due(session, subscription.id, since=since, now=bench.clock()) == 1
    assert bench.deliver(Transport()) == 1
    bench.turn()
    assert bench.owed(subscription)[0].state == "delivered"


def test_a_delivery_is_retried_once_it_is_asked_for(bench: Bench) -> None:
    subscription, _ = bench.subscribe()
    bench.publish()
    bench.deliver(Transport("certificate_expired"))
    bench.turn()
    with bench.service.database.transaction() as session:
        assert delivery_store.make_due(session, bench.owed(subscription)[0].id, now=bench.clock())
    assert bench.deliver(Transport("certificate_expired", 204)) == 1, "it is dead again, and not tried on"
    bench.turn()
    assert bench.owed(subscription)[0].state == "dead"


def test_a_store_of_audio_whose_certificate_does_not_hold_is_not_asked_again(tmp_path: Path) -> None:
    certificate, trust = expired(tmp_path)

    async def scenario() -> None:
        async with (
            listening(tls=certificate.context) as store,
            Segments(
                LOOPBACK, timeout_seconds=5, limit=1000, resolver=Names(["127.0.0.1"]), ssl_context=trust
            ) as segments,
        ):
            await segments.fetch(f"https://{NAME}:{store.port}/a.wav")

    with pytest.raises(SegmentRefused) as refusal:
        asyncio.run(scenario())
    assert refusal.value.reason == "certificate_expired"


def test_a_platform_whose_certificate_does_not_hold_was_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "all_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    async def scenario() -> int:
        async with listening(tls=self_signed(tmp_path)[0].context) as platform:
            client = PlatformClient(
                endpoint=f"https://127.0.0.1:{platform.port}",
                region="ap-southeast-1",
                access_key_id="id",
                access_key_secret="secret",
                security_token=None,
            )
            with pytest.raises(PlatformBusy) as busy:
                await asyncio.to_thread(client.submit, service="audio_detection_byllm_global", parameters={})
            assert busy.value.reason == "platform_unreachable"
            assert "certificate" in busy.value.message
            return len(platform.requests)

    assert asyncio.run(scenario()) == 0


# Versions of TLS


def speaking(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    """Let a context speak one version alone; for old ones, with algorithms that OpenSSL has switched off."""
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    return context


OLD = (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1)


@pytest.mark.parametrize("version", [*OLD, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_nothing_older_than_tls_1_2_is_spoken(version: ssl.TLSVersion, tmp_path: Path) -> None:
    certificate, trust = good(tmp_path)
    speaking(certificate.context, version)
    assert over_http(certificate, speaking(trust, version))[0].delivered, "the server speaks it to whom it likes"
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ours.minimum_version = default_ssl_context().minimum_version
    ours.set_ciphers("DEFAULT:@SECLEVEL=0")  # it is the version that is refused, and no algorithm
    ours.load_verify_locations(cadata=certificate.pem)
    outcome, requests = over_http(certificate, ours)
    assert (outcome.delivered, requests) == ((False, 0) if version in OLD else (True, 1))
