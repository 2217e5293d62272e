"""A short run of garbage; `python -m tests.fuzz` goes on for longer. And what the fuzzing would find, it does find."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.fuzz.callbacks import Callbacks
from tests.fuzz.connections import Connections
from tests.fuzz.parser import Parser
from tests.fuzz.routes import Routes
from tests.fuzz.runs import Tally, case_of, read_case, run
from tests.fuzz.targets import TARGETS
from webhook import payloads, signatures
from webhook.ingest import Ingest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.fuzz.runs import Target
    from webhook.db import Session
    from webhook.ingest import Arrival

SEED = 20261122


def told(tally: Tally) -> str:
    return "\n".join(f"{finding.what}, case {finding.numbers}\n{finding.trace}" for finding in tally.findings.values())


@pytest.mark.parametrize(
    ("make", "cases", "answers"),
    [
        (Parser, 3000, {"form, tolerant", "form, printed", "form, unreadable", "malformed, unreadable"}),
        (Connections, 1200, {"200", "200 200", "400", "200 400", "414", "417", "431", "501"}),
        (Callbacks, 300, {"200", "400", "403", "404", "405", "415"}),
        (Routes, 700, {"200", "201", "202", "204", "400", "401", "403", "404", "405", "409", "415", "422"}),
    ],
)
def test_nothing_that_comes_in_is_too_odd_for_an_answer(make: type[Target[Any]], cases: int, answers: set[str]) -> None:
    tally = run(make(), cases=cases, seed=SEED)
    assert not tally.findings, told(tally)
    assert answers <= set(tally.answers), tally.answers


def test_a_case_is_the_same_whatever_came_before_it() -> None:
    for make in TARGETS.values():
        assert case_of(make(), seed=SEED, number=7) == case_of(make(), seed=SEED, number=7)
        assert case_of(make(), seed=SEED, number=7) != case_of(make(), seed=SEED, number=8)


def test_a_crash_is_found_once_by_where_it_is_and_its_case_is_kept_to_be_asked_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parse = payloads.parse

    def crashes(content: bytes) -> payloads.Result:
        result = parse(content)
        if result.code is None:
            raise KeyError("code")
        return result

    monkeypatch.setattr(payloads, "parse", crashes)
    [finding] = run(Parser(), cases=300, seed=SEED, keep=tmp_path).findings.values()
    assert finding.what.startswith("KeyError at tests/fuzz/")
    assert finding.count > len(finding.files) == 3
    target, case = read_case(tmp_path / f"parser-{finding.numbers[0]}.json", {"parser": Parser()})
    assert case == case_of(target, seed=SEED, number=finding.numbers[0])
    with pytest.raises(KeyError):
        target.ask(case)


def test_a_service_that_acknowledges_what_it_does_not_store_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgets(_self: Ingest, _session: Session, arrivals: Sequence[Arrival]) -> list[str | None]:
        return [None for _ in arrivals]

    monkeypatch.setattr(Ingest, "accept", forgets)
    assert "200 to a callback that is not stored" in run(Callbacks(), cases=20, seed=SEED).findings


def test_a_service_that_believes_what_is_forged_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signatures, "verify", lambda **_: True)
    assert "a forged callback is stored as verified" in run(Callbacks(), cases=40, seed=SEED).findings


def test_a_service_that_loses_a_slice_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Ingest.accept

    def loses(self: Ingest, session: Session, arrivals: Sequence[Arrival]) -> list[str | None]:
        return accept(self, session, [_less(arrival) for arrival in arrivals])

    monkeypatch.setattr(Ingest, "accept", loses)
    assert "a task's slices are not those that its callbacks said" in run(Callbacks(), cases=100, seed=SEED).findings


def _less(arrival: Arrival) -> Arrival:
    """Return an arrival without the last slice of its result."""
    if arrival.result is None:
        return arrival
    result = msgspec.structs.replace(arrival.result, slices=arrival.result.slices[:-1])
    return msgspec.structs.replace(arrival, result=result)
