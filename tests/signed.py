"""Callbacks as the platform makes them: contents after the vendor's tables, checksums by `hashlib` alone."""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import urlencode

UID = "1234567890123456"


def checksum(content: str | bytes, *, seed: str, uid: str = UID) -> str:
    """Return SHA-256 of uid, seed and content (voice-moderation.txt, "callback")."""
    raw = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(f"{uid}{seed}".encode() + raw).hexdigest()


def form(content: str, *, seed: str, uid: str = UID, task_id: str | None = None) -> bytes:
    """Return the urlencoded body of an authentic callback."""
    fields = {"checksum": checksum(content, seed=seed, uid=uid), "content": content}
    return urlencode(fields if task_id is None else {**fields, "taskId": task_id}).encode()


def piece(start: int, *, risk: str = "none", label: str = "nonLabel", text: str = "hello") -> dict[str, Any]:
    """Return one slice of ten seconds with one finding."""
    finding = {"Label": label, "Confidence": 81.5, "RiskLevel": risk}
    return {"StartTime": start, "EndTime": start + 10, "Text": text, "RiskLevel": risk, "Result": [finding]}


def content(*slices: dict[str, Any], code: int = 200, message: str = "SUCCESS", **data: Any) -> str:
    """Return a content: the envelope with `Data`; without slices and data it only says how the task stands."""
    envelope: dict[str, Any] = {"Code": code, "Message": message, "RequestId": "A1B2"}
    if slices or data:
        envelope["Data"] = {**data, "SliceDetails": list(slices)}
    return json.dumps(envelope, ensure_ascii=False)
