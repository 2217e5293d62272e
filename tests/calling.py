"""The worker's calls of the platform in small steps: a clock that stands still, a platform that answers as told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests import signed
from webhook import bootstrap
from webhook.calls import Calls
from webhook.claims import Call, Claims, Room
from webhook.errors import OutcomeUnknown, PlatformBusy, PlatformRefused
from webhook.payloads import Result
from webhook.quarantine import Claim
from webhook.store import events as event_store
from webhook.store import tasks as task_store
from webhook.tasks import NewTask, Tasks
from webhook.tokens import open_secrets

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Clock
    from webhook.bootstrap import Service
    from webhook.store.tasks import Task

FILE = NewTask(kind="audio", service="audio_detection_byllm_global", source={"url": "https://example.com/a.mp3"})
STREAM = NewTask(
    kind="live", service="live_detection_byllm_global", source={"url": "rtmp://example.com/1"}, live_id="room"
)

REFUSED = PlatformRefused(code=406, reason="source_too_large", message="Too large.")
BUSY = PlatformBusy(code=403, reason="rate_limited", message="Slower.")
LOST = OutcomeUnknown(code=None, reason="submit_outcome_unknown", message="Lost.")


ROOM = Room(submits=10, uploads=10, queries=10)
UNKNOWN = PlatformRefused(code=401, reason="parameter_invalid", message="Unknown.")
RUNNING = Result(
    code=280, task_id=None, live_id=None, data_id=None, url=None, risk_level=None, slices=(), has_data=False
)

Answer = Any  # an id or a result, an error to raise, or a function that gives one of them


class Client:
    """A platform that answers what it is told to, and remembers what it was asked.

    Args:
        answers: of submits, cancels and uploads, in this order of calls.
        queries: of queries; the last one for all that follow.
        probes: of probes; all that follow pass.
    """

    def __init__(
        self, *answers: Answer, queries: tuple[Answer, ...] = (UNKNOWN,), probes: tuple[Exception, ...] = ()
    ) -> None:
        self.answers = list(answers)
        self.queries = list(queries)
        self.probes = list(probes)
        self.probed = 0
        self.submitted: list[dict[str, str]] = []
        self.canceled: list[str] = []
        self.asked: list[str] = []
        self.uploaded: list[bytes] = []

    def submit(self, *, service: str, parameters: dict[str, str]) -> str:
        self.submitted.append({"Service": service, **parameters})
        return str(_given(self.answers.pop(0)))

    def cancel(self, *, service: str, platform_task_id: str) -> None:
        self.canceled.append(f"{service} {platform_task_id}")
        if self.answers:
            _given(self.answers.pop(0))

    def query(self, *, service: str, platform_task_id: str) -> Result:
        self.asked.append(f"{service} {platform_task_id}")
        answer = _given(self.queries[0] if len(self.queries) == 1 else self.queries.pop(0))
        assert isinstance(answer, Result)
        return answer

    def probe(self, *, service: str) -> None:  # noqa: ARG002 - the client's signature
        self.probed += 1
        if self.probes:
            raise self.probes.pop(0)

    def upload(self, path: Path, *, extension: str, progress: Callable[[], None]) -> dict[str, str]:
        self.uploaded.append(path.read_bytes())
        progress()
        if self.answers and isinstance(self.answers[0], Exception):
            raise self.answers.pop(0)
        return {"bucket": "uploads", "object": f"{len(self.uploaded)}.{extension}"}


def _given(answer: Answer) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer() if callable(answer) else answer


class Bench:
    """A service with a clock that stands still, and the steps of its worker."""

    def __init__(self, service: Service, clock: Clock) -> None:
        self.service = service
        self.clock = clock
        self.tasks = Tasks(keyring=service.keyring, ingest=service.ingest, uploads=service.uploads, now=clock)
        settings, pace = service.settings, bootstrap.pace_of(service.settings)
        self.claims = Claims(pace=pace, now=clock)
        self.calls = Calls(
            keyring=service.keyring,
            ingest=service.ingest,
            tasks=self.tasks,
            uploads=service.uploads,
            pace=pace,
            callback_base_url=settings.callback_base_url,
            now=clock,
            dice=lambda: 0.5,
        )

    def submit(self, new: NewTask) -> Task:
        with self.service.database.transaction() as session:
            return self.tasks.submit(session, new)[0]

    def claim(self) -> list[Call]:
        with self.service.database.transaction() as session:
            return self.claims.claim(session, room=ROOM).calls

    def carry_out(self, client: Any, call: Call) -> None:
        self.calls.carry_out(self.service.database.transaction, client, call=call)

    def work(self, client: Any) -> int:
        """Carry out all that is due, also what a probe has let through; return how much that was, probes aside."""
        with self.service.database.transaction() as session:
            claimed = self.claims.claim(session, room=ROOM)
        for call in claimed.calls:
            self.carry_out(client, call)
        if not claimed.probes:
            return len(claimed.calls)
        for limit in claimed.probes:
            self.calls.probe(self.service.database.transaction, client, limit=limit)
        return len(claimed.calls) + self.work(client)

    def cancel(self, task: Task) -> Task:
        with self.service.database.transaction() as session:
            return self.tasks.cancel(session, self.task(task))

    def refresh(self, task: Task) -> Task:
        with self.service.database.transaction() as session:
            return self.tasks.refresh(session, self.task(task))

    def task(self, task: Task) -> Task:
        with self.service.database.read() as session:
            found = task_store.task(session, task.id)
        assert found
        return found

    def events(self) -> list[str]:
        with self.service.database.read() as session:
            return [row.type for row in event_store.events_after(session, 0, limit=100)]

    def receive(self, task: Task, content: str) -> None:
        """Take a callback in, as the web process does."""
        with self.service.database.transaction() as session:
            address = task_store.address_of(session, task.id)
            assert address
            seed = open_secrets(self.service.keyring, address.secrets, table="tasks", row=task.id).seed
            arrival = self.service.quarantine.verify(
                Claim(
                    address=address,
                    checksum=signed.checksum(content, seed=seed),
                    content=content.encode(),
                    stated_task_id=None,
                    received_at=self.clock(),
                )
            )
            assert arrival
            self.service.ingest.accept(session, [arrival])
