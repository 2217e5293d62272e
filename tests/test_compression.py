"""What is stored takes little room, and what was stored once can be read by every later version."""

from __future__ import annotations

import hashlib
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

import webhook
from tests.dictionary import Sampler
from webhook.compression import compress, decompress

EVENTS = slice(2, 4)  # of a task's samples


def samples(seed: int) -> list[bytes]:
    """Return what is stored of a task that the dictionary has not seen: callback, page and two events."""
    return list(Sampler(random.Random(seed)).samples())


@given(st.binary(max_size=5000))
def test_any_value_comes_back(value: bytes) -> None:
    assert decompress(compress(value)) == value


def test_events_take_a_third_of_their_size_and_far_less_than_without_a_dictionary() -> None:
    events = [event for seed in range(50) for event in samples(seed + 1)[EVENTS]]
    alone = zstandard.ZstdCompressor(level=1)
    size = sum(len(compress(event)) for event in events)
    assert size < sum(map(len, events)) / 3
    assert size < sum(len(alone.compress(event)) for event in events) * 0.6


def test_the_dictionary_is_the_one_that_databases_were_written_with() -> None:
    """A change of it would make every database unreadable: another dictionary is another file, beside this one."""
    dictionary = Path(webhook.__file__).with_name("dictionary.zstd").read_bytes()
    assert hashlib.sha256(dictionary).hexdigest() == (
        "ec3cba0c66b5b6876987539b180e17ffc3dc985ebaceeb2a274e444981277238"
    )


def test_what_was_compressed_without_a_dictionary_is_read_too() -> None:
    assert decompress(zstandard.ZstdCompressor().compress(b"transcript " * 100)) == b"transcript " * 100


def test_what_was_never_compressed_is_refused() -> None:
    with pytest.raises(zstandard.ZstdError):
        decompress(b"transcript")


def test_threads_at_once_do_not_disturb_each_other() -> None:
    values = [value for seed in range(40) for value in samples(seed)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda value: decompress(compress(value)), values)) == values
