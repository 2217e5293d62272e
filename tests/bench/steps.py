"""What each step of taking a callback costs, in microseconds: `python -m tests.bench.steps`.

The service's own functions are called in this process, one batch after the other, as the web process calls them; what
it has beside them (gunicorn, sockets, greenlets, handing batches to threads) is not in it. Content, slices and events
are encrypted; working in is the rest of `Ingest.accept`: merging, making events and rows, SQLAlchemy's own time. With
TEST_POSTGRESQL_URL in the environment that server is measured beside SQLite.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any
from unittest import mock

import click
import sqlalchemy as sa
from typing_extensions import override
from werkzeug.test import create_environ
from werkzeug.wrappers import Request, Response

from tests import databases
from tests.bench import stage
from tests.bench.load import UID, Job, requests
from tests.running import ENCRYPTION_KEYS
from webhook import bootstrap, clock, forms, payloads, settings, signatures
from webhook.bodies import read_body
from webhook.crypto import Keyring
from webhook.db import postgres, sqlite
from webhook.ingest import Arrival, Ingest
from webhook.store import tasks as task_store
from webhook.tokens import open_secrets, token_digest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from webhook.bootstrap import Service

_BATCHES = (1, 64)  # a callback on its own, and the largest batch that the service makes
_SLICES = 10
_ROUNDS_PER_SECOND = {1: 20, 64: 2}
_UNTIMED_SHARE = 0.3
_MICROSECONDS = 1_000_000
_STEPS = {
    "answer": "request read, answer written",
    "look up": "token looked up",
    "decode": "form decoded",
    "verify": "seed opened, content hashed twice",
    "parse": "content parsed",
    "seal": "compressed and encrypted",
    "work in": "worked into its task",
    "insert": "statements run",
    "commit": "committed to disk",
}


class Stopwatch:
    """The seconds of each step of one batch."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def on(self, step: str) -> Iterator[None]:
        """Add what the block takes to a step."""
        start = time.perf_counter()
        yield
        self.seconds[step] += time.perf_counter() - start


class _TimedKeyring(Keyring):
    """A service's keyring as it is now."""

    def __init__(self, keyring: Keyring, watch: Stopwatch) -> None:
        vars(self).update(vars(keyring))
        self._watch = watch

    @override
    def seal(self, plaintext: bytes, *, table: str, column: str, row: str) -> bytes:
        start = time.perf_counter()
        sealed = super().seal(plaintext, table=table, column=column, row=row)
        self._watch.seconds["seal"] += time.perf_counter() - start
        return sealed


class Receiving:
    """The way of callbacks through one database's service.

    Args:
        service: over tasks with the tokens t0, t1 and so on.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._watch = Stopwatch()
        keyring = _TimedKeyring(service.keyring, self._watch)
        self._ingest = Ingest(keyring, flag_level=service.settings.flag_level, keep_evidence=service.settings.evidence)
        self._began = 0.0
        engine = service.database._engine
        sa.event.listen(engine, "before_cursor_execute", self._before)
        sa.event.listen(engine, "after_cursor_execute", self._after)
        self._way: tuple[Any, str] = (sqlite, "execute") if service.database.path else (postgres, "ask")
        self._past: Any = getattr(*self._way)

    def take(self, bodies: Sequence[bytes], *, first: int) -> dict[str, float]:
        """Take callbacks about the tasks from a number on as one batch; return the seconds of each step."""
        watch, service = self._watch, self._service
        watch.seconds.clear()
        environs = [create_environ("/callbacks/t", method="POST", input_stream=io.BytesIO(body)) for body in bodies]
        for environ, body in zip(environs, bodies, strict=True):
            environ |= {"CONTENT_TYPE": forms.URLENCODED, "CONTENT_LENGTH": str(len(body))}
        with watch.on("answer"):
            for environ in environs:
                request = Request(environ)
                assert forms.media_type(request.headers["Content-Type"])
                read_body(request, limit=service.settings.callback_body_limit)
                Response("", 200, content_type="text/plain; charset=utf-8")(environ, _start_response)
        with watch.on("look up"):
            digests = [token_digest(f"t{first + place}") for place in range(len(bodies))]
            with service.database.read() as session:
                addresses = task_store.addresses(session, digests)
        with watch.on("decode"):
            decoded = [forms.decode(body, forms.URLENCODED) for body in bodies]
        with watch.on("verify"):
            hashed = [self._verified(addresses[digest], form) for digest, form in zip(digests, decoded, strict=True)]
        with watch.on("parse"):
            results = [payloads.parse(form.content) for form in decoded]
        arrivals = [
            Arrival(
                address=addresses[digest],
                content=form.content,
                digest=taken,
                checksum=form.checksum,
                stated_task_id=form.task_id,
                result=result,
                problem=None,
                received_at=clock.now(),
            )
            for digest, form, taken, result in zip(digests, decoded, hashed, results, strict=True)
        ]
        watch.seconds["insert"] = 0.0  # without the look-up's statement
        began = time.perf_counter()
        with service.database.transaction() as session:
            self._ingest.accept(session, arrivals)
            computed = time.perf_counter()
        watch.seconds["commit"] = time.perf_counter() - computed
        watch.seconds["work in"] = computed - began - watch.seconds["seal"] - watch.seconds["insert"]
        return dict(watch.seconds)

    def _verified(self, address: task_store.Address, form: forms.Form) -> bytes:
        secrets = open_secrets(self._service.keyring, address.secrets, table="tasks", row=address.id)
        assert signatures.verify(
            crypt_type="SHA256",
            scheme="auto",
            checksum=form.checksum,
            uid=UID,
            seed=secrets.seed,
            content=form.content,
        )
        return hashlib.sha256(form.content).digest()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time what goes past SQLAlchemy, too."""
        with mock.patch.object(*self._way, self._timed):
            yield

    def _timed(self, *asked: Any, **how: Any) -> Any:
        if how:  # what goes out with the commit counts as that
            return self._past(*asked, **how)
        with self._watch.on("insert"):
            return self._past(*asked)

    def _before(self, *_: Any) -> None:
        self._began = time.perf_counter()

    def _after(self, *_: Any) -> None:
        self._watch.seconds["insert"] += time.perf_counter() - self._began


def _start_response(_status: str, _headers: Any, _error: Any = None) -> Any:
    return None


def measure(url: str, *, rounds: Mapping[int, int]) -> dict[int, dict[str, float]]:
    """Return the microseconds of each step for one callback, by the size of its batch: medians over batches."""
    total = sum(batch * (count + 1) for batch, count in rounds.items())
    loaded = settings.load(
        {
            "WEBHOOK_DATABASE_URL": url,
            "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
            "WEBHOOK_PLATFORM_UID": UID,
        }
    )
    stage.create_database(loaded, tasks=total)
    service = bootstrap.build(loaded)
    receiving = Receiving(service)
    sent = requests(Job(port=0, path="/", seed="sNUMBER", first=0, count=total, seconds=0, slices=_SLICES))
    bodies = (request.partition(b"\r\n\r\n")[2] for request in sent)
    first, figures = 0, {}
    with receiving.watching():
        for batch, count in rounds.items():
            found: dict[str, list[float]] = defaultdict(list)
            for round_ in range(count + 1):
                seconds = receiving.take([next(bodies) for _ in range(batch)], first=first)
                first += batch
                for step in _STEPS if round_ else ():  # the first warms up
                    found[step].append(seconds[step] / batch * _MICROSECONDS)
            figures[batch] = {step: median(each) for step, each in found.items()}
    service.database.close()
    return figures


@click.command(help=__doc__)
@click.option("--seconds", default=30.0, show_default=True, help="About how long it may take altogether.")
def main(seconds: float) -> None:
    """Measure, and print one table."""
    timed = seconds * (1 - _UNTIMED_SHARE)
    rounds = {batch: int(timed * _ROUNDS_PER_SECOND[batch]) for batch in _BATCHES}
    with tempfile.TemporaryDirectory() as temporary:
        urls = {"SQLite": f"sqlite:///{temporary}/steps.db"}
        if databases.SERVER is not None:
            urls["PostgreSQL"] = databases.url_of(Path(temporary))
        figures = {name: measure(url, rounds=rounds) for name, url in urls.items()}
    columns = [(name, batch) for name in figures for batch in _BATCHES]
    rows = [
        (words, *(f"{figures[name][batch][step]:.0f}" for name, batch in columns)) for step, words in _STEPS.items()
    ]
    rows.append(("together", *(f"{sum(figures[name][batch].values()):.0f}" for name, batch in columns)))
    stage.show(
        f"Microseconds for a callback of {_SLICES} slices, by the size of its batch",
        ("", *(f"{name}, {batch}" for name, batch in columns)),
        rows,
    )


if __name__ == "__main__":
    main()
