"""The log has what failed and where, and never the words that others put into their errors."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from gunicorn.config import Config

from webhook import logs
from webhook.arbiter import Logger
from webhook.errors import DatabaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CANARY = "a-very-private-word"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True, params=[io.StringIO, Terminal])
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """The standard error of a process that logs as ours do, a file or a terminal; nothing of it stays."""
    stream: io.StringIO = request.param()
    handlers = logging.root.handlers[:]
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    logging.root.handlers[:] = []
    logs.configure("debug")
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    logging.root.handlers[:] = handlers


def not_a_number() -> None:
    int(CANARY)


def from_a_cause() -> None:
    try:
        not_a_number()
    except ValueError as error:
        raise KeyError(CANARY) from error


def in_a_context() -> None:
    try:
        not_a_number()
    except ValueError:
        raise LookupError(CANARY)  # noqa: B904 - the context is what is tested


def of_the_system() -> None:
    raise PermissionError(13, CANARY, f"/{CANARY}")


FAULTS: list[Callable[[], None]] = [not_a_number, from_a_cause, in_a_context, of_the_system]


def raised(fault: Callable[[], None]) -> Exception:
    try:
        fault()
    except Exception as error:  # noqa: BLE001 - whatever it is
        return error
    raise AssertionError


@pytest.mark.parametrize("fault", FAULTS)
def test_ours_and_libraries_lines_show_where_and_what_and_nobodys_words(
    fault: Callable[[], None], shown: io.StringIO
) -> None:
    error = raised(fault)
    structlog.get_logger().error("Ours.", exc_info=error)
    ours = shown.getvalue()
    logging.getLogger("a.library").error("Theirs.", exc_info=error)
    theirs = shown.getvalue().removeprefix(ours)
    assert "Ours." in ours
    assert "Theirs." in theirs
    assert "a.library" in theirs
    for logged in (ours, theirs):
        assert fault.__name__ in logged
        assert type(error).__name__ in logged
        assert "test_logs.py" in logged
        assert CANARY not in logged


def test_every_line_is_json_gunicorns_too(shown: io.StringIO) -> None:
    if shown.isatty():
        pytest.skip("On a terminal lines are for people.")
    logging.getLogger("a.library").warning("It is %s.", "late")
    gunicorns: Any = Logger(Config())  # type: ignore[no-untyped-call] # gunicorn has no types
    gunicorns.critical("WORKER TIMEOUT (pid:%s)", 7)
    lines = [json.loads(line) for line in shown.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [
        ("It is late.", "warning"),
        ("WORKER TIMEOUT (pid:7)", "critical"),
    ]


def test_an_error_says_all_that_it_came_from() -> None:
    whole = logs.traceback_of(raised(from_a_cause))
    assert whole.index("builtins.ValueError") < whole.index("and from that") < whole.index("builtins.KeyError")
    assert "builtins.ValueError" in logs.traceback_of(raised(in_a_context))
    assert "PermissionError: Permission denied" in logs.traceback_of(raised(of_the_system))


def test_our_own_errors_speak() -> None:
    error = DatabaseError("webhook.db: the disk is full")
    error.__cause__ = ValueError(CANARY)
    whole = logs.traceback_of(error)
    assert "webhook.errors.DatabaseError: webhook.db: the disk is full" in whole
    assert CANARY not in whole


def test_errors_that_are_each_others_cause_end() -> None:
    one, other = ValueError(CANARY), KeyError(CANARY)
    one.__cause__, other.__cause__ = other, one
    assert logs.traceback_of(one).count("builtins.") == 2


def test_what_nobody_catches_is_logged_so(shown: io.StringIO) -> None:
    error = raised(not_a_number)
    sys.excepthook(type(error), error, error.__traceback__)
    thread = threading.Thread(target=not_a_number)
    thread.start()
    thread.join()
    assert shown.getvalue().count("builtins.ValueError") == 2
    assert CANARY not in shown.getvalue()


def test_who_ends_a_process_or_a_thread_is_no_failure(shown: io.StringIO) -> None:
    thread = threading.Thread(target=sys.exit)
    thread.start()
    thread.join()
    sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert shown.getvalue() == ""


def test_what_a_loop_forgets_is_logged_without_its_arguments(shown: io.StringIO) -> None:
    def fail(argument: Any) -> None:
        raise ValueError(argument)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(logs.note_failure)
        loop.call_soon(fail, CANARY)
        await asyncio.sleep(0)

    asyncio.run(scenario())
    assert "builtins.ValueError" in shown.getvalue()
    assert CANARY not in shown.getvalue()


def test_a_log_whose_disk_is_full_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w")  # noqa: SIM115 - it cannot even be closed without an error
    monkeypatch.setattr(sys, "stderr", full)
    logs.configure("info")
    structlog.get_logger().error("The disk is full.", size=100_000 * "x")
    with suppress(OSError):
        full.close()


def test_no_process_of_the_service_loads_what_draws_on_terminals() -> None:
    loaded = "import sys, webhook.logs, webhook.processes, webhook.app, webhook.web, webhook.workers"
    subprocess.run([sys.executable, "-c", f"{loaded}; sys.exit('rich' in sys.modules)"], check=True)
