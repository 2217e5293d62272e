"""A file of 500 MB on its way through the service, and the memory that it takes: `python -m tests.bench.upload`."""

from __future__ import annotations

import http.client
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tests.bench import stage
from tests.bench.usage import Growth
from tests.clients import ADMIN_KEY, BOUNDARY
from tests.running import Running, sandbox_variables, web_and_worker
from tests.sandbox_process import SandboxProcess
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

_MB = 1_000_000
_FILE_BYTES = 500 * _MB
_PIECE_BYTES = 256 * 1024
_GROWTH_MB = 32.0
_PATIENCE_SECONDS = 120.0


def form(sound: bytes, size: int) -> Iterator[bytes]:
    """Yield a form with a file of a size, which begins with a sound and goes on with nothing."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="talk.wav"\r\n\r\n'
    yield head.encode() + sound
    left, nothing = size - len(sound), bytes(_PIECE_BYTES)
    while left > 0:
        yield nothing[:left]
        left -= _PIECE_BYTES
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


def upload(service: Running, sound: bytes, size: int) -> str:
    """Send a file along, piece by piece, and return its task's id."""
    host, _, port = service.variables["WEBHOOK_BIND"].partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=_PATIENCE_SECONDS)
    length = size + sum(map(len, form(b"", 0)))
    headers = {
        "Authorization": f"Bearer {ADMIN_KEY}",
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Content-Length": str(length),
    }
    connection.request("POST", "/v1/tasks", form(sound, size), headers)
    answer = connection.getresponse()
    reply = service.get(answer.headers["Location"]) if answer.status == 201 else None
    if reply is None:
        raise click.ClickException(f"The upload was answered {answer.status}: {answer.read()[:500]!r}")
    connection.close()
    return str(reply.json["id"])


def handed_over(service: Running, task_id: str) -> Any:
    """Return a task once the platform has it, and its file with it."""

    def taken() -> Any:
        task = service.shown(f"/v1/tasks/{task_id}")
        return task if task["state"] != "queued" else None

    return until(taken, seconds=_PATIENCE_SECONDS)


def names(service: Running) -> dict[str, int]:
    """Return the service's processes."""
    web, worker = web_and_worker(service.command.pid)
    return {"their parent": service.command.pid, "web": web, "worker": worker}


@click.command(help=__doc__)
def main() -> None:
    """Upload a small file, so that everything is loaded, then a large one; print one table."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        with SandboxProcess(directory) as platform:
            service = Running(directory, **sandbox_variables(platform.url))
            service.start()
            try:
                sound = platform.sample("none.wav")
                handed_over(service, upload(service, sound, len(sound) + _PIECE_BYTES))
                processes = names(service)
                posting = {name: Growth(pid) for name, pid in processes.items()}
                began = time.perf_counter()
                task_id = upload(service, sound, _FILE_BYTES)
                post_seconds = time.perf_counter() - began
                while_posted = {name: growth.peak() / _MB for name, growth in posting.items()}
                task = handed_over(service, task_id)
                hand_over_seconds = time.perf_counter() - began - post_seconds
                both = {name: growth.peak() / _MB for name, growth in posting.items()}
                stored = platform.ledger()["answers"]["PutObject"]
            finally:
                service.command.kill()
    if task["state"] == "failed" or stored != {"200": 2}:
        raise click.ClickException(f"The file did not arrive: {task['error']}, {stored}.")
    stage.show(
        f"A file of {_FILE_BYTES // _MB} MB: posted in {post_seconds:.1f} s, handed over in {hand_over_seconds:.1f} s",
        ("growth of", "before MB", "posted MB", "in all MB", "target", ""),
        [
            (
                name,
                f"{posting[name].before / _MB:.0f}",
                f"{while_posted[name]:.1f}",
                *stage.judged(both[name], _GROWTH_MB, at_most=True, digits=1),
            )
            for name in processes
        ],
    )


if __name__ == "__main__":
    main()
