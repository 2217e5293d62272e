"""The vendor's own SDKs, pointed at a sandbox: `alibabacloud_green20220302` and `alibabacloud_oss_v2`."""

from __future__ import annotations

import json
from typing import Any

import alibabacloud_green20220302.models
import alibabacloud_oss_v2
from alibabacloud_green20220302.client import Client
from alibabacloud_tea_openapi.exceptions._client import ClientException
from alibabacloud_tea_openapi.exceptions._server import ServerException
from alibabacloud_tea_openapi.exceptions._throttling import ThrottlingException
from alibabacloud_tea_openapi.utils_models._config import Config

__all__ = ["AUDIO", "LIVE", "ClientException", "Json", "ServerException", "ThrottlingException", "Vendor", "put_object"]

# neither package exports its names explicitly
models: Any = alibabacloud_green20220302.models
oss: Any = alibabacloud_oss_v2

AUDIO = "audio_detection_byllm_global"
LIVE = "live_detection_byllm_global"

Json = dict[str, Any]


class Vendor:
    """The calls that the service makes, as plain dicts."""

    def __init__(self, address: str, *, key_id: str = "sandbox", key_secret: str | None = None) -> None:
        self.client = Client(
            Config(
                access_key_id=key_id,
                access_key_secret=key_secret or "sandbox-secret",
                endpoint=address,
                protocol="http",
                read_timeout=3000,
                connect_timeout=3000,
            )
        )

    def submit(self, *, service: str = AUDIO, **parameters: Any) -> Json:
        request = models.VoiceModerationRequest(service=service, service_parameters=json.dumps(parameters))
        return self._body(self.client.voice_moderation(request))

    def query(self, task_id: str, *, service: str = AUDIO) -> Json:
        request = models.VoiceModerationResultRequest(
            service=service, service_parameters=json.dumps({"taskId": task_id})
        )
        return self._body(self.client.voice_moderation_result(request))

    def cancel(self, task_id: str, *, service: str = LIVE) -> Json:
        request = models.VoiceModerationCancelRequest(
            service=service, service_parameters=json.dumps({"taskId": task_id})
        )
        return self._body(self.client.voice_moderation_cancel(request))

    def upload_token(self) -> Json:
        return self._body(self.client.describe_upload_token())

    @staticmethod
    def _body(response: Any) -> Json:
        assert response.status_code == 200
        body: Json = response.body.to_map()
        return body


def put_object(token: Json, name: str, content: bytes, *, version: str = "v4") -> Any:
    """Put an object with the credentials of an upload token, as the SDK's users do."""
    config = oss.config.load_default()
    config.credentials_provider = oss.credentials.StaticCredentialsProvider(
        token["AccessKeyId"], token["AccessKeySecret"], token["SecurityToken"]
    )
    config.region = "ap-southeast-1"
    config.endpoint = token["OssInternetEndPoint"]
    config.signature_version = version
    config.retry_max_attempts = 1
    client = oss.Client(config)
    return client.put_object(oss.PutObjectRequest(bucket=token["BucketName"], key=name, body=content))
