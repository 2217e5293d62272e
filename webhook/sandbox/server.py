"""The sandbox as an HTTP server: its routes, its start and its stop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

from . import audio, ledger
from .api import ACTIONS, VERSION, Platform
from .authorization import Authorizer, Call
from .callbacks import Sender
from .codes import HttpRefusal
from .config import SandboxConfig
from .ledger import Ledger
from .magic import MAGIC, mark
from .moderation import Moderation
from .tasks import TaskBook
from .uploads import BUCKET, ObjectRefusal, ObjectStore, Put

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MAGIC", "RunningSandbox", "SandboxConfig", "run", "start"]

# An API call is a few KB; uploads are streamed and have a limit of their own.
MAX_CALL_BYTES = 1024 * 1024
# Longer than any client waits.
HANG_SECONDS = 600.0

PAGE = """\
A stand-in for the voice moderation platform. Nothing here is real, nothing costs anything.

  endpoint    {url}
  AccessKey   {key_id} / {secret}
  account UID {uid}

Look at it:
  {url}/sandbox/tasks         every task, its callbacks and their attempts
  {url}/sandbox/tasks/ID      the same with the slices
  {url}/sandbox/ledger        what was accepted (and so charged) and answered
  {url}/samples/high.mp3      a tiny sound; any name will do

{magic}
"""


@dataclass(frozen=True, kw_only=True)
class RunningSandbox:
    """A sandbox that listens.

    Attributes:
        port: the port it got.
        url: its base URL.
    """

    port: int
    url: str
    _site: _Site

    async def stop(self) -> None:
        """End everything under way, then close the listener and every connection."""
        await self._site.stop()


async def start(config: SandboxConfig | None = None, *, clock: Callable[[], float] = time.time) -> RunningSandbox:
    """Start a sandbox in the running event loop.

    Args:
        config: how it behaves; without it everything is at its default.
        clock: seconds since 1970; what results, uploads and signatures age by.

    Raises:
        OSError: the address cannot be listened on.
    """
    config = config or SandboxConfig()
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.create_server((config.host, config.port), family=family, backlog=1024)
    port: int = listener.getsockname()[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    url = (config.public_url or f"http://{f'[{host}]' if ':' in host else host}:{port}").rstrip("/")
    site = _Site(config, url=url, clock=clock)
    await site.start(listener)
    return RunningSandbox(port=port, url=url, _site=site)


def run(config: SandboxConfig | None = None) -> None:
    """Run a sandbox until SIGTERM or SIGINT; its address is the one line on standard output.

    Raises:
        OSError: the address cannot be listened on.
    """
    asyncio.run(_run(config))


async def _run(config: SandboxConfig | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    sandbox = await start(config)
    try:
        sys.stdout.write(f"sandbox: {sandbox.url}\n")
        sys.stdout.flush()
        await stopped.wait()
    finally:
        await sandbox.stop()


class _Site:
    """Puts the parts together and answers HTTP for them."""

    def __init__(self, config: SandboxConfig, *, url: str, clock: Callable[[], float]) -> None:
        self._config = config
        self._url = url
        self._clock = clock
        self._stopping = asyncio.Event()
        self._authorizer = Authorizer(key_id=config.access_key_id, key_secret=config.access_key_secret, clock=clock)
        self._book = TaskBook(result_ttl_seconds=config.result_ttl_seconds, clock=clock)
        self._ledger = Ledger(self._book)
        self._store = ObjectStore(config, clock=clock)
        self._sender = Sender(config, clock=clock)
        self._moderation = Moderation(config, self._book, self._sender)
        self._platform = Platform(
            config, book=self._book, moderation=self._moderation, store=self._store, url=url, clock=clock
        )
        application = web.Application(client_max_size=MAX_CALL_BYTES)
        application.add_routes(
            [
                web.get("/", self._page),
                web.post("/", self._call),
                web.get("/sandbox/tasks", self._tasks),
                web.get("/sandbox/tasks/{task_id}", self._task),
                web.get("/sandbox/ledger", self._totals),
                web.get("/samples/{name}", self._sample),
                web.get("/segments/{task_id}/{index:[0-9]{1,6}}.wav", self._segment),
                web.put("/{path:.*}", self._put),
            ]
        )
        # little grace: what is still unanswered when the sandbox stops was meant to hang
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)

    async def start(self, listener: socket.socket) -> None:
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()

    async def stop(self) -> None:
        self._stopping.set()
        await self._runner.cleanup()
        await self._moderation.stop()
        await self._sender.close()
        self._store.close()

    async def _call(self, request: web.Request) -> web.Response:
        """Answer a signed call."""
        body = await request.read()
        action = request.headers.get("x-acs-action", "")
        request_id = str(uuid.uuid4()).upper()
        try:
            self._check_action(request, action)
            path, _, query = request.raw_path.partition("?")
            self._authorizer.verify(
                Call(method=request.method, path=path, query=query, headers=request.headers, body=body)
            )
            answer = await self._platform.answer(action, body, endpoint=_reached_as(request, self._url))
        except HttpRefusal as refusal:
            self._ledger.note(action if action in ACTIONS else "unknown", refusal.code)
            error = {
                "Recommend": f"https://api.aliyun.com/troubleshoot?q={refusal.code}&product=Green",
                "Message": str(refusal),
                "RequestId": request_id,
                "HostId": request.host,
                "Code": refusal.code,
            }
            return web.json_response(error, status=refusal.status, headers=refusal.headers)
        self._ledger.note(action, answer.body.get("Code", answer.lost or "html"))
        if answer.lost is not None:
            return await self._lose(request, answer.lost)
        if answer.html is not None:
            return web.Response(text=answer.html, status=502, content_type="text/html")
        return web.json_response(answer.body)

    @staticmethod
    def _check_action(request: web.Request, action: str) -> None:
        if action not in ACTIONS:
            raise HttpRefusal(
                404, "InvalidAction.NotFound", "Specified api is not found, please check your url and method."
            )
        if request.headers.get("x-acs-version") != VERSION:
            raise HttpRefusal(400, "InvalidVersion", "Specified parameter Version is not valid.")

    async def _lose(self, request: web.Request, how: str) -> web.Response:
        """Leave a call without its answer."""
        if how == "hang":
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), HANG_SECONDS)
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _put(self, request: web.Request) -> web.Response:
        """Store an object: path style (`/bucket/name`), or virtual host (`bucket.host`)."""
        path = unquote(request.raw_path.partition("?")[0]).removeprefix("/")
        if request.host.startswith(f"{BUCKET}."):
            bucket, name = BUCKET, path
        else:
            bucket, _, name = path.partition("/")
        put = Put(
            bucket=bucket,
            name=name,
            query=request.raw_path.partition("?")[2],
            headers={key.lower(): value for key, value in request.headers.items()},
        )
        request_id = secrets.token_hex(12).upper()
        try:
            stored = await self._store.put(put, request.content.iter_any())
        except ObjectRefusal as refusal:
            self._ledger.note("PutObject", refusal.code)
            text = (
                '<?xml version="1.0" encoding="UTF-8"?>\n'
                f"<Error><Code>{refusal.code}</Code><Message>{escape(str(refusal))}</Message>"
                f"<RequestId>{request_id}</RequestId><HostId>{escape(request.host)}</HostId></Error>"
            )
            # the body may be large and unread: no use in keeping the connection
            response = web.Response(text=text, status=refusal.status, content_type="application/xml")
            response.force_close()
            return response
        self._ledger.note("PutObject", 200)
        return web.Response(headers={"ETag": f'"{stored.etag}"', "x-oss-request-id": request_id})

    async def _page(self, _request: web.Request) -> web.Response:
        """Say what this is and list the magic inputs."""
        return web.Response(
            text=PAGE.format(
                url=self._url,
                key_id=self._config.access_key_id,
                secret=self._config.access_key_secret,
                uid=self._config.uid,
                magic=MAGIC,
            )
        )

    async def _tasks(self, _request: web.Request) -> web.Response:
        return web.json_response(ledger.task_list(self._book))

    async def _task(self, request: web.Request) -> web.Response:
        task = self._book.find(request.match_info["task_id"])
        if task is None:
            raise web.HTTPNotFound
        return web.json_response(ledger.task_details(task))

    async def _totals(self, _request: web.Request) -> web.Response:
        return web.json_response(self._ledger.totals())

    async def _sample(self, request: web.Request) -> web.Response:
        """Serve a sound that keeps its magic when it is uploaded under another name."""
        source = request.raw_path.removeprefix("/samples/")
        return web.Response(body=audio.wav(mark(source)), content_type="audio/wav")

    async def _segment(self, request: web.Request) -> web.Response:
        """Serve the sound of one slice of a stream, as long as its link is good."""
        task = self._book.find(request.match_info["task_id"])
        index = int(request.match_info["index"])
        if task is None or task.kind != "live" or index >= task.slice_count:
            raise web.HTTPNotFound
        made_at = task.submitted_at + index * task.outcome.interval_seconds
        if self._clock() - made_at > self._config.segment_ttl_seconds:
            raise web.HTTPForbidden
        sound = audio.wav(f"slice {index}".encode(), hertz=220 + 55 * (index % 12))
        return web.Response(body=sound, content_type="audio/wav")


def _reached_as(request: web.Request, url: str) -> str:
    """Return our base URL as the client wrote it; object storage SDKs put the bucket before a name, not an IP."""
    host = request.host
    if host.rpartition(":")[0] == "localhost":
        return f"http://127.0.0.1:{host.rpartition(':')[2]}"
    return f"http://{host}" if host else url
