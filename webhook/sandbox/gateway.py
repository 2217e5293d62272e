"""The vendor's side over HTTP: signed calls, and objects put with an upload token."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import unquote
from xml.sax.saxutils import escape

from aiohttp import web

from .answers import PAGE, Answer
from .api import ACTIONS, VERSION, Platform
from .authorization import Authorizer, Call
from .codes import HttpRefusal
from .uploads import BUCKET, ObjectRefusal, ObjectStore, Put

if TYPE_CHECKING:
    from .ledger import Ledger

# Longer than any client waits.
HANG_SECONDS = 600.0


class Gateway:
    """Answers HTTP for the platform and its object store.

    Args:
        platform: what carries calls out.
        authorizer: what knows their signatures.
        store: where objects are put.
        ledger: where answers are counted.
        url: base URL of this sandbox.
        stopping: set when the sandbox stops.
    """

    def __init__(
        self,
        platform: Platform,
        *,
        authorizer: Authorizer,
        store: ObjectStore,
        ledger: Ledger,
        url: str,
        stopping: asyncio.Event,
    ) -> None:
        self._platform = platform
        self._authorizer = authorizer
        self._store = store
        self._ledger = ledger
        self._url = url
        self._stopping = stopping

    def routes(self) -> list[web.RouteDef]:
        """Return its routes; the last one takes every PUT."""
        return [web.post("/", self._call), web.put("/{path:.*}", self._put)]

    async def _call(self, request: web.Request) -> web.Response:
        """Answer a signed call."""
        body = await request.read()
        action = request.headers.get("x-acs-action", "")
        try:
            self._check_action(request, action)
            path, _, query = request.raw_path.partition("?")
            self._authorizer.verify(
                Call(method=request.method, path=path, query=query, headers=request.headers, body=body)
            )
            answer = await self._platform.answer(action, body, endpoint=_reached_as(request, self._url))
        except HttpRefusal as refusal:
            answer = Answer(refusal=refusal)
        self._ledger.note(action if action in ACTIONS else "unknown", answer.name, answer.task)
        if answer.refusal is not None:
            return _refused(answer.refusal, host=request.host)
        if answer.how == "html":
            return web.Response(text=PAGE, status=502, content_type="text/html")
        if answer.how == "json":
            return web.json_response(answer.body)
        return await self._lose(request, answer.how)

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
        self._ledger.note("PutObject", "200")
        return web.Response(headers={"ETag": f'"{stored.etag}"', "x-oss-request-id": request_id})


def _refused(refusal: HttpRefusal, *, host: str) -> web.Response:
    error = {
        "Recommend": f"https://api.aliyun.com/troubleshoot?q={refusal.code}&product=Green",
        "Message": str(refusal),
        "RequestId": str(uuid.uuid4()).upper(),
        "HostId": host,
        "Code": refusal.code,
    }
    return web.json_response(error, status=refusal.status, headers=refusal.headers)


def _reached_as(request: web.Request, url: str) -> str:
    """Return our base URL as the client wrote it; object storage SDKs put the bucket before a name, not an IP."""
    host = request.host
    if host.rpartition(":")[0] == "localhost":
        return f"http://127.0.0.1:{host.rpartition(':')[2]}"
    return f"http://{host}" if host else url
