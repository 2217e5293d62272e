"""What is refused, and in what shape: RFC 9457 everywhere, the field named, no value repeated."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from tests import databases
from tests.clients import NO_KEY, AppClient
from webhook.app import create_app

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clients import Reply
    from tests.conftest import MakeService

TASK = {"url": "https://example.com/a.mp3"}


def assert_problem(reply: Reply, status: int) -> Any:
    assert reply.status == status
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail"} <= reply.json.keys()
    assert reply.json["status"] == status
    return reply.json


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/", "/v1/nothing", "/v1/tasks/", "/callbacks/", "/callbacks"])
def test_a_path_that_is_not_there_is_a_problem_document(client: AppClient, path: str) -> None:
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/tasks", {"GET", "POST"}),
        ("PUT", "/v1/tasks/x", {"GET", "DELETE"}),
        ("POST", "/v1/verdicts", {"GET"}),
        ("OPTIONS", "/v1/subscriptions/x", {"GET", "PATCH", "DELETE"}),
        ("POST", "/livez", {"GET"}),
        ("GET", "/callbacks/x", {"POST"}),
        ("OPTIONS", "/callbacks/x", {"POST"}),
        ("HEAD", "/callbacks/x", {"POST"}),
    ],
)
def test_another_method_is_told_which_are_allowed(client: AppClient, method: str, path: str, allowed: set[str]) -> None:
    reply = client.request(method, path)
    assert reply.status == 405
    assert set(reply.headers["Allow"].replace(" ", "").split(",")) - {"HEAD"} == allowed


def test_what_is_wrong_with_a_field_is_said_in_words(client: AppClient) -> None:
    long = client.post("/v1/subscriptions", {"url": f"https://example.com/{'x' * 2048}"})
    assert long.json["errors"] == [{"field": "url", "message": "must have at most 2048 characters"}]
    odd = client.get("/v1/tasks?cursor=%20")
    assert odd.json["errors"] == [{"field": "cursor", "message": "has not the form that /openapi.json gives for it"}]


@pytest.mark.parametrize("path", ["/v1/tasks/x", "/v1/streams/x", "/v1/verdicts/x", "/v1/verdicts/x/slices"])
def test_an_unknown_task_is_not_found(client: AppClient, path: str) -> None:
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize(
    "path", ["/v1/receivers/x", "/v1/subscriptions/x", "/v1/callbacks/x", "/v1/subscriptions/x/deliveries"]
)
def test_an_unknown_thing_is_not_found(client: AppClient, path: str) -> None:
    assert_problem(client.get(path), 404)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/deliveries/x/retry",
        "/v1/callbacks/x/verify",
        "/v1/tasks/x/cancel",
        "/v1/subscriptions/x/test",
        "/v1/subscriptions/x/rotate-secret",
    ],
)
def test_an_action_on_an_unknown_thing_is_not_found(client: AppClient, path: str) -> None:
    assert_problem(client.post(path), 404)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[1, 2", b"{'a': 1}", b'{"url": "\xed\xa0\x80"}', b"[" * 100_000]
)
def test_a_body_that_is_no_json_is_a_400(client: AppClient, body: bytes) -> None:
    assert_problem(client.post("/v1/tasks", body=body, headers={"Content-Type": "application/json"}), 400)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_body_of_another_type_is_a_415(client: AppClient, kind: str) -> None:
    assert_problem(client.post("/v1/tasks", body=b"{}", headers={"Content-Type": kind}), 415)


@pytest.mark.parametrize("charset", ["utf-16", "UTF-32", '"iso-8859-1"', "nonsense"])
def test_a_body_in_another_charset_is_a_415_whatever_its_bytes(client: AppClient, charset: str) -> None:
    text = json.dumps(TASK)
    for body in (text.encode(), text.encode("utf-16")):
        reply = client.post("/v1/tasks", body=body, headers={"Content-Type": f"application/json; charset={charset}"})
        assert_problem(reply, 415)


@pytest.mark.parametrize("options", ["", "; charset=utf-8", ';charset="UTF-8"', "; Charset=utf8", "; profile=x"])
def test_a_body_that_says_it_is_utf_8_or_nothing_of_it_is_taken(client: AppClient, options: str) -> None:
    kind = f"Application/JSON{options}"
    assert client.post("/v1/tasks", body=json.dumps(TASK).encode(), headers={"Content-Type": kind}).status == 201


def test_a_body_over_the_limit_is_a_413(make_service: MakeService) -> None:
    client = AppClient(create_app(make_service(WEBHOOK_REQUEST_BODY_LIMIT_BYTES="1024")))
    body = b'{"url": "https://example.com/' + b"a" * 1024 + b'"}'
    assert_problem(client.post("/v1/tasks", body=body, headers={"Content-Type": "application/json"}), 413)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "body"),
        ({**TASK, "oss": {"bucket": "b", "object": "o", "region": "r"}}, "body"),
        ({"url": "ftp://example.com/a.mp3"}, "url"),
        ({"url": "https:///a.mp3"}, "url"),
        ({"url": "https://example.com/a b.mp3"}, "url"),
        ({"url": "https://example.com:70000/"}, "url"),
        ({"url": "https://example.com/" + "a" * 2048}, "url"),
        ({"url": 1}, "url"),
        ({"oss": {"bucket": "b"}}, "oss.object"),
        ({"oss": {"bucket": "b\0", "object": "o", "region": "r"}}, "oss.bucket"),
        ({**TASK, "data_id": "a b"}, "data_id"),
        ({**TASK, "data_id": "a" * 65}, "data_id"),
        ({**TASK, "data_id": "a\n"}, "data_id"),
        ({**TASK, "referer": "a" * 257}, "referer"),
        ({**TASK, "crypt_type": "MD5"}, "crypt_type"),
        ({**TASK, "service": "UPPER"}, "service"),
        ({**TASK, "live_id": "x"}, "live_id"),
        ({**TASK, "seed": "mine"}, "seed"),
    ],
)
def test_a_wrong_field_of_a_task_is_named(client: AppClient, body: Any, field: str) -> None:
    reply = client.post("/v1/tasks", body)
    assert_problem(reply, 422)
    assert field in reply.fields


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/v1/tasks", {"nonsense": 1}, "nonsense"),
        ("/v1/tasks", {"limit": 0}, "limit"),
        ("/v1/tasks", {"limit": 201}, "limit"),
        ("/v1/tasks", {"limit": "many"}, "limit"),
        ("/v1/tasks", {"state": "lost"}, "state"),
        ("/v1/tasks", {"since": "yesterday"}, "since"),
        ("/v1/tasks", {"since": "2026-01-31T12:00:00"}, "since"),
        ("/v1/tasks", {"since": "1769860800"}, "since"),
        ("/v1/tasks", {"cursor": "none of ours"}, "cursor"),
        ("/v1/streams", {"active": "perhaps"}, "active"),
        ("/v1/streams", {"kind": "audio"}, "kind"),
        ("/v1/verdicts", {"risk_level": ","}, "risk_level"),
        ("/v1/verdicts", {"action": "panic"}, "action"),
        ("/v1/verdicts", {"label": "a*b"}, "label"),
        ("/v1/verdicts/x/slices", {"cursor": "xyz"}, "cursor"),
        ("/v1/events", {"after": "x"}, "after"),
        ("/v1/events", {"types": "task.exploded"}, "types"),
        ("/v1/events", {"types": "task.*,task"}, "types"),
        ("/v1/events", {"types": "task.*,"}, "types"),
        ("/v1/events", {"types": ""}, "types"),
        ("/v1/events", {"wait": 61}, "wait"),
        ("/v1/events", {"limit": 201}, "limit"),
        ("/v1/callbacks", {"state": "lost"}, "state"),
        ("/v1/tasks/x", {"limit": 1}, "limit"),
    ],
)
def test_a_wrong_parameter_is_named(client: AppClient, path: str, query: dict[str, Any], field: str) -> None:
    reply = client.get(path, **query)
    assert_problem(reply, 422)
    assert reply.fields == [field]


def test_a_parameter_given_twice_is_refused(client: AppClient) -> None:
    assert client.get("/v1/tasks?limit=1&limit=2").fields == ["limit"]


def test_a_parameter_of_a_post_is_refused_too(client: AppClient) -> None:
    assert client.post("/v1/tasks", TASK, dry_run=1).fields == ["dry_run"]


def test_no_value_of_a_request_is_repeated_in_its_problem(client: AppClient) -> None:
    reply = client.post("/v1/receivers", {"name": "x", "seed": "S3CRET-seed!", "uid": "my uid"})
    assert sorted(reply.fields) == ["seed", "uid"]
    assert b"S3CRET" not in reply.body
    assert b"my uid" not in reply.body


@databases.needs_sqlite
def test_a_database_that_is_away_is_a_503_that_says_nothing_of_it(client: AppClient, tmp_path: Path) -> None:
    (tmp_path / "webhook.db").write_bytes(b"no database at all, but long enough to be looked at" * 100)
    reply = client.post("/v1/tasks", TASK)
    assert_problem(reply, 503)
    assert reply.headers["Retry-After"]
    assert b"webhook.db" not in reply.body
    assert_problem(client.get("/v1/nothing", key="wk_perhaps"), 503)
    assert client.get("/readyz").status == 503
    assert client.get("/livez").status == 200
    assert b"webhook_database_up 0.0" in client.get("/metrics").body


def test_what_is_not_there_under_v1_is_told_only_to_those_with_a_key(client: AppClient) -> None:
    assert_problem(client.get("/v1/nothing", key=NO_KEY), 401)
    assert_problem(client.request("DELETE", "/v1/tasks", key=NO_KEY), 401)
    assert_problem(client.get("/nothing", key=NO_KEY), 404)


def test_a_fault_of_ours_is_a_500_that_only_the_log_explains(
    client: AppClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a very private word")

    monkeypatch.setattr("webhook.store.lists.list_tasks", fail)
    with capture_logs() as logged:
        reply = client.get("/v1/tasks")
    assert_problem(reply, 500)
    assert b"private" not in reply.body
    assert [(entry["log_level"], type(entry["exc_info"])) for entry in logged] == [("error", ZeroDivisionError)]
