"""`POST /callbacks/{token}` of the running service: each row of the contract's table, and what is kept of each."""

from __future__ import annotations

import hashlib
import json
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import pytest

from tests.clients import ADMIN_KEY, FORM, NO_KEY
from tests.signed import UID, checksum, content, form, piece
from tests.waiting import until

if TYPE_CHECKING:
    from tests.clients import AppClient
    from tests.running import Running

JSON = "application/json"
HIGH = piece(0, risk="high", label="political_entity", text="a+b=c & 100% 🎵 词")


@pytest.fixture
def receiver(running: Running) -> Any:
    return running.receiver()


def of_receiver(running: Running, receiver: Any, state: str) -> list[Any]:
    kept = running.items("/v1/callbacks", state=state)
    return [callback for callback in kept if callback["address_id"] == receiver["id"]]


def verdicts(running: Running, data_id: str) -> list[Any]:
    return running.items("/v1/verdicts", data_id=data_id)


def test_an_authentic_callback_is_a_200_and_its_verdict_is_readable_at_once(running: Running, receiver: Any) -> None:
    body = form(content(HIGH, TaskId="t-1", DataId="at-once"), seed=receiver["seed"])
    reply = running.post(
        receiver["callback_url"].removeprefix(running.url), body=body, headers={"Content-Type": FORM}, key=NO_KEY
    )
    assert (reply.status, reply.body) == (200, b"")
    [verdict] = verdicts(running, "at-once")
    assert verdict["platform_task_id"] == "t-1"
    assert (verdict["risk_level"], verdict["action"], verdict["slice_count"]) == ("high", "block", 1)
    [only] = running.items(f"/v1/verdicts/{verdict['task_id']}/slices")
    assert only["text"] == HIGH["Text"]


@pytest.mark.parametrize(
    ("number", "charset"), list(enumerate(["", "; charset=utf-8", "; charset=UTF-8", ";charset=utf8"]))
)
def test_every_encoding_of_the_same_content_is_the_same_callback(
    running: Running, receiver: Any, number: int, charset: str
) -> None:
    said = content(HIGH, TaskId="t-1", DataId=f"encodings-{number}")
    fields = {"checksum": checksum(said, seed=receiver["seed"]), "content": said, "taskId": "t-1"}
    parts = "".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    )
    bodies = {
        FORM + charset: urlencode(fields).encode(),
        JSON + charset: json.dumps(fields).encode(),
        "multipart/form-data; boundary=b": (parts + "--b--\r\n").encode(),
        "application/x-www-form-urlencoded ": "&".join(
            f"{name.upper()}={quote(value, safe='')}" for name, value in fields.items()
        ).encode(),
    }
    for kind, body in bodies.items():
        assert running.callback(receiver["callback_url"], body, kind) == 200, kind
    [verdict] = verdicts(running, f"encodings-{number}")
    assert verdict["slice_count"] == 1
    assert len(of_receiver(running, receiver, "accepted")) == 1


def test_a_callback_that_comes_again_and_again_changes_nothing_and_raises_nothing(
    running: Running, receiver: Any
) -> None:
    body = form(content(HIGH, TaskId="t-1", DataId="again"), seed=receiver["seed"])
    with ThreadPoolExecutor(8) as threads:
        statuses = list(threads.map(lambda _: running.callback(receiver["callback_url"], body), range(24)))
    assert statuses == [200] * 24
    [verdict] = verdicts(running, "again")
    assert (verdict["slice_count"], verdict["labels"][0]["slices"]) == (1, 1)
    raised = [event["type"] for event in running.feed() if event["data"].get("task", {}).get("data_id") == "again"]
    assert sorted(raised) == ["slice.flagged", "task.completed"]


def test_callbacks_in_any_order_end_in_the_same_verdict(running: Running) -> None:
    slices = [piece(0), piece(10, risk="high", label="a"), piece(10, risk="low", label="b"), piece(20, risk="medium")]
    shown = []
    for number, order in enumerate(([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1])):
        receiver = running.receiver()
        for each in order:
            said = content(slices[each], TaskId="t", DataId=f"order-{number}")
            assert running.callback(receiver["callback_url"], form(said, seed=receiver["seed"])) == 200
        [verdict] = verdicts(running, f"order-{number}")
        kept = running.items(f"/v1/verdicts/{verdict['task_id']}/slices")
        shown.append((verdict["risk_level"], verdict["slice_count"], verdict["flagged_slice_count"], kept))
    assert shown[0] == shown[1] == shown[2]
    assert shown[0][:3] == ("high", 3, 2)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("", "JSON"),
        ("no JSON at all", "JSON"),
        ("[]", "object"),
        ('{"Code": 200} trailing', "JSON"),
        ('{"Something": "else"}', "neither"),
    ],
)
def test_authentic_content_that_is_not_understood_is_kept_and_answered_200(
    running: Running, receiver: Any, said: str, problem: str
) -> None:
    assert running.callback(receiver["callback_url"], form(said, seed=receiver["seed"])) == 200
    assert running.callback(receiver["callback_url"], form(said, seed=receiver["seed"])) == 200
    [kept] = of_receiver(running, receiver, "unreadable")
    assert problem in kept["message"]
    assert running.shown(f"/v1/callbacks/{kept['id']}")["content"] == said
    told = [event for event in running.feed(types="callback.rejected") if event["data"]["callback"]["id"] == kept["id"]]
    assert len(told) == 1


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, b""),
        (FORM, b"checksum=a"),
        (FORM, b"content=a"),
        (FORM, b"checksum=a&content=b&content=b"),
        (FORM, b"checksum=a&Checksum=a&content=b"),
        (FORM, b"checksum=a&content=%FF"),
        (FORM, b"checksum=a&content=\xff"),
        (FORM, b"checksum=a&content=%ED%A0%80"),
        (JSON, b"{"),
        (JSON, b"[]"),
        (JSON, b'{"checksum": "a"}'),
        (JSON, b'{"checksum": "a", "content": {"Code": 200}}'),
        (JSON, b'{"checksum": "a", "content": "b", "content": "c"}'),
        (JSON, b'{"checksum": "a", "content": "\\ud800"}'),
        (JSON, b"[" * 100_000),
        ("multipart/form-data", b"--b--\r\n"),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="checksum"\r\n\r\na'),
        ("multipart/form-data; boundary=b", b"nothing of the kind"),
    ],
)
def test_a_body_that_is_no_such_form_is_a_400(running: Running, receiver: Any, kind: str, body: bytes) -> None:
    assert running.callback(receiver["callback_url"], body, kind) == 400
    assert of_receiver(running, receiver, "quarantined") == []


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/xml", "application/x-www-form-urlencoded; charset=gbk", "nonsense"]
)
def test_another_content_type_is_a_415(running: Running, receiver: Any, kind: str) -> None:
    body = form(content(HIGH), seed=receiver["seed"])
    assert running.callback(receiver["callback_url"], body, kind) == 415


def test_a_compressed_body_is_a_415(running: Running, receiver: Any) -> None:
    path = receiver["callback_url"].removeprefix(running.url)
    headers = {"Content-Type": FORM, "Content-Encoding": "gzip"}
    assert running.post(path, body=b"\x1f\x8b", headers=headers, key=NO_KEY).status == 415


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
def test_another_method_is_a_405_that_names_post(running: Running, receiver: Any, method: str) -> None:
    reply = running.request(method, receiver["callback_url"].removeprefix(running.url), key=NO_KEY)
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("token", ["x", "x" * 500, "%00", "%FF", "a%20b", "..", "日本"])
def test_an_unknown_token_is_a_404(running: Running, token: str) -> None:
    body = form(content(HIGH), seed="a")
    assert running.post(f"/callbacks/{token}", body=body, headers={"Content-Type": FORM}, key=NO_KEY).status == 404


def test_a_body_over_the_limit_is_a_413(running: Running, receiver: Any) -> None:
    # only the head is sent: no limit can be enforced by reading what is beyond it
    path = receiver["callback_url"].removeprefix(running.url)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {FORM}\r\n"
        f"Content-Length: {64 * 1024 * 1024 + 1}\r\n\r\n"
    )
    assert exchange(running, head.encode()) == 413


def test_a_body_of_unknown_length_is_read_like_any_other(running: Running, receiver: Any) -> None:
    path = receiver["callback_url"].removeprefix(running.url)
    body = form(content(HIGH, DataId="chunked"), seed=receiver["seed"])
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {FORM}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[at : at + 50]), body[at : at + 50]) for at in range(0, len(body), 50))
    assert exchange(running, head.encode() + chunks + b"0\r\n\r\n") == 200
    assert len(verdicts(running, "chunked")) == 1


def test_a_body_of_unknown_length_over_the_limit_is_a_413_before_its_end(running: Running, receiver: Any) -> None:
    path = receiver["callback_url"].removeprefix(running.url)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {FORM}\r\n"
        "Transfer-Encoding: chunked\r\n\r\n"
    )
    chunk = b"%x\r\n%s\r\n" % (2**20, b"a" * 2**20)
    assert exchange(running, head.encode() + chunk * 65) == 413
    assert running.callback(receiver["callback_url"], form(content(HIGH), seed=receiver["seed"])) == 200


@pytest.mark.parametrize("sender", ["ends", "vanishes"])
def test_a_body_that_is_cut_off_is_malformed_and_leaves_nothing(running: Running, receiver: Any, sender: str) -> None:
    path = receiver["callback_url"].removeprefix(running.url)
    body = form(content(HIGH, DataId="cut-off"), seed=receiver["seed"])
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n"
    before, half = outcomes(running, "malformed"), head.encode() + body[: len(body) // 2]
    if sender == "ends":
        assert exchange(running, half, finish=True) == 400
    else:
        with connection_to(running) as connection:
            connection.sendall(half)
    until(lambda: outcomes(running, "malformed") == before + 1)
    assert [each for each in running.items("/v1/callbacks") if each["address_id"] == receiver["id"]] == []
    assert verdicts(running, "cut-off") == []


@pytest.mark.parametrize("chunk", [b"zz\r\nabc\r\n", b"-5\r\nabc\r\n", b"3\r\nabcdef\r\n"])
def test_chunks_that_are_none_are_the_sender_s_fault(running: Running, receiver: Any, chunk: bytes) -> None:
    callback = receiver["callback_url"].removeprefix(running.url)
    for path, content_type in ((callback, FORM), ("/v1/receivers", "application/json")):
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
        head += f"Content-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert exchange(running, head.encode() + chunk + b"0\r\n\r\n") == 400


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization Bearer CANARY", 400),
        ("GET /v1/tasks HTTP/1.1\r\nHost: x\r\nIdempotency-Key: \x7fCANARY", 400),
        ("POST /callbacks/CANARY", 400),
        ("CANARY of a transcript", 400),
        (f"GET /v1/tasks?cursor=CANARY{'x' * 9000} HTTP/1.1\r\nHost: x", 414),
        (f"GET /v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: CANARY{'x' * 99_000}", 431),
    ],
)
def test_what_is_no_request_is_answered_without_a_word_of_it(running: Running, request_line: str, status: int) -> None:
    with connection_to(running) as connection:
        connection.sendall(f"{request_line}\r\n\r\n".encode("latin-1"))
        answer = HTTPResponse(connection)
        answer.begin()
        body = answer.read()
    assert (answer.status, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert json.loads(body)["status"] == status
    assert b"CANARY" not in body
    assert "CANARY" not in running.command.log


def connection_to(running: Running) -> socket.socket:
    host, port = running.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def outcomes(running: Running, outcome: str) -> float:
    """Return how many callbacks ended so."""
    line = f'webhook_callbacks_total{{outcome="{outcome}"}} '
    metrics = running.get("/metrics", key=NO_KEY).body.decode()
    return next((float(each.removeprefix(line)) for each in metrics.splitlines() if each.startswith(line)), 0)


def exchange(running: Running, request: bytes, *, finish: bool = False) -> int | None:
    """Send bytes and return the answer's status, None where there is none."""
    with connection_to(running) as connection:
        connection.sendall(request)
        if finish:
            connection.shutdown(socket.SHUT_WR)
        answer = HTTPResponse(connection)
        try:
            answer.begin()
        except ConnectionError:
            return None
        return answer.status


def test_a_callback_of_a_thousand_slices_is_taken_whole(running: Running, receiver: Any) -> None:
    slices = [piece(at * 10, text="text " * 60) for at in range(1000)]
    body = form(content(*slices, DataId="long"), seed=receiver["seed"])
    assert len(body) > 256 * 1024
    assert running.callback(receiver["callback_url"], body) == 200
    [verdict] = verdicts(running, "long")
    assert verdict["slice_count"] == 1000
    assert len(running.items(f"/v1/verdicts/{verdict['task_id']}/slices", limit=200)) == 1000


def test_large_callbacks_that_come_at_once_are_all_answered_200_and_stored_whole(
    running: Running, receiver: Any
) -> None:
    texts = {f"large-{number}": [f"{number} {at} ".ljust(8000, "x") for at in range(1000)] for number in range(4)}
    bodies = []
    for name, told in texts.items():
        slices = [piece(at * 10, text=text) for at, text in enumerate(told)]
        bodies.append(form(content(*slices, TaskId=name, DataId=name), seed=receiver["seed"]))
        assert len(bodies[-1]) > 8_000_000
    with ThreadPoolExecutor(4) as senders:
        assert list(senders.map(lambda body: running.callback(receiver["callback_url"], body), bodies)) == [200] * 4
    for name, told in texts.items():
        [verdict] = verdicts(running, name)
        assert verdict["slice_count"] == 1000
        stored = running.items(f"/v1/verdicts/{verdict['task_id']}/slices", limit=200)
        assert [each["text"] for each in stored] == told


def test_a_suffix_forged_by_length_extension_does_not_get_through(running: Running, receiver: Any) -> None:
    # the attacker's checksum is right, since the padding is part of what is hashed: here it is simply made anew
    said = content(piece(0), TaskId="t-1", DataId="forged")
    length = (len(UID) + len(receiver["seed"]) + len(said.encode())) * 8
    glue = b"\x80" + b"\0" * 20 + length.to_bytes(8, "big") + b'{"Code": 200}'
    for padding in (glue, b"\0" * 20 + b'{"Code": 200}'):
        raw = said.encode() + padding
        body = b"checksum=" + checksum(raw, seed=receiver["seed"]).encode() + b"&content=" + quote(raw).encode()
        assert running.callback(receiver["callback_url"], body) in {200, 400}
    assert verdicts(running, "forged") == []


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (str.upper, "upper_case"),
        (lambda _: "", "malformed"),
        (lambda _: "ü" * 64, "malformed"),
        (lambda _: hashlib.sha256(b"other").hexdigest(), "checksum_wrong"),
    ],
)
def test_a_wrong_checksum_is_a_403_and_is_kept_with_a_diagnosis(
    running: Running, receiver: Any, spoil: Any, reason: str
) -> None:
    said = content(HIGH, DataId="wrong")
    wrong = spoil(checksum(said, seed=receiver["seed"]))
    body = urlencode({"checksum": wrong, "content": said}).encode()
    before = len(running.feed())
    assert [running.callback(receiver["callback_url"], body) for _ in range(3)] == [403] * 3
    [kept] = of_receiver(running, receiver, "quarantined")
    assert kept["reason"] == reason
    assert verdicts(running, "wrong") == []
    assert len(running.feed()) == before


def test_the_quarantine_of_one_token_is_bounded(running: Running, receiver: Any) -> None:
    for number in range(25):
        body = urlencode({"checksum": "0" * 64, "content": f"{number}"}).encode()
        assert running.callback(receiver["callback_url"], body) == 403
    kept = [
        running.shown(f"/v1/callbacks/{callback['id']}")["content"]
        for callback in of_receiver(running, receiver, "quarantined")
    ]
    assert kept == [f"{number}" for number in range(24, 4, -1)]


def test_a_callback_in_quarantine_is_still_wrong_when_nothing_was_mended(running: Running, receiver: Any) -> None:
    body = form(content(HIGH), seed=receiver["seed"], uid="another")
    assert running.callback(receiver["callback_url"], body) == 403
    [kept] = of_receiver(running, receiver, "quarantined")
    assert running.made(f"/v1/callbacks/{kept['id']}/verify", None)["state"] == "quarantined"


def test_an_accepted_callback_is_not_verified_again(running: Running, receiver: Any) -> None:
    assert running.callback(receiver["callback_url"], form(content(HIGH), seed=receiver["seed"])) == 200
    [kept] = of_receiver(running, receiver, "accepted")
    assert running.post(f"/v1/callbacks/{kept['id']}/verify").status == 409


def test_outcomes_are_counted_and_no_token_is_in_the_metrics(running: Running, receiver: Any) -> None:
    body = form(content(HIGH), seed=receiver["seed"])
    before = {outcome: outcomes(running, outcome) for outcome in ("accepted", "duplicate", "quarantined", "malformed")}
    running.callback(receiver["callback_url"], body)
    running.callback(receiver["callback_url"], body)
    running.callback(receiver["callback_url"], form(content(HIGH), seed="another"))
    running.callback(receiver["callback_url"], b"")
    assert all(outcomes(running, outcome) == number + 1 for outcome, number in before.items())
    assert receiver["callback_url"].rpartition("/")[2] not in running.get("/metrics", key=NO_KEY).body.decode()


def test_nul_in_the_platforms_words_is_kept_as_what_every_database_takes(client: AppClient) -> None:
    receiver = client.receiver()
    body = content(piece(0), TaskId="a\0b", LiveId="l\0", DataId="d\0")
    sent = form(body, seed=receiver["seed"], task_id="x\0")
    assert client.callback(receiver["callback_url"], sent) == 200
    [task] = client.items("/v1/tasks")
    assert (task["platform_task_id"], task["live_id"], task["data_id"]) == ("a\ufffdb", "l\ufffd", "d\ufffd")
    again = form(content(piece(1), TaskId="a\0b", LiveId="l\0"), seed=receiver["seed"])
    assert client.callback(receiver["callback_url"], again) == 200
    assert [task["slice_count"] for task in client.items("/v1/tasks")] == [2]
