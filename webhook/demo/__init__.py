"""`webhook demo`: a task's whole way on this machine, with the sandbox in the platform's place.

The sandbox and a subscriber run in this process; the service is a real `webhook serve` with a database of its
own in a temporary directory. Everything is asked for over HTTP, as any client would.
"""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import signal
import socket
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from webhook import pictures
from webhook.demo.service import DemoFailed, stop, while_running, without_settings
from webhook.demo.subscriber import HOST, Receipt, Subscriber
from webhook.pictures import flagged_slices, legend, name_of, risk, timeline, verdict_table
from webhook.sandbox.server import RunningSandbox, SandboxConfig
from webhook.sandbox.server import start as start_sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rich.console import Console

Json = dict[str, Any]

SERVE = (sys.executable, "-m", "webhook", "serve")

# What the sandbox is asked for; `webhook sandbox --magic` lists what may stand here.
FILE = "talk.mp3?label=political_entity,sexual_suggestive&slices=10&flagged=3&silence=5&delay=0.6"
STREAM = "room-7?risk=medium&slices=8&flagged=2&silence=4&interval=0.3&end=never"
STREAM_SLICES = 8
LOST = "announcement.mp3?risk=medium&slices=4&flagged=1&callback=lost"
POLL_DELAY_SECONDS = 2  # in place of the vendor's 30: nobody wants to watch a demo wait

READY_WITHIN_SECONDS = 30.0  # the first start on a slow machine compiles the code
STEP_WITHIN_SECONDS = 15.0
_LOOK_SECONDS = 0.02
_LOG_LINES = 8
_LABEL_CELLS = 15
_FAILED = 400  # HTTP statuses from here on are errors


def run(*, keep: bool, console: Console | None = None, serve: Sequence[str] = SERVE) -> int:
    """Run the demo.

    Args:
        keep: leave everything running until SIGINT.
        console: where it is shown; by default standard output.
        serve: the command that runs the service.

    Returns:
        The exit status: 128 and the signal's number where a signal ended it before its end.

    Raises:
        DemoFailed: a step failed, or took too long.
    """
    return asyncio.run(_until_signal(_Demo(console=console or pictures.console(), serve=serve), keep=keep))


async def _until_signal(demo: _Demo, *, keep: bool) -> int:
    """Run the demo until its end or a signal; all that it started is stopped before this returns."""
    loop = asyncio.get_running_loop()
    show = loop.create_task(demo.run(keep=keep))
    caught: list[int] = []

    def stop(number: int) -> None:
        if not caught:  # a second one would leave behind what is just being stopped
            show.cancel()
        caught.append(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        await show
    except asyncio.CancelledError:
        if not caught:
            raise
    demo.say_goodbye()
    return 128 + caught[0] if caught and not demo.finished else 0


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A callback as the platform sent it.

    Attributes:
        at: when, in seconds since 1970.
        answered_ms: how long the service took to answer 200.
    """

    at: float
    answered_ms: float
    content_bytes: int


class _Demo:
    """Everything that runs, and what is shown of it.

    Attributes:
        finished: whether the story was told to its end.
    """

    def __init__(self, *, console: Console, serve: Sequence[str]) -> None:
        self.finished = False
        self._console = console
        self._mark = "+" if console.options.ascii_only else "✓"
        self._serve = serve
        self._key = secrets.token_hex(32)
        self._config = SandboxConfig(
            host=HOST,
            port=0,
            access_key_id=f"demo-{secrets.token_hex(4)}",
            access_key_secret=secrets.token_hex(16),
            uid=str(10**15 + secrets.randbelow(9 * 10**15)),
        )
        self._url = ""
        self._subscriber = Subscriber()
        self._unread: list[Receipt] = []

    async def run(self, *, keep: bool) -> None:
        """Start everything, tell the story, stop everything."""
        self._console.print()
        async with AsyncExitStack() as stack:
            await self._subscriber.start()
            stack.push_async_callback(self._subscriber.stop)
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="webhook-demo-")))
            log = directory / "service.log"
            sandbox = await start_sandbox(self._config)
            process = await stack.enter_async_context(self._service(directory, log, sandbox))
            self._say("platform", f"{sandbox.url}, a stand-in for the real one")
            self._say("subscriber", f"{self._subscriber.url}, which checks signatures")
            self._http = await stack.enter_async_context(
                aiohttp.ClientSession(headers={"Authorization": f"Bearer {self._key}"})
            )
            try:
                await while_running(process, self._story(sandbox, keep=keep))
            except (DemoFailed, aiohttp.ClientError) as error:
                for line in log.read_text(errors="replace").splitlines()[-_LOG_LINES:]:
                    self._console.print(Text(f"  service: {line}", style="dim"), soft_wrap=True)
                if isinstance(error, DemoFailed):
                    raise
                raise DemoFailed(f"The service could not be asked ({type(error).__name__}).") from error

    def say_goodbye(self) -> None:
        """Say that all is stopped, once it is."""
        self._console.print("\n Stopped; nothing is left behind.")

    @asynccontextmanager
    async def _service(
        self, directory: Path, log: Path, sandbox: RunningSandbox
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Run `webhook serve` in a process group of its own, since Ctrl-C is ours; then stop it and the sandbox."""
        with socket.create_server((HOST, 0)) as free:
            bind = f"{HOST}:{free.getsockname()[1]}"
        self._url = f"http://{bind}"
        ours = {
            "WEBHOOK_DATABASE_URL": f"sqlite:///{directory}/webhook.db",
            "WEBHOOK_BIND": bind,
            "WEBHOOK_PUBLIC_URL": self._url,
            "WEBHOOK_PLATFORM_ENDPOINT": sandbox.url,
            "WEBHOOK_PLATFORM_UID": self._config.uid,
            "ALIBABA_CLOUD_ACCESS_KEY_ID": self._config.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": self._config.access_key_secret,
            "WEBHOOK_ADMIN_KEY": self._key,
            "WEBHOOK_ENCRYPTION_KEYS": f"demo:{base64.b64encode(secrets.token_bytes(32)).decode()}",
            "WEBHOOK_ALLOWED_PRIVATE_NETWORKS": f"{HOST}/32",
            "WEBHOOK_POLL_DELAY_SECONDS": str(POLL_DELAY_SECONDS),
        }
        async with AsyncExitStack() as stack:
            with log.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *self._serve,
                    cwd=directory,
                    env=without_settings(os.environ) | ours,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    process_group=0,
                )
            stack.push_async_callback(stop, process)
            stack.push_async_callback(sandbox.stop)  # first: a kept connection would hold the service up
            yield process

    async def _story(self, sandbox: RunningSandbox, *, keep: bool) -> None:
        started = time.perf_counter()
        async with self._step("the service is ready", within=READY_WITHIN_SECONDS):
            await self._ready()
        self._say("service", f"{self._url}, ready in {time.perf_counter() - started:.1f} s")
        subscription = await self._call("POST", "/v1/subscriptions", {"url": self._subscriber.url})
        self._subscriber.secret = subscription["secret"]
        self._say("subscription", "every event, signed with a secret of its own")
        tasks = [
            await self._moderate_file(sandbox),
            await self._recover_lost(sandbox),
            await self._moderate_stream(sandbox),
        ]
        await self._show_results(tasks)
        self.finished = True
        if keep:
            self._show_running(sandbox)
            await self._stay()
        self._show_next()

    async def _moderate_file(self, sandbox: RunningSandbox) -> str:
        """Submit an audio file and follow it to its last event; return the task's id."""
        self._title("An audio file")
        task = await self._submit("/v1/tasks", {"url": f"{sandbox.url}/samples/{FILE}", "data_id": "demo-file"})
        async with self._step("the callback is stored"):
            sent = await self._acknowledged(sandbox, task, 0)
        self._say(
            "callback",
            f"checksum right, {sent.content_bytes:,} bytes stored, answered 200 in {sent.answered_ms:.0f} ms",
        )
        verdict = await self._call("GET", f"/v1/verdicts/{task['id']}")
        flagged = verdict["flagged_slice_count"]
        self._say(
            "verdict",
            Text.assemble(risk(verdict["risk_level"]), f" → {verdict['action']}"),
            f", {flagged} of {verdict['slice_count']} slices flagged",
        )
        async with self._step("the events arrive"):
            for type_ in [*["slice.flagged"] * flagged, "task.completed"]:
                self._say(type_, _delivered(await self._event(task["id"], type_), sent))
        return str(task["id"])

    async def _recover_lost(self, sandbox: RunningSandbox) -> str:
        """Submit a file whose callback the platform loses, and see its result come all the same; return the id."""
        self._title("A callback that never comes")
        task = await self._submit("/v1/tasks", {"url": f"{sandbox.url}/samples/{LOST}", "data_id": "demo-lost"})
        self._say("lost", "the platform is done, and its callback went nowhere")
        async with self._step("the platform is asked"):
            receipt = await self._event(task["id"], "task.completed")
        verdict = receipt.event["data"]["verdict"]
        self._say(
            "recovered",
            f"by a query, {POLL_DELAY_SECONDS} s after the submit: ",
            risk(verdict["risk_level"]),
            f" → {verdict['action']}",
        )
        self._say("task.completed", _delivered(receipt))
        return str(task["id"])

    async def _moderate_stream(self, sandbox: RunningSandbox) -> str:
        """Register a live stream, follow it callback by callback, and cancel it; return the task's id."""
        self._title("A live stream")
        task = await self._submit("/v1/streams", {"url": f"rtmp://{HOST}/live/{STREAM}", "live_id": "room-7"})
        for index in range(STREAM_SLICES):
            async with self._step(f"callback {index + 1} of {STREAM_SLICES} is stored"):
                sent = await self._acknowledged(sandbox, task, index)
            slices = await self._call("GET", f"/v1/verdicts/{task['id']}/slices?limit=200")
            piece = slices["items"][-1]
            self._say(
                f"callback {index + 1}",
                f"checksum right, stored, answered 200 in {sent.answered_ms:.0f} ms: ",
                risk(piece["risk_level"]),
            )
            if piece["action"] != "pass":
                async with self._step("its event arrives"):
                    receipt = await self._event(task["id"], "slice.flagged", start=piece["start_timestamp"])
                self._say("slice.flagged", _delivered(receipt, sent))
        async with self._step("the stream is canceled"):
            await self._call("DELETE", f"/v1/streams/{task['id']}")
            receipt = await self._event(task["id"], "task.canceled")
        self._say("task.canceled", f"{_delivered(receipt)}; the platform has stopped")
        return str(task["id"])

    async def _submit(self, path: str, body: Json) -> Json:
        """Submit a task and wait until the platform has taken it."""
        started = time.perf_counter()
        async with self._step("the platform accepts it"):
            task = await self._call("POST", path, body)
            self._say("submitted", f"POST {path}: {task['id']}")
            while task["state"] == "queued":
                await asyncio.sleep(_LOOK_SECONDS)
                task = await self._call("GET", f"/v1/tasks/{task['id']}")
        if task["platform_task_id"] is None:
            raise DemoFailed(f"The platform did not take the task: {task['error'] and task['error']['message']}")
        taken = time.perf_counter() - started
        self._say("accepted", f"by the platform in {taken:.1f} s: {task['platform_task_id']}")
        return task

    async def _acknowledged(self, sandbox: RunningSandbox, task: Json, index: int) -> Sent:
        """Wait until the platform has its 200 for a callback: then it is verified, and on disk."""
        place = f"{sandbox.url}/sandbox/tasks/{quote(task['platform_task_id'], safe='')}"
        while True:
            async with self._http.get(place) as answer:
                callbacks = (await answer.json())["callbacks"]
            if len(callbacks) > index and callbacks[index]["acknowledged"]:
                last = callbacks[index]["attempts"][-1]
                return Sent(
                    at=datetime.fromisoformat(last["at"]).timestamp(),
                    answered_ms=last["duration_ms"],
                    content_bytes=callbacks[index]["content_bytes"],
                )
            await asyncio.sleep(_LOOK_SECONDS)

    async def _event(self, task_id: str, type_: str, *, start: int | None = None) -> Receipt:
        """Wait for an event at the subscriber; others that come meanwhile are kept.

        Raises:
            DemoFailed: its signature is wrong.
        """
        while True:
            for receipt in self._unread:
                if receipt.is_about(task_id, type_, start=start):
                    if not receipt.genuine:
                        raise DemoFailed(f"The subscriber got {type_} with a wrong signature.")
                    self._unread.remove(receipt)
                    return receipt
            self._unread.append(await self._subscriber.receipts.get())

    async def _ready(self) -> None:
        """Wait until web and worker are there."""
        while True:
            with suppress(aiohttp.ClientConnectionError):
                async with self._http.get(f"{self._url}/readyz") as answer:
                    if (await answer.json())["dependencies"]["worker"] == "ok":
                        return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Ask the REST API.

        Raises:
            DemoFailed: it answered with an error.
        """
        async with self._http.request(method, self._url + path, json=body) as answer:
            got: Json = await answer.json(content_type=None)
        if answer.status >= _FAILED:
            raise DemoFailed(f"{method} {path} was answered {answer.status}: {got.get('detail')}")
        return got

    @asynccontextmanager
    async def _step(self, until: str, *, within: float = STEP_WITHIN_SECONDS) -> AsyncIterator[None]:
        """Show what is waited for, and give up waiting in the end."""
        spinner = self._console.status(f"waiting until {until}") if self._console.is_terminal else nullcontext()
        with spinner:
            try:
                async with asyncio.timeout(within):
                    yield
            except TimeoutError:
                raise DemoFailed(f"Waiting until {until} took longer than {within:g} seconds.") from None

    def _say(self, label: str, *text: str | Text) -> None:
        """Print one line of the story; what is too long goes on under its beginning."""
        row = Table.grid(padding=(0, 1))
        row.add_column(style="green")
        row.add_column(width=_LABEL_CELLS, style="bold")
        row.add_column(overflow="fold")
        row.add_row(self._mark, label, Text.assemble(*text))
        self._console.print(Padding(row, (0, 0, 0, 1), expand=False))

    def _title(self, text: str) -> None:
        self._console.print(f"\n [bold cyan]{text}[/]")

    async def _show_results(self, task_ids: Sequence[str]) -> None:
        """Read verdicts and slices back over the API, and show them."""
        verdicts = [await self._call("GET", f"/v1/verdicts/{task_id}") for task_id in task_ids]
        self._title("What is stored now, read back over the API")
        self._console.print(Padding(verdict_table(verdicts), (0, 0, 0, 1), expand=False))
        ascii_only = self._console.options.ascii_only
        for verdict in verdicts:
            page = await self._call("GET", f"/v1/verdicts/{verdict['task_id']}/slices?limit=200")
            heading = Text.assemble((name_of(verdict), "bold"), f", slice by slice, in seconds ({verdict['task_id']})")
            self._console.print(Padding(heading, (0, 0, 0, 1), expand=False))
            chart = timeline(page["items"], width=self._console.width - 4, ascii_only=ascii_only)
            self._console.print(Padding(chart, (0, 0, 1, 3), expand=False))
            self._console.print(Padding(flagged_slices(page["items"]), (0, 0, 1, 3), expand=False))
        self._console.print(Padding(legend(ascii_only=ascii_only), (0, 0, 0, 1), expand=False))

    def _show_running(self, sandbox: RunningSandbox) -> None:
        self._title("All of it keeps running until Ctrl-C")
        self._say("API", f"{self._url}/docs")
        self._say("magic inputs", f"{sandbox.url}/")
        self._title("Try, in another terminal")
        for line in (
            f"URL={self._url}",
            f"KEY={self._key}",
            'curl -H "Authorization: Bearer $KEY" $URL/v1/verdicts',
            'curl -H "Authorization: Bearer $KEY" "$URL/v1/events?types=slice.*"',
            'curl -H "Authorization: Bearer $KEY" -H "Content-Type: application/json" \\',
            f'  -d \'{{"url": "{sandbox.url}/samples/high,slices=4.mp3"}}\' \\',
            "  $URL/v1/tasks",
        ):
            self._console.print(f"   {line}", soft_wrap=True, markup=False)
        self._title("What the subscriber gets from now on")

    async def _stay(self) -> None:
        """Print what the subscriber gets, until the demo is stopped."""
        while True:
            receipt = await self._subscriber.receipts.get()
            task = receipt.event["data"].get("task", {})
            self._say(receipt.event["type"], f"{task.get('id', '')}  {_signature(receipt)}")

    def _show_next(self) -> None:
        self._title("Next")
        table = Table.grid(padding=(0, 2))
        for command, meaning in (
            ("webhook demo --keep", "the same, left running, with curl lines to try on it"),
            ("webhook sandbox", "the stand-in platform alone; --magic lists its inputs"),
            ("webhook serve", "the service itself"),
            ("webhook doctor", "what its settings still lack, and how to mend it"),
            ("README.md", "sections A tour of the API, The real platform"),
        ):
            table.add_row(Text(command, style="bold", no_wrap=True), meaning)
        self._console.print(Padding(table, (0, 0, 0, 3), expand=False))


def _delivered(receipt: Receipt, sent: Sent | None = None) -> str:
    after = "" if sent is None else f", {(receipt.at - sent.at) * 1000:.0f} ms after the callback"
    return _signature(receipt) + after


def _signature(receipt: Receipt) -> str:
    return "signature ok" if receipt.genuine else "signature WRONG"
