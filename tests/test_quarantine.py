"""The quarantine: bounded, diagnosed, and emptied once the configuration is mended."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import sqlalchemy as sa

from tests import databases
from tests.clients import AppClient
from tests.signed import checksum, content, form, piece
from webhook import models
from webhook.app import create_app
from webhook.db import alone
from webhook.signatures import REASONS, hmac_sm3, sm3

if TYPE_CHECKING:
    from pathlib import Path

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


def verified(client: AppClient, **wanted: str) -> tuple[int, int, int]:
    """Verify in bulk, to the end; return how many are accepted, unreadable and quarantined."""
    page = client.made("/v1/callbacks/verify", wanted)
    counts = [(page["accepted"], page["unreadable"], page["quarantined"])]
    while page["next_cursor"] is not None:
        page = client.made("/v1/callbacks/verify", wanted | {"cursor": page["next_cursor"]})
        counts.append((page["accepted"], page["unreadable"], page["quarantined"]))
    accepted, unreadable, still = (sum(each) for each in zip(*counts, strict=True))
    return accepted, unreadable, still


def reject(client: AppClient, *contents: str) -> Any:
    """Have authentic callbacks rejected, since the settings are wrong; return their receiver."""
    receiver = client.receiver()
    for each in contents:
        assert client.callback(receiver["callback_url"], form(each, seed=receiver["seed"])) == 403
    return receiver


def test_what_was_rejected_is_grouped_by_cause_with_its_mend(make_service: MakeService) -> None:
    client = client_with(make_service)
    assert client.shown("/v1/callbacks/causes") == {"items": [], "next_cursor": None}
    client.receiver(uid="4242424242424242")
    receiver = client.receiver()
    for number in range(3):
        body = form(f"{number}", seed=receiver["seed"], uid="4242424242424242")
        assert client.callback(receiver["callback_url"], body) == 403
    forge(client, receiver, "x")
    known, unknown = client.items("/v1/callbacks/causes")
    assert (known["reason"], known["count"], known["message"]) == ("other_uid", 3, REASONS["other_uid"])
    assert (unknown["reason"], unknown["count"], unknown["message"]) == ("checksum_wrong", 1, REASONS["checksum_wrong"])
    received = [each["received_at"] for each in reversed(quarantined(client))]
    assert (known["first_received_at"], known["last_received_at"]) == (received[0], received[2])
    assert unknown["first_received_at"] == unknown["last_received_at"] == received[3]


@pytest.mark.parametrize("seconds", [20.0, 0.0])
def test_once_a_setting_was_mended_all_are_verified_by_one_request_or_by_several(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    monkeypatch.setattr("webhook.quarantine._LONGEST_SECONDS", seconds)
    monkeypatch.setattr("webhook.quarantine._PAGE", 3)
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    for name in "abc":
        reject(wrong, *(content(piece(0, risk="high"), TaskId=f"{name}-{number}") for number in range(2)), "no JSON")
    forge(wrong, wrong.receiver(), SAID)
    assert verified(wrong) == (0, 0, 10)

    mended = client_with(make_service)
    assert verified(mended) == (6, 3, 1)
    assert len(mended.items("/v1/verdicts")) == 6
    told = sorted(event["type"] for event in mended.feed())
    assert told == sorted(["callback.rejected"] * 3 + ["slice.flagged", "task.completed"] * 6)
    assert verified(mended) == (0, 0, 1)
    assert len(mended.feed()) == len(told)


def test_those_of_one_cause_are_verified_alone(make_service: MakeService) -> None:
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    reject(wrong, SAID)
    [cause] = wrong.items("/v1/callbacks/causes")
    assert cause["reason"] == "unlikely_uid"
    mended = client_with(make_service)
    assert verified(mended, reason="other_uid") == (0, 0, 0)
    assert verified(mended, reason="unlikely_uid") == (1, 0, 0)


def test_what_is_still_wrong_is_told_by_what_is_known_now(make_service: MakeService) -> None:
    client = client_with(make_service)
    receiver = client.receiver()
    assert client.callback(receiver["callback_url"], form(SAID, seed=receiver["seed"], uid="4" * 16)) == 403
    [before] = quarantined(client)
    assert before["reason"] == "checksum_wrong"
    client.receiver(uid="4" * 16)
    assert verified(client) == (0, 0, 1)
    [after] = quarantined(client)
    assert (after["reason"], after["message"]) == ("other_uid", REASONS["other_uid"])
    assert client.made(f"/v1/callbacks/{after['id']}/verify", None) == after


def test_one_that_cannot_be_verified_stops_no_other(make_service: MakeService) -> None:
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    gone = reject(wrong, SAID)
    reject(wrong, content(piece(0), TaskId="t-2"))
    service = make_service()
    with service.database.transaction() as session:
        session.execute(sa.delete(models.receivers).where(models.receivers.c.id == gone["id"]))
    mended = AppClient(create_app(service))
    assert verified(mended) == (1, 0, 1)
    [kept] = quarantined(mended)
    assert mended.post(f"/v1/callbacks/{kept['id']}/verify").status == 409


def test_without_an_account_uid_all_stay_and_wait_for_it(make_service: MakeService) -> None:
    reject(client_with(make_service, WEBHOOK_PLATFORM_UID="42"), SAID)
    without = client_with(make_service, WEBHOOK_PLATFORM_UID="")
    [kept] = quarantined(without)
    assert verified(without) == (0, 0, 1)
    assert without.post(f"/v1/callbacks/{kept['id']}/verify").status == 503
    assert verified(client_with(make_service)) == (1, 0, 0)


def test_two_who_verify_all_at_once_accept_each_once(make_service: MakeService) -> None:
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    reject(wrong, *(content(piece(0), TaskId=f"t-{number}") for number in range(20)))
    services = [make_service() for _ in range(2)]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda one: one.quarantine.verify_all(one.database, reason=None, after=""), services))
    assert [each.quarantined + each.unreadable for each in found] == [0, 0]
    assert sum(each.accepted for each in found) == 20
    assert [event["type"] for event in wrong.feed()] == ["task.completed"] * 20


def test_the_database_is_free_while_a_callback_is_verified(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = client_with(make_service, WEBHOOK_PLATFORM_UID="42")
    receiver = reject(wrong, SAID, content(piece(1), TaskId="t-2"))
    service = make_service()
    client, verify = AppClient(create_app(service)), service.quarantine.verify
    body = form(content(piece(2), TaskId="t-3"), seed=receiver["seed"])
    meanwhile = []

    def verify_slowly(claim: Any, **more: Any) -> Any:
        if "callback_id" in more:
            with make_service().database.transaction() as session:  # what another process writes
                alone(session, "a test")
            meanwhile.append(claim)
        return verify(claim, **more)

    monkeypatch.setattr(service.quarantine, "verify", verify_slowly)
    assert verified(client) == (2, 0, 0)
    assert len(meanwhile) == 2
    assert client.callback(receiver["callback_url"], body) == 200


@pytest.mark.parametrize("wanted", [{"reason": 1}, {"cursor": "nowhere"}, {"state": "accepted"}, []])
def test_a_wish_that_is_none_is_refused(client: AppClient, wanted: Any) -> None:
    assert client.post("/v1/callbacks/verify", wanted).status == 422


def test_the_seed_of_another_receiver_is_a_known_one(make_service: MakeService) -> None:
    client = client_with(make_service)
    older, receiver = client.receiver(), client.receiver()
    assert client.delete(f"/v1/receivers/{older['id']}").status == 204
    assert client.callback(receiver["callback_url"], form(SAID, seed=older["seed"])) == 403
    [kept] = quarantined(client)
    assert kept["reason"] == "other_seed"
    assert older["seed"] not in kept["message"]


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


def test_room_is_made_for_some_at_a_time_and_never_too_late(make_service: MakeService) -> None:
    client = client_with(make_service, WEBHOOK_QUARANTINE_PER_TOKEN="100", WEBHOOK_QUARANTINE_ROWS="32")
    receiver, counts = client.receiver(), []
    for number in range(40):
        forge(client, receiver, str(number))
        counts.append(len(quarantined(client)))
    assert max(counts) == 32
    assert min(counts[32:]) >= 30
    assert contents(client)[0] == "39"


def test_all_tokens_together_are_bounded_in_bytes(make_service: MakeService) -> None:
    client = client_with(make_service, WEBHOOK_QUARANTINE_BYTES="1000")
    texts = [token_urlsafe(300) for _ in range(5)]  # 400 characters that cannot be compressed by much
    for text in texts:
        forge(client, client.receiver(), text)
    assert contents(client) == [texts[4], texts[3]]


def test_one_token_has_half_of_the_bytes_and_drives_nobody_out(make_service: MakeService) -> None:
    client = client_with(make_service, WEBHOOK_QUARANTINE_BYTES="2000")
    texts = [token_urlsafe(300) for _ in range(5)]
    forge(client, client.receiver(), texts[0])
    flooded = client.receiver()
    for text in texts[1:]:
        forge(client, flooded, text)
    assert contents(client) == [texts[4], texts[3], texts[0]]


@databases.needs_sqlite
def test_a_flood_fills_no_disk(make_service: MakeService, tmp_path: Path) -> None:
    bounds = {"PER_TOKEN": "4", "ROWS": "20", "BYTES": "60000"}
    client = client_with(make_service, **{f"WEBHOOK_QUARANTINE_{name}": bound for name, bound in bounds.items()})
    receivers = [client.receiver() for _ in range(10)]

    def flood() -> int:
        """Return what the database's file takes after a flood of four times the bounds."""
        for number in range(80):
            forge(client, receivers[number % len(receivers)], token_urlsafe(3000))
        with databases.connected(tmp_path) as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return (tmp_path / "webhook.db").stat().st_size

    full = flood()
    kept = quarantined(client)
    assert len(kept) <= 20
    assert sum(each["size"] for each in kept) <= 90_000, "a fourth of it is base64"
    assert flood() <= full * 1.05
    body = form(SAID, seed=receivers[0]["seed"])
    assert client.callback(receivers[0]["callback_url"], body) == 200


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
