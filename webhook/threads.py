"""Blocking work for a cooperative process: it runs in a real thread, and the greenlet waits."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import gevent

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_thread(function: Callable[..., T], *args: object) -> T:
    """Call a function in a thread of the hub's pool, and return or raise what it does.

    The pool itself would print a traceback for each error, expected ones and secrets in them included.
    """

    def call() -> _Raised | T:
        try:
            return function(*args)
        except Exception as error:  # noqa: BLE001 - it is raised again, on the other side
            return _Raised(error)

    result: _Raised | T = gevent.get_hub().threadpool.apply(call)
    if isinstance(result, _Raised):
        raise result.error
    return result


class _Raised:
    """An error on its way from one thread to another."""

    def __init__(self, error: Exception) -> None:
        self.error = error
