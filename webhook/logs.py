"""Logging: one line an event, as `key=value` on a terminal and JSON elsewhere.

Of an exception the log has the kind and the lines, and the words of our own errors alone. Others' messages repeat what
they were raised about: the text that is no number, the row that PostgreSQL refuses, the address with its password.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from webhook.errors import ServiceError

sys.modules.setdefault("rich", None)  # type: ignore[arg-type] # structlog would load it, for traces that we do not use
import structlog  # noqa: E402

if sys.modules["rich"] is None:
    del sys.modules["rich"]

if TYPE_CHECKING:
    import asyncio
    from types import TracebackType
    from typing import TextIO

log = structlog.get_logger()


def configure(level: str) -> None:
    """Send the process's log to standard error, and there what nobody has caught.

    Args:
        level: `debug`, `info`, `warning` or `error`.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    renderer = structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.ExceptionRenderer(_render),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Forgiving(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_Libraries()])
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread


def traceback_of(error: BaseException) -> str:
    """Return what was raised where, the first cause first; without the words of what is not ours."""
    parts: list[str] = []
    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        parts.append("".join(traceback.format_tb(following.__traceback__)) + _named(following))
        context = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or context
    return "\n\nand from that:\n\n".join(reversed(parts))


def note_failure(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a loop's task or callback raised; asyncio's own words would show its arguments."""
    log.error("A task or a callback of the event loop failed.", exc_info=context.get("exception"))


def _named(error: BaseException) -> str:
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    if isinstance(error, ServiceError):
        return f"{kind}: {error}"
    if isinstance(error, OSError) and error.errno:
        return f"{kind}: {os.strerror(error.errno)}"
    return kind


def _render(exc_info: Any) -> str:
    return traceback_of(exc_info[1])


class _Libraries(logging.Handler):
    """Writes what libraries log as our own lines are."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):  # it says nothing, and shells know what Python does of it
        sys.__excepthook__(kind, error, trace)
    else:
        log.critical("The process failed.", exc_info=error)


def _uncaught_in_thread(failure: threading.ExceptHookArgs) -> None:
    if failure.exc_type is not SystemExit:
        log.critical("A thread failed.", exc_info=failure.exc_value)


class _Forgiving:
    """A stream to which nothing need be written: what logs goes on where its disk is full, or its reader is gone."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
