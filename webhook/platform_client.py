"""Calls of the platform through its official SDK, with its errors sorted by what to do about them.

The SDK is imported when a client is made: it costs 0.25 s and 54 MB, and only the worker needs it. Its
messages never leave this module: a refused signature echoes our parameters, the seed included.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
import threading
import uuid
from ipaddress import ip_address
from ssl import SSLCertVerificationError, TLSVersion
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from webhook import codes, payloads
from webhook.codes import Remedy
from webhook.errors import OutcomeUnknown, PlatformBusy, PlatformRefused, Unreadable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from webhook.payloads import Result

_CONNECT_TIMEOUT_MS = 5_000
_READ_TIMEOUT_MS = 10_000
CALL_TIMEOUT_SECONDS = (_CONNECT_TIMEOUT_MS + _READ_TIMEOUT_MS) / 1000
_PROBE_TIMEOUT_MS = 4_000
_PROBE_TASK_ID = "webhook-doctor"  # of no task
_PROBE_PASSES = frozenset({"in_progress", "rate_limited", "source_unreachable"})  # it was let in all the same

MINIMUM_TLS = TLSVersion.TLSv1_2
_SDK_NAMES = {TLSVersion.TLSv1_2: "TLSv1.2", TLSVersion.TLSv1_3: "TLSv1.3"}

_SERVER_ERROR = 500
_CREDENTIALS = PlatformBusy(
    code=None,
    reason="not_authorized",
    message="The platform refused our signature. Check ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET, and the clock.",
)
# The gateway's code begins so: it turns the account away, not the call.
_REFUSALS = {
    "InvalidAccessKeyId": "The platform does not know the AccessKey. Check ALIBABA_CLOUD_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "The platform refused our signature. Check ALIBABA_CLOUD_ACCESS_KEY_SECRET.",
    "IncompleteSignature": _CREDENTIALS.message,
    "MissingAccessKeyId": _CREDENTIALS.message,
    "InvalidTimeStamp": "The platform refused our date: this machine's clock is off. Set it by NTP.",
    "InvalidSecurityToken": "The platform refused ALIBABA_CLOUD_SECURITY_TOKEN: it has expired, or is another key's.",
    "Forbidden": "The RAM user may not call the service. Grant it AliyunYundunGreenWebFullAccess.",
    "NoPermission": "The RAM user may not call the service. Grant it AliyunYundunGreenWebFullAccess.",
    "Unauthorized": "The RAM user may not call the service. Grant it AliyunYundunGreenWebFullAccess.",
}
_TURNED_AWAY = frozenset({401, 403})
_NO_SUCH_API = frozenset({404, 405})  # some other server answers there
_TOO_MANY = 429
_UNREACHABLE = "The platform could not be reached. Check WEBHOOK_PLATFORM_ENDPOINT and this machine's network."
_MISTRUSTED = (
    "The platform's certificate does not hold, so nothing was sent. Check WEBHOOK_PLATFORM_ENDPOINT, this machine's "
    "clock, and whether a proxy in between opens TLS."
)
_UPLOAD_FAILED = PlatformBusy(
    code=None, reason="upload_failed", message="The file could not be handed over to the platform's storage."
)
_UPLOAD_GONE = PlatformRefused(
    code=None, reason="upload_lost", message="The uploaded file is no longer on our disk. Upload it again."
)
_UNREADABLE = PlatformBusy(
    code=codes.OK, reason="platform_error", message="The platform's answer to the query was not understood."
)
_OSS_REGION = re.compile(r"oss-([a-z0-9-]+?)(?:-internal)?\.aliyuncs\.com")
_LOST = "The platform's answer was lost; the task may have been accepted."


class PlatformClient:
    """One account's client; it keeps a connection, and may be used by several threads.

    Args:
        endpoint: base URL, https or (for the sandbox) http.
        region: of the platform's storage, where its endpoint does not tell.
    """

    def __init__(
        self, *, endpoint: str, region: str, access_key_id: str, access_key_secret: str, security_token: str | None
    ) -> None:
        sdk_log = logging.getLogger("darabonba-core")  # the SDK prints every request to it, our seeds included
        sdk_log.handlers.clear()
        sdk_log.propagate = False
        parts = urlsplit(endpoint)
        self._region = region
        self._client: Any = _sdk("alibabacloud_green20220302.client").Client(
            _sdk("alibabacloud_tea_openapi.utils_models._config").Config(
                access_key_id=access_key_id,
                access_key_secret=access_key_secret,
                security_token=security_token,
                endpoint=parts.netloc,
                protocol=parts.scheme,
                connect_timeout=_CONNECT_TIMEOUT_MS,
                read_timeout=_READ_TIMEOUT_MS,
                tls_min_version=_SDK_NAMES[MINIMUM_TLS],
            )
        )

    def minimum_tls(self) -> TLSVersion:
        """Return the oldest TLS that the SDK's connections speak, read from what makes them."""
        adapter = _sdk("darabonba.core").DaraCore.get_adapter("https", self._client._tls_min_version)  # noqa: SLF001
        return TLSVersion(adapter.poolmanager.connection_pool_kw["ssl_context"].minimum_version)

    def submit(self, *, service: str, parameters: dict[str, str]) -> str:
        """Submit a task and return the platform's id of it.

        Raises:
            PlatformRefused, PlatformBusy: it was not accepted.
            OutcomeUnknown: it may have been accepted.
        """
        answer = self._proceeded(self._call("VoiceModeration", service=service, parameters=parameters))
        task_id = answer.data.get("TaskId") if isinstance(answer.data, dict) else None
        if not isinstance(task_id, str) or not task_id:
            raise OutcomeUnknown(code=codes.OK, reason="submit_outcome_unknown", message=_LOST)
        return task_id

    def query(self, *, service: str, platform_task_id: str) -> Result:
        """Ask how a task stands.

        Returns:
            What a callback would say: the result (code 200), that it goes on (280), or why the task failed.

        Raises:
            PlatformRefused: the platform does not know the task, or no longer.
            PlatformBusy, OutcomeUnknown: it did not say.
        """
        body = self._call("VoiceModerationResult", service=service, parameters={"taskId": platform_task_id})
        try:
            result = payloads.parse(body)
        except Unreadable:
            result = None
        if result is None or not codes.code_of(result.code).of_task:
            self._proceeded(body)
            raise _UNREADABLE
        return result

    def cancel(self, *, service: str, platform_task_id: str) -> None:
        """Cancel a stream's task.

        Raises:
            PlatformRefused, PlatformBusy, OutcomeUnknown: it was not, or may not have been, canceled.
        """
        parameters = {"taskId": platform_task_id}
        self._proceeded(self._call("VoiceModerationCancel", service=service, parameters=parameters))

    def upload(self, path: Path, *, extension: str, progress: Callable[[], None]) -> dict[str, str]:
        """Hand a file over to the platform's own storage, which keeps it for 30 minutes; it is read piece by piece.

        Args:
            extension: of the file's name, which tells the platform its format.
            progress: called from time to time while it goes out.

        Returns:
            Where it lies: `bucket` and `object`.

        Raises:
            PlatformRefused, PlatformBusy, OutcomeUnknown: it does not lie there.
        """
        oss = _sdk("alibabacloud_oss_v2")
        body = self._call("DescribeUploadToken")
        self._proceeded(body)
        try:
            token = msgspec.json.decode(body, type=_UploadAnswer).data
        except msgspec.MsgspecError:
            raise _UPLOAD_FAILED from None
        config = oss.config.load_default()
        config.credentials_provider = oss.credentials.StaticCredentialsProvider(
            token.key_id, token.key_secret, token.security_token
        )
        config.endpoint = token.endpoint
        region = _OSS_REGION.search(token.endpoint)
        config.region = region[1] if region else self._region
        config.use_path_style = _is_address(token.endpoint)
        place = {"bucket": token.bucket, "object": f"{token.prefix}{uuid.uuid4().hex}.{extension}"}
        try:
            with path.open("rb") as file:
                oss.client.Client(config).put_object(
                    oss.PutObjectRequest(
                        bucket=place["bucket"], key=place["object"], body=file, progress_fn=lambda *_: progress()
                    )
                )
        except FileNotFoundError:
            raise _UPLOAD_GONE from None
        except oss.exceptions.BaseError:
            raise _UPLOAD_FAILED from None
        return place

    def probe(self, *, service: str) -> None:
        """Ask for a task that does not exist: it costs nothing, and shows whether any call would pass.

        Raises:
            PlatformBusy: none would; the message says what to do about it.
        """
        try:
            self._proceeded(
                self._call(
                    "VoiceModerationResult",
                    service=service,
                    parameters={"taskId": _PROBE_TASK_ID},
                    timeout_ms=_PROBE_TIMEOUT_MS,
                )
            )
        except PlatformRefused:
            return  # it was let in, and the task is not known
        except OutcomeUnknown:
            raise PlatformBusy(code=None, reason="platform_unreachable", message=_UNREACHABLE) from None
        except PlatformBusy as error:
            if error.reason not in _PROBE_PASSES:
                raise

    def _call(
        self,
        action: str,
        *,
        service: str | None = None,
        parameters: dict[str, str] | None = None,
        timeout_ms: int | None = None,
    ) -> bytes:
        """Make a call, and return the body of an answer of 200.

        The SDK's generic call, since its typed ones drop fields that their models lack.
        """
        from alibabacloud_tea_openapi.exceptions._alibaba_cloud import AlibabaCloudException
        from alibabacloud_tea_openapi.utils_models._open_api_request import OpenApiRequest
        from alibabacloud_tea_openapi.utils_models._params import Params
        from darabonba.exceptions import DaraException
        from darabonba.runtime import RuntimeOptions
        from Tea.exceptions import TeaException

        call = Params(
            action=action,
            version="2022-03-02",
            protocol="HTTPS",
            pathname="/",
            method="POST",
            auth_type="AK",
            style="RPC",
            req_body_type="formData",
            body_type="string",
        )
        fields = {} if service is None else {"Service": service, "ServiceParameters": _encoded(parameters or {})}
        make_patience: Any = RuntimeOptions  # annotated as the SDK's other types are
        patience = make_patience(connect_timeout=timeout_ms, read_timeout=timeout_ms)
        try:
            answer = self._client.call_api(call, OpenApiRequest(body=fields), patience)
        except AlibabaCloudException as error:
            raise _http_error(error) from None  # the SDK's own message may hold our seed
        except (DaraException, TeaException, OSError, ValueError, AttributeError) as error:
            raise _transport_error(error) from None
        return str(answer["body"]).encode()

    @staticmethod
    def _proceeded(body: bytes) -> _Answer:
        """Return an answer by which the platform did what it was asked.

        Raises:
            PlatformRefused, PlatformBusy: it did not.
            OutcomeUnknown: it cannot be read.
        """
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise OutcomeUnknown(code=None, reason="submit_outcome_unknown", message=_LOST) from None
        code = payloads.whole_number(answer.code)
        row = codes.code_of(code)
        if row.remedy is Remedy.PROCEED:
            return answer
        kind = PlatformRefused if row.remedy is Remedy.FAIL else PlatformBusy
        raise kind(code=code, reason=row.reason, message=row.message)


class _Answer(msgspec.Struct, frozen=True):
    """What every answer has."""

    code: Any = msgspec.field(name="Code", default=None)
    data: Any = msgspec.field(name="Data", default=None)


class _UploadToken(msgspec.Struct, frozen=True):
    """What opens the platform's storage for an hour."""

    key_id: str = msgspec.field(name="AccessKeyId")
    key_secret: str = msgspec.field(name="AccessKeySecret")
    security_token: str = msgspec.field(name="SecurityToken")
    bucket: str = msgspec.field(name="BucketName")
    prefix: str = msgspec.field(name="FileNamePrefix")
    endpoint: str = msgspec.field(name="OssInternetEndPoint")


class _UploadAnswer(msgspec.Struct, frozen=True):
    data: _UploadToken = msgspec.field(name="Data")


def _sdk(name: str) -> Any:
    """Return a module of the SDK, which is large, and so loaded when it is first needed.

    What a load has left behind that failed, for want of descriptors or memory, would break every later one.
    """
    with _loading:
        before = set(sys.modules)
        try:
            return importlib.import_module(name)
        except BaseException:
            for loaded in sys.modules.keys() - before:
                if loaded.startswith(_SDK):
                    del sys.modules[loaded]
            raise


_SDK = ("alibabacloud_", "darabonba", "Tea")
_loading = threading.Lock()


def _is_address(endpoint: str) -> bool:
    """Whether an endpoint has no name under which a bucket could have a name of its own."""
    try:
        ip_address(urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").hostname or "")
    except ValueError:
        return False
    return True


def _encoded(parameters: dict[str, str]) -> str:
    return msgspec.json.encode(parameters).decode()


def _http_error(error: Any) -> PlatformRefused | PlatformBusy:
    """Sort an error that the platform's gateway answered: it was not accepted."""
    status, name = error.status_code or 0, str(error.code)
    refusal = next((said for code, said in _REFUSALS.items() if name.startswith(code)), None)
    if refusal is None and status in _TURNED_AWAY:
        refusal = _CREDENTIALS.message
    if type(error).__name__ == "ThrottlingException" or status == _TOO_MANY or name.startswith("Throttling"):
        row = codes.CODES[403]
    elif refusal is not None:
        # a wrong key, signature or clock concerns every task alike: keep them until it is mended
        return PlatformBusy(code=status, reason=_CREDENTIALS.reason, message=refusal)
    elif status in _NO_SUCH_API:
        return PlatformBusy(code=status, reason="platform_unreachable", message=_UNREACHABLE)
    elif status >= _SERVER_ERROR or name.startswith("SignatureNonceUsed"):
        row = codes.CODES[500]
    else:
        row = codes.CODES[401]
        return PlatformRefused(code=status, reason=row.reason, message=row.message)
    return PlatformBusy(code=status, reason=row.reason, message=row.message)


def _transport_error(error: BaseException) -> PlatformBusy | OutcomeUnknown:
    """Sort an error without an answer that can be read.

    What never connected was not sent. The SDK decodes the bodies of errors only, so one that it cannot decode was
    an error's. Anything else may have been accepted.
    """
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    cause: BaseException | None = getattr(error, "inner_exception", error)
    while cause is not None:
        if isinstance(cause, ConnectTimeoutError | NewConnectionError):
            return PlatformBusy(code=None, reason="platform_unreachable", message=_UNREACHABLE)
        if isinstance(cause, SSLCertVerificationError):
            return PlatformBusy(code=None, reason="platform_unreachable", message=_MISTRUSTED)
        if isinstance(cause, json.JSONDecodeError | UnicodeDecodeError | AttributeError):
            return PlatformBusy(code=None, reason=codes.CODES[500].reason, message=codes.CODES[500].message)
        cause = cause.__cause__ or cause.__context__
    return OutcomeUnknown(code=None, reason="submit_outcome_unknown", message=_LOST)
