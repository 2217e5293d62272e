"""Trains the dictionary that what is stored is compressed with: `python -m tests.dictionary FILE`.

It was run once, for `webhook/dictionary.zstd`, which is never changed (`webhook.compression`); another one would be
another file. The samples have the shapes of what is stored, with every label of the catalogue, and speech that nobody
said: what the dictionary knows is the format, not anybody's words.
"""

from __future__ import annotations

import json
import random
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import zstandard

from webhook import clock, payloads
from webhook.labels import LABELS
from webhook.services import DEFAULTS
from webhook.shapes import slice_shape, stream_shape, task_shape, verdict_shape
from webhook.store.tasks import LabelSummary, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

_BYTES = 4096
_TASKS = 1500
_MOST_SLICES = 12
_LEVEL = 1
_LEVELS = ("high", "medium", "low", "none")
_FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_DAYS = 5000
_NAMES = [unicodedata.name(chr(code), "").lower() for code in range(0x20, 0x3000)]
_WORDS = sorted({word for name in _NAMES for word in name.split() if word.isalpha()})
_HAN = (0x4E00, 0x9FA5)


class Sampler:
    """Makes up tasks, and what is stored of each.

    Args:
        dice: what is drawn from.
    """

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice

    def samples(self) -> Iterator[bytes]:
        """Yield a task's callback, page of slices and events."""
        dice = self._dice
        content = self._content()
        yield content
        parsed = payloads.parse(content)
        yield msgspec.json.encode(parsed.slices)
        task = self._task()
        shape = stream_shape(task) if task.kind == "live" else task_shape(task)
        yield msgspec.json.encode({"task": shape, "verdict": verdict_shape(task)})
        evidence = dice.choice((None, "pending"))
        yield msgspec.json.encode({"task": shape, "slice": slice_shape(parsed.slices[0], evidence=evidence)})

    def _content(self) -> bytes:
        """Make up a callback's content, as the vendor's tables 3 to 7 have it."""
        dice = self._dice
        pieces, start, seconds = [], self._time(), dice.choice((10, 20, 30, 60))
        for number in range(dice.randint(1, _MOST_SLICES)):
            labels = dice.sample(sorted(LABELS), dice.choice((0, 0, 0, 0, 1, 2))) or ["nonLabel"]
            begin = start + timedelta(seconds=number * seconds)
            pieces.append(
                {
                    "StartTime": number * seconds,
                    "EndTime": (number + 1) * seconds,
                    "StartTimestamp": int(begin.timestamp() * 1000),
                    "EndTimestamp": int((begin.timestamp() + seconds) * 1000),
                    "RiskLevel": dice.choice(_LEVELS) if labels != ["nonLabel"] else "none",
                    "Text": self._speech(),
                    "Url": f"{self._place()}/{number}.wav",
                    "Result": [self._finding(label) for label in labels],
                }
            )
        data: dict[str, Any] = {
            "TaskId": f"vm_{dice.getrandbits(64):016x}",
            "DataId": self._word(),
            "Url": self._place(),
        }
        if dice.random() < 0.5:
            data |= {"LiveId": self._word()}
        data |= {"RiskLevel": dice.choice(_LEVELS), "SliceDetails": pieces}
        answer: dict[str, Any] = {"Code": 200, "Message": dice.choice(("OK", "success finished", "SUCCESS"))}
        answer |= {"RequestId": str(self._word()).upper(), "Data": data}
        separators = dice.choice(((",", ":"), (", ", ": ")))
        return json.dumps(answer, ensure_ascii=False, separators=separators).encode()

    def _finding(self, label: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            "Label": label,
            "Confidence": round(self._dice.uniform(0, 100), self._dice.choice((0, 1, 2))),
            "RiskLevel": "none" if label == "nonLabel" else self._dice.choice(_LEVELS),
            "Description": LABELS[label].description,
        }
        if label == "customized":
            found["CustomizedHit"] = [{"LibName": self._word(), "KeyWords": self._word()}]
        elif label != "nonLabel":
            found["RiskWords"] = ",".join(self._word() for _ in range(self._dice.randint(0, 2)))
        return found

    def _task(self) -> Task:
        dice = self._dice
        live, external = dice.random() < 0.4, dice.random() < 0.3
        created, labels = self._time(), dice.sample(sorted(LABELS), dice.randint(0, 3))
        over = not live or dice.random() < 0.3
        return Task(
            id=clock.new_id("task", created),
            origin="external" if external else "submitted",
            kind="live" if live else "audio",
            service=DEFAULTS["live" if live else "audio"],
            state="completed" if over else "processing",
            source={} if external else {"url": self._place()},
            data_id=dice.choice((None, self._word())),
            live_id=self._word() if live else None,
            crypt_type=dice.choice(("SHA256", "SM3")),
            platform_task_id=f"vm_{dice.getrandbits(64):016x}",
            risk_level=dice.choice(_LEVELS),
            labels=tuple(
                LabelSummary(
                    label=label, risk_level=dice.choice(_LEVELS), confidence=dice.randint(0, 1000) / 10, slices=1
                )
                for label in labels
            ),
            slice_count=dice.randint(1, 100),
            flagged_slice_count=dice.randint(0, 9),
            last_slice_at=self._time() if live else None,
            created_at=created,
            submitted_at=None if external else self._time(),
            finished_at=self._time() if over else None,
            updated_at=self._time(),
            started_at=self._time() if live else None,
        )

    def _time(self) -> datetime:
        return _FIRST_DAY + timedelta(seconds=self._dice.uniform(0, _DAYS * 86400))

    def _place(self) -> str:
        host = f"{self._word()}.{self._dice.choice(('com', 'cn', 'net', 'oss-cn-beijing.aliyuncs.com'))}"
        return f"https://{host}/{self._word()}/{self._dice.getrandbits(32):08x}"

    def _word(self) -> str:
        return self._dice.choice(_WORDS)

    def _speech(self) -> str:
        if self._dice.random() < 0.5:
            return " ".join(self._dice.choices(_WORDS, k=self._dice.randint(3, 25)))
        return "".join(chr(self._dice.randint(*_HAN)) for _ in range(self._dice.randint(5, 60)))


@click.command(help=__doc__)
@click.argument("file", type=click.Path(path_type=Path))
def main(file: Path) -> None:
    """Train, and write the dictionary."""
    sampler = Sampler(random.Random(0))
    samples: list[Any] = [sample for _ in range(_TASKS) for sample in sampler.samples()]
    file.write_bytes(zstandard.train_dictionary(_BYTES, samples, level=_LEVEL).as_bytes())


if __name__ == "__main__":
    main()
