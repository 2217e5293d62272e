"""The platform's services: what each moderates."""

from __future__ import annotations

DEFAULTS = {"audio": "audio_detection_byllm_global", "live": "live_detection_byllm_global"}

# vendor-docs/voice-moderation, "Service selection"; the third is of its query examples: another region's name
CATALOGUE = {DEFAULTS["audio"]: "audio", DEFAULTS["live"]: "live", "audio_detection_byllm": "audio"}
