"""Verifies that a call was signed with our AccessKey, by ACS3-HMAC-SHA256 exactly.

The canonical form is that of the official SDK (`alibabacloud_tea_openapi.utils.get_authorization`);
the errors are those of the vendor's API gateway, as its clients' bug reports print them.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import parse_qsl, quote

from .codes import HttpRefusal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

ALGORITHM = "ACS3-HMAC-SHA256"
# how far `x-acs-date` may be from our clock, and how long a nonce is remembered
TOLERANCE_SECONDS = 15 * 60
# the headers without which a signature covers too little
REQUIRED = ("host", "x-acs-action", "x-acs-version", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256")

_AUTHORIZATION = re.compile(
    r"(?P<algorithm>[A-Z0-9-]+) +Credential=(?P<key_id>[^,\s]+), *"
    r"SignedHeaders=(?P<signed>[a-z0-9;-]+), *Signature=(?P<signature>[0-9a-f]+)"
)


class Headers(Protocol):
    """Header lines, names without regard to case."""

    def get(self, name: str, default: str) -> str:
        """Return the first value of a header."""
        ...

    def getall(self, name: str, default: Sequence[str]) -> Sequence[str]:
        """Return every value of a header."""
        ...


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request as it came over the wire."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes


class Authorizer:
    """Knows the one AccessKey and the nonces seen within the tolerance."""

    def __init__(self, *, key_id: str, key_secret: str, clock: Callable[[], float]) -> None:
        self._key_id = key_id
        self._key_secret = key_secret
        self._clock = clock
        self._nonces: dict[str, float] = {}

    def verify(self, call: Call) -> None:
        """Return if the call is signed by our AccessKey, recently, and for the first time.

        Raises:
            HttpRefusal: with the gateway's code.
        """
        authorization = call.headers.get("Authorization", "")
        if not authorization:
            raise HttpRefusal(400, "MissingAccessKeyId", "AccessKeyId is mandatory for this action.")
        found = _AUTHORIZATION.fullmatch(authorization.strip())
        if not found or found["algorithm"] != ALGORITHM:
            raise HttpRefusal(400, "IncompleteSignature", "The request signature does not conform to Aliyun standards.")
        if found["key_id"] != self._key_id:
            raise HttpRefusal(404, "InvalidAccessKeyId.NotFound", "Specified access key is not found.")
        self._check_date(call.headers.get("x-acs-date", ""))
        signed = found["signed"].split(";")
        uncovered = [name for name in REQUIRED if name not in signed or not call.headers.get(name, "")]
        body_matches = call.headers.get("x-acs-content-sha256", "") == hashlib.sha256(call.body).hexdigest()
        expected = signature(call, signed, key_secret=self._key_secret)
        if uncovered or not body_matches or not hmac.compare_digest(expected, found["signature"]):
            raise HttpRefusal(400, "SignatureDoesNotMatch", _mismatch(call, self._key_id))
        self._use_nonce(call.headers.get("x-acs-signature-nonce", ""))

    def _check_date(self, date: str) -> None:
        try:
            at = calendar.timegm(time.strptime(date, "%Y-%m-%dT%H:%M:%SZ"))
        except ValueError as error:
            raise HttpRefusal(
                400, "InvalidTimeStamp.Format", "Specified time stamp or date value is not well formatted."
            ) from error
        if abs(self._clock() - at) > TOLERANCE_SECONDS:
            raise HttpRefusal(400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired.")

    def _use_nonce(self, nonce: str) -> None:
        now = self._clock()
        # oldest first: dicts keep the order of insertion
        while self._nonces and now - next(iter(self._nonces.values())) > 2 * TOLERANCE_SECONDS:
            del self._nonces[next(iter(self._nonces))]
        if nonce in self._nonces:
            raise HttpRefusal(400, "SignatureNonceUsed", "Specified signature nonce was used already.")
        self._nonces[nonce] = now


def signature(call: Call, signed: Sequence[str], *, key_secret: str) -> str:
    """Return the lowercase hex signature of a call over the named headers."""
    query = sorted(parse_qsl(call.query, keep_blank_values=True))
    canonical_query = "&".join(f"{quote(key, safe='~')}={quote(value, safe='~')}" for key, value in query)
    lines = "".join(
        f"{name}:{','.join(sorted(value.strip() for value in call.headers.getall(name, ())))}\n" for name in signed
    )
    digest = hashlib.sha256(call.body).hexdigest()
    canonical = f"{call.method}\n{call.path}\n{canonical_query}\n{lines}\n{';'.join(signed)}\n{digest}"
    string_to_sign = f"{ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    return hmac.new(key_secret.encode(), string_to_sign.encode(), hashlib.sha256).hexdigest()


def _mismatch(call: Call, key_id: str) -> str:
    """Say it as the gateway does: with every parameter of the call in it, the seed too."""
    parameters: Mapping[str, str] = {
        **dict(parse_qsl(call.body.decode("utf-8", "replace"), keep_blank_values=True)),
        "AccessKeyId": key_id,
        "Action": call.headers.get("x-acs-action", ""),
        "Version": call.headers.get("x-acs-version", ""),
    }
    pairs = "&".join(f"{quote(key, safe='~')}={quote(value, safe='~')}" for key, value in sorted(parameters.items()))
    return (
        "Specified signature is not matched with our calculation. "
        f"server string to sign is:{call.method}&%2F&{quote(pairs, safe='~')}"
    )
