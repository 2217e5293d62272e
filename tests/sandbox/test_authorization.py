"""Signatures, beyond what the SDK can be made to send: each call is signed by the SDK's own function, then spoilt.

Origin: `alibabacloud_tea_openapi.utils.Utils.get_authorization` signs.
"""

from __future__ import annotations

import hashlib
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
import requests
from alibabacloud_tea_openapi.utils import Utils
from darabonba.request import DaraRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .conftest import Sandbox

ALGORITHM = "ACS3-HMAC-SHA256"
NONE: Mapping[str, str] = MappingProxyType({})

Headers = dict[str, str]


def at(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def signed(
    sandbox: Sandbox, changes: Mapping[str, str] = NONE, *, body: str = "", query: Mapping[str, str] = NONE
) -> Headers:
    """Return the headers of a call with a good signature over whatever the changes make of it."""
    request: Any = DaraRequest()  # type: ignore[no-untyped-call]
    request.method, request.pathname, request.query = "POST", "/", dict(query)
    request.headers = {
        "host": sandbox.address,
        "x-acs-action": "DescribeUploadToken",
        "x-acs-version": "2022-03-02",
        "x-acs-date": at(time.time()),
        "x-acs-signature-nonce": Utils.get_nonce(),
        "x-acs-content-sha256": hashlib.sha256(body.encode()).hexdigest(),
        **{f"x-acs-{name}": value for name, value in changes.items()},
    }
    digest = request.headers["x-acs-content-sha256"]
    sign: Any = Utils.get_authorization
    return {**request.headers, "Authorization": sign(request, ALGORITHM, digest, "sandbox", "sandbox-secret")}


def post(sandbox: Sandbox, headers: dict[str, str], *, body: str = "", query: str = "") -> tuple[int, Any]:
    answer = requests.post(f"{sandbox.url}/{query}", data=body.encode(), headers=headers, timeout=5)
    return answer.status_code, answer.json()["Code"]


def test_a_good_signature_is_good_once(sandbox: Sandbox) -> None:
    headers = signed(sandbox)
    assert post(sandbox, headers) == (200, 200)
    assert post(sandbox, headers) == (400, "SignatureNonceUsed")


def test_the_query_is_signed_too(sandbox: Sandbox) -> None:
    query = {"b": "1 ~+/", "a": "ü"}
    assert post(sandbox, signed(sandbox, query=query), query=f"?{urlencode(query)}") == (200, 200)
    assert post(sandbox, signed(sandbox, query=query), query="?a=x") == (400, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"action": "DeleteEverything"}, 404, "InvalidAction.NotFound"),
        ({"version": "2019-01-01"}, 400, "InvalidVersion"),
        ({"date": "yesterday"}, 400, "InvalidTimeStamp.Format"),
        ({"date": at(time.time() - 1000)}, 400, "InvalidTimeStamp.Expired"),
        ({"date": at(time.time() + 100_000)}, 400, "InvalidTimeStamp.Expired"),
        ({"content-sha256": "0" * 64}, 400, "SignatureDoesNotMatch"),
    ],
)
def test_well_signed_nonsense_is_refused(sandbox: Sandbox, changes: dict[str, str], status: int, code: str) -> None:
    assert post(sandbox, signed(sandbox, changes)) == (status, code)


def test_what_was_altered_on_the_way_is_refused(sandbox: Sandbox) -> None:
    body = urlencode({"Service": "audio_detection_byllm_global"})
    call = {"action": "VoiceModeration"}
    assert post(sandbox, signed(sandbox, call, body=body), body=body) == (200, 400)
    assert post(sandbox, signed(sandbox, call, body=body), body=f"{body}x") == (400, "SignatureDoesNotMatch")
    headers = signed(sandbox, call, body=body)
    headers["x-acs-signature-nonce"] = "another"
    assert post(sandbox, headers, body=body) == (400, "SignatureDoesNotMatch")


def test_a_signature_over_too_few_headers_is_refused(sandbox: Sandbox) -> None:
    headers = signed(sandbox)
    headers["Authorization"] = headers["Authorization"].replace("host;", "")
    assert post(sandbox, headers) == (400, "SignatureDoesNotMatch")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        ("", "MissingAccessKeyId"),
        ("Bearer x", "IncompleteSignature"),
        ("ACS3-HMAC-SM3 Credential=sandbox,SignedHeaders=host,Signature=00", "IncompleteSignature"),
        ("ACS3-HMAC-SHA256 Credential=sandbox,SignedHeaders=host,Signature=zz", "IncompleteSignature"),
    ],
)
def test_other_authorizations_are_refused(sandbox: Sandbox, authorization: str, code: str) -> None:
    assert post(sandbox, {**signed(sandbox), "Authorization": authorization}) == (400, code)


def test_an_error_has_the_gateways_five_fields(sandbox: Sandbox) -> None:
    answer = requests.post(sandbox.url, headers={"x-acs-action": "No"}, timeout=5)
    assert set(answer.json()) == {"Recommend", "Message", "RequestId", "HostId", "Code"}


def test_a_nonce_is_forgotten_when_its_date_would_be_refused_anyway(start_sandbox: Callable[..., Sandbox]) -> None:
    ahead = [0.0]
    sandbox = start_sandbox(clock=lambda: time.time() + ahead[0])
    assert post(sandbox, signed(sandbox, {"signature-nonce": "n"})) == (200, 200)
    ahead[0] = 2000
    assert post(sandbox, signed(sandbox, {"signature-nonce": "n", "date": at(time.time() + 2000)})) == (200, 200)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", 400),
        ("Service=audio_detection_byllm_global&ServiceParameters=%FF", 401),
        ("Service=audio_detection_byllm_global", 400),
        ("Service=audio_detection_byllm_global&ServiceParameters={", 401),
        ("Service=audio_detection_byllm_global&ServiceParameters=[]", 401),
        (f"Service=audio_detection_byllm_global&ServiceParameters={'[' * 100_000}", 401),
    ],
)
def test_malformed_forms_get_the_vendors_codes(sandbox: Sandbox, body: str, code: int) -> None:
    assert post(sandbox, signed(sandbox, {"action": "VoiceModeration"}, body=body), body=body) == (200, code)
