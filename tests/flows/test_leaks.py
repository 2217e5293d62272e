"""No secret and no word of anybody's speech comes out of the service, whatever goes wrong."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote

import pytest

from tests.flows import leaks
from tests.flows.leaks import Canaries, Run


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return leaks.run(tmp_path_factory.mktemp("leaks"))


def test_nothing_secret_is_said_in_logs_answers_metrics_or_lists_of_processes(done: Run) -> None:
    assert done.secrets.found(done.said) == []
    assert done.urls.found(done.said) == []


def test_nothing_secret_lies_on_disk_in_clear(done: Run) -> None:
    assert done.secrets.found(done.kept) == []


def test_files_are_their_owners_alone(done: Run) -> None:
    assert done.kept
    assert done.open_files == []


def test_the_run_has_met_with_every_failure(done: Run) -> None:
    log = done.said["log"].decode()
    for sentence in (
        "A callback could not be taken by a fault of the service",
        "A request failed.",
        "An attempt failed by a fault of the service",
        "A task or a callback of the event loop failed.",
        "A thread failed.",
        "A greenlet failed.",
        "A callback could not be taken; the platform will send it again.",
    ):
        assert sentence in log
    assert log.count("builtins.ValueError\\n\\nand from that") >= 6
    assert len([name for name in done.said if name.startswith("webhook ")]) == 6
    statuses = {name.rpartition(" ")[2] for name in done.said}
    assert {"(400)", "(401)", "(403)", "(404)", "(405)", "(415)", "(422)", "(500)", "(503)"} <= statuses


def test_what_is_printed_and_what_is_kept_in_clear_is_found(done: Run) -> None:
    """The search sees what a leak would be: the decoys are there on purpose."""
    assert done.decoys.found(done.said) == ["a decoy that is printed in log"]
    assert {found.partition(" in ")[0] for found in done.decoys.found(done.kept)} == {"a decoy that is kept"}
    assert {found.partition(" in ")[0] for found in done.urls.found(done.kept)} == {"the token of a URL"}


@pytest.mark.parametrize("value", ["canary-0123456789", "词汇-0123456789", 'a"quoted\\canary 0123'])
def test_a_leak_is_found_in_every_spelling(value: str) -> None:
    canaries = Canaries()
    canaries.add("a secret", value)
    raw = value.encode()
    for written in (
        raw,
        json.dumps({"event": value}).encode(),
        quote(value, safe="").encode(),
        repr({"secret": raw}).encode(),
        raw.hex().encode(),
        *(base64.b64encode(b"x" * before + raw + b"y" * after) for before in range(5) for after in range(4)),
    ):
        assert canaries.found({"a place": b"before " + written + b" after"}) == ["a secret in a place"], written
    assert canaries.found({"a place": b"before and after"}) == []


def test_what_is_too_short_to_be_told_from_chance_is_not_looked_for() -> None:
    with pytest.raises(AssertionError):
        Canaries().add("a short one", "abc")
