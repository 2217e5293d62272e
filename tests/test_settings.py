"""Settings refuse to start the service, naming the variable and the mend, and never a secret's value."""

from __future__ import annotations

import base64
import dataclasses
from datetime import timedelta

import pytest

from webhook.errors import SettingError
from webhook.settings import Settings, load

KEY = base64.b64encode(b"k" * 32).decode()


def test_nothing_needs_to_be_set() -> None:
    settings = load({})
    assert settings.database_url == "sqlite:///webhook.db"
    assert settings.bind == ("127.0.0.1", 8000)
    assert settings.platform_endpoint == "https://green-cip.ap-southeast-1.aliyuncs.com"
    assert settings.allowed_private_networks == ()
    assert settings.delivery_timeout == timedelta(seconds=15)


def test_an_empty_value_is_none() -> None:
    assert load({"WEBHOOK_PUBLIC_URL": " ", "WEBHOOK_ADMIN_KEY": ""}).public_url is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WEBHOOK_DATABASE_URL", "nonsense"),
        ("WEBHOOK_DATABASE_URL", "sqlite://"),
        ("WEBHOOK_DATABASE_URL", "sqlite:///:memory:"),
        ("WEBHOOK_BIND", "8000"),
        ("WEBHOOK_BIND", "localhost:99999"),
        ("WEBHOOK_BIND", ":8000"),
        ("WEBHOOK_CALLBACK_BIND", "8001"),
        ("WEBHOOK_CALLBACK_BIND", "127.0.0.1:8000"),
        ("WEBHOOK_PUBLIC_URL", "hooks.example.com"),
        ("WEBHOOK_PUBLIC_URL", "ftp://hooks.example.com"),
        ("WEBHOOK_PUBLIC_URL", "https://hooks.example.com?x=1"),
        ("WEBHOOK_PUBLIC_URL", "https://hooks example.com"),
        ("WEBHOOK_PUBLIC_URL", "https://user:password@hooks.example.com"),
        ("WEBHOOK_PUBLIC_URL", "https://[hooks]"),
        ("WEBHOOK_PLATFORM_UID", "12 34"),
        ("WEBHOOK_PLATFORM_REGION", "mars-1"),
        ("WEBHOOK_PLATFORM_ENDPOINT", "ftp://x"),
        ("WEBHOOK_PLATFORM_ENDPOINT", "https://green.example/some/path"),
        ("WEBHOOK_ALLOWED_PRIVATE_NETWORKS", "10.0.0.0/8,nonsense"),
        ("WEBHOOK_TRUSTED_PROXIES", "the proxy"),
        ("WEBHOOK_REQUESTS_PER_SECOND", "0"),
        ("WEBHOOK_FLAG_LEVEL", "severe"),
        ("WEBHOOK_SM3_SCHEME", "both"),
        ("WEBHOOK_CIPHER_SUITE", "rot13"),
        ("WEBHOOK_DATA_KEY_DAYS", "0"),
        ("WEBHOOK_LOG_LEVEL", "loud"),
        ("WEB_CONCURRENCY", "2"),
        ("WEB_CONCURRENCY", "many"),
        ("WEBHOOK_CALLBACK_BODY_LIMIT_BYTES", "-1"),
        ("WEBHOOK_DELIVERY_TIMEOUT_SECONDS", "0"),
        ("WEBHOOK_API_URL", "127.0.0.1:8000"),
        ("WEBHOOK_API_URL", "http://127.0.0.1:80000"),
        ("WEBHOOK_API_KEY", "not a key"),
        ("WEBHOOK_EVIDENCE", "perhaps"),
        ("WEBHOOK_EVIDENCE_STORE", "/var/lib/evidence"),
        ("WEBHOOK_EVIDENCE_STORE", "file://host/evidence"),
        ("WEBHOOK_EVIDENCE_STORE", "file:///"),
        ("WEBHOOK_EVIDENCE_STORE", "https://bucket.example.com"),
        ("WEBHOOK_EVIDENCE_STORE", "s3:///prefix"),
        ("WEBHOOK_EVIDENCE_STORE", "s3://bucket?region=x"),
    ],
)
def test_a_wrong_setting_is_refused_by_name_with_its_mend(variable: str, value: str) -> None:
    with pytest.raises(SettingError) as refusal:
        load({variable: value})
    assert str(refusal.value).startswith(f"{variable}: ")
    assert "Set it to" in str(refusal.value)
    assert refusal.value.variable == variable


@pytest.mark.parametrize(
    "url",
    [
        "mysql://user:hunter2@localhost/x",
        "mysql://localhost/x?user=user&password=hunter2",
        "mysql://user:hunter2",
        "sqlite://user:hunter2@localhost/x.db",
    ],
)
def test_the_password_in_a_refused_database_url_is_not_repeated(url: str) -> None:
    with pytest.raises(SettingError, match="WEBHOOK_DATABASE_URL") as refusal:
        load({"WEBHOOK_DATABASE_URL": url})
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize(
    ("variable", "secret"),
    [
        ("WEBHOOK_ADMIN_KEY", "hunter2"),
        ("WEBHOOK_ADMIN_KEY", "hunter2 with blanks, that no header can hold"),
        ("WEBHOOK_ENCRYPTION_KEYS", "hunter2"),
        ("WEBHOOK_ENCRYPTION_KEYS", "k1:hunter2"),
        ("WEBHOOK_ENCRYPTION_KEYS", f"k1:{base64.b64encode(b'hunter2').decode()}"),
        ("WEBHOOK_ENCRYPTION_KEYS", f"k1:{KEY},k1:{KEY}"),
    ],
)
def test_a_refused_secret_is_not_repeated(variable: str, secret: str) -> None:
    with pytest.raises(SettingError) as refusal:
        load({variable: secret})
    assert refusal.value.variable == variable
    for part in secret.replace(",", ":").split(":"):
        assert part == "k1" or part not in str(refusal.value)


def test_the_first_encryption_key_is_the_active_one() -> None:
    other = base64.b64encode(b"o" * 32).decode()
    assert load({"WEBHOOK_ENCRYPTION_KEYS": f"new:{KEY}, old:{other}"}).encryption_keys == {
        "new": b"k" * 32,
        "old": b"o" * 32,
    }


def test_a_lease_must_outlast_the_timeout() -> None:
    with pytest.raises(SettingError, match="WEBHOOK_DELIVERY_LEASE_SECONDS"):
        load({"WEBHOOK_DELIVERY_TIMEOUT_SECONDS": "15", "WEBHOOK_DELIVERY_LEASE_SECONDS": "15"})


def test_no_callback_is_asked_for_that_could_not_be_verified() -> None:
    assert load({"WEBHOOK_PUBLIC_URL": "https://a.example"}).callback_base_url is None
    both = {"WEBHOOK_PUBLIC_URL": "https://a.example/", "WEBHOOK_PLATFORM_UID": "1"}
    assert load(both).callback_base_url == "https://a.example"


def test_data_is_kept_for_days_or_with_0_for_ever() -> None:
    assert load({}).callbacks_retention == timedelta(days=30)
    assert load({"WEBHOOK_RETENTION_EVENTS_DAYS": "7"}).events_retention == timedelta(days=7)
    assert load({"WEBHOOK_RETENTION_TRANSCRIPTS_DAYS": "0"}).transcripts_retention is None
    with pytest.raises(SettingError, match="WEBHOOK_RETENTION_EVENTS_DAYS"):
        load({"WEBHOOK_RETENTION_EVENTS_DAYS": "-1"})


def test_an_ipv6_address_can_be_bound() -> None:
    assert load({"WEBHOOK_BIND": "[::1]:8000"}).bind == ("::1", 8000)


@pytest.mark.parametrize(
    ("bind", "url"),
    [
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:8000", "http://[::1]:8000"),
        ("[2001:db8::1]:8000", "http://[2001:db8::1]:8000"),
    ],
)
def test_clients_reach_the_service_where_it_listens_unless_they_are_told_otherwise(bind: str, url: str) -> None:
    assert load({"WEBHOOK_BIND": bind}).api_url == url
    assert load({"WEBHOOK_BIND": bind, "WEBHOOK_API_URL": "https://a.example/b/"}).api_url == "https://a.example/b"


def test_clients_use_the_admin_s_key_unless_they_have_their_own() -> None:
    admin = {"WEBHOOK_ADMIN_KEY": "a" * 32}
    assert load({}).api_key is None
    assert load(admin).api_key == "a" * 32
    assert load(admin | {"WEBHOOK_API_KEY": "wk_b"}).api_key == "wk_b"


def test_a_bare_host_is_an_https_endpoint() -> None:
    assert load({"WEBHOOK_PLATFORM_ENDPOINT": "green.example"}).platform_endpoint == "https://green.example"


def test_every_setting_says_how_to_mend_it() -> None:
    for field in dataclasses.fields(Settings):
        assert field.metadata["mend"].startswith("Set it ")
