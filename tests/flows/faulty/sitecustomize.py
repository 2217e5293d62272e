"""Faults of the service's own, for `tests.flows.leaks`: what they raise, and whoever is told of it, knows secrets.

Python imports this first of all in a process whose PYTHONPATH names this directory.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, NoReturn

import gevent

from webhook.deliveries import Deliveries
from webhook.quarantine import Quarantine
from webhook.store import receivers

if TYPE_CHECKING:
    from webhook.deliveries import Claim, Settlement
    from webhook.transports import Transports

FAULT = os.environ["FAULT"]
"""What meets with a fault has this in its name, its URL or its content."""
DECOY = os.environ["DECOY"]
"""A content with this is printed, to show that what is printed is found."""


def fail(*known: Any) -> NoReturn:
    """Raise what repeats all it knows, in its message and in its cause's."""
    cause = ValueError(f"invalid literal: {known!r}")
    raise RuntimeError(repr(known)) from cause


async def _fail(known: Any) -> None:
    fail(known)


_verify, _attempt, _insert = Quarantine.verify, Deliveries.attempt, receivers.insert_receiver


def _verify_or_fail(quarantine: Quarantine, claim: Any, **more: Any) -> Any:
    if DECOY.encode() in claim.content:
        print(claim.content.decode(), file=sys.stderr, flush=True)
    if FAULT.encode() in claim.content:
        threading.Thread(target=fail, args=(claim,)).start()
        gevent.spawn(fail, claim)
        fail(claim)
    return _verify(quarantine, claim, **more)


async def _attempt_or_fail(deliveries: Deliveries, transports: Transports, claim: Claim) -> Settlement:
    if FAULT in claim.url:
        asyncio.get_running_loop().call_soon(fail, claim)
        asyncio.get_running_loop().create_task(_fail(claim))  # nobody asks what becomes of it
        fail(claim)
    return await _attempt(deliveries, transports, claim)


def _insert_or_fail(session: Any, row: Any) -> None:
    if FAULT in row.name:
        fail(row, session)
    _insert(session, row)


for place, name, function in (
    (Quarantine, "verify", _verify_or_fail),
    (Deliveries, "attempt", _attempt_or_fail),
    (receivers, "insert_receiver", _insert_or_fail),
):
    setattr(place, name, function)
