"""The running service, asked over HTTP as any client of its API would."""

from __future__ import annotations

import http.client
import json
import math
import time
import uuid
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote, urlencode, urlsplit

import webhook
from webhook.cli.answers import Answer, document_of, refusal, retry_after, why_lost
from webhook.errors import ServiceError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from webhook.settings import Settings

Json = dict[str, Any]

PAUSES_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # the service is back within them when it is restarted
_PAGE_ITEMS = 200
_CONNECT_SECONDS = 10.0
_ANSWER_SECONDS = {"GET": 30.0, "POST": 120.0}  # a large file is on the service's disk before it answers
_OF_THE_MOMENT = (429, 502, 503, 504)
_USER_AGENT = f"webhook-cli/{webhook.__version__}"


class Unanswered(ServiceError):
    """The service could not be reached, or its answer did not come."""


class Body(Protocol):
    """What a POST sends; the same bytes each time it is asked for them."""

    content_type: str
    length: int

    def pieces(self) -> Iterable[bytes]:
        """Yield its bytes."""


class JsonBody:
    """A JSON document as a body."""

    content_type = "application/json"

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._bytes = json.dumps(document).encode()
        self.length = len(self._bytes)

    def pieces(self) -> Iterable[bytes]:
        """Return it in one piece."""
        return [self._bytes]


class _Lost(Exception):
    """There was no answer.

    Attributes:
        sent: whether a connection was made, so that the request may have been carried out.
    """

    def __init__(self, cause: Exception, *, sent: bool) -> None:
        super().__init__(str(cause))
        self.why = why_lost(cause)
        self.sent = sent


class _Momentary(Exception):
    """What failed may work later.

    Args:
        failure: what to raise where it is not tried again.
        why: in a few words.
        least: seconds to wait before the next attempt.
    """

    def __init__(self, failure: ServiceError, *, why: str, least: float = 0.0) -> None:
        super().__init__(why)
        self.failure = failure
        self.why = why
        self.least = least


class Client:
    """Asks one service with one key, a connection a request.

    What fails for the moment is tried again, once the service has answered before; a POST also the first time,
    under one idempotency key, so that nothing is submitted twice.

    Args:
        url: where the service is.
        key: of its API.
        note: told in a sentence why it takes longer.
    """

    def __init__(self, url: str, key: str, *, note: Callable[[str], None] = lambda _: None) -> None:
        self._url = url
        self._parts = urlsplit(url)
        self._key = key
        self._note = note
        self._met = False

    def get(self, path: str, *, deadline: float | None = None, **query: Any) -> Json:
        """Return what is at a path.

        Args:
            deadline: on the monotonic clock; beyond it nothing is tried again.
            query: parameters; those that are None are left out.

        Raises:
            Unanswered, Refused: there is nothing.
        """
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given)}" if given else path
        return document_of(self._ask("GET", target, deadline=deadline), self._url)

    def post(self, path: str, body: Body) -> Json:
        """Create something, once, and return it.

        Raises:
            Unanswered: it is not known whether it was created.
            Refused: it was not.
        """
        return document_of(self._ask("POST", path, body=body), self._url)

    def items(self, path: str, *, limit: int | None = None, **query: Any) -> Iterator[Json]:
        """Yield the items of a list, page by page.

        Args:
            limit: how many there may be; None is all.

        Raises:
            Unanswered, Refused: a page did not come.
        """
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            page = self.get(path, limit=min(left or _PAGE_ITEMS, _PAGE_ITEMS), cursor=cursor, **query)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return
            left = None if left is None else left - len(page["items"])

    def _ask(self, method: str, target: str, *, body: Body | None = None, deadline: float | None = None) -> Answer:
        """Ask again and again while the trouble is of the moment, until the pauses are used up."""
        headers = {"Idempotency-Key": str(uuid.uuid4())} if body else {}
        pauses = iter(PAUSES_SECONDS)
        while True:
            try:
                return self._attempt(method, target, headers=headers, body=body)
            except _Momentary as trouble:
                pause = max(next(pauses, math.inf), trouble.least)
                if math.isinf(pause) or (deadline is not None and time.monotonic() + pause > deadline):
                    raise trouble.failure from None
                self._note(f"The service is away or busy ({trouble.why}); trying again.")
                time.sleep(pause)

    def _attempt(self, method: str, target: str, *, headers: Mapping[str, str], body: Body | None) -> Answer:
        """Ask once.

        Raises:
            _Momentary: it may work later.
            Unanswered: it was never there.
        """
        try:
            answer = self._send(method, target, headers=headers, body=body)
        except _Lost as lost:
            failure = Unanswered(
                f"{self._url} cannot be reached ({lost.why}). Does the service run there? WEBHOOK_API_URL says where."
            )
            if self._met or (body is not None and lost.sent):
                raise _Momentary(failure, why=lost.why) from lost
            raise failure from lost
        if answer.status in _OF_THE_MOMENT and (self._met or body is not None):
            why = f"it answers {answer.status}"
            raise _Momentary(refusal(answer, self._url), why=why, least=retry_after(answer))
        self._met = True
        return answer

    def _send(self, method: str, target: str, *, headers: Mapping[str, str], body: Body | None) -> Answer:
        """Send one request.

        Raises:
            _Lost: there was no answer.
        """
        connection = self._connection()
        try:
            try:
                connection.connect()
            except (OSError, http.client.HTTPException) as error:
                raise _Lost(error, sent=False) from error
            assert connection.sock is not None  # noqa: S101 - it is connected
            connection.sock.settimeout(_ANSWER_SECONDS[method])
            try:
                self._put(connection, method, target, headers=headers, body=body)
                response = connection.getresponse()
                return Answer(status=response.status, headers=response.headers, body=response.read())
            except (OSError, http.client.HTTPException) as error:
                raise _Lost(error, sent=True) from error
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        host, port = self._parts.hostname or "", self._parts.port
        if self._parts.scheme == "https":
            return http.client.HTTPSConnection(host, port, timeout=_CONNECT_SECONDS)
        return http.client.HTTPConnection(host, port, timeout=_CONNECT_SECONDS)

    def _put(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str],
        body: Body | None,
    ) -> None:
        connection.putrequest(method, quote(self._parts.path, safe="/%") + target)
        connection.putheader("Authorization", f"Bearer {self._key}".encode())
        connection.putheader("Accept", "application/json")
        connection.putheader("User-Agent", _USER_AGENT)
        connection.putheader("Connection", "close")
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Type", body.content_type)
            connection.putheader("Content-Length", str(body.length))
        connection.endheaders()
        if body is None:
            return
        for piece in body.pieces():
            try:
                connection.send(piece)
            except (BrokenPipeError, ConnectionResetError):
                return  # who refuses it need not read all of it: the answer may be there


def connect(settings: Settings, *, note: Callable[[str], None] = lambda _: None) -> Client:
    """Return a client of the service that the settings name.

    Raises:
        SettingError: there is no key.
    """
    if settings.api_key is None:
        raise SettingError("WEBHOOK_API_KEY", "is not set", "Set it to a key that `webhook keys create` printed.")
    return Client(settings.api_url, settings.api_key, note=note)
