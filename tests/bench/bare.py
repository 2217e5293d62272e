"""The service's web process with nothing encrypted, no request counted, and no audit log: `python -m tests.bench.bare`.

It is there to be measured beside the service as it is, which has no such switch.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from unittest import mock

from tests.bench import serve
from webhook import audit, crypto
from webhook.compression import compress, decompress
from webhook.crypto import Keyring
from webhook.quotas import Buckets, Left

if TYPE_CHECKING:
    from collections.abc import Iterator

_AS_IT_IS, _COMPRESSED = b"\xf0", b"\xf1"  # none of the keyring's versions
_open = Keyring.open
_ALL_LEFT = Left(requests=1, full_seconds=0, wait_seconds=0)


def _seal(_self: Keyring, plaintext: bytes, **_: str) -> bytes:
    """Keep a value as it is, compressed where the service compresses it."""
    if len(plaintext) >= crypto._WORTH_COMPRESSING_BYTES:
        return _COMPRESSED + compress(plaintext)
    return _AS_IT_IS + plaintext


def _unseal(self: Keyring, sealed: bytes, **place: str) -> bytes:
    """Return a value that was kept so; only the data keys are wrapped as ever."""
    version = sealed[:1]
    if version == _COMPRESSED:
        return decompress(sealed[1:])
    return sealed[1:] if version == _AS_IT_IS else _open(self, sealed, **place)


@contextmanager
def unprotected() -> Iterator[None]:
    """Leave encryption, the audit log and limits of requests out of what this process does."""
    with ExitStack() as stack:
        for owner, name, instead in (
            (Keyring, "seal", _seal),
            (Keyring, "open", _unseal),
            (audit, "append", lambda *_, **__: None),
            (Buckets, "take", lambda *_, **__: True),
            (Buckets, "left", lambda *_, **__: _ALL_LEFT),
        ):
            stack.enter_context(mock.patch.object(owner, name, instead))
        yield


def main() -> None:
    """Serve until told to stop."""
    with unprotected():
        serve.main()


if __name__ == "__main__":
    main()
