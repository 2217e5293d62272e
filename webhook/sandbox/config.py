"""What a sandbox is started with: its address, its credentials, its timing, its limits and its faults.

The same fields are the options of `webhook sandbox`, and most can be changed while it runs: see `control`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

Sm3Scheme = Literal["digest", "hmac"]
CallbackShape = Literal["envelope", "bare", "camel"]
CallbackEncoding = Literal["form", "multipart", "json"]

ADDRESS = "Address and account"
TIMING = "Timing"
LIMITS = "Limits"
LIFETIMES = "Lifetimes"
SHAPES = "Shapes"
FAULTS = "Faults"

# what is said once, when it starts listening
FIXED = ("host", "port", "public_url", "access_key_id", "access_key_secret")


Count = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[float, Meta(gt=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Code = Annotated[int, Meta(ge=100, le=999)]
Outage = Annotated[str, Meta(pattern=r"^([45][0-9]{2}|html|throttle(:[0-9]{1,6})?|cut)\Z")]


def _told(group: str, text: str) -> Meta:
    return Meta(description=text, extra={"group": group})


class SandboxConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one sandbox behaves; limits and lifetimes are the vendor's (voice-moderation.txt)."""

    host: Annotated[str, _told(ADDRESS, "Address to listen on.")] = "127.0.0.1"
    port: Annotated[Port, _told(ADDRESS, "Port to listen on; 0 takes a free one.")] = 9000
    public_url: Annotated[
        str | None, _told(ADDRESS, "Base URL in links to segments, where it is not http://HOST:PORT.")
    ] = None
    access_key_id: Annotated[str, _told(ADDRESS, "The only AccessKey whose signatures are accepted.")] = "sandbox"
    access_key_secret: Annotated[str, _told(ADDRESS, "Its secret; it opens nothing else.")] = "sandbox-secret"  # noqa: S105 - indeed
    uid: Annotated[str, _told(ADDRESS, "Account UID that enters every checksum.")] = "1234567890123456"

    moderation_delay_seconds: Annotated[Seconds, _told(TIMING, "How long a file takes.")] = 0.3
    resend_interval_seconds: Annotated[
        Seconds, _told(TIMING, "Pause before a callback that was not answered 200 is sent again.")
    ] = 1.0
    callback_retries: Annotated[Count, _told(TIMING, "How often it is sent again.")] = 16
    callback_timeout_seconds: Annotated[Positive, _told(TIMING, "How long its answer is waited for.")] = 10.0

    submits_per_second: Annotated[Count, _told(LIMITS, "Submits within any second; more get 403.")] = 100
    queries_per_second: Annotated[Count, _told(LIMITS, "Queries within any second; more get 403.")] = 100
    concurrent_streams: Annotated[Count, _told(LIMITS, "Streams at a time; more get 480.")] = 50
    recent_slices: Annotated[Count, _told(LIMITS, "Slices that the query of a running stream shows.")] = 10

    result_ttl_seconds: Annotated[Seconds, _told(LIFETIMES, "How long a result can be queried after its end.")] = (
        86_400.0
    )
    upload_ttl_seconds: Annotated[Seconds, _told(LIFETIMES, "How long an uploaded file is kept.")] = 1800.0
    segment_ttl_seconds: Annotated[Seconds, _told(LIFETIMES, "How long a slice's audio can be fetched.")] = 1800.0
    time_scale: Annotated[
        Positive, _told(LIFETIMES, "One real second counts as so many for these lifetimes, and for nothing else.")
    ] = 1.0

    sm3_scheme: Annotated[Sm3Scheme, _told(SHAPES, "What cryptType SM3 means, which the vendor leaves open.")] = (
        "digest"
    )
    callback_shape: Annotated[
        CallbackShape, _told(SHAPES, "What content holds: the whole envelope, its Data alone, or one camelCase object.")
    ] = "envelope"
    callback_encoding: Annotated[CallbackEncoding, _told(SHAPES, "How callbacks are encoded.")] = "form"
    task_id_in_data: Annotated[bool, _told(SHAPES, "Whether Data names the TaskId, as newer SDK models have it.")] = (
        True
    )

    faults: Annotated[
        Probability,
        _told(
            FAULTS,
            "Probability with which a call is throttled, fails or loses its answer, "
            "and a callback is lost, late or doubled.",
        ),
    ] = 0.0
    seed: Annotated[int, _told(FAULTS, "Decides, with a source's name, which faults happen to it.")] = 0
    account_code: Annotated[Code | None, _told(FAULTS, "Every call is answered with this code, such as 408.")] = None
    outage: Annotated[Outage | None, _told(FAULTS, "Every call fails in HTTP: STATUS, html, throttle[:MS] or cut.")] = (
        None
    )


class ConfigError(ValueError):
    """A setting is unknown or has a wrong value; the message names it."""


def changed(config: SandboxConfig, changes: dict[str, Any]) -> SandboxConfig:
    """Return the configuration with some fields changed.

    Args:
        config: what it was.
        changes: new values by field, as JSON has them.

    Raises:
        ConfigError: no such field, or a wrong value.
    """
    try:
        return msgspec.convert({**msgspec.to_builtins(config), **changes}, SandboxConfig)
    except msgspec.ValidationError as error:
        # its sentences end in where it is, as a path from `$`
        wrong, _, field = str(error).partition(" - at `$.")
        raise ConfigError(f"{field.rstrip('`')}: {wrong}" if field else wrong) from error
