"""A second of tone as a WAV file, with a comment in it."""

from __future__ import annotations

import array
import math
import struct
import sys

SAMPLE_RATE = 8000
SECONDS = 1


def wav(comment: bytes, *, hertz: int = 440) -> bytes:
    """Return one second of mono 16-bit sound.

    Args:
        comment: bytes for the INFO chunk, at most a few hundred.
        hertz: pitch of the tone.
    """
    step = 2 * math.pi * hertz / SAMPLE_RATE
    samples = array.array("h", (int(8000 * math.sin(step * at)) for at in range(SAMPLE_RATE * SECONDS)))
    if sys.byteorder == "big":
        samples.byteswap()
    info = b"INFO" + _chunk(b"ICMT", comment + b"\0")
    sound = struct.pack("<HHIIHH", 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16)
    return _chunk(
        b"RIFF", b"WAVE" + _chunk(b"fmt ", sound) + _chunk(b"LIST", info) + _chunk(b"data", samples.tobytes())
    )


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
