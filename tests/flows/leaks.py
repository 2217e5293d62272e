"""A whole run of the service with secrets that are known, every failure included, and all that came out of it."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
import socket
import stat
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import sqlalchemy as sa

from tests import databases, running, signed
from tests.clients import FORM, NO_KEY
from tests.running import Running, free_port, sandbox_variables
from tests.sandbox_process import SandboxProcess
from tests.waiting import until
from webhook import models

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.clients import Reply

SHORTEST = 12  # characters of what is looked for: fewer may be there by chance
FAULT = "fault-of-ours"
FAULTY = Path(__file__).parent / "faulty"
_OTHERS = 0o077
_KEY_FILE = "webhook.db.key"
_LOGS = frozenset({"log", "sandbox.log"})  # the test's own files
_QUIET = {"WEBHOOK_LOG_LEVEL": "debug"}


class Canaries:
    """Values that must not come out, known by what they are."""

    def __init__(self) -> None:
        self._spellings: dict[bytes, str] = {}

    def __len__(self) -> int:
        return len(set(self._spellings.values()))

    def new(self, name: str, *, prefix: str = "canary-") -> str:
        """Make a value and look for it."""
        return self.add(name, f"{prefix}{secrets.token_hex(16)}")

    def add(self, name: str, value: str | bytes) -> str:
        """Look for a value, in whatever way it may be written down; return it."""
        raw = value.encode() if isinstance(value, str) else value
        assert len(raw) >= SHORTEST, name
        text = raw.decode(errors="replace")
        for spelling in (
            raw,
            json.dumps(text)[1:-1].encode(),
            quote(raw, safe="").encode(),
            repr(raw)[2:-1].encode(),
            binascii.hexlify(raw),
            # inside a longer value in base64 it stands at one of three places
            *(base64.b64encode(b"\0" * before + raw)[4 * (before > 0) : -4] for before in range(3)),
        ):
            self._spellings[spelling] = name
        return text

    def found(self, places: Mapping[str, bytes]) -> list[str]:
        """Return which of them are where."""
        return sorted(
            {
                f"{name} in {place}"
                for place, content in places.items()
                for spelling, name in self._spellings.items()
                if spelling in content
            }
        )


@dataclass
class Run:
    """What a run leaves.

    Attributes:
        secrets: what must be nowhere.
        urls: what the README says is kept in clear, and must not be said.
        decoys: what is there on purpose, to be found.
        said: what went out to people and programs, by where.
        kept: the files of the working directory, by name; those that hold a key by their purpose are not among them.
        open_files: names of files that others than their owner may read or write.
    """

    secrets: Canaries = field(default_factory=Canaries)
    urls: Canaries = field(default_factory=Canaries)
    decoys: Canaries = field(default_factory=Canaries)
    said: dict[str, bytes] = field(default_factory=dict)
    kept: dict[str, bytes] = field(default_factory=dict)
    open_files: list[str] = field(default_factory=list)

    def note(self, name: str, reply: Reply) -> Reply:
        """Keep an answer: its status, its headers and its body."""
        head = "".join(f"{key}: {value}\n" for key, value in reply.headers.items())
        self.said[f"{name} ({reply.status})"] = f"{reply.status}\n{head}\n".encode() + reply.body
        return reply


class _Echo(BaseHTTPRequestHandler):
    """A subscriber that fails, and says all that it was told: in its reason, its headers and its body."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told = str(self.headers).replace("\n", " ").encode() + body
        self.send_response(500, self.headers["webhook-signature"])
        self.send_header("X-Told", base64.b64encode(told)[:4000].decode())
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""


@contextmanager
def echo() -> Iterator[str]:
    """Run the subscriber that fails; yield its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def run(directory: Path) -> Run:
    """Run everything once, in an empty directory."""
    done = Run()
    with SandboxProcess(directory, resend_interval_seconds=0.1, moderation_delay_seconds=0.05) as platform:
        service = Running(directory, **_variables(done, directory, platform.url))
        service.key = service.variables["WEBHOOK_ADMIN_KEY"]
        service.start()
        try:
            with echo() as subscriber:
                _work(done, service, platform, subscriber)
            _ask_wrongly(done, service)
            receiver = _receiver(done, service)
            with _database_away(directory):
                fields = _slice_words(done)
                _callback(done, service, "a callback while it is away", fields, receiver=receiver, expected=503)
                for path in ("/metrics", "/readyz"):
                    done.note(f"{path} while it is away", service.get(path, key=NO_KEY))
            for path in ("/metrics", "/readyz", "/livez", "/docs", "/openapi.json"):
                done.note(path, service.get(path, key=NO_KEY))
            _look_at_processes(done, [*service.command.pids(), *platform.pids()])
            _look_at_files(done, directory, "while it runs")
        finally:
            service.command.stop()
        _look_at_files(done, directory, "after it")
        _start_wrongly(done, directory, platform.url)
    for name in ("log", "sandbox.log"):
        done.said[name] = (directory / name).read_bytes()
    return done


def _variables(done: Run, directory: Path, platform_url: str) -> dict[str, str]:
    """Return settings of the service: SQLite's makes its encryption key itself, PostgreSQL's has a password."""
    new = done.secrets.new
    key = secrets.token_bytes(32)
    done.secrets.add("the encryption key", key)
    done.secrets.add("the encryption key as it is written", base64.b64encode(key).decode())
    keys = "" if databases.SERVER is None else f"k1:{base64.b64encode(key).decode()}"
    database = sa.make_url(databases.url_of(directory))
    if databases.SERVER is not None:  # the tests' server lets us in by any
        database = database.set(password=new("the password of the database in use"))
    access = sandbox_variables(platform_url)
    done.secrets.add("the access key's secret", access["ALIBABA_CLOUD_ACCESS_KEY_SECRET"])
    return access | {
        "ALIBABA_CLOUD_SECURITY_TOKEN": new("the security token"),
        "WEBHOOK_DATABASE_URL": database.render_as_string(hide_password=False),
        "WEBHOOK_ADMIN_KEY": new("the admin key"),
        "WEBHOOK_API_KEY": new("the API key of the settings"),
        "WEBHOOK_ENCRYPTION_KEYS": keys,
        "WEBHOOK_LOG_LEVEL": "debug",
        "PYTHONPATH": str(FAULTY),
        "FAULT": FAULT,
        "DECOY": done.decoys.new("a decoy that is printed"),
    }


def _work(done: Run, service: Running, platform: SandboxProcess, subscriber: str) -> None:
    """Submit, receive, deliver: what goes well, and what does not."""
    made = running.run(service.directory, "keys", "create", "one", "--role", "reader", **service.variables)
    done.said["what `webhook keys create` says beside the key"] = made.stderr.encode()
    reader = done.secrets.add("an API key", made.stdout.strip())
    key_file = service.directory / _KEY_FILE
    if key_file.exists():
        written = key_file.read_text().strip().partition(":")[2]
        done.secrets.add("the key in the file", base64.b64decode(written))
        done.secrets.add("the key as the file has it", written)

    hook = _subscribe(done, service, f"{subscriber}/{done.urls.new('the token of a URL')}")
    faulty = _subscribe(done, service, f"{subscriber}/{FAULT}")
    brokers = [
        _subscribe(done, service, url.format(password=done.secrets.new(f"a password of {url[:5]}"), port=free_port()))
        for url in (
            "nats://webhook:{password}@127.0.0.1:{port}/moderation",
            "nats://{password}@127.0.0.1:{port}/moderation",
            "amqp://webhook:{password}@127.0.0.1:{port}/?queue=moderation",
            "redis://:{password}@127.0.0.1:{port}/0?stream=moderation",
        )
    ]

    for name in ("high.mp3", "http=400,n=2.mp3", "submit_code=401,n=3.mp3", "code=404,n=4.mp3"):
        url = platform.source(name)
        task = service.made("/v1/tasks", {"url": url, "data_id": done.decoys.new("a decoy that is kept")})
        until(partial(_is_over, service, task["id"]))
        for one in platform.tasks(url):
            done.secrets.add("a task's seed", one["parameters"]["seed"])
            done.secrets.add("a task's token", one["parameters"]["callback"].rpartition("/")[2])

    _callback(done, service, "a result", _slice_words(done))
    _callback(done, service, "a message of the vendor", {"Message": done.secrets.new("the vendor's words")})
    _callback(done, service, "an unreadable content", {}, content=f"no JSON, but {done.secrets.new('an odd content')}")
    _callback(done, service, "a wrong checksum", _slice_words(done), seed="another", expected=403)
    _callback(done, service, "a decoy", {"Message": service.variables["DECOY"]})
    _callback(done, service, "a fault", {"Message": FAULT} | _slice_words(done), expected=503)
    fault = {
        "name": f"{FAULT} {done.secrets.new('a name')}",
        "seed": done.secrets.new("a seed in a fault", prefix="c_"),
    }
    assert done.note("a fault of the API", service.post("/v1/receivers", fault)).status == 500
    assert done.note("a role that is too low", service.post("/v1/tasks", {}, key=reader)).status == 403

    for subscription in (hook, *brokers):
        until(partial(_is_attempted, service, subscription))
    until(lambda: "An attempt failed by a fault" in service.command.log)
    service.delete(f"/v1/subscriptions/{faulty}")


def _is_over(service: Running, task: str) -> bool:
    return service.shown(f"/v1/tasks/{task}")["state"] in {"completed", "failed"}


def _is_attempted(service: Running, subscription: str) -> bool:
    return any(one["attempts"] for one in service.items(f"/v1/subscriptions/{subscription}/deliveries"))


def _subscribe(done: Run, service: Running, url: str) -> str:
    made = service.made("/v1/subscriptions", {"url": url})
    secret = done.secrets.add("a signing secret", made["secret"])
    done.secrets.add("a signing secret's bytes", base64.b64decode(secret.removeprefix("whsec_")))
    return str(made["id"])


def _slice_words(done: Run) -> dict[str, Any]:
    """Return fields of an envelope with a flagged slice of words that nobody may read but in the API."""
    word = done.secrets.new("a transcript", prefix="词汇-")
    piece = signed.piece(0, risk="high", label="political_entity", text=word)
    piece["Result"][0] |= {
        "RiskWords": done.secrets.new("a risk word"),
        "CustomizedHit": [{"LibName": done.secrets.new("a library"), "Keywords": done.secrets.new("a keyword")}],
        "Unheard": done.secrets.new("a field that nobody knows"),
    }
    return {"Data": {"TaskId": secrets.token_hex(8), "SliceDetails": [piece]}}


def _receiver(done: Run, service: Running) -> tuple[str, str]:
    """Open a receiver; return the path of its callbacks, and its seed."""
    seed = done.secrets.new("a receiver's seed", prefix="canary_")
    path = "/" + service.receiver(seed=seed)["callback_url"].split("/", 3)[3]
    done.secrets.add("a receiver's token", path.rpartition("/")[2])
    return path, seed


def _callback(
    done: Run,
    service: Running,
    name: str,
    fields: dict[str, Any],
    *,
    content: str | None = None,
    seed: str | None = None,
    receiver: tuple[str, str] | None = None,
    expected: int = 200,
) -> None:
    """Post a callback to a receiver of its own."""
    path, own = receiver or _receiver(done, service)
    body = signed.form(content or json.dumps({"Code": 200, "Message": "SUCCESS"} | fields), seed=seed or own)
    reply = service.post(path, body=body, headers={"Content-Type": FORM}, key=NO_KEY)
    assert done.note(name, reply).status == expected, name


def _ask_wrongly(done: Run, service: Running) -> None:
    """Ask for what is refused, with secrets wherever a request has room for them."""
    new = done.secrets.new
    path, _ = _receiver(done, service)
    as_json = {"Content-Type": "application/json"}
    wrong: list[tuple[str, str, int, dict[str, Any]]] = [
        ("GET", f"/v1/tasks?cursor={new('a cursor')}", 422, {}),
        ("GET", f"/v1/tasks?state={new('a state')}", 422, {}),
        ("GET", f"/v1/tasks/{new('an id')}", 404, {}),
        ("GET", f"/{new('a path')}", 404, {}),
        ("GET", "/v1/tasks", 401, {"key": new("a key that is none")}),
        ("GET", "/v1/tasks", 401, {"key": NO_KEY, "headers": {"Authorization": f"Basic {new('a basic key')}"}}),
        ("POST", "/v1/tasks", 400, {"body": b'{"url": "' + new("half a body").encode(), "headers": as_json}),
        ("POST", "/v1/tasks", 415, {"body": new("a body").encode(), "headers": {"Content-Type": new("a type")}}),
        ("POST", "/v1/tasks", 422, {"json_body": {"url": new("a URL"), "referer": new("a referer") * 20}}),
        ("POST", "/v1/tasks", 422, {"headers": {"Idempotency-Key": new("a key") * 9}, "json_body": {"url": "x"}}),
        ("POST", "/v1/subscriptions", 422, {"json_body": {"url": f"redis://:{new('a password')}@169.254.169.254/0"}}),
        ("POST", "/v1/subscriptions", 422, {"json_body": {"url": f"https://u:{new('a password')}@a.example/"}}),
        ("POST", "/v1/subscriptions", 422, {"json_body": {"url": "https://a.example/", "format": new("a format")}}),
        ("POST", "/v1/receivers", 422, {"json_body": {"name": "x", "seed": new("a seed that is none") + "\n"}}),
        ("PATCH", f"/v1/tasks/{new('an id')}", 405, {}),
        ("POST", f"/callbacks/{new('a token')}", 404, {"body": b"checksum=a&content=b", "key": NO_KEY}),
        ("GET", f"/callbacks/{new('a token')}", 405, {"key": NO_KEY}),
        ("POST", path, 400, {"body": urlencode({"content": new("no checksum")}).encode()}),
        ("POST", path, 400, {"body": b"checksum=\xff&content=" + new("no UTF-8").encode()}),
        ("POST", path, 400, {"body": urlencode([("content", new("twice"))] * 2 + [("checksum", "a")]).encode()}),
        ("POST", path, 415, {"body": new("no form").encode(), "headers": {"Content-Type": new("a type")}}),
    ]
    for number, (method, target, status, more) in enumerate(wrong):
        more.setdefault("headers", {"Content-Type": FORM} if "body" in more and target == path else {})
        reply = service.request(method, target, **more)
        assert done.note(f"refusal {number}", reply).status == status, (number, reply.status, reply.body)
    for line in (
        f"GET /{new('a path')} HTTP/9.9\r\n\r\n",
        f"{new('no method')}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{new('no header')}\r\n\r\n",
        f"GET /v1/tasks HTTP/1.1\r\nAuthorization: Bearer {new('too long') * 1000}\r\n\r\n",
        f"GET /{new('too long') * 1000} HTTP/1.1\r\n\r\n",
    ):
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(line.encode())
            connection.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                done.said[f"no request: {line[:8]}"] = connection.recv(65536)


@contextmanager
def _database_away(directory: Path) -> Iterator[None]:
    """Have the database take nothing: locked by another, or a server's that lets nobody in."""
    url = databases.url_of(directory)
    if databases.SERVER is None:
        with databases.connected(directory) as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            yield
            connection.exec_driver_sql("ROLLBACK")
        return
    name = sa.make_url(url).database
    with databases.connected(directory, url=databases.SERVER) as server:
        server.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        server.exec_driver_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        yield
        server.exec_driver_sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def _look_at_processes(done: Run, pids: list[int]) -> None:
    """Note what any user sees of processes."""
    listed = subprocess.run(["ps", "-ww", "-f", "-p", ",".join(map(str, pids))], capture_output=True, check=True)
    done.said["ps"] = listed.stdout
    for pid in pids:
        for name in ("cmdline", "comm", "status"):
            done.said[f"/proc/{pid}/{name}"] = Path(f"/proc/{pid}/{name}").read_bytes()


def _look_at_files(done: Run, directory: Path, when: str) -> None:
    """Note what lies on disk, and who may read it; a server's tables are read row by row."""
    for path in directory.rglob("*"):
        if path.name in _LOGS or path.is_dir() or path.is_socket():
            continue
        if path.stat().st_mode & _OTHERS:
            done.open_files.append(f"{path.name}, {stat.filemode(path.stat().st_mode)}")
        if path.name != _KEY_FILE:
            done.kept[f"{path.relative_to(directory)} {when}"] = path.read_bytes()
    if databases.SERVER is not None:
        with databases.connected(directory) as connection:
            for table in models.metadata.sorted_tables:
                rows = connection.exec_driver_sql(f"SELECT * FROM {table.name}").all()  # noqa: S608 - our own name
                done.kept[f"{table.name} {when}"] = b"\n".join(map(_written, rows))


def _written(row: Any) -> bytes:
    """Return a row's values as bytes, those of blobs as they are."""
    return b"|".join(value if isinstance(value, bytes) else str(value).encode() for value in row)


def _start_wrongly(done: Run, directory: Path, platform_url: str) -> None:
    """Start commands with settings that are wrong, each with a secret in it."""
    new, password = done.secrets.new, done.secrets.new("the password of the database")
    away = f"postgresql+psycopg://webhook:{password}@127.0.0.1:{free_port()}/webhook"
    hidden = f"postgresql+psycopg://127.0.0.1:{free_port()}/webhook?user=webhook&password={password}"
    # a server that is there, and lets nobody in by this password
    closed = f"postgresql+psycopg://nobody-{free_port()}:{password}@127.0.0.1:5432/webhook"
    access = sandbox_variables(platform_url)
    refused = access | {"ALIBABA_CLOUD_ACCESS_KEY_SECRET": new("a wrong secret of the access key")}
    unknown = access | {"ALIBABA_CLOUD_ACCESS_KEY_ID": new("an access key that nobody knows")}
    starts: list[tuple[str, dict[str, str]]] = [
        ("serve", {"WEBHOOK_DATABASE_URL": away}),
        ("web", {"WEBHOOK_DATABASE_URL": hidden, "WEBHOOK_BIND": f"127.0.0.1:{free_port()}"}),
        ("worker", {"WEBHOOK_DATABASE_URL": closed}),
        ("doctor", {"WEBHOOK_DATABASE_URL": away}),
        ("doctor", refused),
        ("doctor", unknown),
    ]
    with ThreadPoolExecutor(2) as threads:  # as many as a small machine has processors
        ended = threads.map(lambda start: running.run(directory, start[0], **_QUIET | start[1]), starts)
        for (command, variables), one in zip(starts, ended, strict=True):
            said = f"webhook {command} with {', '.join(variables)} at {len(done.said)}"
            assert one.returncode != 0, said
            assert one.stdout or one.stderr, said
            done.said[said] = f"{one.stdout}\n{one.stderr}".encode()
