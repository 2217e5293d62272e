"""Uploads by the official object storage SDK: token, object, submit by bucket and object."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

import alibabacloud_oss_v2 as oss
import pytest
import requests

from tests.waiting import until
from webhook.sandbox import uploads

from .test_authorization import at, post, signed
from .vendor import put_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Sandbox


def submit(sandbox: Sandbox, token: dict[str, Any], name: str) -> dict[str, Any]:
    answer = sandbox.vendor.submit(ossBucketName=token["BucketName"], ossObjectName=name)
    task_id = answer["Data"]["TaskId"]
    return until(lambda: next((b for b in [sandbox.vendor.query(task_id)] if b["Code"] != 280), None))


def service_error(caught: pytest.ExceptionInfo[Any]) -> Any:
    return caught.value.unwrap()


def test_the_token_has_the_vendors_fields(sandbox: Sandbox) -> None:
    body = sandbox.vendor.upload_token()
    assert body["Code"] == 200
    assert body["Msg"] == "OK"
    assert "Message" not in body
    token = body["Data"]
    assert set(token) == {
        *("AccessKeyId", "AccessKeySecret", "SecurityToken", "BucketName", "FileNamePrefix"),
        *("OssInternetEndPoint", "OssInternalEndPoint", "Expiration"),
    }
    assert token["Expiration"] > time.time()


@pytest.mark.parametrize("version", ["v4", "v1"])
@pytest.mark.parametrize("name", ["a.wav", "ein Stück +%20&=?.wav", "多/深.wav"])
def test_an_object_put_by_the_sdk_can_be_moderated(sandbox: Sandbox, version: str, name: str) -> None:
    token = sandbox.vendor.upload_token()["Data"]
    content = b"RIFF" + bytes(range(256)) * 1000
    result = put_object(token, f"{token['FileNamePrefix']}{name}", content, version=version)
    assert result.status_code == 200
    assert (result.etag or "").strip('"') == hashlib.md5(content, usedforsecurity=False).hexdigest().upper()
    body = submit(sandbox, token, f"{token['FileNamePrefix']}{name}")
    assert body["Code"] == 200
    assert body["Data"]["RiskLevel"] == "none"


def test_a_sample_keeps_its_magic_when_uploaded_under_another_name(sandbox: Sandbox) -> None:
    token = sandbox.vendor.upload_token()["Data"]
    content = sandbox.get("/samples/political_entity.mp3?slices=5").content
    put_object(token, f"{token['FileNamePrefix']}0c1d.wav", content)
    data = submit(sandbox, token, f"{token['FileNamePrefix']}0c1d.wav")["Data"]
    assert data["RiskLevel"] == "high"
    assert len(data["SliceDetails"]) == 5


def test_an_objects_name_can_choose_the_outcome(sandbox: Sandbox) -> None:
    token = sandbox.vendor.upload_token()["Data"]
    put_object(token, f"{token['FileNamePrefix']}medium.wav", b"sound")
    assert submit(sandbox, token, f"{token['FileNamePrefix']}medium.wav")["Data"]["RiskLevel"] == "medium"


def test_what_was_never_uploaded_cannot_be_downloaded(sandbox: Sandbox) -> None:
    token = sandbox.vendor.upload_token()["Data"]
    assert submit(sandbox, token, f"{token['FileNamePrefix']}nothing.wav")["Code"] == 404


def test_uploads_are_forgotten_after_half_an_hour(start_sandbox: Callable[..., Sandbox]) -> None:
    ahead = [0.0]
    sandbox = start_sandbox(clock=lambda: time.time() + ahead[0], upload_ttl_seconds=300)
    token = sandbox.vendor.upload_token()["Data"]
    name = f"{token['FileNamePrefix']}a.wav"
    put_object(token, name, b"first")
    put_object(token, name, b"second")
    assert submit(sandbox, token, name)["Code"] == 200
    ahead[0] = 600
    assert submit(sandbox, token, name)["Code"] == 404


def test_too_much_on_disk_drops_the_oldest(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_STORED_BYTES", 10)
    token = sandbox.vendor.upload_token()["Data"]
    for name in ("1.wav", "2.wav"):
        put_object(token, token["FileNamePrefix"] + name, b"123456")
    assert submit(sandbox, token, f"{token['FileNamePrefix']}1.wav")["Code"] == 404
    assert submit(sandbox, token, f"{token['FileNamePrefix']}2.wav")["Code"] == 200


@pytest.mark.parametrize(
    ("change", "version", "code"),
    [
        ({"AccessKeyId": "STS.other"}, "v4", "InvalidAccessKeyId"),
        ({"AccessKeySecret": "other"}, "v4", "SignatureDoesNotMatch"),
        ({"SecurityToken": "other"}, "v4", "InvalidSecurityToken"),
        ({"SecurityToken": "other"}, "v1", "InvalidSecurityToken"),
        ({"BucketName": "another-bucket"}, "v4", "NoSuchBucket"),
        ({"FileNamePrefix": "elsewhere/"}, "v4", "AccessDenied"),
    ],
)
def test_wrong_credentials_are_refused(sandbox: Sandbox, change: dict[str, str], version: str, code: str) -> None:
    token = {**sandbox.vendor.upload_token()["Data"], **change}
    with pytest.raises(oss.exceptions.OperationError) as caught:
        put_object(token, f"{token['FileNamePrefix']}a.wav", b"x", version=version)
    assert service_error(caught).code == code


def test_an_expired_token_is_refused(start_sandbox: Callable[..., Sandbox]) -> None:
    ahead = [0.0]
    sandbox = start_sandbox(clock=lambda: time.time() + ahead[0])
    token = sandbox.vendor.upload_token()["Data"]
    ahead[0] = 3601
    with pytest.raises(oss.exceptions.OperationError) as caught:
        put_object(token, f"{token['FileNamePrefix']}a.wav", b"x")
    assert service_error(caught).code == "SecurityTokenExpired"


def test_old_tokens_are_forgotten(start_sandbox: Callable[..., Sandbox]) -> None:
    ahead = [0.0]
    sandbox = start_sandbox(clock=lambda: time.time() + ahead[0])
    token = sandbox.vendor.upload_token()["Data"]
    ahead[0] = 3601
    assert post(sandbox, signed(sandbox, {"date": at(time.time() + 3601)})) == (200, 200)
    with pytest.raises(oss.exceptions.OperationError) as caught:
        put_object(token, f"{token['FileNamePrefix']}a.wav", b"x")
    assert service_error(caught).code == "InvalidAccessKeyId"


def test_too_large_an_object_is_refused(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_OBJECT_BYTES", 1000)
    token = sandbox.vendor.upload_token()["Data"]
    with pytest.raises(oss.exceptions.OperationError) as caught:
        put_object(token, f"{token['FileNamePrefix']}a.wav", b"x" * 1001)
    assert service_error(caught).code == "EntityTooLarge"


def test_an_unsigned_put_is_refused(sandbox: Sandbox) -> None:
    answer = requests.put(f"{sandbox.url}/sandbox-uploads/upload/a.wav", data=b"x", timeout=5)
    assert answer.status_code == 403
    assert "<Code>AccessDenied</Code>" in answer.text


def test_the_bucket_may_stand_in_the_host_name(sandbox: Sandbox) -> None:
    headers = {"Host": f"sandbox-uploads.localhost:{sandbox.running.port}"}
    answer = requests.put(f"{sandbox.url}/upload/a.wav", data=b"x", headers=headers, timeout=5)
    assert "<HostId>sandbox-uploads.localhost" in answer.text
    token = sandbox.vendor.upload_token()["Data"]
    plain = {
        **headers,
        "Authorization": f"OSS {token['AccessKeyId']}:x",
        "x-oss-security-token": token["SecurityToken"],
    }
    name = f"{token['FileNamePrefix']}a.wav"
    assert requests.put(f"{sandbox.url}/{name}", data=b"x", headers=plain, timeout=5).status_code == 200
    assert submit(sandbox, token, name)["Code"] == 200
