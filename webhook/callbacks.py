"""`POST /callbacks/{token}`: from the platform's request to the answer, which is 200 once it is on disk.

A callback's token is looked up, its checksum verified, its content parsed, and the writer commits it
with whatever else is waiting. Lookups and commits are batched (`batching`); what is large is hashed
and parsed in a thread, so that the small ones beside it are answered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import flask
import msgspec
import structlog
from gevent.lock import BoundedSemaphore
from werkzeug.wrappers import Request, Response

from webhook import clock, forms
from webhook.batching import Batcher
from webhook.bodies import read_body
from webhook.errors import BodyTooLarge, DatabaseBusy, DatabaseError, MalformedBody, Overloaded, ServiceError
from webhook.quarantine import Claim
from webhook.store import tasks as task_store
from webhook.store import tombstones as tombstone_store
from webhook.store.tasks import Address
from webhook.threads import in_thread
from webhook.tokens import token_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from webhook.db import Database
    from webhook.ingest import Arrival, Ingest
    from webhook.metrics import Metrics
    from webhook.quarantine import Quarantine
    from webhook.settings import Settings

log = structlog.get_logger()

_LARGE_BYTES = 256 * 1024  # hashing and parsing more than this takes milliseconds
_SMALL_BYTES = 16 * 1024  # of content are stored within a millisecond
_HELD_BYTES = 128 * 1024 * 1024  # of bodies being worked on at once; more wait at the sender, told by 503
_RETRY_AFTER_SECONDS = "5"


class CallbackReceiver:
    """Takes callbacks. Make it in the web process, after the fork: its threads belong to the hub.

    Args:
        now: the time of arrival.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        database: Database,
        ingest: Ingest,
        quarantine: Quarantine,
        metrics: Metrics,
        now: Callable[[], datetime] = clock.now,
    ) -> None:
        self._settings = settings
        self._database = database
        self._ingest = ingest
        self._quarantine = quarantine
        self._metrics = metrics
        self._now = now
        self._held_bytes = 0
        self._large = BoundedSemaphore(1)
        self._lookups: Batcher[bytes, Address | ErasedAddress | None] = Batcher(
            self._look_up,
            name="lookups" if database.path is None else None,  # in SQLite's file it takes microseconds
            capacity=settings.callback_queue,
        )
        self._commits: Batcher[Arrival, str | None] = Batcher(
            self._commit,
            name="writer",
            capacity=settings.callback_queue,
            run_at_once=self._commit_at_once if database.path is not None else None,  # else a server may be far away
        )

    def hold(self, count: int, *, held_before: int) -> None:
        """Account for bytes of a body that have arrived.

        Args:
            count: how many.
            held_before: bytes that this body holds already.

        Raises:
            Overloaded: the others hold so much that this one must come again.
        """
        if self._held_bytes > held_before and self._held_bytes + count > _HELD_BYTES:
            raise Overloaded("Too many large callbacks are being worked on.")
        self._held_bytes += count

    def in_front_of(self, wsgi_app: WSGIApplication) -> WSGIApplication:
        """Return an application that answers callbacks itself, and leaves all other requests to the given one.

        Flask's dispatch is an eighth of what a callback costs. Its route to `view` stays, and answers the same.
        """

        def front(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            place, _, token = environ["PATH_INFO"].rpartition("/")
            if place == "/callbacks" and token and environ["REQUEST_METHOD"] == "POST":
                return self._respond(Request(environ), token)(environ, start_response)
            return wsgi_app(environ, start_response)

        return front

    def view(self, token: str) -> Response:
        """Answer one request (Flask view of `POST /callbacks/<token>`)."""
        return self._respond(flask.request, token)

    def _respond(self, request: Request, token: str) -> Response:
        started = time.perf_counter()
        try:
            status, outcome = self._answer(request, token)
        except BodyTooLarge:
            status, outcome = 413, "malformed"
        except MalformedBody:
            status, outcome = 400, "malformed"
        except ServiceError as error:
            log.warning("A callback could not be taken; the platform will send it again.", error=str(error))
            status, outcome = 503, "unavailable"
        except Exception:
            # Whoever else caught it, Flask or gunicorn, would log the path, and with it the token.
            log.exception("A callback could not be taken by a fault of the service; the platform will send it again.")
            status, outcome = 503, "unavailable"
        self._metrics.callbacks[outcome].inc()
        self._metrics.callback_seconds.observe(time.perf_counter() - started)
        response = Response(_WORDS[status], status, content_type="text/plain; charset=utf-8")
        if status == 503:  # noqa: PLR2004
            response.headers["Retry-After"] = _RETRY_AFTER_SECONDS
        return response

    def _answer(self, request: Request, token: str) -> tuple[int, str]:
        address = self._lookups.submit(token_digest(token))
        if not isinstance(address, Address):
            return (404, "unknown_token") if address is None else (200, "erased")
        content_type = request.headers.get("Content-Type", "")
        if forms.media_type(content_type) is None or request.headers.get("Content-Encoding"):
            return 415, "malformed"
        held = _Held(self)
        try:
            body = read_body(request, limit=self._settings.callback_body_limit, account=held.add)
            if len(body) > _LARGE_BYTES:
                with self._large:  # one at a time: it takes several times its size in memory, and the others' time
                    arrival = in_thread(self._verify, address, body, content_type)
                    return self._outcome(arrival)
            return self._outcome(self._verify(address, body, content_type))
        finally:
            self._held_bytes -= held.bytes

    def _outcome(self, arrival: Arrival | Claim) -> tuple[int, str]:
        """Commit what was verified, and return its status and outcome."""
        if isinstance(arrival, Claim):
            in_thread(self._quarantine.keep, self._database, arrival)
            return 403, "quarantined"
        new = self._commits.submit(arrival)
        if new is None:
            return 200, "duplicate"
        return 200, "unreadable" if arrival.result is None else "accepted"

    def _verify(self, address: Address, body: bytes, content_type: str) -> Arrival | Claim:
        """Decode, verify and parse a body; the mere claim comes back where its checksum is wrong."""
        form = forms.decode(body, content_type)
        claim = Claim(
            address=address,
            checksum=form.checksum,
            content=form.content,
            stated_task_id=form.task_id,
            received_at=self._now(),
        )
        return self._quarantine.verify(claim) or claim

    def _look_up(
        self, digests: Sequence[bytes], _computed: Callable[[], None]
    ) -> list[Address | ErasedAddress | Exception | None]:
        erased: set[bytes] = set()
        try:
            with self._database.read(keep=True) as session:
                found = task_store.addresses(session, digests)
                if unknown := {digest for digest in digests if digest not in found}:
                    erased = tombstone_store.erased_addresses(session, unknown)
        except DatabaseError as error:
            return [error] * len(digests)
        return [found.get(digest) or (ErasedAddress() if digest in erased else None) for digest in digests]

    def _commit_at_once(self, arrivals: Sequence[Arrival]) -> list[str | Exception | None] | None:
        if sum(len(arrival.content) for arrival in arrivals) > _SMALL_BYTES:
            return None
        try:
            return self._commit(arrivals, lambda: None, wait=False)
        except DatabaseBusy:
            return None

    def _commit(
        self, arrivals: Sequence[Arrival], computed: Callable[[], None], *, wait: bool = True
    ) -> list[str | Exception | None]:
        """Commit a batch; what cannot be stored as a result is kept raw, and never fails its neighbours.

        Raises:
            DatabaseBusy: others are writing, for whom it was not to wait.
        """
        try:
            with self._database.transaction(keep=True, wait=wait) as session:
                results: list[str | Exception | None] = list(self._ingest.accept(session, arrivals))
                computed()
        except DatabaseBusy:
            raise
        except DatabaseError as error:
            return [error] * len(arrivals)
        except Exception as error:
            if len(arrivals) > 1:
                return [result for arrival in arrivals for result in self._commit([arrival], computed)]
            log.exception("A callback could not be worked into its task.", address=arrivals[0].address.id)
            if arrivals[0].result is None:
                return [DatabaseError(f"The callback could not be stored ({type(error).__name__}).")]
            problem = "The content could not be worked into its task; this is a fault of the service."
            return self._commit([msgspec.structs.replace(arrivals[0], result=None, problem=problem)], computed)
        return results


class ErasedAddress:
    """What a token leads to whose task was erased: nothing of what comes there is looked at."""


class _Held:
    """The bytes of one body that are held."""

    def __init__(self, receiver: CallbackReceiver) -> None:
        self._receiver = receiver
        self.bytes = 0

    def add(self, count: int) -> None:
        self._receiver.hold(count, held_before=self.bytes)
        self.bytes += count


_WORDS = {
    200: "",  # a body would be one more system call
    400: "not a form with checksum and content, in UTF-8\n",
    403: "the checksum is wrong\n",
    404: "unknown token\n",
    413: "the body is too large\n",
    415: "the body must be a form or JSON, in UTF-8, not compressed\n",
    503: "try again later\n",
}
