"""What a call asks for: `Service` and `ServiceParameters` checked by the vendor's rules into a Submission.

Rules: voice-moderation.txt, tables 1 and 2; what exactly each rule answers is not printed there, so the
codes are taken at their word: 400 missing, 401 invalid, 402 too long.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from . import magic
from .codes import INVALID, MISSING, TOO_LONG, UNSUPPORTED, Refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal["audio", "live"]

SERVICES: dict[str, Kind] = {"audio_detection_byllm_global": "audio", "live_detection_byllm_global": "live"}
# the query's examples print the older regions' names
QUERY_SERVICES: dict[str, Kind] = {**SERVICES, "audio_detection_byllm": "audio", "live_detection_byllm": "live"}

SCHEMES: dict[Kind, frozenset[str]] = {
    "audio": frozenset({"http", "https"}),
    "live": frozenset({"http", "https", "rtmp", "rtmps", "rtsp", "rtsps"}),
}
MAX_SEED = 64
MAX_DATA_ID = 64
MAX_REFERER = 256

# Extensions that are known and not among the vendor's "Audio and video file formats" (mp3 wav aac wma ogg
# m4a amr avi flv mp4 mpg asf wmv mov rmvb rm). One that stands in neither list may be anything: accepted.
UNSUPPORTED_EXTENSIONS = re.compile(
    "flac|opus|ape|aiff?|midi?|au|webm|mkv|m4v|3gp|ts|vob"
    "|jpe?g|png|gif|bmp|webp|svg|tiff?|ico|txt|csv|json|xml|html?|css|js|md|pdf|docx?"
    "|xlsx?|pptx?|zip|gz|tar|rar|7z|exe|dll|so|apk|iso|bin|py|sh"
)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One accepted request for moderation.

    Attributes:
        source: the URL, or the object's name; what chooses the outcome.
        bucket: the object's bucket; None for a URL.
        parameters: everything as it was sent, the seed included.
    """

    service: str
    kind: Kind
    source: str
    bucket: str | None
    callback: str | None
    seed: str
    crypt_type: str
    live_id: str | None
    data_id: str | None
    parameters: Mapping[str, Any]


def read_form(body: bytes) -> dict[str, str]:
    """Return the fields of a form-encoded body.

    Raises:
        Refusal: it is not UTF-8.
    """
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, errors="strict"))
    except ValueError as error:
        raise Refusal(INVALID, "the body is not a form in UTF-8") from error


def parse_submission(form: Mapping[str, str], *, upload_bucket: str) -> Submission:
    """Check what VoiceModeration was asked.

    Args:
        form: fields of the request.
        upload_bucket: the bucket of uploads, which needs no region.

    Raises:
        Refusal: with the vendor's code.
    """
    service, kind = _service(form, SERVICES)
    parameters = _parameters(form)
    source, bucket = _source(parameters, kind=kind, upload_bucket=upload_bucket)
    callback = _text(parameters, "callback")
    seed = _matching(parameters, "seed", r"[A-Za-z0-9_]+", MAX_SEED)
    if callback is not None:
        _check_url(callback, "callback", frozenset({"http", "https"}))
        if seed is None:
            raise Refusal(MISSING, "seed, which a callback requires")
    crypt_type = _text(parameters, "cryptType") or "SHA256"
    if crypt_type not in {"SHA256", "SM3"}:
        raise Refusal(INVALID, "cryptType is SHA256 or SM3")
    if len(_text(parameters, "referer") or "") > MAX_REFERER:
        raise Refusal(TOO_LONG, "referer")
    return Submission(
        service=service,
        kind=kind,
        source=source,
        bucket=bucket,
        callback=callback,
        seed=seed or "",
        crypt_type=crypt_type,
        live_id=_text(parameters, "liveId"),
        data_id=_matching(parameters, "dataId", r"[A-Za-z0-9_.-]+", MAX_DATA_ID),
        parameters=parameters,
    )


def parse_task_id(form: Mapping[str, str], services: Mapping[str, Kind]) -> tuple[str, Kind]:
    """Return the task id that a query or a cancellation names, and the kind of its service.

    Raises:
        Refusal: with the vendor's code.
    """
    _, kind = _service(form, services)
    task_id = _text(_parameters(form), "taskId")
    if task_id is None:
        raise Refusal(MISSING, "taskId")
    return task_id, kind


def _service(form: Mapping[str, str], services: Mapping[str, Kind]) -> tuple[str, Kind]:
    service = form.get("Service", "")
    if not service:
        raise Refusal(MISSING, "Service")
    if service not in services:
        raise Refusal(INVALID, "Service")
    return service, services[service]


def _parameters(form: Mapping[str, str]) -> dict[str, Any]:
    text = form.get("ServiceParameters", "")
    if not text:
        raise Refusal(MISSING, "ServiceParameters")
    try:
        parameters = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refusal(INVALID, "ServiceParameters is not JSON") from error
    if not isinstance(parameters, dict):
        raise Refusal(INVALID, "ServiceParameters is not a JSON object")
    return parameters


def _text(parameters: Mapping[str, Any], name: str) -> str | None:
    """Return a parameter, None where it is missing or empty."""
    value = parameters.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise Refusal(INVALID, f"{name} is not a string")
    return value


def _matching(parameters: Mapping[str, Any], name: str, pattern: str, longest: int) -> str | None:
    value = _text(parameters, name)
    if value is None:
        return None
    if len(value) > longest:
        raise Refusal(TOO_LONG, name)
    if not re.fullmatch(pattern, value):
        raise Refusal(INVALID, name)
    return value


def _check_url(value: str, name: str, schemes: frozenset[str]) -> None:
    try:
        parts = urlsplit(value)
        parts.port  # noqa: B018 - raises where the port is no number
    except ValueError as error:
        raise Refusal(INVALID, f"{name} is not a URL") from error
    if parts.scheme not in schemes or not parts.hostname:
        raise Refusal(INVALID, f"{name} is not a URL of {', '.join(sorted(schemes))}")


def _source(parameters: Mapping[str, Any], *, kind: Kind, upload_bucket: str) -> tuple[str, str | None]:
    url, bucket = _text(parameters, "url"), _text(parameters, "ossBucketName")
    name, region = _text(parameters, "ossObjectName"), _text(parameters, "ossRegionId")
    if url is not None:
        if bucket is not None or name is not None:
            raise Refusal(INVALID, "url and an OSS object exclude each other")
        _check_url(url, "url", SCHEMES[kind])
        source = url
    elif kind == "live":
        raise Refusal(MISSING, "url")
    elif bucket is None or name is None:
        raise Refusal(MISSING, "url, or ossBucketName and ossObjectName")
    elif region is None and bucket != upload_bucket:
        raise Refusal(MISSING, "ossRegionId")
    else:
        source = name
    if kind == "audio" and UNSUPPORTED_EXTENSIONS.fullmatch(magic.extension(source)):
        raise Refusal(UNSUPPORTED, magic.extension(source))
    return source, bucket
