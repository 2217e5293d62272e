"""Every route of the API, by every role: odd paths, queries, headers and bodies."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict, deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import quote_from_bytes, quote_plus

import msgspec
from msgspec import Struct
from pydantic import BaseModel, ValidationError
from typing_extensions import override

from tests import signed
from tests.clients import ADMIN_KEY, BOUNDARY, FORM, NO_KEY, multipart
from tests.fuzz import values
from tests.fuzz.runs import Target, Violation
from tests.fuzz.service import App, Reply, fresh_service
from webhook import clock, services
from webhook.api import openapi
from webhook.api.http import ROUTES
from webhook.api.routing import JSON, PROBLEM, Route
from webhook.roles import Role
from webhook.segments import Segment

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from webhook.segments import Segments

_ROUTES: Final = {f"{route.method} {route.path}": route for route in ROUTES}
_NOBODY, _WRONG = "nobody", "wrong"
_EXISTING: Final = b"@"
"""In a path: what is there already, by its number; ids are others in each run."""

_AUDIO, _LIVE = services.DEFAULTS["audio"], services.DEFAULTS["live"]
_BODIES: Final[dict[str, tuple[Any, ...]]] = {
    "POST /v1/tasks": (
        {"url": "https://example.com/a.mp3", "service": _AUDIO, "data_id": "d", "referer": "r", "crypt_type": "SM3"},
        {"oss": {"bucket": "b", "object": "o/1.mp3", "region": "ap-southeast-1"}, "data_id": None},
    ),
    "POST /v1/streams": ({"url": "rtmp://example.com/live/1", "live_id": "room-7", "service": _LIVE, "data_id": "d"},),
    "POST /v1/subscriptions": (
        {
            "url": "https://example.com/hook",
            "event_types": ["slice.*"],
            "filter": {"risk_levels": ["high"], "labels": ["political_*"], "kinds": ["live"], "data_id_prefix": "a"},
            "format": "cloudevents",
            "description": "d",
            "ordering": "task",
            "max_in_flight": 3,
            "max_per_second": 10,
        },
        {"url": "nats://user:pass@127.0.0.1:4222/moderation.{type}"},
        {"url": "amqp://127.0.0.1:5672/?queue=q"},
        {"url": "http://127.0.0.1:9/hook"},
    ),
    "PATCH /v1/subscriptions/{subscription_id}": ({"event_types": ["task.*"], "filter": {}, "state": "disabled"},),
    "POST /v1/subscriptions/{subscription_id}/recover": ({"since": "2026-01-31T12:00:00Z"},),
    "POST /v1/receivers": ({"name": "a", "seed": "s", "crypt_type": "SM3", "uid": "42"},),
    "POST /v1/callbacks/verify": ({"reason": "checksum", "cursor": "cb_" + "0" * 28}, {}),
    "POST /v1/keys": ({"name": "a", "role": "reader", "expires_in_seconds": 60, "networks": ["10.0.0.0/8"]},),
    "POST /v1/erasures": ({"data_id": "d"},),
}
_HEX = "0" * 28
_QUERY: Final[dict[str, tuple[str, ...]]] = {
    "limit": ("1", "2", "200", "0", "201", "-1", "1.0", "1e2", "\u0663", " 1", "+1", "01", "9" * 5000),
    "cursor": (
        f"evt_{_HEX}",
        f"1_task_{_HEX}",
        f"9999999999999999_task_{_HEX}",
        "0" * 8,
        "0" * 136,
        "1_1",
        f"cb_{_HEX}",
    ),
    "after": ("0", "1", "9" * 18, "9" * 19, "-1"),
    "since": ("2026-01-31T12:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-02-30T00:00:00Z"),
    "until": ("2036-01-31T12:00:00Z", "2026-01-31T12:00:00.123456789Z", "2026-01-31 12:00Z", "2026-01-31T24:00:00Z"),
    "state": ("queued", "completed", "quarantined", "dead", "pending"),
    "kind": ("audio", "live"),
    "types": ("slice.*", "task.completed,slice.flagged", "*", ",", "slice.*," * 500),
    "risk_level": ("high", "high,medium", "high, low", "odd"),
    "label": ("political_*", "a", "*", "%", "_*"),
    "wait": ("0", "-1", "61", "x"),
    "active": ("true", "false", "1", "TRUE"),
    "action": ("block", "review", "task.created"),
}
_KNOWN: Final = tuple(
    sorted({name for route in ROUTES for model in (route.body, route.query) if model for name in model.model_fields})
)
_HEADERS: Final[dict[str, tuple[str, ...]]] = {
    "Idempotency-Key": ("k1", "k2", "", "a" * 256, "\x7f", "\xe9"),
    "Prefer": ("wait=0", "wait", "wait=-1", "wait=1e9", "respond-async, wait=0", "wait=x"),
    "Range": ("bytes=0-1", "bytes=5-", "bytes=-5", "bytes=9-1", "bytes=0-1,3-4", "bytes=" + "9" * 4500 + "-", "x"),
    "If-Match": ("*", '"a"', 'W/"a"', "a,b"),
    "If-None-Match": ("*", '"a"', "x" * 5000),
    "X-Request-Id": ("an-id", "a" * 129, "a b", "\xe9"),
    "Content-Encoding": ("gzip", "identity", "br"),
    "Content-Type": (
        "text/plain",
        "application/json; charset=gbk",
        "multipart/form-data",
        "application/json;",
        "\xff/\xfe",
    ),
    "Accept": ("text/html", "*/*;q=x"),
    "Host": ("", "example.com", "[::1", "a b", "\xe9", "x:99999", "x/../y", "[::1]:80"),
    "X-Forwarded-For": ("203.0.113.9", "unknown", ", ,"),
    "Authorization": ("Bearer", "Basic eA==", "bearer  ", "Bearer \xe9", "Bearer " + "a" * 8000),
    "Cookie": ("a=b; c", "\xff"),
    "Transfer-Encoding": ("chunked",),
}
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "QUERY")
_OTHER_PATHS: Final = (
    *(
        b"/v1",
        b"/v1/",
        b"/v1/nothing",
        b"/",
        b"/livez",
        b"/metrics",
        b"/readyz",
        b"/openapi.json",
        b"/docs",
        b"//v1//tasks",
    ),
    *(
        b"/v1/tasks/",
        b"/v1/tasks/../keys",
        b"/v1/tasks/\xff",
        b"/v1/tasks/a/b/c",
        b"/callbacks/",
        b"*",
        b"",
        b"/V1/TASKS",
    ),
)
_FILES: Final = ("a.mp3", "a.exe", "", "a", ".mp3", "a\u00e9.wav", "../a.mp3", "a" * 300 + ".mp3", "a.MP3", 'a".mp3')
_UNWANTED: Final = re.compile(rb"Traceback|" + ADMIN_KEY.encode())
_WAITS: Final = re.compile(rb"wait=0*[1-9]")
_LEARNED: Final = re.compile(rb"((?:cursor|after)=)%40(\d+)")
"""Where a list goes on, by its number among those that were shown."""

_NAMES: Final = {
    "task": "task_id",
    "sub": "subscription_id",
    "dlv": "delivery_id",
    "rcv": "receiver_id",
    "cb": "callback_id",
    "key": "key_id",
}
_FURNISHED: Final = 3000  # each so many, there is all of it again, whatever was erased
_ROOM: Final = 60  # of ids that are known of each kind
_LARGE_BYTES: Final = 1_100_000


class Question(Struct, kw_only=True):
    """A request.

    Attributes:
        route: method and path of the table's row; empty where it is none of it.
        path: values of its names, or the path itself where the route is none.
        role: whose key it bears.
    """

    route: str
    method: str
    path: list[bytes]
    query: bytes
    headers: dict[str, str]
    body: bytes | None
    role: str


class _Silence:
    """Where links lead here: to some audio."""

    async def fetch(self, _url: str) -> Segment:
        return Segment(audio=b"RIFF" + bytes(1000), content_type="audio/wav")


class Routes(Target[Question]):
    """The REST API of a whole application."""

    name = "routes"
    share = 0.1
    case = Question

    @override
    @contextmanager
    def ready(self) -> Iterator[None]:
        document = openapi.document(ROUTES, services=services.CATALOGUE)
        self._documented = {
            f"{method.upper()} {path}": {int(status) for status in operation["responses"]}
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        }
        with fresh_service() as service:
            self._service = service
            self._app = App(service)
            self._ids: dict[str, deque[bytes]] = defaultdict(lambda: deque(maxlen=_ROOM))
            self._asked = 0
            self._keys = {_NOBODY: NO_KEY, _WRONG: "wrong", Role.ADMIN: ADMIN_KEY}
            with service.database.transaction() as session:
                for role in set(Role) - {Role.ADMIN}:
                    self._keys[role] = service.api_keys.create(session, name=role, role=role, now=clock.now())[1]
            self._furnish()
            yield

    def _furnish(self) -> None:
        """Make some of all that there may be."""
        for path in ("/v1/tasks", "/v1/streams", "/v1/subscriptions"):
            for body in _BODIES[f"POST {path}"]:
                self._admin("POST", path.encode(), body)
        self._admin("POST", b"/v1/keys", {"name": f"client-{self._asked}", "role": "reader"})
        for found in list(self._ids["subscription_id"])[-2:]:
            self._admin("POST", b"/v1/subscriptions/" + found + b"/test")
        receiver = self._admin("POST", b"/v1/receivers", {"name": "a"}).json
        path = ("/" + receiver["callback_url"].split("/", 3)[3]).encode()
        slices = [signed.piece(10 * number, risk="high") for number in range(5)]
        content = signed.content(
            {**slices[0], "Url": "https://example.com/saved.wav"}, *slices[1:], TaskId="t", LiveId="room-7"
        )
        for seed in ("forged", receiver["seed"]):
            self._app.ask("POST", path, headers={"Content-Type": FORM}, body=signed.form(content, seed=seed))
        kept = self._admin("GET", b"/v1/callbacks").json["items"]
        told = next(each["task_id"] for each in kept if each["state"] == "accepted")
        self._ids["callback_id"].extend(each["id"].encode() for each in kept[:2])
        self._save()
        self._ids["task_id"].append(told.encode())
        self._ids["slice_id"].extend(each["id"].encode() for each in self._slices(told))

    def _save(self) -> None:
        """Save the audio that is wanted, as the worker does."""
        evidence, database = self._service.evidence, self._service.database
        with database.transaction() as session:
            rows = evidence.claim(session, limit=_ROOM)
        for row in rows:
            settlement = asyncio.run(evidence.capture(cast("Segments", _Silence()), row))
            with database.transaction() as session:
                evidence.settle(session, settlement)

    def _slices(self, task_id: str) -> list[Any]:
        found: list[Any] = self._admin("GET", f"/v1/verdicts/{task_id}/slices".encode()).json["items"]
        return found

    def _admin(self, method: str, path: bytes, body: Any = None) -> Reply:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "Content-Type": JSON}
        reply = self._app.ask(method, path, headers=headers, body=b"" if body is None else msgspec.json.encode(body))
        assert reply.status < 300, reply
        self._learn(method, reply)
        return reply

    def _learn(self, method: str, reply: Reply) -> None:
        """Remember the id of what was made, and where a list goes on."""
        if reply.status not in {200, 201, 202} or reply.headers.get("content-type") != JSON or method == "HEAD":
            return
        told = reply.json
        if reply.status != 200 and isinstance(told, dict):
            made = str(told.get("id"))
            if name := _NAMES.get(made.partition("_")[0]):
                self._ids[name].append(made.encode())
        elif told.get("next_cursor"):
            self._ids["cursor"].append(told["next_cursor"].encode())

    def _cursor(self, asked: re.Match[bytes]) -> bytes:
        """Return where a list goes on that was shown."""
        known = self._ids["cursor"]
        return asked[1] + (known[int(asked[2]) % len(known)] if known else b"")

    @override
    def draw(self, dice: random.Random) -> Question:
        name = dice.choice(list(_ROUTES))
        route = _ROUTES[name]
        headers: dict[str, str] = {}
        body: bytes | None = None
        if name in _BODIES:
            good = msgspec.json.encode(dice.choice(_BODIES[name]))
            body = values.broken_json(dice, good, known=_KNOWN) if dice.random() < 0.85 else good
            headers["Content-Type"] = JSON
            if dice.random() < 0.003:
                body = body.ljust(_LARGE_BYTES)
        elif dice.random() < 0.05:
            body = values.broken_json(dice, b'{"a":1}', known=_KNOWN)
        if route.form is not None and dice.random() < 0.4:
            body, headers["Content-Type"] = _upload(dice), f"multipart/form-data; boundary={BOUNDARY}"
        for _ in range(values.number(dice, 4)):
            header = dice.choice(list(_HEADERS))
            headers[header] = dice.choice(_HEADERS[header]) if dice.random() < 0.8 else _line(values.text(dice))
        if "wait" in headers.get("Prefer", ""):
            headers["Prefer"] = re.sub(r"wait\s*=\s*0*[1-9]", "wait=0x", headers["Prefer"])
        role = dice.choice((*Role, Role.ADMIN, Role.ADMIN, Role.ADMIN, _NOBODY, _WRONG))
        question = Question(
            route=name,
            method=route.method,
            path=[_part(dice) for _ in re.findall(r"{\w+}", route.path)],
            query=_query(dice, route),
            headers=headers,
            body=body,
            role=role,
        )
        if dice.random() < 0.03:
            question.route, question.path = "", [dice.choice(_OTHER_PATHS)]
            question.method = dice.choice(_METHODS)
        elif dice.random() < 0.02:
            question.method = dice.choice(_METHODS)
        return question

    @override
    def ask(self, case: Question) -> str:
        self._asked += 1
        if self._asked % _FURNISHED == 0:
            self._furnish()
        path, is_whole = self._path(case)
        query = _LEARNED.sub(self._cursor, case.query)
        headers = dict(case.headers)
        if key := self._keys[case.role]:
            headers.setdefault("Authorization", f"Bearer {key}")
        address = f"10.{self._asked >> 16 & 255}.{self._asked >> 8 & 255}.{self._asked & 255}"  # each with no past
        reply = self._app.ask(case.method, path, query=query, headers=headers, body=case.body, address=address)
        route = _ROUTES.get(case.route)
        if route is not None and case.method == route.method and is_whole:
            self._check(case, route, path, reply)
        if reply.status >= 500 and not (path == b"/readyz" and reply.status == 503):
            raise Violation(f"{case.route or path.decode('latin-1')} answers {reply.status}")
        _check_shape(case, reply)
        self._learn(case.method, reply)
        return str(reply.status)

    def _path(self, case: Question) -> tuple[bytes, bool]:
        """Return a case's path, and whether it is one of its route."""
        if not case.route:
            return case.path[0], False
        parts = iter(case.path)
        path, is_whole = _ROUTES[case.route].path.encode(), True
        for name in re.findall(r"{(\w+)}", _ROUTES[case.route].path):
            part = next(parts)
            if part.startswith(_EXISTING) and (ids := self._ids[name]):
                part = ids[int(part[1:]) % len(ids)]
            is_whole = is_whole and part != b"" and b"/" not in part
            path = path.replace(f"{{{name}}}".encode(), part)
        return path, is_whole and b"//" not in path

    def _check(self, case: Question, route: Route, path: bytes, reply: Reply) -> None:
        """Compare an answer with what the table and the document say of its route."""
        allowed = self._documented[case.route]
        if reply.status not in allowed and reply.status < 500 and not _is_refused_before(path, reply):
            raise Violation(f"{case.route} answers {reply.status}, which is not in its description")
        model = route.answers.get(reply.status)
        if isinstance(model, type) and issubclass(model, BaseModel):
            try:
                model.model_validate_json(reply.body)
            except ValidationError as error:
                raise Violation(f"{case.route} answers what is not as described") from error
        if "Authorization" in case.headers:
            return
        whole, part = route.roles()
        if case.role in {_NOBODY, _WRONG}:
            if reply.status not in {401, 429}:
                raise Violation(f"{case.route} answers {reply.status} to nobody")
        elif case.role not in {*whole, *part} and reply.status != 403 and not _is_refused_before(path, reply):
            raise Violation(f"{case.route} answers {reply.status} to a role that may not")


def _is_refused_before(path: bytes, reply: Reply) -> bool:
    """Return whether an answer is to what is wrong before anybody asks for a role: a Host, or a URL that is no text."""
    try:
        path.decode()
    except UnicodeDecodeError:
        return reply.status in {400, 404}
    return reply.status == 400


def _check_shape(case: Question, reply: Reply) -> None:
    """Check what holds of all answers."""
    if "x-request-id" not in reply.headers:
        raise Violation("an answer without X-Request-Id")
    if _UNWANTED.search(reply.body):
        raise Violation("an answer tells what it must not")
    if reply.status == 401 and "www-authenticate" not in reply.headers:
        raise Violation("401 without WWW-Authenticate")
    if reply.status == 405 and "allow" not in reply.headers:
        raise Violation("405 without Allow")
    if reply.status < 400 or case.method == "HEAD":
        if reply.headers.get("content-type") == JSON and case.method != "HEAD":
            msgspec.json.decode(reply.body)
        return
    if reply.headers.get("content-type") != PROBLEM:
        raise Violation(f"an answer of {reply.status} that is no problem document")
    told = reply.json
    if told["status"] != reply.status or not told["title"] or not isinstance(told["detail"], str):
        raise Violation(f"an answer of {reply.status} whose problem document is not whole")
    if reply.status == 422 and not all(each["message"] for each in told["errors"]):
        raise Violation("an answer of 422 that names no fields")


def _part(dice: random.Random) -> bytes:
    """Make a part of a path: mostly what is there already."""
    if dice.random() < 0.7:
        return _EXISTING + str(dice.randrange(_ROOM)).encode()
    part = values.text(dice).encode()
    return values.broken_bytes(dice, part) if dice.random() < 0.3 else part


def _query(dice: random.Random, route: Route) -> bytes:
    if dice.random() < (0.2 if route.query else 0.93):
        return b""
    names = list(route.query.model_fields) if route.query else list(_QUERY)
    pairs = []
    for _ in range(1 + values.number(dice, 4)):
        name = dice.choice(names) if dice.random() < 0.95 else values.text(dice)
        value = dice.choice(_QUERY.get(name, ("d",))) if dice.random() < 0.6 else values.text(dice)
        if name in {"cursor", "after"} and dice.random() < 0.4:
            value = f"@{dice.randrange(_ROOM)}"
        pairs.append(f"{quote_plus(name)}={quote_plus(value)}".encode())
    query = b"&".join(pairs)
    if dice.random() < 0.1:
        query = quote_from_bytes(values.broken_bytes(dice, query), safe="%&=+*,.:").encode()
    return b"" if _WAITS.search(query) else query


def _upload(dice: random.Random) -> bytes:
    name = "a.mp3" if dice.random() < 0.6 else dice.choice(_FILES)
    parts: list[tuple[str, str | None, bytes]] = [
        ("file", name, b"ID3" * values.number(dice, dice.choice((0, 500, 200_000)))),
        ("data_id", None, b"d" if dice.random() < 0.6 else values.text(dice).encode()),
        ("referer", None, b"r" if dice.random() < 0.6 else values.text(dice).encode()),
        ("service", None, _AUDIO.encode()),
        ("crypt_type", None, b"SM3"),
    ]
    dice.shuffle(parts)
    parts = parts[: dice.randrange(len(parts) + 1)] if dice.random() < 0.5 else parts
    if dice.random() < 0.1:
        parts.append((dice.choice(("file", "data_id", "url", "oss")), None, values.text(dice).encode()))
    body = multipart(*parts)
    return values.broken_bytes(dice, body) if dice.random() < 0.3 else body


def _line(text: str) -> str:
    """Return a text as a header's value can be (RFC 9110, 5.5), once it was read."""
    return "".join(each for each in text if each == "\t" or " " <= each < "\x7f" or "\x80" <= each <= "\xff").strip(
        " \t"
    )
