"""The audio of a stream's flagged slices, from the sandbox's links; and a worker killed in the middle of a capture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
import sqlalchemy as sa

from tests import databases
from tests.running import Running
from tests.segment_server import AUDIO, Answer, SegmentServer
from tests.signed import content, form, piece
from tests.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.platform import Platform


def claims(directory: Path) -> list[Any]:
    """Return state, ended attempts and whether somebody has claimed it, of all evidence on the disk."""
    with databases.connected(directory) as database:
        rows = database.execute(sa.text("SELECT state, attempt_count, lease IS NOT NULL FROM evidence"))
        return [tuple(row) for row in rows]


def slices(running: Running, task_id: str) -> list[Any]:
    return running.items(f"/v1/verdicts/{task_id}/slices")


def test_the_audio_of_a_stream_s_flagged_slices_is_saved_as_it_was(running: Running, platform: Platform) -> None:
    source = platform.source("high,slices=4,interval=0.05,flagged=2,evidence.flv")
    stream = running.made("/v1/streams", {"url": source, "live_id": "room-evidence"})

    def states() -> list[Any]:
        return [each["evidence"] for each in slices(running, stream["id"])]

    until(lambda: states() == ["saved", "saved", None, None])
    for each in slices(running, stream["id"])[:2]:
        with requests.Session() as session:
            session.trust_env = False
            original = session.get(each["url"], timeout=30)
        reply = running.get(f"/v1/tasks/{stream['id']}/evidence/{each['id']}")
        assert (reply.status, reply.body) == (200, original.content)
        assert reply.headers["Content-Type"] == original.headers["Content-Type"]
        part = running.get(f"/v1/tasks/{stream['id']}/evidence/{each['id']}", headers={"Range": "bytes=-4"})
        assert (part.status, part.body) == (206, original.content[-4:])


@pytest.mark.parametrize(
    ("magic", "state"),
    [
        ("segment=404x1", "saved"),
        ("segment=503x1", "saved"),
        ("segment=redirect", "saved"),
        ("segment=slow:1", "saved"),
        ("segment=html", "failed"),
        ("segment=huge:40", "failed"),
    ],
)
def test_audio_that_is_not_as_it_should_be_ends_in_a_state_that_says_so(
    running: Running, platform: Platform, magic: str, state: str
) -> None:
    source = platform.source(f"high,slices=1,{magic}.flv")
    stream = running.made("/v1/streams", {"url": source, "live_id": magic.replace("=", "-").replace(":", "-")})
    [shown] = until(lambda: [one for one in slices(running, stream["id"]) if one["evidence"] not in {"pending", None}])
    assert shown["evidence"] == state
    reply = running.get(f"/v1/tasks/{stream['id']}/evidence/{shown['id']}")
    assert reply.status == {"saved": 200, "failed": 410}[state]


@pytest.fixture
def killable(tmp_path: Path) -> Iterator[Running]:
    one = Running(tmp_path, WEBHOOK_EVIDENCE_TIMEOUT_SECONDS="3")
    one.start()
    yield one
    one.command.kill()


def test_a_worker_killed_in_the_middle_of_a_capture_leaves_it_to_the_next_one(
    killable: Running, tmp_path: Path
) -> None:
    with SegmentServer() as server:
        url = server.answer("/held.wav", Answer(held=True), Answer())
        receiver = killable.receiver()
        told = content(piece(0, risk="high") | {"Url": url}, TaskId="p-1", LiveId="room-1")
        assert killable.callback(receiver["callback_url"], form(told, seed=receiver["seed"])) == 200
        task_id = killable.items("/v1/tasks")[0]["id"]

        server.asked("/held.wav")  # half of the audio is on its way, the rest never comes
        killable.command.kill()
        assert claims(tmp_path) == [("pending", 0, True)]
        killable.start()
        [shown] = until(
            lambda: [each for each in slices(killable, task_id) if each["evidence"] != "pending"], seconds=60
        )
        assert shown["evidence"] == "saved"
        assert server.requests("/held.wav") == 2
        assert killable.get(f"/v1/tasks/{task_id}/evidence/{shown['id']}").body == AUDIO
        kept = [path.name for path in (tmp_path / "webhook.db.evidence").rglob("*") if path.is_file()]
        assert kept == [shown["id"]]
        assert len(killable.feed(types="slice.flagged")) == 1
