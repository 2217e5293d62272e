"""How one setting's text is read; what is wrong with it is said by a ValueError, in words that follow its name."""

from __future__ import annotations

import base64
import binascii
import re
from datetime import timedelta
from importlib.util import find_spec
from ipaddress import ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from ipaddress import IPv4Network, IPv6Network


def text(value: str) -> str:
    """Take it as it is."""
    return value


def database_url(value: str) -> str:
    """Read a database's URL, as SQLAlchemy has it."""
    try:
        url = make_url(value)
    except (ArgumentError, ValueError):
        raise ValueError("is not a database URL") from None
    backend = url.get_backend_name()
    if backend in {"postgresql", "postgres"}:  # the latter is what many platforms hand out
        if find_spec("psycopg") is None:
            raise ValueError("needs psycopg, which `pip install 'webhook[postgres]'` brings")
        if not url.database:
            raise ValueError("names no database")
        return url.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
    if backend != "sqlite":
        raise ValueError(f"names a {backend} database, and only SQLite and PostgreSQL are supported")
    if url.host or url.username:
        raise ValueError("names a server, and SQLite has none: a file's path begins after the third slash")
    if not url.database or url.database == ":memory:":
        raise ValueError("names no file, and a database in memory would lose every callback")
    return value


def bind(value: str) -> tuple[str, int]:
    """Read an address to listen on: HOST:PORT."""
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:  # noqa: PLR2004 - the highest port
        raise ValueError("is not HOST:PORT")
    return host.strip("[]"), int(port)


def base_url(value: str) -> str:
    """Read a URL that others are built on, without a slash at its end."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("has an address or a port that there is not") from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("is not an http or https URL without query")
    if "@" in parts.netloc or not re.fullmatch(r"[!-~]+", value):
        raise ValueError("has a user, or characters that no URL has")
    return value.rstrip("/")


def api_key(value: str) -> str:
    """Read an API key."""
    if not re.fullmatch(r"[!-~]+", value):
        raise ValueError("has characters that no key has")
    return value


def endpoint(value: str) -> str:
    """Read the URL of the platform's API, whose scheme may be left out."""
    url = base_url(value if "://" in value else f"https://{value}")
    if urlsplit(url).path:
        raise ValueError("has a path, and the platform's API has none")
    return url


def uid(value: str) -> str:
    """Read an account's UID."""
    if not re.fullmatch(r"[0-9A-Za-z]{1,64}", value):
        raise ValueError("is not an account UID")
    return value


def admin_key(value: str) -> str:
    """Read an API key that nobody guesses."""
    shortest = 32
    if len(value) < shortest:
        raise ValueError(f"is shorter than {shortest} characters")
    return api_key(value)


def encryption_keys(value: str) -> dict[str, bytes]:
    """Read master keys by their ids, the active one first."""
    keys: dict[str, bytes] = {}
    for entry in value.split(","):
        key_id, colon, encoded = entry.strip().partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9_.-]{1,32}", key_id):
            raise ValueError("has an entry that is not id:base64")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            raise ValueError(f"has a key, {key_id}, that is not base64") from None
        if len(key) != 32:  # noqa: PLR2004 - AES-256
            raise ValueError(f"has a key, {key_id}, of {len(key)} bytes instead of 32")
        if key_id in keys:
            raise ValueError(f"has two keys of the id {key_id}")
        keys[key_id] = key
    return keys


def networks(value: str) -> tuple[IPv4Network | IPv6Network, ...]:
    """Read networks."""
    try:
        return tuple(ip_network(part.strip()) for part in value.split(","))
    except ValueError as error:
        raise ValueError(f"is not a list of networks ({error})") from None


def services(value: str) -> dict[str, str]:
    """Read services of the platform and the kind of tasks each is for."""
    kinds: dict[str, str] = {}
    for entry in value.split(","):
        kind, _, name = entry.strip().partition(":")
        if kind not in {"audio", "live"} or not re.fullmatch(r"[a-z0-9_]{1,64}", name):
            raise ValueError("has an entry that is not audio:NAME or live:NAME")
        kinds[name] = kind
    return kinds


def one_of(*words: str) -> Callable[[str], str]:
    """Return what reads one of some words."""

    def parse(value: str) -> str:
        if value.lower() not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return value.lower()

    return parse


def switch(value: str) -> bool:
    """Read on or off."""
    return one_of("on", "off")(value) == "on"


def evidence_store(value: str) -> str:
    """Read where evidence is to lie."""
    parts = urlsplit(value)
    directory = parts.scheme == "file" and not parts.netloc and parts.path.strip("/")
    bucket = parts.scheme == "s3" and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", parts.netloc)
    if not (directory or bucket) or parts.query or parts.fragment:
        raise ValueError("is neither file:///path nor s3://bucket/prefix")
    return value


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """Return what reads a whole number between two."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,15}", value) or not lowest <= int(value) <= highest:
            raise ValueError(f"is not a whole number from {lowest} to {highest}")
        return int(value)

    return parse


def days(lowest: int, highest: int) -> Callable[[str], timedelta]:
    """Return what reads a number of days between two."""
    number = whole(lowest, highest)
    return lambda value: timedelta(days=number(value))


def retention(value: str) -> timedelta | None:
    """Read a number of days; None for 0, which is for ever."""
    return timedelta(days=whole(0, 3650)(value)) or None


def seconds(lowest: int, highest: int) -> Callable[[str], timedelta]:
    """Return what reads a number of seconds between two."""
    number = whole(lowest, highest)
    return lambda value: timedelta(seconds=number(value))
