"""What proxies say of a request is believed of trusted ones only, and only as far as they knew it."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clients import AppClient
from tests.running import Running
from webhook.app import create_app
from webhook.proxies import Proxies, is_within, plain_address

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeService

TRUSTED = tuple(ip_network(each) for each in ("127.0.0.0/8", "10.0.0.0/8", "fd00::/8"))


def origin(peer: str, **told: str) -> dict[str, str]:
    return Proxies(TRUSTED).origin({"REMOTE_ADDR": peer} | {f"HTTP_X_FORWARDED_{name}": told[name] for name in told})


@pytest.mark.parametrize("peer", ["192.0.2.1", "2001:db8::1", "11.0.0.1"])
def test_a_stranger_is_not_believed(peer: str) -> None:
    assert origin(peer, FOR="10.0.0.9", PROTO="https", HOST="evil.example") == {"REMOTE_ADDR": peer}


def test_nobody_is_believed_unless_the_setting_says_so() -> None:
    told = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1", "HTTP_X_FORWARDED_HOST": "a.example"}
    assert Proxies(()).origin(told) == {"REMOTE_ADDR": "127.0.0.1"}


@pytest.mark.parametrize(
    ("peer", "told", "client"),
    [
        ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("fd00::1", "2001:DB8:0::1", "2001:db8::1"),
        ("127.0.0.1", "6.6.6.6, 192.0.2.1", "192.0.2.1"),  # what the client itself wrote stands left
        ("127.0.0.1", "127.0.0.1, 192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "6.6.6.6, 192.0.2.1, 10.1.1.1,10.2.2.2", "192.0.2.1"),  # through three of ours
        ("127.0.0.1", "10.1.1.1, 10.2.2.2", "10.1.1.1"),  # a client among the proxies
        ("127.0.0.1", "192.0.2.1:40312", "192.0.2.1"),  # some write the port
        ("127.0.0.1", "[2001:db8::1]:40312", "2001:db8::1"),
        ("127.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", " , ", "127.0.0.1"),
        ("127.0.0.1", "unknown", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.1, unknown", "127.0.0.1"),  # nothing left of what is no address is known
        ("127.0.0.1", "192.0.2.1, 10.1.1.1.", "127.0.0.1"),
        ("", "192.0.2.1", ""),
    ],
)
def test_the_client_is_the_rightmost_address_that_is_no_trusted_proxy_s(peer: str, told: str, client: str) -> None:
    assert origin(peer, FOR=told)["REMOTE_ADDR"] == client


@pytest.mark.parametrize(
    ("told", "proto", "scheme"),
    [
        ("192.0.2.1", "https", "https"),
        ("192.0.2.1", "HTTPS", "https"),
        ("192.0.2.1", "http, https", "https"),  # the client wrote the first
        ("192.0.2.1, 10.1.1.1", "https, http", "https"),  # the outer proxy speaks plain to the inner one
        ("192.0.2.1, 10.1.1.1", "https", "https"),
        ("192.0.2.1, 10.1.1.1", "ftp, https, http", "https"),
        ("192.0.2.1", "javascript", None),
        ("192.0.2.1", "", None),
        ("", "https", "https"),
    ],
)
def test_the_scheme_is_what_the_outermost_trusted_proxy_was_spoken_to_in(
    told: str, proto: str, scheme: str | None
) -> None:
    assert origin("127.0.0.1", FOR=told, PROTO=proto).get("wsgi.url_scheme") == scheme


@pytest.mark.parametrize(
    ("host", "believed"),
    [
        ("api.example.com", True),
        ("api.example.com:8443", True),
        ("[2001:db8::1]:443", True),
        ("api.example.com/path", False),
        ("user@api.example.com", False),
        ("a b", False),
        ('a"b', False),
    ],
)
def test_a_host_that_is_none_is_not_believed(host: str, believed: bool) -> None:  # noqa: FBT001 - a table's column
    assert ("HTTP_HOST" in origin("127.0.0.1", HOST=host)) is believed


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_told_the_client_has_an_address_or_none(peer: str, told: str, proto: str, host: str) -> None:
    found = origin(peer, FOR=told, PROTO=proto, HOST=host)
    assert found["REMOTE_ADDR"] == "" or ip_address(found["REMOTE_ADDR"])
    assert found.get("wsgi.url_scheme", "http") in {"http", "https"}


@pytest.mark.parametrize(
    ("address", "within"),
    [("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("fd00::1%eth0", True), ("192.0.2.1", False), ("nobody", False)],
)
def test_an_address_lies_in_a_network_however_it_is_spelled(address: str, within: bool) -> None:  # noqa: FBT001
    assert is_within(address, TRUSTED) is within


def test_an_address_has_one_spelling() -> None:
    assert {
        plain_address(text) for text in ("2001:db8::1", "2001:DB8:0:0::1", "[2001:db8::1]", "[2001:db8::1]:80")
    } == {"2001:db8::1"}


@pytest.mark.parametrize("trusted", ["127.0.0.1/32", ""])
def test_a_receiver_s_address_is_the_one_that_the_proxy_was_asked_by(make_service: MakeService, trusted: str) -> None:
    service = make_service(WEBHOOK_TRUSTED_PROXIES=trusted, WEBHOOK_PUBLIC_URL="")
    told: dict[str, Any] = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "hooks.example.com"}
    made = AppClient(create_app(service)).made("/v1/receivers", {"name": "a"}, headers=told)
    expected = "https://hooks.example.com/callbacks/" if trusted else "http://localhost/callbacks/"
    assert made["callback_url"].startswith(expected)


def test_the_web_server_believes_nobody_by_itself(tmp_path: Path) -> None:
    service = Running(tmp_path, WEBHOOK_PUBLIC_URL="", FORWARDED_ALLOW_IPS="*")
    service.start()
    told = {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example", "X-Forwarded-For": "192.0.2.1"}
    made = service.made("/v1/receivers", {"name": "a"}, headers=told)
    assert service.command.stop() == 0
    assert made["callback_url"].startswith(f"{service.url}/callbacks/")
