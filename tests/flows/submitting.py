"""A client that submits files, uploads and streams, each again until it is answered, and keeps what it was told."""

from __future__ import annotations

import itertools
import threading
from functools import partial
from typing import TYPE_CHECKING

import requests

from tests.flows.agreement import Submission

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.clients import Reply
    from tests.flows.agreement import Fate
    from tests.platform import Platform
    from tests.running import Running

_PAUSE_SECONDS = 0.2  # before a request is sent again


class Submitter:
    """Submits; may be used by several threads.

    Args:
        prefix: of the `data_id` of all that it submits.

    Attributes:
        submissions: what was submitted, by `data_id`.
        repeated: requests that were sent again for want of an answer.
        violations: answers that should not be.
        given_up: set where nobody answers any more.
    """

    def __init__(self, service: Running, *, platform: Platform, prefix: str) -> None:
        self._service = service
        self._platform = platform
        self._prefix = prefix
        self._numbers = itertools.count()
        self.submissions: dict[str, Submission] = {}
        self.repeated = 0
        self.violations: list[str] = []
        self.given_up = threading.Event()

    def submit(self, dice: random.Random, kind: str, fate: Fate) -> Submission | None:
        """Submit a `file`, an `upload` or a `stream`, with a key under which it is repeated until it is answered."""
        number = next(self._numbers)
        data_id = f"{self._prefix}-{number}"
        request = {"file": self._file, "upload": self._upload, "stream": self._stream}[kind]
        reply = self.insist(request(dice, fate, number, data_id))
        if reply.status != 201:
            self.violations.append(f"{data_id} ({fate.magic}) was answered {reply.status}: {reply.body[:200]!r}")
            return None
        one = Submission(data_id=data_id, kind=kind, fate=fate, task_id=reply.json["id"])
        self.submissions[data_id] = one
        return one

    def cancel(self, one: Submission) -> None:
        """Cancel a stream."""
        reply = self.insist(lambda: self._service.delete(f"/v1/streams/{one.task_id}"))
        if reply.status not in {200, 202}:
            self.violations.append(f"{one}: its cancellation was answered {reply.status}")

    def refresh(self, task_id: str) -> None:
        """Have the platform asked for a task now; it may be over meanwhile."""
        self.insist(partial(self._service.post, f"/v1/tasks/{task_id}/refresh"))

    def insist(self, send: Callable[[], Reply]) -> Reply:
        """Send a request until it is answered, and not with our own trouble.

        Raises:
            requests.ConnectionError: it was told to give up.
        """
        while not self.given_up.is_set():
            try:
                reply = send()
            except requests.RequestException:
                pass
            else:
                if reply.status < 500:
                    return reply
            self.repeated += 1
            self.given_up.wait(_PAUSE_SECONDS)
        raise requests.ConnectionError("There is nobody who answers.")

    def _file(self, dice: random.Random, fate: Fate, number: int, data_id: str) -> Callable[[], Reply]:
        name = f"{fate.magic},n={number}.mp3"
        oss = {"bucket": "own", "object": name, "region": "ap-southeast-1"}
        source = {"oss": oss} if dice.random() < 0.2 else {"url": self._platform.source(name)}
        body = {**source, "data_id": data_id}
        return lambda: self._service.post("/v1/tasks", body, headers={"Idempotency-Key": data_id})

    def _upload(self, dice: random.Random, fate: Fate, number: int, data_id: str) -> Callable[[], Reply]:
        sound = self._platform.sample(f"{fate.magic},n={number}.wav") + dice.randbytes(dice.randrange(2_000_000))
        parts = (("file", "talk.wav", sound), ("data_id", None, data_id.encode()))
        return lambda: self._service.upload(*parts, Idempotency_Key=data_id)

    def _stream(self, _dice: random.Random, fate: Fate, number: int, data_id: str) -> Callable[[], Reply]:
        source = self._platform.source(f"{fate.magic},n={number}.m3u8")
        body = {"url": source, "data_id": data_id, "live_id": f"room-{number}"}
        return lambda: self._service.post("/v1/streams", body, headers={"Idempotency-Key": data_id})
