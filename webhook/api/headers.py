"""What every answer tells browsers and caches: to show nothing of it inside other pages, to guess and keep nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask import Response

# OWASP, "REST Security Cheat Sheet", "Security Headers"; TLS ends before us, so its header is the proxy's
SECURITY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def secure(response: Response) -> Response:
    """Add the headers that an answer has not set for itself."""
    for name, value in SECURITY.items():
        response.headers.setdefault(name, value)
    return response
