"""The quarantine: bounded, diagnosed, and emptied once the configuration is mended."""

from __future__ import annotations

import hashlib
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest

from tests.clients import AppClient
from tests.signed import checksum, content, form, piece
from webhook.app import create_app
from webhook.signatures import hmac_sm3, sm3

if TYPE_CHECKING:
    from tests.conftest import MakeService

SAID = content(piece(0, risk="high"), TaskId="t-1")


def client_with(make_service: MakeService, **variables: str) -> AppClient:
    return AppClient(create_app(make_service(**variables)))


def quarantined(client: AppClient) -> list[Any]:
    return client.items("/v1/callbacks", state="quarantined")


def test_what_a_mended_uid_makes_right_is_accepted_as_if_it_came_now(make_service: MakeService) -> None:
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    receiver = wrong.receiver()
    body = form(SAID, seed=receiver["seed"])
    assert wrong.callback(receiver["callback_url"], body) == 403
    [kept] = quarantined(wrong)
    assert wrong.made(f"/v1/callbacks/{kept['id']}/verify", None)["state"] == "quarantined"

    mended = client_with(make_service)
    verified = mended.made(f"/v1/callbacks/{kept['id']}/verify", None)
    assert (verified["state"], verified["id"], verified["reason"]) == ("accepted", kept["id"], None)
    assert quarantined(mended) == []
    [verdict] = mended.items("/v1/verdicts")
    assert (verdict["platform_task_id"], verdict["risk_level"]) == ("t-1", "high")
    assert [event["type"] for event in mended.feed()] == ["slice.flagged", "task.completed"]
    assert mended.callback(receiver["callback_url"], body) == 200
    assert len(mended.feed()) == 2
    assert mended.post(f"/v1/callbacks/{kept['id']}/verify").status == 409


def test_what_was_accepted_meanwhile_is_not_accepted_twice(make_service: MakeService) -> None:
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    receiver = wrong.receiver()
    body = form(SAID, seed=receiver["seed"])
    assert wrong.callback(receiver["callback_url"], body) == 403
    [kept] = quarantined(wrong)
    mended = client_with(make_service)
    assert mended.callback(receiver["callback_url"], body) == 200
    verified = mended.made(f"/v1/callbacks/{kept['id']}/verify", None)
    assert verified["state"] == "accepted"
    assert verified["id"] != kept["id"]
    assert quarantined(mended) == []
    assert len(mended.feed()) == 2


def test_authentic_content_that_is_not_understood_leaves_the_quarantine_as_unreadable(
    make_service: MakeService,
) -> None:
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    receiver = wrong.receiver()
    assert wrong.callback(receiver["callback_url"], form("no JSON", seed=receiver["seed"])) == 403
    [kept] = quarantined(wrong)
    mended = client_with(make_service)
    assert mended.made(f"/v1/callbacks/{kept['id']}/verify", None)["state"] == "unreadable"
    assert [event["type"] for event in mended.feed()] == ["callback.rejected"]


def test_a_callback_of_a_closed_receiver_can_still_be_verified(make_service: MakeService) -> None:
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    receiver = wrong.receiver()
    assert wrong.callback(receiver["callback_url"], form(SAID, seed=receiver["seed"])) == 403
    [kept] = quarantined(wrong)
    assert wrong.delete(f"/v1/receivers/{receiver['id']}").status == 204
    assert client_with(make_service).made(f"/v1/callbacks/{kept['id']}/verify", None)["state"] == "accepted"


def test_without_an_account_uid_nothing_is_verified_and_the_platform_is_told_to_come_again(
    make_service: MakeService,
) -> None:
    client = client_with(make_service, WEBHOOK_PLATFORM_UID="")
    receiver = client.receiver()
    assert client.callback(receiver["callback_url"], form(SAID, seed=receiver["seed"])) == 503
    assert quarantined(client) == []
    own = client.receiver(uid="42")
    assert client.callback(own["callback_url"], form(SAID, seed=own["seed"], uid="42")) == 200


@pytest.mark.parametrize(
    ("scheme", "crypt_type", "make", "reason"),
    [
        ("auto", "SHA256", lambda text, _: sm3(text).hex(), "other_algorithm"),
        ("auto", "SM3", lambda text, _: hashlib.sha256(text).hexdigest(), "other_algorithm"),
        ("digest", "SM3", lambda text, seed: hmac_sm3(seed, text).hex(), "other_scheme"),
        ("hmac", "SM3", lambda text, _: sm3(text).hex(), "other_scheme"),
        ("auto", "SHA256", lambda text, _: hashlib.sha256(text).hexdigest().upper(), "upper_case"),
    ],
)
def test_the_diagnosis_says_what_would_have_matched(
    make_service: MakeService, scheme: str, crypt_type: str, make: Any, reason: str
) -> None:
    client = client_with(make_service, WEBHOOK_SM3_SCHEME=scheme)
    receiver = client.receiver(crypt_type=crypt_type, uid="42")
    made = make(f"42{receiver['seed']}{SAID}".encode(), receiver["seed"].encode())
    body = urlencode({"checksum": made, "content": SAID}).encode()
    assert client.callback(receiver["callback_url"], body) == 403
    [kept] = quarantined(client)
    assert kept["reason"] == reason
    assert receiver["seed"] not in kept["message"]


def test_the_uid_of_another_receiver_is_a_known_one(make_service: MakeService) -> None:
    client = client_with(make_service)
    client.receiver(uid="4242")
    receiver = client.receiver()
    assert client.callback(receiver["callback_url"], form(SAID, seed=receiver["seed"], uid="4242")) == 403
    [kept] = quarantined(client)
    assert kept["reason"] == "other_uid"


def forge(client: AppClient, receiver: Any, text: str) -> None:
    body = urlencode({"checksum": checksum("x", seed="y"), "content": text}).encode()
    assert client.callback(receiver["callback_url"], body) == 403


def contents(client: AppClient) -> list[str]:
    return [client.shown(f"/v1/callbacks/{kept['id']}")["content"] for kept in quarantined(client)]


def test_all_tokens_together_are_bounded_in_rows(make_service: MakeService) -> None:
    client = client_with(make_service, WEBHOOK_QUARANTINE_PER_TOKEN="3", WEBHOOK_QUARANTINE_ROWS="4")
    for name in "abc":
        receiver = client.receiver()
        for number in range(3):
            forge(client, receiver, f"{name}{number}")
    assert contents(client) == ["c2", "c1", "c0", "b2"]


def test_all_tokens_together_are_bounded_in_bytes(make_service: MakeService) -> None:
    client = client_with(make_service, WEBHOOK_QUARANTINE_BYTES="1000")
    receiver = client.receiver()
    texts = [token_urlsafe(300) for _ in range(5)]  # 400 characters that cannot be compressed by much
    for text in texts:
        forge(client, receiver, text)
    assert contents(client) == [texts[4], texts[3]]


def test_a_quarantine_of_nothing_keeps_nothing(make_service: MakeService) -> None:
    client = client_with(make_service, WEBHOOK_QUARANTINE_PER_TOKEN="0")
    forge(client, client.receiver(), "x")
    assert quarantined(client) == []


def test_a_forgery_raises_no_event_and_makes_no_task(make_service: MakeService) -> None:
    client = client_with(make_service)
    forge(client, client.receiver(), SAID)
    assert client.feed() == []
    assert client.items("/v1/tasks") == []


def test_what_is_kept_is_not_in_the_database_s_file_as_it_came(make_service: MakeService, tmp_path: Any) -> None:
    client = client_with(make_service)
    forge(client, client.receiver(), "a-very-private-word")
    receiver = client.receiver()
    said = content(piece(0, risk="high", text="another-private-word"))
    assert client.callback(receiver["callback_url"], form(said, seed=receiver["seed"])) == 200
    client.made("/v1/subscriptions", {"url": "https://example.com/"})
    secrets = [b"private-word", receiver["seed"].encode(), receiver["callback_url"].rpartition("/")[2].encode()]
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    assert [secret for secret in secrets if secret in stored] == []
