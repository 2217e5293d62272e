"""Compression of what is stored: zstd with a dictionary of what callbacks, slices and events have in common.

Most of what one value repeats stands in every other value, too, and not often enough in itself for zstd to find it
there: an event takes a quarter of its size instead of a half. The dictionary was trained on made-up values
(`tests/dictionary.py`) and is never changed: what was compressed with it opens with nothing else.
"""

from __future__ import annotations

import threading
from pathlib import Path

import zstandard

_LEVEL = 1
_LARGEST_BYTES = 1 << 30  # of one value; a bound against a corrupt length


def _dictionary() -> zstandard.ZstdCompressionDict:
    made = zstandard.ZstdCompressionDict(Path(__file__).with_name("dictionary.zstd").read_bytes())
    made.precompute_compress(level=_LEVEL)
    return made


class _Own(threading.local):
    """A thread's own: they are not safe to share, and to make one costs as much as to use it."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=_LEVEL, dict_data=_SHARED)
        self.decompressor = zstandard.ZstdDecompressor(dict_data=_SHARED)


_SHARED = _dictionary()
_own = _Own()


def compress(value: bytes) -> bytes:
    """Return a value in fewer bytes."""
    return _own.compressor.compress(value)


def decompress(compressed: bytes) -> bytes:
    """Return a value that was compressed, with this dictionary or with none.

    Raises:
        zstandard.ZstdError: it was not.
    """
    return _own.decompressor.decompress(compressed, max_output_size=_LARGEST_BYTES)
