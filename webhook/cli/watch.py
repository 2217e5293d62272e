"""`webhook watch`: a live stream's slices as they come, and when it starts, falls silent and ends."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from webhook import pictures
from webhook.cli.client import connect
from webhook.cli.following import FINAL_STATES, NewSlices, follow, stream_path
from webhook.cli.screen import Screen

if TYPE_CHECKING:
    from webhook.cli.client import Client
    from webhook.settings import Settings

Json = dict[str, Any]

_FINE_MS = 2000  # slices that are shorter are told apart by tenths of seconds
_RISK_CELLS = 6


def run(settings: Settings, live_id: str, *, from_start: bool, as_json: bool) -> int:
    """Watch the active stream of a live_id, or show the last one.

    Returns:
        The exit status: 0, whatever was heard.

    Raises:
        ServiceError: the service cannot be asked.
    """
    screen = Screen(as_json=as_json)
    client = connect(settings, note=screen.say)
    try:
        stream = _find(client, live_id)
        screen.say(f"{live_id}: {stream['id']}")
        watch(client, screen, stream, from_start=from_start, deadline=None)
    except KeyboardInterrupt:
        pass
    return 0


def _find(client: Client, live_id: str) -> Json:
    for query in ({"active": "true"}, {}):
        for stream in client.items("/v1/streams", limit=1, live_id=live_id, **query):
            return stream
    raise click.ClickException(
        f"There is no stream of the live_id {live_id}; `webhook submit URL --live-id {live_id}` registers one."
    )


def watch(client: Client, screen: Screen, stream: Json, *, from_start: bool, deadline: float | None) -> Json:
    """Show a stream until it is over or the time is; return it as it was last.

    Args:
        from_start: whether slices that have come before are shown.
        deadline: on the monotonic clock; None watches until it is over.

    Raises:
        Unanswered, Refused: it can no longer be seen.
    """
    slices = NewSlices(client, stream["id"])
    before: Json | None = None
    for now in follow(client, stream_path(stream["id"]), deadline=deadline):
        if before is None and not from_start:
            deque(slices.read(now), maxlen=0)
        for fact in _beginnings(before, now):
            _show_fact(screen, fact, now)
        for one in slices.read(now):
            _show_slice(screen, one, now)
        for fact in _endings(before, now):
            _show_fact(screen, fact, now)
        before = stream = now
    return stream


def _beginnings(before: Json | None, now: Json) -> list[str]:
    return ["stream.started"] if _has_started(now) and not (before and _has_started(before)) else []


def _has_started(stream: Json) -> bool:
    return stream["state"] == "processing" or stream["submitted_at"] is not None or stream["slice_count"] > 0


def _endings(before: Json | None, now: Json) -> list[str]:
    if now["state"] in FINAL_STATES:
        return ["stream.ended"]
    silent = now["silent_since"] is not None and now["silent_since"] != (before and before["silent_since"])
    return ["stream.silent"] if silent else []


def _show_fact(screen: Screen, fact: str, stream: Json) -> None:
    if screen.as_json:
        screen.json({"type": fact, "task": stream})
    else:
        screen.line(_FACTS[fact](stream))


def _started(stream: Json) -> Text:
    return _fact("started", stream["submitted_at"] or stream["created_at"])


def _silent(stream: Json) -> Text:
    return _fact("silent since", stream["silent_since"])


def _ended(stream: Json) -> Text:
    counts = f", {stream['slice_count']} slices, {stream['flagged_slice_count']} flagged"
    return _fact("ended", stream["finished_at"], f": {stream['state']}, ", pictures.judgement(stream), counts)


_FACTS = {"stream.started": _started, "stream.silent": _silent, "stream.ended": _ended}


def _fact(word: str, at: str | None, *more: str | Text) -> Text:
    clock = "" if at is None else f" {datetime.fromisoformat(at).astimezone():%H:%M:%S}"
    return Text.assemble(f"{word}{clock}", *more, style="bold")


def _show_slice(screen: Screen, one: Json, stream: Json) -> None:
    if screen.as_json:
        screen.json({"type": "slice", "task_id": stream["id"], "slice": one})
        return
    level = pictures.risk(one["risk_level"])
    level.pad_right(max(0, _RISK_CELLS - level.cell_len))
    row = Text.assemble((_times(one), "dim"), "  ", level, "  ", pictures.findings(one), "  ")
    screen.line(row.append_text(pictures.transcript(one)))


def _times(one: Json) -> str:
    """Return when a slice was: on this machine's clock, or where that is not told, in seconds from the start."""
    start, end = one["start_timestamp"], one["end_timestamp"]
    if start is None or end is None:
        return f"{one['start_time']}-{one['end_time']} s"
    try:
        return "-".join(_clock(ms, fine=end - start < _FINE_MS) for ms in (start, end))
    except (OverflowError, ValueError, OSError):  # a number of the platform's that is no time
        return f"{start}-{end} ms"


def _clock(milliseconds: int, *, fine: bool) -> str:
    at = datetime.fromtimestamp(milliseconds / 1000).astimezone()
    tenths = f".{at.microsecond // 100_000}" if fine else ""
    return f"{at:%H:%M:%S}{tenths}"
