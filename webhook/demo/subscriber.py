"""A consumer of events, as anyone would write it: it takes a POST, checks the signature, answers 204."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import socket
import time
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web

Json = dict[str, Any]

HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """An event as the subscriber got it.

    Attributes:
        at: seconds since 1970.
        genuine: whether its signature is right.
    """

    at: float
    genuine: bool
    event: Json

    def is_about(self, task_id: str, type_: str, *, start: int | None = None) -> bool:
        """Say whether it is this event of this task; of `slice.flagged`, for the slice that starts there."""
        data = self.event["data"]
        return (
            self.event["type"] == type_
            and data["task"]["id"] == task_id
            and (start is None or start in {data["slice"]["start_timestamp"], data["slice"]["start_time"]})
        )


class Subscriber:
    """A consumer of events as anyone would write it: it takes a POST, checks the signature, answers 204.

    Attributes:
        secret: the subscription's, `whsec_…`.
        receipts: what it got, in order of arrival.
    """

    def __init__(self) -> None:
        self.url = ""
        self.secret = ""
        self.receipts: asyncio.Queue[Receipt] = asyncio.Queue()
        application = web.Application()
        application.add_routes([web.post("/events", self._take)])
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)

    async def start(self) -> None:
        """Listen on a free port."""
        await self._runner.setup()
        listener = socket.create_server((HOST, 0))
        await web.SockSite(self._runner, listener).start()
        self.url = f"http://{HOST}:{listener.getsockname()[1]}/events"

    async def stop(self) -> None:
        """Close the listener and every connection."""
        await self._runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        at = time.time()
        # Standard Webhooks 1.0: `id.timestamp.body` under the secret; one of the header's signatures must match
        signed = f"{request.headers['webhook-id']}.{request.headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(self.secret.removeprefix("whsec_"))
        expected = "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
        given = request.headers["webhook-signature"].split(" ")
        genuine = any(hmac.compare_digest(expected, one) for one in given)
        self.receipts.put_nowait(Receipt(at=at, genuine=genuine, event=msgspec.json.decode(body)))
        return web.Response(status=204 if genuine else 401)
