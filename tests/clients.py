"""The API as a client sees it: over a socket, or in this very process; the tests cannot tell them apart."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import gevent
import requests
from requests.structures import CaseInsensitiveDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flask import Flask

FORM = "application/x-www-form-urlencoded"
ADMIN_KEY = "admin-key-of-the-tests-0123456789"
NO_KEY = ""
BOUNDARY = "a-boundary"

Part = tuple[str, str | None, bytes]  # name, file name, value


def multipart(*parts: Part) -> bytes:
    """Return a form of these parts."""
    pieces = []
    for name, file_name, value in parts:
        named = "" if file_name is None else f'; filename="{file_name}"'
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        pieces.append(head.encode() + value + b"\r\n")
    return b"".join(pieces) + f"--{BOUNDARY}--\r\n".encode()


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; an answer of another type is a failure."""
        kind = self.headers.get("Content-Type", "")
        assert kind in {"application/json", "application/problem+json"}, f"{self.status} {kind}: {self.body[:200]!r}"
        return json.loads(self.body)

    @property
    def fields(self) -> list[str]:
        """The fields that a 422 complains of."""
        assert self.status == 422, f"{self.status}: {self.body[:300]!r}"
        return [error["field"] for error in self.json["errors"]]


class Client(ABC):
    """Somebody with an API key."""

    key = ADMIN_KEY

    @abstractmethod
    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None) -> Reply:
        """Send one request."""

    def request(
        self,
        method: str,
        path: str,
        *,
        json_body: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
        **query: Any,
    ) -> Reply:
        """Send one request with a key.

        Args:
            json_body: goes out as JSON.
            key: another API key; `NO_KEY` for none.
            query: parameters of the URL; `from_` stands for `from`, and so on.
        """
        sent = dict(headers or {})
        if key := self.key if key is None else key:
            sent.setdefault("Authorization", f"Bearer {key}")
        if json_body is not None:
            body = json.dumps(json_body).encode()
            sent.setdefault("Content-Type", "application/json")
        if query:
            path = f"{path}?{urlencode(query)}"
        return self.send(method, path, headers=sent, body=body)

    def get(self, path: str, **more: Any) -> Reply:
        return self.request("GET", path, **more)

    def post(self, path: str, json_body: Any = None, **more: Any) -> Reply:
        return self.request("POST", path, json_body=json_body, **more)

    def patch(self, path: str, json_body: Any, **more: Any) -> Reply:
        return self.request("PATCH", path, json_body=json_body, **more)

    def delete(self, path: str, **more: Any) -> Reply:
        return self.request("DELETE", path, **more)

    def made(self, path: str, json_body: Any, **more: Any) -> Any:
        """Create something and return it."""
        reply = self.post(path, json_body, **more)
        assert reply.status in {200, 201, 202}, f"{reply.status}: {reply.body[:500]!r}"
        return reply.json

    def shown(self, path: str, **query: Any) -> Any:
        """Return what is at a path."""
        reply = self.get(path, **query)
        assert reply.status == 200, f"{reply.status}: {reply.body[:500]!r}"
        return reply.json

    def items(self, path: str, **query: Any) -> list[Any]:
        """Return all items of a list, page by page."""
        found: list[Any] = []
        page = self.shown(path, **query)
        while True:
            found += page["items"]
            if page["next_cursor"] is None:
                return found
            page = self.shown(path, **query | {"cursor": page["next_cursor"]})

    def upload(self, *parts: Part, body: bytes | None = None, **headers: str) -> Reply:
        """Send a file along with fields; `body` goes out in place of the parts, `_` in a header's name is `-`."""
        sent = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.post("/v1/tasks", body=multipart(*parts) if body is None else body, headers=sent)

    def callback(self, url: str, body: bytes, content_type: str = FORM) -> int:
        """Post a callback as the platform does; return the status."""
        path = "/" + url.split("/", 3)[3]
        return self.post(path, body=body, headers={"Content-Type": content_type}, key=NO_KEY).status

    def receiver(self, **fields: Any) -> Any:
        """Open a receiver."""
        return self.made("/v1/receivers", {"name": "a test", **fields})

    def feed(self, **query: Any) -> list[Any]:
        """Return all events of the feed, oldest first."""
        found: list[Any] = []
        after: dict[str, str] = {}
        while items := (page := self.shown("/v1/events", **query, **after))["items"]:
            found += items
            after = {"after": page["next_cursor"]}
        return found


class Hub:
    """This thread's hub while it stands in for a server's, which always waits for connections; a context manager.

    What is called in it may wait for threads, and what it leaves to be done beside it is done before the end.
    """

    def __init__(self) -> None:
        self._waiting = gevent.get_hub().loop.async_()

    def __enter__(self) -> None:
        self._waiting.start(lambda: None)

    def __exit__(self, *_: object) -> None:
        gevent.sleep(0)  # so that it begins
        gevent.get_hub().threadpool.join()
        self._waiting.stop()


class AppClient(Client):
    """Calls the application in this process."""

    def __init__(self, app: Flask) -> None:
        self._client = app.test_client()
        self._hub = Hub()

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None) -> Reply:
        with self._hub:
            answer = self._client.open(path, method=method, headers=dict(headers), data=body)
        return Reply(status=answer.status_code, headers=CaseInsensitiveDict(answer.headers.items()), body=answer.data)


class HttpClient(Client):
    """Calls a server; may be used by several threads."""

    def __init__(self, url: str) -> None:
        self.url = url

    def send(self, method: str, path: str, *, headers: Mapping[str, str], body: bytes | None) -> Reply:
        with requests.Session() as session:
            session.trust_env = False  # a proxy must not come between us and loopback
            answer = session.request(
                method, self.url + path, headers=dict(headers), data=body, timeout=90, allow_redirects=False
            )
            return Reply(status=answer.status_code, headers=answer.headers, body=answer.content)
