"""Whether the service and the platform's ledger agree on what was submitted: charges, ends, slices, events."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.platform import Platform
    from tests.running import Running

End = tuple[str, str | None]  # a task's state, and its error's reason

COMPLETED: End = ("completed", None)
CANCELED: End = ("canceled", None)
UNKNOWN: End = ("failed", "submit_outcome_unknown")
EXPIRED: End = ("expired", "result_expired")
_FLAGGED = {"medium", "high"}
_OFTEN = {"slice.flagged", "stream.silent"}  # all other types come once a task
_LIMITED = ("VoiceModeration", "VoiceModerationResult")


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What is submitted, and how it ends whatever befalls the calls and callbacks on the way.

    Attributes:
        magic: chooses what comes of it (`webhook sandbox --magic`).
        charged: whether the platform takes it at all.
    """

    magic: str
    ends: tuple[End, ...] = (COMPLETED,)
    charged: bool = True

    @property
    def endless(self) -> bool:
        """Whether it runs until it is canceled."""
        return CANCELED in self.ends


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One thing that a client wanted moderated, and was told that it is; `data_id` is its own."""

    data_id: str
    kind: str
    fate: Fate
    task_id: str

    def __str__(self) -> str:
        return f"{self.data_id} ({self.kind}, {self.fate.magic})"


@dataclass(kw_only=True)
class Agreement:
    """What was compared, and every violation."""

    accepted: int = 0
    registered_again: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    slices: int = 0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def compare(self, service: Running, *, platform: Platform, submissions: dict[str, Submission]) -> None:
        """Compare everything, once all is over."""
        theirs: dict[str, list[Any]] = {}
        for accepted in platform.all_tasks():
            theirs.setdefault(accepted["data_id"], []).append(accepted)
        tasks = service.items("/v1/tasks", limit=200)
        ours = {task["data_id"]: task for task in tasks if task["origin"] == "submitted"}
        events = self._events_by_task(service)
        self.accepted = sum(map(len, theirs.values()))
        for data_id in ours.keys() ^ submissions.keys():
            self._wrong(f"{data_id} is {'a task that nobody submitted' if data_id in ours else 'lost'}")
        for data_id in theirs.keys() - ours.keys():
            self._wrong(f"{data_id} was accepted by the platform, and is no task of ours")
        for data_id in ours.keys() & submissions.keys():
            one, task, accepted = submissions[data_id], ours[data_id], theirs.get(data_id, [])
            if task["id"] != one.task_id:
                self._wrong(f"{one} was answered to be {one.task_id}, and is {task['id']}")
            slices = service.items(f"/v1/verdicts/{task['id']}/slices", limit=200)
            self._compare_end(one, task, accepted)
            self._compare_charges(one, accepted)
            self._compare_slices(one, task, slices, accepted)
            self._compare_events(one, task, slices, events.get(task["id"], []))
        self._count_ledger(platform.ledger())

    def _events_by_task(self, service: Running) -> dict[str, list[Any]]:
        feed = service.feed(limit=200)
        self.events = len(feed)
        if len({event["id"] for event in feed}) != len(feed):
            self._wrong("an event is twice in the feed")
        found: dict[str, list[Any]] = {}
        for event in feed:
            if "task" not in event["data"]:
                continue
            found.setdefault(event["data"]["task"]["id"], []).append(event)
        return found

    def _compare_end(self, one: Submission, task: Any, accepted: list[Any]) -> None:
        """A file may also end unknown or expired, but only where not a word of it reached us."""
        end = (task["state"], (task["error"] or {}).get("reason"))
        self.ends[" ".join(word for word in end if word)] += 1
        heard = any(callback["acknowledged"] for each in accepted for callback in each["callbacks"])
        if end in one.fate.ends:
            if end == COMPLETED and not accepted:
                self._wrong(f"{one} is completed, and the platform never took it")
        elif end[0] == "canceled" and one.fate.endless and not accepted:
            pass  # it waited for its submit, and its error says for what
        elif one.kind == "stream" or end not in {UNKNOWN, EXPIRED} or heard:
            self._wrong(f"{one} is {end}, {'with' if heard else 'without'} a callback acknowledged")

    def _compare_charges(self, one: Submission, accepted: list[Any]) -> None:
        if not one.fate.charged and accepted:
            self._wrong(f"{one} was accepted, and should have been refused")
        if any(each["state"] == "running" for each in accepted):
            self._wrong(f"{one} is over, and still runs on the platform")
        if one.kind != "stream" and len(accepted) > 1:
            self._wrong(f"{one} was accepted {len(accepted)} times")
        for before, after in itertools.pairwise(sorted(accepted, key=lambda each: str(each["submitted_at"]))):
            self.registered_again += 1
            if before["finished_at"] is None or before["finished_at"] > after["submitted_at"]:
                self._wrong(f"{one} ran twice at once")

    def _compare_slices(self, one: Submission, task: Any, slices: list[Any], accepted: list[Any]) -> None:
        """What is completed has every slice, as the platform has it; anything else has none of its own making."""
        told = {each["task_id"]: [_as_ours(piece) for piece in each["slices"]] for each in accepted}
        every = [piece for pieces in told.values() for piece in pieces]
        stored = [{name: piece[name] for name in _NAMES} for piece in slices]
        self.slices += len(stored)
        strange = [piece for piece in stored if piece not in every]
        if strange:
            self._wrong(f"{one} has {len(strange)} slices that the platform does not have, such as {strange[0]}")
        if task["state"] == "completed" and task["error"] is None:
            missing = [piece for piece in told.get(task["platform_task_id"], []) if piece not in stored]
            if task["platform_task_id"] not in told or missing:
                self._wrong(f"{one} is completed, and misses {len(missing)} slices of {task['platform_task_id']}")
        flagged = sum(piece["risk_level"] in _FLAGGED for piece in stored)
        if (task["slice_count"], task["flagged_slice_count"]) != (len(stored), flagged):
            counted = f"{task['slice_count']} slices, {task['flagged_slice_count']} flagged"
            self._wrong(f"{one} counts {counted}, and has {len(stored)}, {flagged} flagged")
        if len({_times(piece) for piece in stored}) != len(stored):
            self._wrong(f"{one} has a slice twice")

    def _compare_events(self, one: Submission, task: Any, slices: list[Any], events: list[Any]) -> None:
        types = Counter(event["type"] for event in events)
        due = {f"task.{task['state']}"}
        due |= {"task.submitted"} if task["submitted_at"] else set()
        due |= {"stream.ended"} if "stream.started" in types else set()
        for type_ in due - types.keys():
            self._wrong(f"{one} is {task['state']} without {type_}")
        for type_, count in types.items():
            if type_ not in _OFTEN and count > 1:
                self._wrong(f"{one} raised {count} {type_}")
        flagged = [_times(event["data"]["slice"]) for event in events if event["type"] == "slice.flagged"]
        wanted = [_times(piece) for piece in slices if piece["risk_level"] in _FLAGGED]
        if sorted(flagged) != sorted(wanted):
            self._wrong(f"{one} raised {len(flagged)} slice.flagged for {len(wanted)} flagged slices")

    def _count_ledger(self, ledger: Any) -> None:
        """Count what went wrong by chance, and check that nothing went beyond the platform's limits."""
        for counts in ledger["faults"].values():
            self.faults.update(counts)
        for action in _LIMITED:
            drawn = ledger["faults"].get(action, {}).get("code:403", 0)
            beyond = ledger["answers"].get(action, {}).get("403", 0) - drawn
            if beyond > 0:
                self._wrong(f"{beyond} calls of {action} went beyond the rate")

    def _wrong(self, what: str) -> None:
        self.violations.append(what)


def _times(piece: Any) -> tuple[int, ...]:
    names = ("start_time", "end_time", "start_timestamp", "end_timestamp")
    return tuple(-1 if piece[name] is None else piece[name] for name in names)


def _as_ours(piece: Any) -> dict[str, Any]:
    """Return a slice of the vendor's as the contract shows it, what we add to it aside."""
    return {
        "start_time": piece["StartTime"],
        "end_time": piece["EndTime"],
        "start_timestamp": piece.get("StartTimestamp"),
        "end_timestamp": piece.get("EndTimestamp"),
        "risk_level": piece["RiskLevel"],
        "text": piece["Text"],
        "url": piece.get("Url"),
        "results": [
            {
                "label": finding["Label"],
                "description": finding["Description"],
                "confidence": finding.get("Confidence"),
                "risk_level": finding["RiskLevel"],
                "risk_words": _listed(finding.get("RiskWords")),
                "custom_hits": [
                    {"library": hit["LibName"], "keywords": _listed(hit["Keywords"])}
                    for hit in finding.get("CustomizedHit", ())
                ],
                "risk_positions": [
                    {"risk_word": at["RiskWord"], "start": at["StartPos"], "end": at["EndPos"]}
                    for at in finding.get("RiskPositions", ())
                ],
            }
            for finding in piece["Result"]
        ],
    }


def _listed(words: str | None) -> list[str]:
    return words.split(",") if words else []


_NAMES = tuple(_as_ours({"StartTime": 0, "EndTime": 0, "RiskLevel": "", "Text": "", "Result": []}))
