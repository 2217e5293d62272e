"""The log goes where it can, and nobody who logs fails by it."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from webhook import logs

if TYPE_CHECKING:
    import pytest


def test_a_log_whose_disk_is_full_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - it cannot even be closed without an error
    monkeypatch.setattr(sys, "stderr", full)
    logs.configure("info")
    structlog.get_logger().error("The disk is full.", size=100_000 * "x")
    with suppress(OSError):
        full.close()


def test_the_log_is_json_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info")
    structlog.get_logger().info("It has begun.", number=1)
    assert '"event": "It has begun."' in capsys.readouterr().err
