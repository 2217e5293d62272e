"""Calls of the platform through its official SDK, with its errors sorted by what to do about them.

The SDK is imported when a client is made: it costs 0.25 s and 54 MB, and only the worker needs it. Its
messages never leave this module: a refused signature echoes our parameters, the seed included.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from webhook import codes
from webhook.codes import Remedy
from webhook.errors import OutcomeUnknown, PlatformBusy, PlatformRefused

if TYPE_CHECKING:
    from collections.abc import Callable

_CONNECT_TIMEOUT_MS = 5_000
_READ_TIMEOUT_MS = 10_000
CALL_TIMEOUT_SECONDS = (_CONNECT_TIMEOUT_MS + _READ_TIMEOUT_MS) / 1000
_PROBE_TIMEOUT_MS = 4_000
_PROBE_TASK_ID = "webhook-doctor"  # of no task
_PROBE_PASSES = frozenset({"in_progress", "rate_limited", "source_unreachable"})  # it was let in all the same

_SERVER_ERROR = 500
_CREDENTIALS = PlatformBusy(
    code=None,
    reason="not_authorized",
    message="The platform refused our signature. Check ALIBABA_CLOUD_ACCESS_KEY_ID and _SECRET, and the clock.",
)
# The gateway's code begins so: what it means for whoever runs the service.
_REFUSALS = {
    "InvalidAccessKeyId": "The platform does not know the AccessKey. Check ALIBABA_CLOUD_ACCESS_KEY_ID.",
    "SignatureDoesNotMatch": "The platform refused our signature. Check ALIBABA_CLOUD_ACCESS_KEY_SECRET.",
    "InvalidTimeStamp": "The platform refused our date: this machine's clock is off. Set it by NTP.",
    "InvalidSecurityToken": "The platform refused ALIBABA_CLOUD_SECURITY_TOKEN: it has expired, or is another key's.",
    "Forbidden": "The RAM user may not call the service. Grant it AliyunYundunGreenWebFullAccess.",
    "NoPermission": "The RAM user may not call the service. Grant it AliyunYundunGreenWebFullAccess.",
}
_UNREACHABLE = "The platform could not be reached. Check WEBHOOK_PLATFORM_ENDPOINT and this machine's network."
_LOST = "The platform's answer was lost; the task may have been accepted."


class PlatformClient:
    """One account's client; it keeps a connection, and may be used by several threads.

    Args:
        endpoint: base URL, https or (for the sandbox) http.
    """

    def __init__(
        self, *, endpoint: str, access_key_id: str, access_key_secret: str, security_token: str | None
    ) -> None:
        from alibabacloud_green20220302 import models
        from alibabacloud_green20220302.client import Client
        from alibabacloud_tea_openapi.utils_models._config import Config

        sdk_log = logging.getLogger("darabonba-core")  # the SDK prints every request to it, our seeds included
        sdk_log.handlers.clear()
        sdk_log.propagate = False
        parts = urlsplit(endpoint)
        self._models: Any = models
        make_config: Any = Config  # the SDK's annotations forbid None, its code expects it
        self._client: Any = Client(
            make_config(
                access_key_id=access_key_id,
                access_key_secret=access_key_secret,
                security_token=security_token,
                endpoint=parts.netloc,
                protocol=parts.scheme,
                connect_timeout=_CONNECT_TIMEOUT_MS,
                read_timeout=_READ_TIMEOUT_MS,
            )
        )

    def submit(self, *, service: str, parameters: dict[str, str]) -> str:
        """Submit a task and return the platform's id of it.

        Raises:
            PlatformRefused, PlatformBusy: it was not accepted.
            OutcomeUnknown: it may have been accepted.
        """
        request = self._models.VoiceModerationRequest(service=service, service_parameters=_json(parameters))
        body = self._call(self._client.voice_moderation, request)
        task_id = (body.get("Data") or {}).get("TaskId")
        if not isinstance(task_id, str) or not task_id:
            raise OutcomeUnknown(code=codes.OK, reason="submit_outcome_unknown", message=_LOST)
        return task_id

    def cancel(self, *, service: str, platform_task_id: str) -> None:
        """Cancel a stream's task.

        Raises:
            PlatformRefused, PlatformBusy, OutcomeUnknown: it was not, or may not have been, canceled.
        """
        request = self._models.VoiceModerationCancelRequest(
            service=service, service_parameters=_json({"taskId": platform_task_id})
        )
        self._call(self._client.voice_moderation_cancel, request)

    def probe(self, *, service: str) -> None:
        """Ask for a task that does not exist: it costs nothing, and shows whether any call would pass.

        Raises:
            PlatformBusy: none would; the message says what to do about it.
        """
        from darabonba.runtime import RuntimeOptions

        request = self._models.VoiceModerationResultRequest(
            service=service, service_parameters=_json({"taskId": _PROBE_TASK_ID})
        )
        patience = RuntimeOptions(connect_timeout=_PROBE_TIMEOUT_MS, read_timeout=_PROBE_TIMEOUT_MS)
        try:
            self._call(lambda query: self._client.voice_moderation_result_with_options(query, patience), request)
        except PlatformRefused:
            return  # it was let in, and the task is not known
        except OutcomeUnknown:
            raise PlatformBusy(code=None, reason="platform_unreachable", message=_UNREACHABLE) from None
        except PlatformBusy as error:
            if error.reason not in _PROBE_PASSES:
                raise

    def _call(self, operation: Callable[[Any], Any], request: Any) -> dict[str, Any]:
        """Make a call and return its body once the platform has proceeded."""
        from alibabacloud_tea_openapi.exceptions._alibaba_cloud import AlibabaCloudException
        from darabonba.exceptions import DaraException
        from Tea.exceptions import TeaException

        try:
            answer = operation(request)
        except AlibabaCloudException as error:
            raise _http_error(error) from None  # the SDK's own message may hold our seed
        except (DaraException, TeaException, OSError, ValueError) as error:
            raise _transport_error(error) from None
        body: dict[str, Any] = answer.body.to_map() if answer.body is not None else {}
        code = body.get("Code")
        row = codes.code_of(code if isinstance(code, int) else None)
        if row.remedy is Remedy.PROCEED:
            return body
        kind = PlatformRefused if row.remedy is Remedy.FAIL else PlatformBusy
        raise kind(code=code if isinstance(code, int) else None, reason=row.reason, message=row.message)


def _json(parameters: dict[str, str]) -> str:
    return msgspec.json.encode(parameters).decode()


def _http_error(error: Any) -> PlatformRefused | PlatformBusy:
    """Sort an error that the platform's gateway answered: it was not accepted."""
    status = error.status_code or 0
    name = type(error).__name__
    if name == "ThrottlingException":
        row = codes.CODES[403]
        return PlatformBusy(code=status, reason=row.reason, message=row.message)
    if status >= _SERVER_ERROR:
        row = codes.CODES[500]
        return PlatformBusy(code=status, reason=row.reason, message=row.message)
    # a wrong key, signature or clock concerns every task alike: keep them until it is mended
    message = next((said for code, said in _REFUSALS.items() if str(error.code).startswith(code)), _CREDENTIALS.message)
    return PlatformBusy(code=status, reason=_CREDENTIALS.reason, message=message)


def _transport_error(error: BaseException) -> PlatformBusy | OutcomeUnknown:
    """Sort an error without an answer: what never connected was not sent, anything else may have been."""
    from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

    cause: BaseException | None = getattr(error, "inner_exception", error)
    while cause is not None:
        if isinstance(cause, ConnectTimeoutError | NewConnectionError):
            return PlatformBusy(code=None, reason="platform_unreachable", message=_UNREACHABLE)
        cause = cause.__cause__ or cause.__context__
    return OutcomeUnknown(code=None, reason="submit_outcome_unknown", message=_LOST)
