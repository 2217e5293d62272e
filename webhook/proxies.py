"""Where a request comes from, when proxies stand before us: what they say of it is believed of trusted ones only.

werkzeug's `ProxyFix` counts proxies instead of knowing them, so it believes whoever reaches us without one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from ipaddress import IPv4Address, IPv4Network, IPv6Network
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_HOST = re.compile(r"([A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_WITH_PORT = re.compile(r"\[([^\]]+)\](?::[0-9]+)?|([0-9.]+):[0-9]+")


class Proxies:
    """Tells who asked, and under which address of ours.

    Args:
        trusted: the networks of the proxies that are believed; a request from elsewhere is what it is.
    """

    def __init__(self, trusted: Sequence[IPv4Network | IPv6Network]) -> None:
        self._trusted = trusted

    def in_front_of(self, wsgi_app: WSGIApplication) -> WSGIApplication:
        """Return an application whose requests have `REMOTE_ADDR`, scheme and `Host` as the client's own would."""

        def front(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            environ.update(self.origin(environ))
            return wsgi_app(environ, start_response)

        return front

    def origin(self, environ: Mapping[str, Any]) -> dict[str, str]:
        """Return what of a request's environment is another than it seems.

        The client is the rightmost address of `X-Forwarded-For` that is no trusted proxy's: what stands left of it,
        anybody may have written. Of `X-Forwarded-Proto` and `X-Forwarded-Host` it is what the proxy said that the
        client spoke to, or what the first one said where later ones said nothing.
        """
        address = plain_address(environ.get("REMOTE_ADDR", ""))
        told = _values(environ, "HTTP_X_FORWARDED_FOR")
        passed = 0
        while self._trusts(address):
            passed += 1
            before = plain_address(told.pop()) if told else ""
            if not before:
                break
            address = before
        found = {"REMOTE_ADDR": address}
        if passed:
            scheme = _said(environ, "HTTP_X_FORWARDED_PROTO", passed).lower()
            if scheme in {"http", "https"}:
                found["wsgi.url_scheme"] = scheme
            host = _said(environ, "HTTP_X_FORWARDED_HOST", passed)
            if _HOST.fullmatch(host):
                found["HTTP_HOST"] = host
        return found

    def _trusts(self, address: str) -> bool:
        return bool(self._trusted) and is_within(address, self._trusted)


def plain_address(text: str) -> str:
    """Return an address in its one spelling, IPv4 where it is that in IPv6, without a port; empty for none."""
    text = text.strip()
    if match := _WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        return str(_plain(text))
    except ValueError:
        return ""


def is_within(address: str, networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    """Return whether an address lies in one of these networks."""
    try:
        plain = _plain(address)
    except ValueError:
        return False
    return any(plain in network for network in networks)


@lru_cache(maxsize=1024)  # a client asks more than once
def _plain(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text)
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _values(environ: Mapping[str, Any], name: str) -> list[str]:
    return [value.strip() for value in environ.get(name, "").split(",") if value.strip()]


def _said(environ: Mapping[str, Any], name: str, passed: int) -> str:
    """Return what the proxy that is so many hops away said, or the farthest that said something."""
    values = _values(environ, name)
    return values[-min(passed, len(values))] if values else ""
