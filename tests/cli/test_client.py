"""Asking the service: what is tried again and what is not, and what people are told of each trouble."""

from __future__ import annotations

import re
import ssl
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests import databases
from tests.cli.stub import answers, cuts, refuses
from tests.running import free_port
from webhook.cli import client
from webhook.cli.answers import Refused, why_lost
from webhook.cli.client import Client, JsonBody, Unanswered

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import RunCommand
    from tests.cli.stub import Stub
from tests.running import Running

NO_ITEMS: dict[str, Any] = {"items": [], "next_cursor": None}


@pytest.mark.usefixtures("_no_pauses")
def test_a_post_is_tried_again_with_the_same_key_and_the_same_bytes(stub: Stub) -> None:
    stub.will(cuts(), refuses(503, "Later."), answers(201, {"id": "task_1"}))
    said: list[str] = []
    assert Client(stub.url, "k", note=said.append).post("/v1/tasks", JsonBody({"url": "x"})) == {"id": "task_1"}
    assert len({(got.headers["Idempotency-Key"], got.body) for got in stub.got}) == 1
    assert len(stub.got) == 3
    assert re.search("away .*trying again", said[0])
    assert "503" in said[1]
    Client(stub.url, "k").post("/v1/tasks", JsonBody({"url": "x"}))
    assert stub.got[3].headers["Idempotency-Key"] != stub.got[0].headers["Idempotency-Key"]


@pytest.mark.usefixtures("_no_pauses")
def test_a_post_is_given_up_when_the_pauses_are_used_up(stub: Stub) -> None:
    stub.will(cuts())
    with pytest.raises(Unanswered):
        Client(stub.url, "k").post("/v1/tasks", JsonBody({}))
    assert len(stub.got) == 1 + len(client.PAUSES_SECONDS)
    stub.will(refuses(503, "The service cannot do this now."))
    with pytest.raises(Refused, match=r"cannot do this now.*webhook doctor"):
        Client(stub.url, "k").post("/v1/tasks", JsonBody({}))


@pytest.mark.usefixtures("_no_pauses")
def test_who_has_answered_before_is_asked_again_and_who_has_not_is_not(stub: Stub) -> None:
    stub.will(cuts())
    with pytest.raises(Unanswered):
        Client(stub.url, "k").get("/v1/verdicts")
    assert len(stub.got) == 1
    stub.will(answers(200, NO_ITEMS), cuts(), refuses(502, "Away."), answers(200, NO_ITEMS))
    asking = Client(stub.url, "k")
    assert asking.get("/v1/verdicts") == asking.get("/v1/verdicts") == NO_ITEMS
    assert len(stub.got) == 5


def test_who_asked_too_often_asks_again_when_they_may(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    stub.will(refuses(429, "Too often.", Retry_After="3"), answers(201, {"id": "task_1"}))
    assert Client(stub.url, "k").post("/v1/tasks", JsonBody({})) == {"id": "task_1"}
    assert slept == [3]


def test_nothing_is_tried_again_beyond_the_deadline_or_before_retry_after(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    stub.will(answers(200, NO_ITEMS), refuses(503, "Later.", Retry_After="7"))
    asking = Client(stub.url, "k")
    asking.get("/v1/verdicts")
    with pytest.raises(Refused):
        asking.get("/v1/verdicts", deadline=106.9)
    assert slept == []
    with pytest.raises(Refused):
        asking.get("/v1/verdicts", deadline=200)
    assert slept == [max(7, pause) for pause in client.PAUSES_SECONDS]


def test_the_items_of_a_list_come_page_by_page(stub: Stub) -> None:
    stub.will(
        answers(200, {"items": [{"n": n} for n in range(200)], "next_cursor": "c1"}),
        answers(200, {"items": [{"n": n} for n in range(200, 250)], "next_cursor": "c2"}),
    )
    assert [item["n"] for item in Client(stub.url, "k").items("/v1/verdicts", limit=250, kind="live")] == [*range(250)]
    assert [got.path for got in stub.got] == [
        "/v1/verdicts?limit=200&kind=live",
        "/v1/verdicts?limit=50&cursor=c1&kind=live",
    ]


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (answers(200, b"<html>log in</html>", kind="text/html"), "not as this service does"),
        (answers(200, {"hello": "world"}), "not as this service does"),
        (answers(404, b"no such page", kind="text/plain"), "answers 404, not as this service does"),
        (answers(301, b"", Location="https://elsewhere/\x7f"), "answers 301 and leads to https://elsewhere/."),
        (answers(500, {"unexpected": 1}), "answers 500"),
    ],
)
def test_who_is_not_this_service_is_found_out(webhook: RunCommand, stub: Stub, act: object, says: str) -> None:
    stub.will(act)  # type: ignore[arg-type] # parameters have no types
    status, out, err = webhook("verdicts", WEBHOOK_API_URL=stub.url)
    assert (status, out) == (1, "")
    assert says in err
    assert "WEBHOOK_API_URL" in err
    assert err.count("\n") == 1


def test_a_detail_does_not_steer_the_terminal(webhook: RunCommand, stub: Stub) -> None:
    stub.will(refuses(409, "no\x1b[2J\nno"))
    assert webhook("verdicts", WEBHOOK_API_URL=stub.url)[2] == "webhook: no [2J no\n"


def test_a_path_before_the_api_s_is_kept(stub: Stub) -> None:
    stub.will(answers(200, NO_ITEMS))
    Client(f"{stub.url}/möderation", "the-key").get("/v1/verdicts")
    [got] = stub.got
    assert got.path == "/m%C3%B6deration/v1/verdicts"
    assert got.headers["Authorization"] == "Bearer the-key"


def test_who_is_not_there_is_named_with_the_setting(webhook: RunCommand, running: Running) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    status, out, err = webhook("verdicts", WEBHOOK_API_URL=nobody)
    assert (status, out) == (1, "")
    assert err == (
        f"webhook: {nobody} cannot be reached (Connection refused). "
        "Does the service run there? WEBHOOK_API_URL says where.\n"
    )
    tls = running.url.replace("http:", "https:")
    status, _, err = webhook("verdicts", WEBHOOK_API_URL=tls)
    assert status == 1
    assert "does not speak TLS" in err


def test_a_certificate_that_does_not_hold_is_called_so() -> None:
    error = ssl.SSLCertVerificationError()
    error.verify_message = "self-signed certificate"
    assert why_lost(error) == "its certificate does not hold: self-signed certificate"


def test_keys_that_do_not_do_are_told_with_the_mend(ask: RunCommand, running: Running, tmp_path: Path) -> None:
    status, _, err = ask("verdicts", WEBHOOK_API_KEY="unknown")
    assert status == 1
    assert "WEBHOOK_API_KEY" in err
    assert "unknown" not in err

    database = running.variables.get("WEBHOOK_DATABASE_URL", databases.url_of(running.directory))
    reader = ask("keys", "create", "a reader", "--role", "reader", WEBHOOK_DATABASE_URL=database)[1].strip()
    assert ask("verdicts", "--limit", "1", WEBHOOK_API_KEY=reader)[0] == 0
    large = tmp_path / "large.mp3"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    status, out, err = ask("submit", str(large), WEBHOOK_API_KEY=reader)
    assert (status, out) == (1, "")
    assert err == (
        "webhook: This needs the role submitter or admin. "
        "Set WEBHOOK_API_KEY to a key that may; `webhook keys create` makes one.\n"
    )


def test_without_a_key_the_setting_is_named(webhook: RunCommand) -> None:
    status, _, err = webhook("verdicts", WEBHOOK_ADMIN_KEY="")
    assert status == 1
    assert err == "webhook: WEBHOOK_API_KEY: is not set. Set it to a key that `webhook keys create` printed.\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["verdicts", "--since", "yesterday"], "since: must be a time after RFC 3339"),
        (["verdicts", "task_nobody"], "There is no such task. Check the id"),
        (["submit", "http://example.com/a.mp3", "--data-id", "a b"], "data_id: "),
        (["submit", "x://y", "--live-id", "room"], "url: has not the form that /openapi.json gives for it."),
        (["watch", "nobody-s-room"], "no stream of the live_id nobody-s-room"),
    ],
)
def test_what_the_service_refuses_is_one_sentence(ask: RunCommand, arguments: list[str], says: str) -> None:
    status, out, err = ask(*arguments)
    assert (status, out) == (1, "")
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err
