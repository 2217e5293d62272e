"""How results look to people: verdicts side by side or one a row, slices as a timeline or one a line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Json = dict[str, Any]

_HOUR_SECONDS = 3600
_JOINERS = "\u200c\u200d"  # not printable by themselves, but parts of words and of emoji


@dataclass(frozen=True, kw_only=True)
class Look:
    """How a risk level looks: in colour, without, and without Unicode."""

    style: str
    block: str
    letter: str
    meaning: str


LOOKS = {
    "high": Look(style="red", block="█", letter="#", meaning="block"),
    "medium": Look(style="yellow", block="▓", letter="=", meaning="review"),
    "low": Look(style="blue", block="▒", letter="-", meaning="pass, also silence"),
    "none": Look(style="green", block="░", letter=".", meaning="pass"),
}
UNKNOWN_LOOK = Look(style="magenta", block="?", letter="?", meaning="not known")
_WORST_FIRST = ("high", "medium", None, "low", "none")  # a level that is not known is never clean: it is None here


def console(stream: TextIO | None = None) -> Console:
    """Return a console on a stream, by default standard output; it never fails for what the stream cannot encode."""
    stream = stream or sys.stdout
    encoding: str | None = stream.encoding
    if encoding is None or encoding.lower().replace("-", "") != "utf8":
        stream.reconfigure(errors="replace")  # type: ignore[union-attr] # both standard streams are TextIOWrappers
    return Console(file=stream, highlight=False)


def plain(text: str) -> str:
    """Return a text of others in one line, without what could steer a terminal."""
    return " ".join("".join(one if one.isprintable() or one in _JOINERS else " " for one in text).split())


def _look(risk_level: str | None) -> Look:
    return LOOKS.get(risk_level or "", UNKNOWN_LOOK)


def risk(risk_level: str | None) -> Text:
    """Return a risk level in its colour."""
    return Text(plain(risk_level or "null"), style=f"bold {_look(risk_level).style}")


def judgement(verdict: Json) -> Text:
    """Return a task's risk level and what to do about it."""
    if verdict["risk_level"] is None:
        return Text("no result yet", style="dim")
    return Text.assemble(risk(verdict["risk_level"]), f" → {verdict['action']}")


def _block(look: Look, *, ascii_only: bool) -> str:
    return look.letter if ascii_only else look.block


def name_of(verdict: Json, source: Json | None = None) -> str:
    """Return what people call a task: the stream's `live_id`, the file's name, or the id that they or we gave it.

    Args:
        verdict: of the task.
        source: of the task, where it is at hand: a verdict does not know the name of an uploaded file.
    """
    path = (verdict["url"] or "").partition("#")[0].partition("?")[0]
    if source is not None:
        path = source.get("oss", {}).get("object") or source.get("file", {}).get("name") or path
    return plain(str(verdict["live_id"] or path.rpartition("/")[2] or verdict["data_id"] or verdict["task_id"]))


def verdict_table(verdicts: Sequence[Json], *, names: Sequence[str] | None = None) -> Table:
    """Show verdicts side by side.

    Args:
        verdicts: at least one.
        names: what they are called, where `name_of` does not know.
    """
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column()
    for name in names or map(name_of, verdicts):
        table.add_column(Text(name), overflow="fold")
    rows: dict[str, list[Text | str]] = {
        "kind, state": [f"{verdict['kind']}, {verdict['state']}" for verdict in verdicts],
        "risk → action": [judgement(verdict) for verdict in verdicts],
        "slices": [f"{verdict['slice_count']}, {verdict['flagged_slice_count']} flagged" for verdict in verdicts],
        "labels, slices": [Text("\n").join(map(_label_line, verdict["labels"])) for verdict in verdicts],
    }
    for label, cells in rows.items():
        table.add_row(Text(label, style="bold"), *cells)
    return table


def _label_line(label: Json) -> Text:
    return Text.assemble(f"{plain(label['label'])}: ", risk(label["risk_level"]), f" in {label['slices']}")


def _times(slices: Sequence[Json]) -> list[tuple[float, float]]:
    """Return start and end of each slice in seconds; those of a stream from its first slice's start on."""
    zero = next((one["start_timestamp"] for one in slices if one["start_timestamp"] is not None), 0)
    return [
        (float(one["start_time"] or 0), float(one["end_time"] or 0))
        if one["start_timestamp"] is None
        else ((one["start_timestamp"] - zero) / 1000, ((one["end_timestamp"] or one["start_timestamp"]) - zero) / 1000)
        for one in slices
    ]


def _since_start(seconds: float) -> str:
    """Write a time within a recording: in seconds, and from an hour on as a clock does."""
    if seconds < _HOUR_SECONDS:
        return f"{seconds:.4g}"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def time_unit(slices: Sequence[Json]) -> str:
    """Return in what a timeline of these slices tells times."""
    return "in seconds" if _times(slices)[-1][0] < _HOUR_SECONDS else "in seconds, from an hour on in h:mm:ss"


def timeline(slices: Sequence[Json], *, width: int, ascii_only: bool = False) -> Text:
    """Draw slices as blocks in time order, coloured by risk, with their start times beneath.

    Args:
        slices: as the API shows them, at least one.
        width: cells that a line may take.
    """
    times = _times(slices)
    labels = [_since_start(start) for start, _ in times]
    cell = max(max(map(len, labels)) + 1, min(7, width // len(slices)))
    row = max(1, width // cell)
    chart = Text()
    for first in range(0, len(slices), row):
        shown = slices[first : first + row]
        for one in shown:
            look = _look(one["risk_level"])
            chart.append(_block(look, ascii_only=ascii_only) * (cell - 1), style=look.style).append(" ")
        axis = "".join(label.ljust(cell) for label in labels[first : first + row])
        chart.append(f"\n{axis.rstrip()}\n", style="dim")
    chart.rstrip()
    return chart


def condensed(slices: Sequence[Json], *, at_most: int) -> list[Json]:
    """Return so few slices that a timeline of them can be taken in: neighbours as one, of the highest risk in it."""
    size = -(-len(slices) // at_most)
    groups = (slices[first : first + size] for first in range(0, len(slices), size))
    return [
        group[0]
        | {
            "end_time": group[-1]["end_time"],
            "end_timestamp": group[-1]["end_timestamp"],
            "risk_level": min((one["risk_level"] for one in group), key=_order),
        }
        for group in groups
    ]


def _order(risk_level: str | None) -> int:
    return _WORST_FIRST.index(risk_level if risk_level in LOOKS else None)


def flagged_slices(slices: Sequence[Json], *, at_most: int | None = None) -> Table:
    """List the slices that ask for something, with their labels and their text.

    Args:
        slices: all of them, in time order.
        at_most: how many to list; None is all.
    """
    table = Table.grid(padding=(0, 2))
    flagged = [(one, times) for one, times in zip(slices, _times(slices), strict=True) if one["action"] != "pass"]
    for one, (start, end) in flagged[:at_most]:
        times = f"{_since_start(start)}-{_since_start(end)}" + ("" if end >= _HOUR_SECONDS else " s")
        table.add_row(times, risk(one["risk_level"]), Text("\n").join([Text(findings(one)), transcript(one)]))
    return table


def findings(one: Json) -> str:
    """Return a slice's labels with their confidence."""
    return ", ".join(
        plain(found["label"] or "") + ("" if found["confidence"] is None else f" {found['confidence']:.0f} %")
        for found in one["results"]
    )


def transcript(one: Json) -> Text:
    """Return a slice's text in one line, its risk words marked."""
    text = Text(plain(one["text"] or ""))
    words = {plain(word) for found in one["results"] for word in found["risk_words"]} - {""}
    text.highlight_words(sorted(words), style="bold reverse")
    return text


def legend(*, ascii_only: bool = False) -> Text:
    """Say what each colour and block of the timeline stands for."""
    return Text("   ").join(
        Text.assemble((_block(look, ascii_only=ascii_only) * 2, look.style), f" {level}: {look.meaning}")
        for level, look in LOOKS.items()
    )


def verdict_list(verdicts: Iterable[Json]) -> Table:
    """Show verdicts one a row; only what they are called and their labels give way to a narrow terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("risk", no_wrap=True)
    table.add_column("what, labels", overflow="fold")
    table.add_column("flagged", no_wrap=True)
    table.add_column("task", no_wrap=True)
    for verdict in verdicts:
        table.add_row(
            Text.assemble(risk(verdict["risk_level"]), "\n", (verdict["action"] or "", "dim")),
            Text.assemble((name_of(verdict), "bold"), "\n", labels_of(verdict)),
            f"{verdict['flagged_slice_count']} of {verdict['slice_count']}",
            Text.assemble(verdict["task_id"], "\n", (f"{verdict['kind']}, {verdict['state']}", "dim")),
        )
    return table


def labels_of(verdict: Json) -> str:
    """Return a verdict's labels in one line."""
    return ", ".join(plain(label["label"]) for label in verdict["labels"])
