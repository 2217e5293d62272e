"""The web process at its sockets: which address answers what, and what hostile bytes get there.

All of it is asked of the real service from outside, byte for byte.
"""

from __future__ import annotations

import json
import re
import socket
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests import impatient
from tests.clients import ADMIN_KEY, FORM, NO_KEY, AppClient, HttpClient
from tests.databases import once
from tests.running import Running, free_port, run, tracing
from tests.signed import content, form, piece
from tests.waiting import until
from webhook.api.headers import SECURITY
from webhook.api.http import ROUTES
from webhook.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.clients import Reply
    from webhook.bootstrap import Service

pytestmark = once  # what is asked of is in front of the database

PAGES = ("/openapi.json", "/docs", "/readyz", "/metrics")
SAID = content(piece(0, risk="high"), DataId="said")
NEXT = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"  # what must not be taken for a request where the framing is in doubt
LONGEST_ANSWER_SECONDS = 10.0
MOST_GROWTH_KIB = 64 * 1024  # of the web process: most of it is what one request may hold


class Apart(NamedTuple):
    """A service whose callbacks come in at an address of their own."""

    api: Running
    callbacks: HttpClient


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    # the same port at another address: neither the port alone nor a Host can tell the two apart
    directory = tmp_path_factory.mktemp("apart")
    api = Running(directory, module=("tests.impatient",), **tracing())
    callbacks = HttpClient(api.url.replace("127.0.0.1", "127.0.0.2"))
    bind = callbacks.url.removeprefix("http://")
    api.start(WEBHOOK_CALLBACK_BIND=bind, WEBHOOK_PUBLIC_URL=callbacks.url)
    yield Apart(api, callbacks)
    assert api.command.stop() == 0, api.command.log
    assert "Traceback" not in api.command.log


@pytest.fixture(scope="module")
def path(apart: Apart) -> str:
    """The path of a receiver's callbacks."""
    return str(urlsplit(apart.api.receiver()["callback_url"]).path)


def at(apart: Apart, address: str) -> HttpClient:
    return apart.api if address == "api" else apart.callbacks


both = pytest.mark.parametrize("address", ["api", "callbacks"])


class Talk(NamedTuple):
    """What came of some bytes.

    Attributes:
        statuses: of the answers, 100 aside.
        ended: whether the other side has closed the connection.
    """

    statuses: list[int]
    ended: bool
    seconds: float


def talk(client: HttpClient, request: bytes, *, patience: float = LONGEST_ANSWER_SECONDS) -> Talk:
    """Send bytes and read until the connection is ended, or nothing comes for so long."""
    began = time.monotonic()
    answered, ended = b"", False
    with connection_to(client) as connection:
        connection.settimeout(patience)
        with suppress(ConnectionError):  # it may be ended before all of it is sent
            connection.sendall(request)
        try:
            while some := connection.recv(65536):
                answered += some
        except TimeoutError:
            pass
        except ConnectionError:
            ended = True
        else:
            ended = True
    statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d\d\d) ", answered)]
    return Talk([status for status in statuses if status != 100], ended, time.monotonic() - began)


def connection_to(client: HttpClient) -> socket.socket:
    parts = urlsplit(client.url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def post(target: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "x", **headers}.items())
    return f"POST {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def target_of(address: str, path: str) -> tuple[str, dict[str, str]]:
    """Return where a body is read at an address, and the headers that it takes."""
    if address == "api":
        return "/v1/receivers", {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "application/json"}
    return path, {"Content-Type": FORM}


# Which address answers what


def test_each_address_answers_its_own_and_nothing_else(apart: Apart) -> None:
    receiver = apart.api.receiver()
    body = form(SAID, seed=receiver["seed"])
    assert receiver["callback_url"].startswith(apart.callbacks.url)
    assert apart.api.callback(receiver["callback_url"], body) == 404
    assert apart.api.items("/v1/verdicts", data_id="said") == []
    assert apart.callbacks.callback(receiver["callback_url"], body) == 200
    assert len(apart.api.items("/v1/verdicts", data_id="said")) == 1
    for client in apart:
        assert client.get("/livez", key=NO_KEY).status == 200
        assert f"webhook: listening on {client.url}" in apart.api.command.log


def test_the_callbacks_address_has_no_page_and_no_route_of_the_api(apart: Apart) -> None:
    routes = [(route.method, re.sub(r"{\w+}", "x", route.path)) for route in ROUTES]
    hosts = [{}, {"Host": urlsplit(apart.api.url).netloc}, {"X-Forwarded-Host": urlsplit(apart.api.url).netloc}]
    for method, place in [
        *routes,
        *(("GET", page) for page in PAGES),
        ("GET", "//v1/tasks"),
        ("GET", "/livez/../docs"),
    ]:
        for headers in hosts:
            assert apart.callbacks.request(method, place, headers=headers).status == 404, place


@pytest.mark.parametrize(
    "request_line",
    [
        "GET http://{api}/v1/tasks HTTP/1.1",
        "GET /callbacks/v1/tasks HTTP/1.1\r\nSCRIPT_NAME: /callbacks",
        "GET /callbacks/x HTTP/1.1\r\nPATH_INFO: /v1/tasks",
        "GET /callbacks/..%2fv1/tasks HTTP/1.1",
        "GET /callbacks/x HTTP/1.1\r\nX-Original-URL: /v1/tasks\r\nX-Rewrite-URL: /v1/tasks",
    ],
)
def test_no_header_or_spelling_leads_from_the_callbacks_address_to_the_api(apart: Apart, request_line: str) -> None:
    netloc = urlsplit(apart.api.url).netloc
    head = f"{request_line.format(api=netloc)}\r\nHost: {netloc}\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
    told = talk(apart.callbacks, f"{head}Connection: close\r\n\r\n".encode())
    assert told.statuses in ([400], [404], [405])


def test_a_header_does_not_say_which_path_is_asked_for(apart: Apart) -> None:
    """Else who may ask a proxy for some paths only would reach all of them."""
    head = f"GET /callbacks/v1/tasks HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\nConnection: close\r\n"
    for name in ("SCRIPT_NAME", "PATH_INFO", "Script-Name", "Path-Info"):
        assert talk(apart.api, f"{head}{name}: /callbacks\r\n\r\n".encode()).statuses in ([400], [404]), name


def test_an_address_for_callbacks_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = f"127.0.0.1:{listener.getsockname()[1]}"
        ended = run(tmp_path, "serve", WEBHOOK_BIND="127.0.0.1:0", WEBHOOK_CALLBACK_BIND=taken)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"webhook: WEBHOOK_CALLBACK_BIND: {taken} cannot be listened on")


def test_an_address_for_callbacks_that_is_part_of_the_other_is_refused(tmp_path: Path) -> None:
    port = free_port()
    ended = run(tmp_path, "serve", WEBHOOK_BIND=f"0.0.0.0:{port}", WEBHOOK_CALLBACK_BIND=f"127.0.0.1:{port}")
    assert ended.returncode == 1
    assert ended.stderr.startswith("webhook: WEBHOOK_CALLBACK_BIND: ")


# What hostile bytes get there


LENGTHS = {
    "given twice": {"Content-Length": "2", "content-length": "2"},
    "given twice and different": {"Content-Length": "2", "content-length": "30"},
    "a list": {"Content-Length": "2, 2"},
    "with a sign": {"Content-Length": "+2"},
    "negative": {"Content-Length": "-2"},
    "hexadecimal": {"Content-Length": "0x2"},
    "with an underscore": {"Content-Length": "1_0"},
    "a digit of another script": {"Content-Length": "\xb2"},
    "empty": {"Content-Length": ""},
    "beyond every number": {"Content-Length": "9" * 5000},
    "beside chunks": {"Content-Length": "2", "Transfer-Encoding": "chunked"},
    "behind chunks": {"Transfer-Encoding": "chunked", "Content-Length": "2"},
    "chunked twice": {"Transfer-Encoding": "chunked", "transfer-encoding": "chunked"},
    "chunks that are compressed last": {"Transfer-Encoding": "chunked, gzip"},
    "an unknown coding": {"Transfer-Encoding": "xchunked"},
    "not chunked at all": {"Transfer-Encoding": "identity"},
    "a control character before the coding": {"Transfer-Encoding": "\x0bchunked"},
    "a space before the colon": {"Transfer-Encoding ": "chunked"},
    "a length with a space before the colon": {"Content-Length ": "2"},
}


@both
@pytest.mark.parametrize("headers", LENGTHS.values(), ids=LENGTHS)
def test_a_length_that_is_in_doubt_is_refused_and_ends_the_connection(
    apart: Apart, path: str, address: str, headers: dict[str, str]
) -> None:
    target, own = target_of(address, path)
    told = talk(at(apart, address), post(target, own | headers, b"0\r\n\r\n" + NEXT))
    assert told.statuses in ([400], [501]), "and never an answer to what follows"
    assert told.ended


CHUNKS = {
    "hexadecimal by name": b"0x2\r\n{}\r\n0\r\n\r\n",
    "negative": b"-2\r\n{}\r\n0\r\n\r\n",
    "no number": b"zz\r\n{}\r\n0\r\n\r\n",
    "no size": b"\r\n{}\r\n0\r\n\r\n",
    "ended by a line feed alone": b"2\n{}\n0\n\n",
    "followed by a line feed alone": b"2\r\n{}\n0\r\n\r\n",
    "longer than it says": b"2\r\n{}{}{}\r\n0\r\n\r\n",
    "a line feed in an extension": b"2;\nx\r\n{}\r\n0\r\n\r\n",
}


@both
@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=CHUNKS)
def test_a_chunk_that_is_in_doubt_is_refused_and_ends_the_connection(
    apart: Apart, path: str, address: str, chunks: bytes
) -> None:
    target, own = target_of(address, path)
    told = talk(at(apart, address), post(target, own | {"Transfer-Encoding": "chunked"}, chunks + NEXT))
    assert (told.statuses, told.ended) == ([400], True)


HEADS = {
    "line feeds alone": b"GET /livez HTTP/1.1\nHost: x\n\n",
    "one line feed alone": b"GET /livez HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "a carriage return alone": b"GET /livez HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "a space before the colon": b"GET /livez HTTP/1.1\r\nHost : x\r\n\r\n",
    "a folded header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\r\n b\r\n\r\n",
    "a space before the first header": b"GET /livez HTTP/1.1\r\n Host: x\r\n\r\n",
    "NUL in a header": b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
    "NUL in the path": b"GET /livez\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "two hosts": b"GET /livez HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no protocol": b"GET /livez\r\n\r\n",
    "no header's name": b"GET /livez HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
}


@both
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_head_that_is_in_doubt_is_refused_and_ends_the_connection(apart: Apart, address: str, head: bytes) -> None:
    told = talk(at(apart, address), head + NEXT)
    assert (told.statuses, told.ended) == ([400], True)


LARGE_HEADS = {
    "a line": (b"GET /livez?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "a header": (b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", 431),
    "headers": (b"GET /livez HTTP/1.1\r\nHost: x\r\n" + b"X-Y: z\r\n" * 10_000 + b"\r\n", 431),
}


@both
@pytest.mark.parametrize(("head", "status"), LARGE_HEADS.values(), ids=LARGE_HEADS)
def test_an_oversized_head_is_refused_by_what_is_too_large(
    apart: Apart, address: str, head: bytes, status: int
) -> None:
    told = talk(at(apart, address), head)
    # the answer may get lost where the connection ends before all was sent
    assert told.statuses in ([status], [])
    assert told.ended


@both
@pytest.mark.parametrize("start", [b"GET /", b"GET /livez HTTP/1.1\r\nX: ", b"GET /livez HTTP/1.1\r\n"])
def test_a_head_without_end_is_cut_off_and_not_kept(apart: Apart, address: str, start: bytes) -> None:
    before = memory_kib(apart.api)
    endless = b"X: y\r\n" * 4_000_000 if start.endswith(b"\n") else b"a" * 24_000_000
    told = talk(at(apart, address), start + endless)
    assert told.ended
    assert told.statuses in ([], [414], [431])
    assert memory_kib(apart.api) - before < MOST_GROWTH_KIB


def memory_kib(running: Running) -> int:
    """Return the memory that the web process holds: the largest of the service's."""
    found = []
    for pid in running.command.pids():
        status = Path(f"/proc/{pid}/status").read_text()
        found += [int(match[1]) for match in [re.search(r"VmRSS:\s+(\d+) kB", status)] if match]
    return max(found)


def test_compressed_bodies_are_refused_and_never_unpacked(apart: Apart, path: str) -> None:
    for coding in ("gzip", "deflate", "br", "identity", "x"):
        for address, (target, own) in {name: target_of(name, path) for name in ("api", "callbacks")}.items():
            body = json.dumps({"name": "a name"}).encode()
            headers = own | {"Content-Encoding": coding, "Content-Length": str(len(body)), "Connection": "close"}
            assert talk(at(apart, address), post(target, headers, body)).statuses == [415], (address, coding)
    upload = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": "multipart/form-data; boundary=b"}
    headers = upload | {"Content-Encoding": "gzip", "Content-Length": "0", "Connection": "close"}
    assert talk(apart.api, post("/v1/tasks", headers)).statuses == [415]


DEEP = b"[" * 400_000
DOCUMENTS = {
    "deep": b'{"name": ' + DEEP + b"]" * 400_000 + b"}",
    "deep and cut off": DEEP,
    "a huge number": b'{"name": ' + b"9" * 900_000 + b"}",
    "a huge exponent": b'{"name": 1e999999999}',
    "no number": b'{"name": NaN}',
    "a lone surrogate": b'{"name": "\\ud800"}',
    "a lone surrogate in a name": b'{"\\udfff": "x", "name": "x"}',
    "NUL": b'{"name": "\\u0000"}',
    "NUL in a name": b'{"name\\u0000": "x"}',
    "no UTF-8": b'{"name": "\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"name": "x"}',
    "ten thousand fields": json.dumps({f"f{number}": "x" for number in range(10_000)}).encode(),
}


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_of_a_hostile_shape_is_the_client_s_fault(apart: Apart, document: bytes) -> None:
    target, own = target_of("api", "")
    told = talk(apart.api, post(target, own | {"Content-Length": str(len(document)), "Connection": "close"}, document))
    assert told.statuses in ([400], [422])
    assert told.seconds < LONGEST_ANSWER_SECONDS


PARTS = b"".join(b'--b\r\nContent-Disposition: form-data; name="f%d"\r\n\r\nx\r\n' % at for at in range(10_000))
LONG_NAME = b'--b\r\nContent-Disposition: form-data; name="' + b"x" * 5_000_000 + b'"\r\n\r\nx\r\n--b--\r\n'
MULTIPART = "multipart/form-data; boundary=b"
JSON = "application/json"
FORMS = {
    "ten thousand fields": (FORM, b"&".join(b"f%d=x" % at for at in range(10_000)), 400),
    "ten thousand parts": (MULTIPART, PARTS + b"--b--\r\n", 400),
    "a part's long name": (MULTIPART, LONG_NAME, 400),
    "a part of carriage returns": (MULTIPART, PARTS[:60] + b"\r" * 5_000_000 + b"\r\n--b--\r\n", 400),
    "escapes that are none": (FORM, b"%" * 5_000_000, 400),
    "nothing but separators": (FORM, b"&" * 5_000_000, 400),
    "escapes that are no UTF-8": (FORM, b"checksum=a&content=" + b"%ff" * 1_500_000, 400),
    "surrogates as UTF-8": (FORM, b"checksum=a&content=%ed%a0%80", 400),
    "NUL": (FORM, b"checksum=%00&content=%00&taskId=%00", 403),
    "deep JSON": (JSON, b'{"content": ' + DEEP, 400),
    "deep JSON as content": (FORM, b"checksum=a&content=" + DEEP, 403),
    "a huge number": (JSON, b'{"checksum": "a", "content": "b", "taskId": ' + b"9" * 900_000 + b"}", 400),
    "a lone surrogate": (JSON, b'{"checksum": "a", "content": "\\ud800"}', 400),
    "a lone surrogate as checksum": (JSON, b'{"checksum": "\\ud800", "content": "b"}', 400),
    "a lone surrogate as hint": (JSON, b'{"checksum": "a", "content": "b", "taskId": "\\ud800"}', 403),
    "no object": (JSON, b"[" + b"{}," * 100_000 + b"{}]", 400),
}


@pytest.mark.parametrize(("kind", "body", "status"), FORMS.values(), ids=FORMS)
def test_a_form_of_a_hostile_shape_is_the_sender_s_fault(
    apart: Apart, path: str, kind: str, body: bytes, status: int
) -> None:
    headers = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
    told = talk(apart.callbacks, post(path, headers, body))
    assert told.statuses == [status]
    assert told.seconds < LONGEST_ANSWER_SECONDS


@pytest.mark.parametrize("authentic", [b"[" * 100_000 + b"]" * 100_000, b"9" * 100_000, b'{"Code": 1e999999}', b"\0"])
def test_authentic_content_of_a_hostile_shape_is_kept_and_its_neighbours_are_taken(
    apart: Apart, authentic: bytes
) -> None:
    receiver = apart.api.receiver()
    assert apart.callbacks.callback(receiver["callback_url"], form(authentic.decode(), seed=receiver["seed"])) == 200
    assert apart.callbacks.callback(receiver["callback_url"], form(SAID, seed=receiver["seed"])) == 200
    kept = [one["state"] for one in apart.api.items("/v1/callbacks") if one["address_id"] == receiver["id"]]
    assert kept == ["accepted", "unreadable"]


# Who is slow


def trickle(connection: socket.socket, some: bytes) -> bool:
    """Send some bytes; return whether the other side has ended the connection."""
    try:
        connection.sendall(some)
        connection.settimeout(0.05)
        return connection.recv(65536) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@both
def test_who_is_slow_to_ask_is_cut_off_and_who_has_asked_is_waited_for(apart: Apart, address: str) -> None:
    client = at(apart, address)
    with ExitStack() as open_until_the_end:
        silent, slow_line, slow_headers, asked = [
            open_until_the_end.enter_context(connection_to(client)) for _ in range(4)
        ]
        slow_line.sendall(b"GET /")
        slow_headers.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        asked.sendall(NEXT)
        began = time.monotonic()
        slow = {silent: b"", slow_line: b"a", slow_headers: b"X: y\r\n"}

        def all_ended() -> bool:
            for connection in [one for one, some in slow.items() if trickle(one, some)]:
                del slow[connection]
            return not slow

        until(all_ended)
        assert time.monotonic() - began < impatient.FIRST_SECONDS + LONGEST_ANSWER_SECONDS
        asked.settimeout(LONGEST_ANSWER_SECONDS)
        assert asked.recv(65536).startswith(b"HTTP/1.1 200 ")
        asked.sendall(NEXT)
        assert asked.recv(65536).startswith(b"HTTP/1.1 200 ")


@both
@pytest.mark.parametrize("framing", [{"Content-Length": "1000"}, {"Transfer-Encoding": "chunked"}])
def test_a_body_that_comes_too_slowly_is_refused_and_ends_the_connection(
    apart: Apart, path: str, address: str, framing: dict[str, str]
) -> None:
    target, own = target_of(address, path)
    answered = b""
    with connection_to(at(apart, address)) as connection:
        connection.sendall(post(target, own | framing))
        began = time.monotonic()
        connection.settimeout(0.05)
        while time.monotonic() - began < impatient.BODY_SECONDS + LONGEST_ANSWER_SECONDS:
            try:
                connection.sendall(b"1\r\na\r\n" if "Transfer-Encoding" in framing else b"a")
                some = connection.recv(65536)
                answered += some
                if not some:
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        else:
            pytest.fail("the connection is still there")
    assert answered.startswith(b"HTTP/1.1 400 ")


def test_who_takes_nothing_of_an_answer_is_cut_off(apart: Apart) -> None:
    asked = f"GET /openapi.json HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n\r\n".encode()
    with connection_to(apart.api) as connection:
        connection.settimeout(0.2)
        sent = 0
        with suppress(TimeoutError):  # by then both sides' buffers are full of what nobody reads
            while sent < 50_000_000:
                connection.sendall(asked)
                sent += len(asked)
        assert sent < 50_000_000

        def is_ended() -> bool:
            try:
                connection.send(asked)
            except TimeoutError:
                return False
            except ConnectionError:
                return True
            return False

        until(is_ended, seconds=impatient.UNTAKEN_SECONDS + 60)


def test_strangers_cannot_make_the_service_keep_large_bodies(apart: Apart) -> None:
    large = {"Content-Type": JSON, "Content-Length": "1000000"}
    for headers in (large, {"Content-Type": JSON, "Transfer-Encoding": "chunked"}):
        with connection_to(apart.api) as connection:
            connection.sendall(post("/v1/tasks", headers))  # and nothing of the body
            assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


UNWANTED = {"a callback": ("callbacks", "/callbacks/nobodys"), "no key": ("api", "/v1/tasks"), "no path": ("api", "/x")}


@pytest.mark.parametrize(("address", "target"), UNWANTED.values(), ids=UNWANTED)
def test_a_long_body_that_nobody_wants_is_thrown_away_and_its_sender_hears_so(
    apart: Apart, address: str, target: str
) -> None:
    before = memory_kib(apart.api)
    with connection_to(at(apart, address)) as connection:
        connection.sendall(post(target, {"Content-Type": FORM, "Transfer-Encoding": "chunked"}))
        began = time.monotonic()
        for _ in range(30):
            connection.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        answered = b"".join(iter(lambda: connection.recv(65536), b""))
    assert re.findall(rb"HTTP/1\.1 (\d\d\d) ", answered) in ([b"401"], [b"404"])
    assert b"Connection: close" in answered
    assert time.monotonic() - began < impatient.UNWANTED_SECONDS
    assert memory_kib(apart.api) - before < MOST_GROWTH_KIB


@pytest.mark.parametrize(("address", "target"), UNWANTED.values(), ids=UNWANTED)
def test_a_body_that_nobody_wants_and_that_does_not_end_is_cut_off(apart: Apart, address: str, target: str) -> None:
    with connection_to(at(apart, address)) as connection:
        connection.sendall(post(target, {"Content-Type": FORM, "Content-Length": "1000000000"}))
        assert re.match(rb"HTTP/1\.1 40[14] ", connection.recv(65536))
        until(lambda: trickle(connection, b"x" * 1000), seconds=impatient.UNWANTED_SECONDS + LONGEST_ANSWER_SECONDS)


def test_many_who_are_slow_do_not_keep_the_others_waiting(apart: Apart, path: str) -> None:
    receiver = apart.api.receiver()
    with ExitStack() as open_until_the_end:
        for _ in range(100):
            one = open_until_the_end.enter_context(connection_to(apart.callbacks))
            one.sendall(post(path, {"Content-Type": FORM, "Content-Length": "1000000"}, b"checksum="))
        for number in range(10):
            body = form(content(piece(number)), seed=receiver["seed"])
            assert apart.callbacks.callback(receiver["callback_url"], body) == 200


# What every answer says to browsers


def is_secured(reply: Reply) -> bool:
    return all(name in reply.headers for name in SECURITY)


def test_every_answer_tells_browsers_and_caches_to_keep_and_show_nothing(apart: Apart) -> None:
    for client in apart:
        for place in ("/livez", "/nothing", "/v1/tasks", "/v1/nothing", "/callbacks", *PAGES):
            for key in (NO_KEY, ADMIN_KEY):
                reply = client.get(place, key=key)
                assert is_secured(reply), place
                assert reply.headers["Cache-Control"] == "no-store"
        assert is_secured(client.request("DELETE", "/livez"))
        with connection_to(client) as connection:
            connection.sendall(b"nonsense\r\n\r\n")
            answer = connection.recv(65536).decode()
        assert all(f"{name}: {value}\r\n" in answer for name, value in SECURITY.items())


def test_the_docs_run_their_own_script_and_nothing_else(service: Service) -> None:
    page = AppClient(create_app(service)).get("/docs", key=NO_KEY)
    policy = dict(part.strip().split(" ", 1) for part in page.headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy)
    assert page.body.count(b"<script") == page.body.count(b"<style") == 1
    assert re.search(rb"""\s(style|on\w+)=["']""", page.body) is None, "which the policy would not let through"
