"""Somebody who follows the feed, whatever befalls those whom he asks."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients import Client

_WAIT_SECONDS = 1
_PAUSE_SECONDS = 0.05  # before a request that was not answered is sent again


class Reader:
    """Follows the feed in a thread of its own; a context manager, by whose end all is read.

    Args:
        ask: returns who is asked next.

    Attributes:
        seen: the ids of events, as they came.
        given_up: set where nobody answers any more.
    """

    def __init__(self, ask: Callable[[], Client]) -> None:
        self._ask = ask
        self._read_all, self.given_up = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")
        self.seen: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.given_up.set()
        self._read_all.set()
        self._thread.join()

    def _read(self) -> None:
        after: dict[str, str] = {}
        while not self.given_up.is_set():
            last = self._read_all.is_set()
            with suppress(requests.RequestException):
                reply = self._ask().get("/v1/events", wait=0 if last else _WAIT_SECONDS, **after)
                if reply.status == 200:
                    self.seen += [event["id"] for event in reply.json["items"]]
                    after = {"after": reply.json["next_cursor"]}
                    if last and not reply.json["items"]:
                        return
                    continue
            self.given_up.wait(_PAUSE_SECONDS)
