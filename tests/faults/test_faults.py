"""A short run of the faults; `python -m tests.faults` goes on for longer."""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path

import pytest

from tests import databases
from tests.faults import laps
from tests.faults.kinds import KILL, KINDS, family
from tests.faults.launch import find
from tests.faults.points import ALL_POINTS, HURRIED
from tests.postgres_server import PostgresServer, needs_programs

ROUNDS, SERVER_ROUNDS = 4, 3


@pytest.mark.parametrize("name", ALL_POINTS)
def test_every_step_at_which_a_process_is_killed_is_a_function(name: str) -> None:
    _, _, function = find(ALL_POINTS[name].target)
    assert inspect.isfunction(function)
    assert not inspect.isgeneratorfunction(function)  # its call comes back before it has done anything


@pytest.mark.parametrize("target", HURRIED)
def test_every_wait_that_is_shortened_is_one(target: str) -> None:
    _, _, value = find(target)
    assert not callable(value)


def test_each_fault_has_its_rounds() -> None:
    kinds = laps.available(on="sqlite")
    kills = [name for name in kinds if family(name) == KILL]
    rounds = len(kills) + (len(kinds) - len(kills)) * laps.TIMES_OTHERS
    assert {laps.fault_of(number, seed=7, kinds=kinds) for number in range(rounds)} == set(kinds)
    assert set(laps.available(on="postgres")) | set(kinds) == set(KINDS)


@databases.needs_sqlite
def test_under_faults_nothing_that_was_answered_is_lost_doubled_or_stuck() -> None:
    tally = laps.run(rounds=ROUNDS, seed=20261122, kinds=laps.available(on="sqlite"))
    assert tally.violations == [], str(tally)
    assert tally.faults.total() + tally.unreached.total() == ROUNDS
    assert tally.acknowledged > 20
    assert tally.events


@databases.needs_postgresql
@needs_programs
def test_under_faults_on_a_server_nothing_that_was_answered_is_lost_doubled_or_stuck() -> None:
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to the server's user
        server = PostgresServer(Path(directory))
        try:
            tally = laps.run(rounds=SERVER_ROUNDS, seed=20261122, kinds=laps.available(on="postgres"), server=server)
        finally:
            server.stop()
    assert tally.violations == [], str(tally)
    assert tally.acknowledged > 20
    assert tally.events


@databases.needs_sqlite
def test_a_service_that_answers_before_it_stores_is_found_out() -> None:
    tally = laps.run(rounds=1, seed=20261122, kinds=["callback.storing"], lying=True)
    assert any("was answered 200 and is lost" in violation for violation in tally.violations), str(tally)
