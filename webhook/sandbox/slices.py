"""What the platform says of each slice: made from the outcome and the slice's number, always the same.

Fields: voice-moderation.txt, tables 3 to 7, spelled as its response example spells them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .outcomes import RISKS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .outcomes import Outcome

Json = dict[str, Any]

# Not only ASCII, and with every character that a form or a URL treats specially.
PHRASES = (
    "Welcome back to the show, everybody",
    "今天我们来聊一聊内容安全",
    "a+b=c & 100% of it is music 🎵",
    "дальше — музыка; key=value&other=%20",
    "ありがとうございます 🙇‍♀️ + see you",
    'she said: "no\\yes" <br/>',
    "مرحبا بكم في البث المباشر",
)
RISK_WORDS = ("WordA", "词汇B")
CUSTOM_WORDS = ("CustomKeyword1", "自定义词2")
SILENCE = "specified_nontalk"
SLICE_SECONDS = 10
DEFAULT_SLICES = 3


def risk_level_of(slices: Iterable[Json]) -> str:
    """Return the highest risk level among slices, `none` where there are none."""
    return max((entry["RiskLevel"] for entry in slices), key=RISKS.index, default="none")


def slice_at(outcome: Outcome, index: int) -> Json:
    """Return the slice of a file at an index from 0 on, its times in seconds."""
    entry: Json = {"StartTime": index * SLICE_SECONDS, "EndTime": (index + 1) * SLICE_SECONDS}
    if outcome.is_silent(index):
        silence = _finding(SILENCE, "Silent audio", risk_level="low", index=index)
        return {**entry, "Text": "", "RiskLevel": "low", "Result": [silence]}
    text = PHRASES[index % len(PHRASES)] if outcome.text is None else outcome.text
    if index >= outcome.flagged_slices:
        clean = {"Label": "nonLabel", "Description": "No risk detected", "RiskLevel": "none"}
        return {**entry, "Text": text, "RiskLevel": "none", "Result": [clean]}
    if outcome.text is None:
        words = CUSTOM_WORDS if "customized" in outcome.labels else RISK_WORDS
        text = f"{words[0]} {text} {words[1]}"
    labels = outcome.labels or ("political_entity",)
    findings = [
        _flagged(label, text, risk_level=outcome.risk_level, index=index + at) for at, label in enumerate(labels)
    ]
    return {**entry, "Text": text, "RiskLevel": outcome.risk_level, "Result": findings}


def live_slice_at(outcome: Outcome, index: int, *, started_at: float, url: str) -> Json:
    """Return the slice of a stream at an index: with clock times in milliseconds and a link to its audio."""
    start = math.floor(started_at * 1000) + outcome.starts_after_milliseconds(index)
    times = {"StartTimestamp": start, "EndTimestamp": start + outcome.step_milliseconds}
    return {**slice_at(outcome, index), **times, "Url": url}


def _finding(label: str, description: str, *, risk_level: str, index: int) -> Json:
    return {
        "Label": label,
        "Description": description,
        "Confidence": round(60 + (index * 7.77) % 40, 2),
        "RiskLevel": risk_level,
    }


def _flagged(label: str, text: str, *, risk_level: str, index: int) -> Json:
    finding = _finding(label, f"Suspected {label.replace('_', ' ')}", risk_level=risk_level, index=index)
    if label == "customized":
        # hits of a customer's own library have no score
        del finding["Confidence"]
        hit = {"LibName": "CustomLibrary1", "Keywords": ",".join(CUSTOM_WORDS)}
        return {**finding, "CustomizedHit": [hit]}
    words = [word for word in RISK_WORDS if word in text]
    if not words:
        return finding
    positions = [
        {"RiskWord": word, "StartPos": text.index(word), "EndPos": text.index(word) + len(word)} for word in words
    ]
    return {**finding, "RiskWords": ",".join(words), "RiskPositions": positions}
