"""Brokers take what a web server would and keep what they have confirmed: real servers, killed and started again."""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from standardwebhooks import Webhook

from tests.brokers import BROKERS, PASSWORD, USER, Nats, Redis
from tests.certificates import Certificate
from tests.databases import connected
from tests.test_transport import Names
from tests.waiting import until
from webhook import signatures
from webhook.addresses import AddressPolicy
from webhook.transports import Message, Outcome, Transports
from webhook.transports.brokers import BrokerTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.brokers import Broker
    from tests.clients import AppClient
    from tests.running import Running

LOOPBACK = AddressPolicy((ip_network("127.0.0.0/8"),))
SECRET = b"k" * 32
LOST = {"connection_refused", "connection_reset", "connection_failed", "timeout"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Broker]]:
    """Brokers by name, each started once."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(BROKERS[name](tmp_path_factory.mktemp(name))))


@pytest.fixture(params=BROKERS)
def broker(request: pytest.FixtureRequest, start: Callable[[str], Broker]) -> Broker:
    return start(request.param)


def message(number: int | str, body: bytes = b'{"type": "slice.flagged"}') -> Message:
    event_id = f"evt_{number}"
    return Message(
        id=event_id,
        type="slice.flagged",
        timestamp=1_800_000_000,
        signature=signatures.sign(secrets=[SECRET], message_id=event_id, timestamp=1_800_000_000, body=body),
        content_type="application/json",
        body=body,
    )


def send(*messages: Message, url: str, policy: AddressPolicy = LOOPBACK, seconds: float = 15) -> list[Outcome]:
    async def scenario() -> list[Outcome]:
        async with Transports(policy, timeout_seconds=seconds) as transports:
            sending = [transports.send(subscription_id="sub_1", url=url, message=one) for one in messages]
            return await asyncio.gather(*sending)

    return asyncio.run(scenario())


def kept(broker: Broker) -> dict[str, Any]:
    return {one.id: one for one in asyncio.run(broker.kept())}


class TestEveryBroker:
    def test_a_message_is_the_one_that_a_web_server_gets(self, broker: Broker) -> None:
        sent = message("whole", b'{"text": "\xe4\xbd\xa0\xe5\xa5\xbd", "n": 1}')
        [outcome] = send(sent, url=broker.url())
        assert (outcome.delivered, outcome.status, outcome.error) == (True, None, None)
        found = kept(broker)["evt_whole"]
        assert found.body == sent.body
        assert sent.headers.items() <= dict(found.headers).items()
        at = datetime.fromtimestamp(sent.timestamp, tz=UTC)
        assert found.headers["webhook-signature"] == Webhook(SECRET).sign(sent.id, at, sent.body.decode())

    def test_many_at_once_are_all_there(self, broker: Broker) -> None:
        messages = [message(f"many-{number}") for number in range(200)]
        assert all(outcome.delivered for outcome in send(*messages, url=broker.url()))
        assert {one.id for one in messages} <= kept(broker).keys()

    def test_a_large_one_is_there(self, broker: Broker) -> None:
        body = b'"' + b"x" * 900_000 + b'"'
        assert send(message("large", body), url=broker.url())[0].delivered
        assert kept(broker)["evt_large"].body == body

    def test_a_wrong_password_is_unauthorized(self, broker: Broker) -> None:
        [outcome] = send(message("wrong"), url=broker.url(password="another"))
        assert (outcome.delivered, outcome.error) == (False, "unauthorized")
        assert "evt_wrong" not in kept(broker)

    def test_an_address_that_is_not_allowed_is_not_connected_to(self, broker: Broker) -> None:
        assert send(message("private"), url=broker.url(), policy=AddressPolicy())[0].error == "address_not_allowed"
        named = broker.url().replace("127.0.0.1", "localhost")
        assert send(message("private"), url=named, policy=AddressPolicy())[0].error == "address_not_allowed"
        assert send(message("named"), url=named)[0].delivered
        assert {"evt_private", "evt_named"} & kept(broker).keys() == {"evt_named"}

    def test_if_one_of_a_names_addresses_refuses_the_next_is_tried(self, broker: Broker) -> None:
        async def scenario() -> Outcome:
            resolver = Names(["127.0.0.2", "127.0.0.1"])
            async with BrokerTransport(LOOPBACK, resolver=resolver) as transport:
                url = broker.url().replace("127.0.0.1", "broker.example")
                return await transport.send(subscription_id="sub_1", url=url, message=message("next"))

        assert asyncio.run(scenario()).delivered
        assert "evt_next" in kept(broker)

    def test_one_that_hangs_is_a_timeout_and_serves_again(self, broker: Broker) -> None:
        async def scenario() -> list[Outcome]:
            async with Transports(LOOPBACK, timeout_seconds=1) as transports:

                async def attempt(name: str) -> Outcome:
                    return await transports.send(subscription_id="sub_1", url=broker.url(), message=message(name))

                while not (await attempt("before")).delivered:
                    pass  # a busy machine may take its time to connect
                broker.hang()
                outcomes = [await attempt("hanging")]
                broker.go_on()
                while not outcomes[-1].delivered:
                    outcomes.append(await attempt("after"))
                return outcomes

        assert asyncio.run(scenario())[0].error == "timeout"
        assert {"evt_before", "evt_after"} <= kept(broker).keys()

    def test_what_was_confirmed_survives_kill_9_and_the_rest_is_sent_again(self, broker: Broker) -> None:
        """What is in flight when the server dies fails with a word; the same transport goes on when it is back."""

        async def scenario() -> tuple[list[Outcome], list[Outcome], list[Outcome]]:
            async with Transports(LOOPBACK) as transports:

                async def attempt(number: int) -> Outcome:
                    return await transports.send(
                        subscription_id="sub_1", url=broker.url(), message=message(f"kill-{number}")
                    )

                sending = [asyncio.create_task(attempt(number)) for number in range(400)]
                await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
                await asyncio.to_thread(broker.kill)
                during = await asyncio.gather(*sending)
                down = [await attempt(0)]
                await asyncio.to_thread(broker.start)
                return during, down, await asyncio.gather(*(attempt(number) for number in range(400)))

        during, [down], after = asyncio.run(scenario())
        assert any(one.delivered for one in during)
        assert {one.error for one in during if not one.delivered} <= LOST
        assert down.error == "connection_refused"
        assert all(one.delivered for one in after)
        assert {f"evt_kill-{number}" for number in range(400)} <= kept(broker).keys()

    def test_confirmed_alone_is_enough(self, broker: Broker) -> None:
        """Nothing is sent again here: what was confirmed before the kill is there after it."""
        names = [f"once-{number}" for number in range(50)]
        assert all(one.delivered for one in send(*map(message, names), url=broker.url()))
        broker.kill()
        broker.start()
        assert {f"evt_{name}" for name in names} <= kept(broker).keys()


@pytest.mark.parametrize(
    ("name", "place"),
    [("nats", "elsewhere"), ("rabbitmq", "queue=elsewhere"), ("rabbitmq", "exchange=elsewhere")],
)
def test_where_nothing_takes_a_message_it_is_not_delivered(
    start: Callable[[str], Broker], name: str, place: str
) -> None:
    [outcome] = send(message("stray"), url=start(name).url(place))
    assert outcome.error == "no_destination"


def test_nats_drops_what_it_has_by_the_same_id(start: Callable[[str], Broker]) -> None:
    nats = start("nats")
    before = len(asyncio.run(nats.kept()))
    for _ in range(3):
        assert send(message("again"), url=nats.url())[0].delivered
    assert len(asyncio.run(nats.kept())) == before + 1


def test_a_redis_stream_keeps_about_as_many_as_it_is_told_to(start: Callable[[str], Broker]) -> None:
    redis = start("redis")
    assert isinstance(redis, Redis)
    send(*(message(number) for number in range(1000)), url=redis.url("stream=short:{type}&max_length=100"))
    assert 100 <= asyncio.run(redis.length("short:slice.flagged")) < 400


@pytest.mark.parametrize(
    ("name", "scheme", "answer"),
    [("nats", "tls", "no_destination"), ("redis", "rediss", None), ("rabbitmq", "amqps", "no_destination")],
)
def test_tls_is_spoken_to_whom_the_certificate_names_and_no_other(
    name: str, scheme: str, answer: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = Certificate(tmp_path, "localhost")
    broker = BROKERS[name](tmp_path, certificate=tmp_path / "subscriber.pem")
    broker.start()
    try:
        url = f"{scheme}://{broker.url().partition('://')[2]}"
        named = url.replace("127.0.0.1", "localhost")
        assert send(message("untrusted"), url=named)[0].error == "certificate_untrusted"
        module = "amqp" if name == "rabbitmq" else name
        monkeypatch.setattr(f"webhook.transports.{module}.default_ssl_context", lambda: certificate.trust)
        assert send(message("trusted"), url=named)[0].error == answer  # it has no stream, exchange or queue
        assert send(message("misnamed"), url=url)[0].error == "certificate_misnamed"
    finally:
        broker.kill()


def test_nats_is_told_no_password_where_it_does_not_speak_the_tls_that_is_asked_for() -> None:
    said = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal said
        info = {"server_id": "x", "version": "2.10.0", "max_payload": 1_000_000, "auth_required": True, "headers": True}
        writer.write(b"INFO %s\r\n" % json.dumps(info).encode())
        said += await reader.read()
        writer.close()

    async def scenario() -> Outcome:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with Transports(LOOPBACK, timeout_seconds=5) as transports:
                url = f"tls://webhook:{PASSWORD.replace('/', '%2F')}@127.0.0.1:{port}/moderation"
                return await transports.send(subscription_id="sub_1", url=url, message=message("clear"))

    assert asyncio.run(scenario()).error == "tls"
    assert said == b""


def test_two_subscriptions_into_one_stream_of_nats_get_each_event_and_none_of_them_twice(
    start: Callable[[str], Broker],
) -> None:
    nats, event = start("nats"), message("shared")

    async def scenario() -> list[Outcome]:
        async with Transports(LOOPBACK) as transports:
            return [
                await transports.send(subscription_id=f"sub_{name}", url=nats.url(f"moderation.{name}"), message=event)
                for name in ("a", "b", "a")
            ]

    assert all(outcome.delivered for outcome in asyncio.run(scenario()))
    assert [one.id for one in asyncio.run(nats.kept())].count("evt_shared") == 2


@pytest.mark.parametrize(
    ("publish", "subscribe"), [('["moderation.>", "$JS.API.>"]', '"nothing"'), ('"nothing"', '"_INBOX.>"')]
)
def test_nats_without_permission_is_unauthorized(publish: str, subscribe: str, tmp_path: Path) -> None:
    nats = Nats(tmp_path)
    nats.configuration = f"""authorization {{ users = [ {{
        user: {USER}, password: "{PASSWORD}", permissions: {{ publish: {publish}, subscribe: {subscribe} }} }} ] }}"""
    nats.start()
    try:
        outcomes = send(message("1"), message("2"), url=nats.url())
        assert [outcome.error for outcome in outcomes] == ["unauthorized"] * 2
    finally:
        nats.kill()


def test_a_virtual_host_that_is_not_there_is_no_destination(start: Callable[[str], Broker]) -> None:
    rabbitmq = start("rabbitmq")
    url = rabbitmq.url("queue=any").replace("/?", "/elsewhere?")
    assert send(message("lost"), url=url)[0].error == "no_destination"


def test_a_subscription_to_a_broker_is_served_and_its_password_is_nowhere(broker: Broker, running: Running) -> None:
    made = running.made("/v1/subscriptions", {"url": broker.url(), "event_types": ["subscription.*"]})
    path = f"/v1/subscriptions/{made['id']}"
    assert made["url"] == broker.url(password="***")
    running.post(f"{path}/test", {})
    owed = until(lambda: [one for one in running.items(f"{path}/deliveries") if one["state"] == "delivered"])
    assert [(one["status"], one["error"]) for one in owed[0]["attempts"]] == [(None, None)]
    event = kept(broker)[owed[0]["event_id"]]
    assert PASSWORD.encode() not in event.body
    shown = running.patch(path, {"url": made["url"], "description": "as it was shown"}).json
    running.post(f"{path}/test", {})
    until(lambda: len([one for one in running.items(f"{path}/deliveries") if one["state"] == "delivered"]) == 2)
    for answer in (made, shown, running.shown(path), running.items("/v1/subscriptions"), running.shown("/v1/events")):
        assert PASSWORD not in str(answer)
        assert "pass-word" not in str(answer)
    with connected(running.directory) as connection:
        assert "pass-word" not in str(connection.exec_driver_sql("SELECT * FROM subscriptions").all())
    assert "pass-word" not in running.command.log
    running.delete(path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://token@127.0.0.1/a", "nats://***@127.0.0.1/a"),
        ("nats://u:p@127.0.0.1:4222/a.{type}", "nats://u:***@127.0.0.1:4222/a.{type}"),
        ("amqp://u:p%40@127.0.0.1/vhost?queue=q", "amqp://u:***@127.0.0.1/vhost?queue=q"),
        ("redis://:p@127.0.0.1?stream=s", "redis://:***@127.0.0.1?stream=s"),
        ("redis://u@127.0.0.1/1?stream=s&max_length=5", "redis://u@127.0.0.1/1?stream=s&max_length=5"),
        ("rediss://redis.example.com:6380/0?stream=s", "rediss://redis.example.com:6380/0?stream=s"),
    ],
)
def test_a_brokers_url_is_shown_without_its_password(client: AppClient, url: str, shown: str) -> None:
    made = client.made("/v1/subscriptions", {"url": url})
    assert made["url"] == shown
    assert client.shown(f"/v1/subscriptions/{made['id']}")["url"] == shown
    assert client.patch(f"/v1/subscriptions/{made['id']}", {"url": shown}).json["url"] == shown
    hook = "https://example.com/hook"
    assert client.patch(f"/v1/subscriptions/{made['id']}", {"url": hook}).json["url"] == hook


@pytest.mark.parametrize(
    "url",
    [
        "nats://127.0.0.1",
        "nats://127.0.0.1/a.*",
        "nats://127.0.0.1/a.>",
        "nats://127.0.0.1/a..b",
        "nats://127.0.0.1/a%20b",
        "nats://127.0.0.1/a?stream=b",
        "nats://u:***@127.0.0.1/a",
        "nats://***@127.0.0.1/a",
        "nats://127.0.0.1,127.0.0.2/a",
        "amqp://127.0.0.1/",
        "amqp://127.0.0.1/?exchange=a&queue=b",
        "amqp://127.0.0.1/?queue=a&queue=b",
        "amqp://127.0.0.1/?queue=",
        "amqp://127.0.0.1/?routing_key=a",
        "amqps://127.0.0.1/?queue=a&no_verify_ssl=1",
        "amqp://127.0.0.1/?queue=" + "q" * 256,
        "redis://127.0.0.1/0",
        "redis://127.0.0.1/one?stream=a",
        "redis://127.0.0.1/0?stream=a&max_length=0",
        "redis://127.0.0.1/0?stream=a&max_length=many",
        "redis://127.0.0.1:0/0?stream=a",
        "redis://127.0.0.1/0?stream=a#b",
        "redis://8.8.8.8/0?stream=a",
        "nats://169.254.169.254/a",
        "amqp://10.0.0.1/?queue=a",
        "amqp://127.0.0.1/" + "v" * 256 + "?queue=a",
        "amqp://127.0.0.1/?exchange=a&routing_key={type}" + "k" * 240,
        "amqp://127.0.0.1/?queue={TYPE}",
        "nats://127.0.0.1/$JS.API.STREAM.PURGE.moderation",
        "nats://127.0.0.1/$SYS.a",
        "nats://127.0.0.1/_INBOX.a",
        "nats://127.0.0.1/moderation.{event}",
        "nats://127.0.0.1/moderation.{type",
        "kafka://127.0.0.1/a",
    ],
)
def test_a_brokers_url_that_leads_nowhere_is_refused_and_not_repeated(client: AppClient, url: str) -> None:
    reply = client.post("/v1/subscriptions", {"url": url})
    assert reply.fields == ["url"]
    assert url not in str(reply.json)


def test_a_client_that_is_not_installed_is_named(client: AppClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webhook.destinations.find_spec", lambda _: None)
    reply = client.post("/v1/subscriptions", {"url": "nats://127.0.0.1/a"})
    assert "webhook[nats]" in str(reply.json)
