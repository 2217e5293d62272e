"""What waiting costs, for streams and for thousands of results: `python -m tests.bench.idle`.

The tasks were submitted evenly over the last hours, and are asked for as the service would have gone on to do.
"""

from __future__ import annotations

import random
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tests.bench import stage
from tests.bench.usage import cpu_seconds
from tests.running import Running, environment, sandbox_variables
from tests.sandbox_process import SandboxProcess
from tests.waiting import until
from webhook import backoff, bootstrap, clock, settings
from webhook.store import tasks as task_store
from webhook.store.tasks import Task
from webhook.tokens import new_secrets, seal_secrets, token_digest

if TYPE_CHECKING:
    from tests.platform import Platform

_STREAMS = 50
_INTERVAL_SECONDS = 10
_TASKS = 10_000
_CPU_TARGET = 10.0  # percent of one core
_QUERIES_PER_SECOND = 100
_SETTLE_SECONDS = 15.0
_QUERY = "VoiceModerationResult"


def put_tasks(service: Running, platform_task_id: str, *, hours: float) -> None:
    """Put tasks into the database that the platform works on; it may be the same work for all of them."""
    loaded = settings.load(environment(service.directory, **service.variables))
    made = bootstrap.build(loaded)
    now, dice = clock.now(), random.Random(1)

    def task(number: int) -> Task:
        submitted_at = now - timedelta(hours=hours) * (number / _TASKS)
        due, polls = submitted_at + loaded.poll_delay, 1
        while due <= now:
            due += backoff.poll_delay(first=loaded.poll_delay, polls_made=polls, dice=dice.random)
            polls += 1
        task_id, own = clock.new_id("task", submitted_at), new_secrets()
        return Task(
            id=task_id,
            origin="submitted",
            kind="audio",
            service="audio_detection_byllm_global",
            state="processing",
            source={"url": f"https://audio.example.com/{number}.mp3"},
            crypt_type="SHA256",
            token_digest=token_digest(own.token),
            secrets=seal_secrets(made.keyring, own, table="tasks", row=task_id),
            platform_task_id=platform_task_id,
            created_at=submitted_at,
            submitted_at=submitted_at,
            updated_at=submitted_at,
            attempt_count=polls,
            next_attempt_at=due,
        )

    with made.database.transaction() as session:
        task_store.insert_tasks(session, [task(number) for number in range(_TASKS)])
    made.database.close()


def register_streams(service: Running, platform: Platform) -> None:
    """Register streams that run on, each a little after the one before, so that their slices do not come at once."""
    for number in range(_STREAMS):
        source = platform.source(f"none,interval={_INTERVAL_SECONDS},end=never,n={number}.m3u8")
        service.made("/v1/streams", {"url": source, "live_id": f"room-{number}"})
        time.sleep(_INTERVAL_SECONDS / _STREAMS)

    def all_run() -> bool:
        return len(service.items("/v1/streams", state="processing")) == _STREAMS

    until(all_run, seconds=30)


@click.command(help=__doc__)
@click.option("--seconds", default=60.0, show_default=True, help="How long it is watched.")
@click.option("--hours", default=10.0, show_default=True, help="Over how many hours the tasks were submitted.")
def main(seconds: float, hours: float) -> None:
    """Let it all run, watch it, and print one table."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with SandboxProcess(directory) as platform:
            service = Running(directory, **sandbox_variables(platform.url), WEBHOOK_LOG_LEVEL="error")
            service.start()
            try:
                source = platform.source("none,delay=1000000.mp3")
                task = service.made("/v1/tasks", {"url": source}, headers={"Prefer": "wait=20"})
                register_streams(service, platform)
                put_tasks(service, task["platform_task_id"], hours=hours)
                time.sleep(_SETTLE_SECONDS)
                pids = service.command.pids()

                def look() -> tuple[float, float, int, int]:
                    ledger = platform.ledger()
                    queries = sum(ledger["answers"].get(_QUERY, {}).values())
                    return time.perf_counter(), cpu_seconds(pids), queries, ledger["callbacks_acknowledged"]

                before = look()
                time.sleep(seconds)
                after = look()
                answers = platform.ledger()["answers"][_QUERY]
            finally:
                service.command.kill()
    watched, cpu, queries, callbacks = (late - early for late, early in zip(after, before, strict=True))
    stage.show(
        f"{_STREAMS} streams with a slice every {_INTERVAL_SECONDS} s, {_TASKS} tasks submitted over {hours:g} hours, "
        f"watched for {watched:.0f} s",
        ("", "measured", "target", ""),
        [
            ("all processes: percent of one core", *stage.judged(cpu / watched * 100, _CPU_TARGET, at_most=True)),
            ("queries/s", *stage.judged(queries / watched, _QUERIES_PER_SECOND, at_most=True)),
            ("queries beyond the limit", *stage.judged(answers.get("403", 0), 0, at_most=True, digits=0)),
            ("callbacks/s", f"{callbacks / watched:.1f}", "", ""),
        ],
    )


if __name__ == "__main__":
    main()
