"""The service's settings: the only place that reads the environment.

Each setting is one field of `Settings`; its metadata names the variable, and tells how to read it and
how to mend it. The README's table is checked against these fields by a test.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webhook.errors import SettingError
from webhook.settings import values as read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta
    from ipaddress import IPv4Network, IPv6Network

_ENDPOINTS = {  # vendor-docs/voice-moderation, "Step 3": the LLM edition is in Singapore only
    "ap-southeast-1": "https://green-cip.ap-southeast-1.aliyuncs.com",
}
_MIB = 1024 * 1024
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # who listens everywhere is reached here


def _setting(
    variable: str, parse: Callable[[str], Any], *, default: str | None, mend: str, secret: bool = False
) -> Any:
    """Declare a field: read from `variable` by `parse`, which raises ValueError with what is wrong."""
    metadata = {"variable": variable, "parse": parse, "default": default, "mend": mend, "secret": secret}
    return dataclasses.field(metadata=metadata, repr=not secret)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings, read and checked once at start-up."""

    database_url: str = _setting(
        "WEBHOOK_DATABASE_URL",
        read.database_url,
        default="sqlite:///webhook.db",
        mend="Set it to a file, such as sqlite:///webhook.db, or to postgresql+psycopg://user:password@host/database.",
        secret=True,  # a server's may hold a password
    )
    bind: tuple[str, int] = _setting(
        "WEBHOOK_BIND", read.bind, default="127.0.0.1:8000", mend="Set it to an address such as 127.0.0.1:8000."
    )
    callback_bind: tuple[str, int] | None = _setting(
        "WEBHOOK_CALLBACK_BIND",
        read.bind,
        default=None,
        mend="Set it to an address of its own for callbacks, such as 127.0.0.1:8001, or leave it out.",
    )
    public_url: str | None = _setting(
        "WEBHOOK_PUBLIC_URL",
        read.base_url,
        default=None,
        mend="Set it to the URL under which the platform reaches this service, such as https://hooks.example.com.",
    )
    platform_uid: str | None = _setting(
        "WEBHOOK_PLATFORM_UID",
        read.uid,
        default=None,
        mend="Set it to the UID of the Alibaba Cloud account (top right in the console), not of a RAM user.",
    )
    platform_region: str = _setting(
        "WEBHOOK_PLATFORM_REGION",
        read.text,
        default="ap-southeast-1",
        mend="Set it to a region of the moderation service, such as ap-southeast-1.",
    )
    platform_endpoint: str = _setting(
        "WEBHOOK_PLATFORM_ENDPOINT",
        read.endpoint,
        default=None,
        mend="Set it to a URL such as http://127.0.0.1:9000 for the sandbox.",
    )
    access_key_id: str | None = _setting(
        "ALIBABA_CLOUD_ACCESS_KEY_ID", read.text, default=None, mend="Set it to a RAM user's AccessKey id."
    )
    access_key_secret: str | None = _setting(
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        read.text,
        default=None,
        mend="Set it to the secret of that AccessKey.",
        secret=True,
    )
    security_token: str | None = _setting(
        "ALIBABA_CLOUD_SECURITY_TOKEN",
        read.text,
        default=None,
        mend="Set it only together with a temporary AccessKey.",
        secret=True,
    )
    admin_key: str | None = _setting(
        "WEBHOOK_ADMIN_KEY",
        read.admin_key,
        default=None,
        mend="Set it to a random text of 32 characters or more, such as `openssl rand -hex 32` prints.",
        secret=True,
    )
    api_url: str = _setting(
        "WEBHOOK_API_URL",
        read.base_url,
        default=None,
        mend="Set it to the URL under which `webhook submit`, `watch` and `verdicts` reach the service, such as "
        "http://127.0.0.1:8000.",
    )
    api_key: str | None = _setting(
        "WEBHOOK_API_KEY",
        read.api_key,
        default=None,
        mend="Set it to a key that `webhook keys create` printed.",
        secret=True,
    )
    encryption_keys: dict[str, bytes] | None = _setting(
        "WEBHOOK_ENCRYPTION_KEYS",
        read.encryption_keys,
        default=None,
        mend="Set it to id:base64-of-32-bytes, comma separated, the active one first; "
        "`openssl rand -base64 32` makes a key.",
        secret=True,
    )
    data_key_period: timedelta = _setting(
        "WEBHOOK_DATA_KEY_DAYS",
        read.days(1, 3650),
        default="30",
        mend="Set it to the days for which values are sealed under one data key, such as 30.",
    )
    cipher_suite: str = _setting(
        "WEBHOOK_CIPHER_SUITE",
        read.one_of("aes-256-gcm", "sm4-gcm"),
        default="aes-256-gcm",
        mend="Set it to aes-256-gcm, or to sm4-gcm where Chinese commercial cryptography is asked for.",
    )
    allowed_private_networks: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "WEBHOOK_ALLOWED_PRIVATE_NETWORKS",
        read.networks,
        default=None,
        mend="Set it to networks such as 127.0.0.0/8,10.0.0.0/8.",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        "WEBHOOK_TRUSTED_PROXIES",
        read.networks,
        default=None,
        mend="Set it to the networks of the proxies before this service, such as 127.0.0.1/32,10.1.0.0/16.",
    )
    requests_per_second: int = _setting(
        "WEBHOOK_REQUESTS_PER_SECOND",
        read.whole(1, 100_000),
        default="200",
        mend="Set it to the requests to the REST API that each key may make in a second, such as 200.",
    )
    requests_at_once: int = _setting(
        "WEBHOOK_REQUESTS_AT_ONCE",
        read.whole(1, 1_000_000),
        default="2000",
        mend="Set it to the requests to the REST API that a key may make at once after a rest, such as 2000.",
    )
    flag_level: str = _setting(
        "WEBHOOK_FLAG_LEVEL", read.one_of("low", "medium", "high"), default="medium", mend="Set it to medium."
    )
    sm3_scheme: str = _setting(
        "WEBHOOK_SM3_SCHEME", read.one_of("auto", "digest", "hmac"), default="auto", mend="Set it to auto."
    )
    log_level: str = _setting(
        "WEBHOOK_LOG_LEVEL",
        read.one_of("debug", "info", "warning", "error"),
        default="info",
        mend="Set it to info.",
    )
    web_concurrency: int = _setting(
        "WEB_CONCURRENCY",
        read.whole(1, 256),
        default=None,
        mend="Set it to the number of web processes, such as one for each core; with SQLite to 1.",
    )
    callback_body_limit: int = _setting(
        "WEBHOOK_CALLBACK_BODY_LIMIT_BYTES",
        read.whole(1024, 1024 * _MIB),
        default=str(64 * _MIB),
        mend="Set it to bytes; a 10-hour file's result needs up to 37 MB.",
    )
    request_body_limit: int = _setting(
        "WEBHOOK_REQUEST_BODY_LIMIT_BYTES",
        read.whole(1024, 64 * _MIB),
        default=str(_MIB),
        mend="Set it to bytes for a request to the REST API, such as 1048576.",
    )
    callback_queue: int = _setting(
        "WEBHOOK_CALLBACK_QUEUE",
        read.whole(1, 100_000),
        default="1000",
        mend="Set it to how many callbacks may wait for the disk before the answer is 503, such as 1000.",
    )
    quarantine_per_token: int = _setting(
        "WEBHOOK_QUARANTINE_PER_TOKEN",
        read.whole(0, 10_000),
        default="20",
        mend="Set it to how many callbacks with a wrong checksum are kept for one token, such as 20.",
    )
    quarantine_rows: int = _setting(
        "WEBHOOK_QUARANTINE_ROWS",
        read.whole(0, 1_000_000),
        default="1000",
        mend="Set it to how many callbacks with a wrong checksum are kept in all, such as 1000.",
    )
    quarantine_bytes: int = _setting(
        "WEBHOOK_QUARANTINE_BYTES",
        read.whole(0, 1024 * 1024 * _MIB),
        default=str(64 * _MIB),
        mend="Set it to the bytes that callbacks with a wrong checksum may take on disk in all.",
    )
    delivery_timeout: timedelta = _setting(
        "WEBHOOK_DELIVERY_TIMEOUT_SECONDS", read.seconds(1, 20), default="15", mend="Set it to 15."
    )
    delivery_lease: timedelta = _setting(
        "WEBHOOK_DELIVERY_LEASE_SECONDS",
        read.seconds(2, 3600),
        default="20",
        mend="Set it to 20: more than the delivery timeout, and what a crash may delay a delivery by.",
    )
    delivery_concurrency: int = _setting(
        "WEBHOOK_DELIVERY_CONCURRENCY",
        read.whole(1, 10_000),
        default="256",
        mend="Set it to how many deliveries may be in flight, such as 256.",
    )
    subscription_concurrency: int = _setting(
        "WEBHOOK_SUBSCRIPTION_CONCURRENCY",
        read.whole(1, 1000),
        default="16",
        mend="Set it to how many deliveries to one subscription may be in flight, such as 16.",
    )
    submit_concurrency: int = _setting(
        "WEBHOOK_SUBMIT_CONCURRENCY",
        read.whole(1, 100),
        default="8",
        mend="Set it to how many submissions may be in flight, such as 8.",
    )
    query_concurrency: int = _setting(
        "WEBHOOK_QUERY_CONCURRENCY",
        read.whole(1, 100),
        default="8",
        mend="Set it to how many queries and cancellations may be in flight, such as 8.",
    )
    upload_concurrency: int = _setting(
        "WEBHOOK_UPLOAD_CONCURRENCY",
        read.whole(1, 100),
        default="4",
        mend="Set it to how many files may be on their way to the platform's storage, such as 4.",
    )
    submits_per_second: int = _setting(
        "WEBHOOK_SUBMITS_PER_SECOND",
        read.whole(1, 10_000),
        default="100",
        mend="Set it to the submissions that the platform takes from the account in a second: 100 by default.",
    )
    queries_per_second: int = _setting(
        "WEBHOOK_QUERIES_PER_SECOND",
        read.whole(1, 10_000),
        default="100",
        mend="Set it to the queries that the platform takes from the account in a second: 100 by default.",
    )
    running_streams: int = _setting(
        "WEBHOOK_RUNNING_STREAMS",
        read.whole(1, 100_000),
        default="50",
        mend="Set it to the streams that the platform moderates at once for the account: 50 by default.",
    )
    services: dict[str, str] = _setting(
        "WEBHOOK_SERVICES",
        read.services,
        default=None,
        mend="Set it to further services as kind:name, comma separated, such as audio:audio_detection_byllm.",
    )
    poll_delay: timedelta = _setting(
        "WEBHOOK_POLL_DELAY_SECONDS",
        read.seconds(1, 3600),
        default="30",
        mend="Set it to how long after a submit its missing result is asked for first: 30, the vendor's least.",
    )
    stream_poll: timedelta = _setting(
        "WEBHOOK_STREAM_POLL_SECONDS",
        read.seconds(1, 3600),
        default="30",
        mend="Set it to how often a running stream is asked for, such as 30.",
    )
    stream_silence: timedelta = _setting(
        "WEBHOOK_STREAM_SILENCE_SECONDS",
        read.seconds(1, 86_400),
        default="120",
        mend="Set it to how long a stream may bring no slice before it counts as silent, such as 120.",
    )
    result_lifetime: timedelta = _setting(
        "WEBHOOK_RESULT_LIFETIME_SECONDS",
        read.seconds(10, 30 * 86_400),
        default="86400",
        mend="Set it to how long the platform keeps results: 86400, and less only for a sandbox in a hurry.",
    )
    upload_directory: str | None = _setting(
        "WEBHOOK_UPLOAD_DIRECTORY",
        read.text,
        default=None,
        mend="Set it to a directory that web and worker share; without it, one beside the database.",
    )
    upload_limit: int = _setting(
        "WEBHOOK_UPLOAD_LIMIT_BYTES",
        read.whole(1024, 500 * _MIB),
        default=str(500 * _MIB),
        mend="Set it to the bytes of a file that may be uploaded: 524288000 at the most, the platform's limit.",
    )
    unknown_outcome_wait: timedelta = _setting(
        "WEBHOOK_SUBMIT_OUTCOME_WAIT_SECONDS",
        read.seconds(1, 86_400),
        default="3600",
        mend="Set it to how long a file whose submit's answer was lost waits for its callback, such as 3600.",
    )
    evidence: bool = _setting(
        "WEBHOOK_EVIDENCE",
        read.switch,
        default="on",
        mend="Set it to on, or to off where the audio of flagged slices of streams is not to be saved.",
    )
    evidence_store: str | None = _setting(
        "WEBHOOK_EVIDENCE_STORE",
        read.evidence_store,
        default=None,
        mend="Set it to file:///path or s3://bucket/prefix; without it, to a directory beside the database.",
    )
    evidence_limit: int = _setting(
        "WEBHOOK_EVIDENCE_LIMIT_BYTES",
        read.whole(1024, 512 * _MIB),
        default=str(32 * _MIB),
        mend="Set it to the bytes of the longest audio of a slice that is saved, such as 33554432.",
    )
    evidence_timeout: timedelta = _setting(
        "WEBHOOK_EVIDENCE_TIMEOUT_SECONDS",
        read.seconds(1, 300),
        default="30",
        mend="Set it to how long the audio of a slice may take to be fetched, and to be stored, such as 30.",
    )
    evidence_concurrency: int = _setting(
        "WEBHOOK_EVIDENCE_CONCURRENCY",
        read.whole(1, 100),
        default="4",
        mend="Set it to how many slices' audio may be on its way at once, such as 4; each is held in memory.",
    )
    zero_retention: bool = _setting(
        "WEBHOOK_ZERO_RETENTION",
        read.switch,
        default="off",
        mend="Set it to on where only risk, labels and times are to be stored of what comes, or to off.",
    )
    callbacks_retention: timedelta | None = _setting(
        "WEBHOOK_RETENTION_CALLBACKS_DAYS",
        read.retention,
        default="30",
        mend="Set it to for how many days raw callbacks are kept, such as 30; 0 is for ever.",
    )
    quarantined_retention: timedelta | None = _setting(
        "WEBHOOK_RETENTION_QUARANTINED_DAYS",
        read.retention,
        default="30",
        mend="Set it to for how many days callbacks with a wrong checksum are kept, such as 30; 0 is for ever.",
    )
    # six months in which a decision can be complained of (Regulation (EU) 2022/2065, Article 20), and a week
    transcripts_retention: timedelta | None = _setting(
        "WEBHOOK_RETENTION_TRANSCRIPTS_DAYS",
        read.retention,
        default="190",
        mend="Set it to for how many days what was said in slices is kept, such as 190; 0 is for ever.",
    )
    evidence_retention: timedelta | None = _setting(
        "WEBHOOK_RETENTION_EVIDENCE_DAYS",
        read.retention,
        default="190",
        mend="Set it to for how many days the audio of flagged slices is kept, such as 190; 0 is for ever.",
    )
    events_retention: timedelta | None = _setting(
        "WEBHOOK_RETENTION_EVENTS_DAYS",
        read.retention,
        default="30",
        mend="Set it to for how many days events are kept, such as 30; 0 is for ever.",
    )
    deliveries_retention: timedelta | None = _setting(
        "WEBHOOK_RETENTION_DELIVERIES_DAYS",
        read.retention,
        default="30",
        mend="Set it to for how many days deliveries and their attempts are kept, such as 30; 0 is for ever.",
    )

    @property
    def callback_base_url(self) -> str | None:
        """Where the platform posts, or None: a callback that could not be verified is not asked for."""
        return self.public_url if self.platform_uid else None


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings.

    Args:
        environ: the environment; an empty value counts as none.

    Raises:
        SettingError: naming the first variable that is wrong, and the mend.
    """
    values: dict[str, Any] = {}
    for field in dataclasses.fields(Settings):
        meta = field.metadata
        text = environ.get(meta["variable"], "").strip() or meta["default"]
        try:
            values[field.name] = meta["parse"](text) if text else None
        except ValueError as error:
            shown = "" if meta["secret"] or "@" in text else f" (it is {text!r})"
            raise SettingError(meta["variable"], f"{error}{shown}", meta["mend"]) from None
    for networks in ("allowed_private_networks", "trusted_proxies"):
        values[networks] = values[networks] or ()
    values["services"] = values["services"] or {}
    values["api_url"] = values["api_url"] or local_url(*values["bind"])
    values["api_key"] = values["api_key"] or values["admin_key"]
    values["platform_endpoint"] = values["platform_endpoint"] or _regional(values["platform_region"])
    values["web_concurrency"] = _web_concurrency(values["web_concurrency"], values["database_url"])
    if values["callback_bind"] == values["bind"]:
        raise SettingError(
            "WEBHOOK_CALLBACK_BIND",
            "is the address of WEBHOOK_BIND",
            "Set it to another, or leave it out: then one address answers everything.",
        )
    if values["delivery_lease"] <= values["delivery_timeout"]:
        raise SettingError(
            "WEBHOOK_DELIVERY_LEASE_SECONDS",
            "is not longer than WEBHOOK_DELIVERY_TIMEOUT_SECONDS, so a delivery could be made twice",
            "Set it to 5 more than the timeout.",
        )
    return Settings(**values)


def _web_concurrency(wanted: int | None, database_url: str) -> int:
    if not database_url.startswith("sqlite"):
        return wanted or _WEB_PROCESSES
    if wanted not in {None, 1}:
        raise SettingError(
            "WEB_CONCURRENCY",
            f"is more than SQLite can have (it is {wanted}): several writing processes wait seconds for each other",
            "Set it to 1, or WEBHOOK_DATABASE_URL to a PostgreSQL database.",
        )
    return 1


_WEB_PROCESSES = 2  # where several can write


def local_url(host: str, port: int) -> str:
    """Return where a service that listens there is reached on its own machine."""
    return f"http://{authority(_LOOPBACK.get(host, host), port)}"


def authority(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _regional(region: str) -> str:
    if region not in _ENDPOINTS:
        raise SettingError(
            "WEBHOOK_PLATFORM_REGION",
            f"is a region whose endpoint is not known (it is {region!r})",
            f"Set it to one of {', '.join(_ENDPOINTS)}, or set WEBHOOK_PLATFORM_ENDPOINT.",
        )
    return _ENDPOINTS[region]
