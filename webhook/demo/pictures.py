"""What the demo shows of results: verdicts side by side, slices as a timeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

Json = dict[str, Any]


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


def _look(risk_level: str | None) -> Look:
    return LOOKS.get(risk_level or "", UNKNOWN_LOOK)


def risk(risk_level: str | None) -> Text:
    """Return a risk level in its colour."""
    return Text(risk_level or "null", style=f"bold {_look(risk_level).style}")


def _block(look: Look, *, ascii_only: bool) -> str:
    return look.letter if ascii_only else look.block


def name_of(verdict: Json) -> str:
    """Return what people call a task: the stream's `live_id`, or the file's name."""
    return str(verdict["live_id"] or verdict["url"].partition("?")[0].rpartition("/")[2])


def verdict_table(verdicts: Sequence[Json]) -> Table:
    """Show verdicts side by side."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column()
    for verdict in verdicts:
        table.add_column(name_of(verdict), overflow="fold")
    rows: dict[str, list[Text | str]] = {
        "kind, state": [f"{verdict['kind']}, {verdict['state']}" for verdict in verdicts],
        "risk → action": [
            Text.assemble(risk(verdict["risk_level"]), f" → {verdict['action']}") for verdict in verdicts
        ],
        "slices": [f"{verdict['slice_count']}, {verdict['flagged_slice_count']} flagged" for verdict in verdicts],
        "labels, slices": [Text("\n").join(map(_label_line, verdict["labels"])) for verdict in verdicts],
    }
    for label, cells in rows.items():
        table.add_row(Text(label, style="bold"), *cells)
    return table


def _label_line(label: Json) -> Text:
    return Text.assemble(f"{label['label']}: ", risk(label["risk_level"]), f" in {label['slices']}")


def _starts(slices: Sequence[Json]) -> list[tuple[float, float]]:
    """Return start and end of each slice in seconds from the first one's start on."""
    if slices[0]["start_timestamp"] is not None:
        zero = slices[0]["start_timestamp"]
        return [((one["start_timestamp"] - zero) / 1000, (one["end_timestamp"] - zero) / 1000) for one in slices]
    return [(float(one["start_time"]), float(one["end_time"])) for one in slices]


def timeline(slices: Sequence[Json], *, width: int, ascii_only: bool = False) -> Text:
    """Draw slices as blocks in time order, coloured by risk, with their start times beneath.

    Args:
        slices: as the API shows them, at least one.
        width: cells that a line may take.
    """
    times = _starts(slices)
    labels = [f"{start:.4g}" for start, _ in times]
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


def flagged_slices(slices: Sequence[Json]) -> Table:
    """List the slices that ask for something, with their labels and their text."""
    table = Table.grid(padding=(0, 2))
    for one, (start, end) in zip(slices, _starts(slices), strict=True):
        if one["action"] == "pass":
            continue
        findings = ", ".join(
            found["label"] + ("" if found["confidence"] is None else f" {found['confidence']:.0f} %")
            for found in one["results"]
        )
        text = Text(one["text"] or "")
        words = {word for found in one["results"] for word in found["risk_words"]}
        text.highlight_words(sorted(words), style="bold reverse")
        table.add_row(f"{start:.4g}-{end:.4g} s", risk(one["risk_level"]), Text.assemble(f"{findings}\n", text))
    return table


def legend(*, ascii_only: bool = False) -> Text:
    """Say what each colour and block of the timeline stands for."""
    return Text("   ").join(
        Text.assemble((_block(look, ascii_only=ascii_only) * 2, look.style), f" {level}: {look.meaning}")
        for level, look in LOOKS.items()
    )
