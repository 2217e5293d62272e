"""What a sandbox is started with: its address, its credentials, its timing and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sm3Scheme = Literal["digest", "hmac"]
CallbackShape = Literal["envelope", "bare", "camel"]
CallbackEncoding = Literal["form", "multipart", "json"]


@dataclass(frozen=True, kw_only=True)
class SandboxConfig:
    """How one sandbox behaves; limits and lifetimes are the vendor's (voice-moderation.txt).

    Attributes:
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        public_url: base URL in links to segments, where it is not `http://host:port`.
        access_key_id: the only AccessKey whose signatures are accepted.
        access_key_secret: its secret; made up, like everything here.
        uid: the account UID that enters every checksum.
        sm3_scheme: what `cryptType` SM3 means, which the vendor leaves open.
        callback_shape: what `content` holds: the whole envelope, its `Data` alone, or one camelCase object.
        callback_encoding: how `checksum`, `content` and `taskId` are sent.
        task_id_in_data: whether `Data` names the `TaskId`, as newer SDK models have it.
        moderation_delay_seconds: how long a file takes.
        resend_interval_seconds: pause before a callback that was not answered 200 is sent again.
        callback_timeout_seconds: how long a callback's answer is waited for.
        callback_retries: sends after the first.
        submits_per_second: submissions accepted within any second; more get 403.
        queries_per_second: likewise for queries.
        concurrent_streams: live tasks at a time; more get 480.
        recent_slices: how many slices the query of a running stream shows.
        result_ttl_seconds: how long a result can be queried after its end.
        upload_ttl_seconds: how long an uploaded object is kept.
        segment_ttl_seconds: how long a slice's audio can be fetched.
    """

    host: str = "127.0.0.1"
    port: int = 9000
    public_url: str | None = None
    access_key_id: str = "sandbox"
    access_key_secret: str = "sandbox-secret"  # noqa: S105 - opens nothing but this program
    uid: str = "1234567890123456"
    sm3_scheme: Sm3Scheme = "digest"
    callback_shape: CallbackShape = "envelope"
    callback_encoding: CallbackEncoding = "form"
    task_id_in_data: bool = True
    moderation_delay_seconds: float = 0.3
    resend_interval_seconds: float = 1.0
    callback_timeout_seconds: float = 10.0
    callback_retries: int = 16
    submits_per_second: int = 100
    queries_per_second: int = 100
    concurrent_streams: int = 50
    recent_slices: int = 10
    result_ttl_seconds: float = 24 * 3600
    upload_ttl_seconds: float = 30 * 60
    segment_ttl_seconds: float = 30 * 60
