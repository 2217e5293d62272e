"""What the commands for people show: results on standard output, and on standard error what is going on meanwhile.

On a terminal there are colours, bars and a spinner, cut to its width; elsewhere whole plain lines.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from webhook import pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console, RenderableType

Json = dict[str, Any]

_ENDLESS_WIDTH = 100_000  # a line that goes to a file or a program is not folded
_PICTURE_WIDTH = 100
_PLAIN_WIDTH = 80
_MOST_BLOCKS = 60
_MOST_FLAGGED = 20


@contextmanager
def counting() -> Iterator[Callable[[str, int, int], None]]:
    """Show on standard error how much of each table is done; yields what is told a table, the rows done and in all."""
    console = _console(sys.stderr)
    columns = (TextColumn("{task.description:29}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_interactive) as progress:
        bars: dict[str, TaskID] = {}

        def tell(table: str, done: int, total: int) -> None:
            if table not in bars:
                bars[table] = progress.add_task(table, total=total)
            progress.update(bars[table], completed=done)

        yield tell


class Screen:
    """The two outputs of a command.

    Args:
        as_json: results are JSON, and where standard error is no terminal only trouble is told there.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._out = _console(sys.stdout)
        self._err = _console(sys.stderr)

    @property
    def is_terminal(self) -> bool:
        """Whether results go to a terminal."""
        return self._out.is_terminal

    def show(self, what: RenderableType) -> None:
        """Print a result."""
        self._out.print(what)

    def line(self, text: Text) -> None:
        """Print a result of one line, which on a terminal is cut to its width."""
        self._out.print(text, no_wrap=True, overflow="ellipsis", soft_wrap=not self.is_terminal)

    def raw_line(self, text: str) -> None:
        """Print a result of one line as it is, at once: who reads it may wait for it."""
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    def json(self, document: Json) -> None:
        """Print a result as one line of JSON."""
        text = json.dumps(document, ensure_ascii=False)
        if not text.isprintable() or self._out.options.ascii_only:  # what could steer a terminal is escaped
            text = json.dumps(document)
        self.raw_line(text)

    def say(self, text: str) -> None:
        """Tell something about what is going on."""
        if not self.as_json or self._err.is_interactive:
            self._err.print(Text(pictures.plain(text)))

    def say_plainly(self, text: str) -> None:
        """Tell what a terminal shows beside its spinner."""
        if not self._err.is_interactive:
            self.say(text)

    def complain(self, text: str) -> None:
        """Tell of trouble."""
        self._err.print(Text(f"webhook: {pictures.plain(text)}"))

    @contextmanager
    def upload(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """Show how far an upload is; yields what is told the bytes sent and the bytes in all."""
        if not self._err.is_interactive:
            yield lambda _sent, _total: None
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
        )
        with Progress(*columns, console=self._err) as progress:
            bar = progress.add_task(pictures.plain(name), total=None)
            yield lambda sent, total: progress.update(bar, completed=sent, total=total)

    @contextmanager
    def waiting(self) -> Iterator[Callable[[str], None]]:
        """Show what is waited for; yields what is told how it stands, as often as one likes."""
        if not self._err.is_interactive:
            yield lambda _: None
            return
        columns = (SpinnerColumn(), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
        with Progress(*columns, console=self._err, transient=True) as progress:
            row: TaskID = progress.add_task("", total=None)
            yield lambda text: progress.update(row, description=pictures.plain(text))

    def verdict(self, verdict: Json, slices: Sequence[Json], *, source: Json) -> None:
        """Print a verdict as a table, and its slices as a timeline with the flagged ones beneath.

        Args:
            verdict: of a task.
            slices: all of that task's, in time order.
            source: of that task.
        """
        ascii_only = self._out.options.ascii_only
        self._padded(pictures.verdict_table([verdict], names=[pictures.name_of(verdict, source)]))
        if not slices:
            return
        shown = pictures.condensed(slices, at_most=_MOST_BLOCKS)
        each = "" if len(shown) == len(slices) else f", {-(-len(slices) // _MOST_BLOCKS)} in a block"
        self._padded(Text(f"slice by slice{each}, {pictures.time_unit(shown)}"))
        width = min(self._out.width, _PICTURE_WIDTH if self.is_terminal else _PLAIN_WIDTH) - 4
        self._padded(pictures.timeline(shown, width=width, ascii_only=ascii_only), left=3, below=1)
        flagged = sum(one["action"] != "pass" for one in slices)
        if flagged:
            self._padded(pictures.flagged_slices(slices, at_most=_MOST_FLAGGED), left=3, below=1)
        if flagged > _MOST_FLAGGED:
            more = f"and {flagged - _MOST_FLAGGED} more: webhook verdicts {verdict['task_id']} --json"
            self._padded(Text(more), left=3, below=1)
        self._padded(pictures.legend(ascii_only=ascii_only))

    def _padded(self, what: RenderableType, *, left: int = 1, below: int = 0) -> None:
        self.show(Padding(what, (0, 0, below, left), expand=False))


def _console(stream: Any) -> Console:
    console = pictures.console(stream)
    if not console.is_terminal:
        console.width = _ENDLESS_WIDTH
    return console
