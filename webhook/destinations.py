"""Where a subscription's events go, read from its URL: a web server, or a broker's subject, exchange or stream.

    https://example.com/hook
    nats://user:password@broker:4222/moderation.{type}                           a subject of JetStream
    amqp://user:password@broker:5672/vhost?exchange=moderation&routing_key={type}   or ?queue=moderation
    redis://user:password@broker:6379/0?stream=moderation&max_length=100000

`tls://` (as NATS itself spells it), `amqps://` and `rediss://` are the same over TLS. `{type}` stands for the event's
type. A broker's password is for the connection alone: `shown` is what anybody sees.
"""

from __future__ import annotations

import re
import unicodedata
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

import msgspec

from webhook.addresses import MAX_URL_LENGTH, is_address, parse_authority

if TYPE_CHECKING:
    from webhook.addresses import AddressPolicy

HIDDEN = "***"
DEFAULT_MAX_LENGTH = 100_000
"""Entries that a Redis stream keeps, about, where its URL does not say."""
_MOST_ENTRIES = 1_000_000_000
_LONGEST_NAME = 255  # of an exchange, a queue or a routing key: AMQP's short strings
_LONGEST_TYPE = 32  # of an event; there is none that is longer
_MOST_DATABASE = 65535
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")  # of NATS, without the wildcards that only subscribers may use


class Destination(msgspec.Struct, frozen=True, kw_only=True):
    """A place at a broker.

    Attributes:
        kind: "nats", "amqp" or "redis".
        host: a name or an address, this without brackets.
        user, password: None where the URL has none; NATS takes a user alone for a token.
        place: subject, virtual host, or database, as the kind has it.
        options: of the query, each checked.
    """

    kind: str
    tls: bool
    host: str
    port: int
    user: str | None
    password: str | None
    place: str
    options: dict[str, str]

    def option(self, name: str, *, event_type: str) -> str:
        """Return an option with the event's type put in; empty where it is not given."""
        return with_type(self.options.get(name, ""), event_type)


class _Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of broker.

    Attributes:
        package, extra: the client's module, and what installs it.
        options: names that its query may have.
    """

    name: str
    tls: bool
    port: int
    package: str
    extra: str
    options: tuple[str, ...]


_SCHEMES = {
    scheme: _Kind(name=name, tls=tls, port=port, package=package, extra=extra, options=options)
    for scheme, name, tls, port, package, extra, options in (
        ("nats", "nats", False, 4222, "nats", "nats", ()),
        ("tls", "nats", True, 4222, "nats", "nats", ()),
        ("amqp", "amqp", False, 5672, "aiormq", "rabbitmq", ("exchange", "routing_key", "queue")),
        ("amqps", "amqp", True, 5671, "aiormq", "rabbitmq", ("exchange", "routing_key", "queue")),
        ("redis", "redis", False, 6379, "redis", "redis", ("stream", "max_length")),
        ("rediss", "redis", True, 6379, "redis", "redis", ("stream", "max_length")),
    )
}


_WEB = ("https", "http")


def is_broker(url: str) -> bool:
    """Tell a broker's URL from a web server's."""
    return url.partition("://")[0].lower() in _SCHEMES


def with_type(text: str, event_type: str) -> str:
    """Return a name with the event's type put in."""
    return text.replace("{type}", event_type)


def check_url(policy: AddressPolicy, url: str) -> None:
    """Check a subscription's URL when it is created; a name's addresses are checked at each connection.

    Raises:
        ValueError: nothing can be sent there; the message says why and never repeats the URL.
        AddressRefused: its host is an address that may not be reached, or may not be reached without TLS.
    """
    if not is_broker(url):
        if url.partition("://")[0].lower() not in _WEB:
            raise ValueError(f"The URL begins with none of {', '.join(f'{each}://' for each in (*_WEB, *_SCHEMES))}.")
        policy.check_url(url)
        return
    kind = _SCHEMES[url.partition("://")[0].lower()]
    destination = parse(url)
    if HIDDEN in {destination.user, destination.password}:
        raise ValueError(f"The URL's password is {HIDDEN}, which only stands for one: write it in full.")
    if find_spec(kind.package) is None:
        raise ValueError(f"The service lacks the client for this broker: pip install 'webhook[{kind.extra}]'.")
    if is_address(destination.host):
        policy.check(destination.host, plaintext=not destination.tls)


def parse(url: str) -> Destination:
    """Read a broker's URL.

    Raises:
        ValueError: the message says why, and never repeats the URL, which may carry a password.
    """
    if len(url) > MAX_URL_LENGTH:
        raise ValueError(f"The URL is longer than {MAX_URL_LENGTH} characters.")
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("The URL contains a space, a backslash or a control character.")
    if "#" in url:
        raise ValueError("The URL has a fragment, which says nothing to a broker: quote it as %23.")
    scheme, _, rest = url.partition("://")
    kind = _SCHEMES[scheme.lower()]
    authority, path, query = _split(rest)
    userinfo, at, address = authority.rpartition("@")
    user, colon, password = userinfo.partition(":")
    host = parse_authority(address)
    name, separator, port = host.rpartition(":")
    if not separator or name.endswith(":") or "]" in port:
        name, port = host, ""
    options = _options(query, kind)
    if not unquote(path).isprintable():
        raise ValueError("The URL's path contains a control character.")
    if any("{" in name.replace("{type}", "") for name in (unquote(path), *options.values())):
        raise ValueError("The URL's names take {type}, the event's type, and no other placeholder.")
    return Destination(
        kind=kind.name,
        tls=kind.tls,
        host=name.strip("[]"),
        port=int(port) if port else kind.port,
        user=_plain(user) if at and user else None,
        password=_plain(password) if colon else None,
        place=_CHECKS[kind.name](unquote(path), options),
        options=options,
    )


def _plain(quoted: str) -> str:
    """Return a user or password as it is told to the broker."""
    text = unquote(quoted)
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("The URL's user name or password contains a control character.")
    return text


def shown(url: str) -> str:
    """Return a URL as it may be shown: without the password, or what NATS takes for a token."""
    if not is_broker(url):
        return url
    scheme, _, rest = url.partition("://")
    authority, _, _ = _split(rest)
    userinfo, at, address = authority.rpartition("@")
    if not at:
        return url
    user, colon, _ = userinfo.partition(":")
    hidden = f"{user}:{HIDDEN}" if colon else HIDDEN if _SCHEMES[scheme.lower()].name == "nats" else user
    return f"{scheme}://{hidden}@{address}{rest[len(authority) :]}"


def _split(rest: str) -> tuple[str, str, str]:
    """Return authority, path without its slash, and query."""
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    path, _, query = rest[len(authority) :].partition("?")
    return authority, path.removeprefix("/"), query


def _options(query: str, kind: _Kind) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict")
    except ValueError:
        raise ValueError("The URL's query is not of the form name=value&name=value.") from None
    names = [name for name, _ in pairs]
    if len(set(names)) != len(names) or set(names) - set(kind.options):
        allowed = ", ".join(kind.options) or "none at all"
        raise ValueError(f"The URL's query may have these names, each once: {allowed}.")
    if any(not value or not value.isprintable() or _length(value) > _LONGEST_NAME for _, value in pairs):
        raise ValueError(
            f"Each name in the URL's query has 1 to {_LONGEST_NAME} printable bytes, its {{type}} included."
        )
    return dict(pairs)


_SERVERS_OWN = ("$", "_INBOX.")


def _check_nats(path: str, _options: dict[str, str]) -> str:
    if not path.isprintable() or not _SUBJECT.fullmatch(path):
        raise ValueError("The URL's path is no subject: nats://host:4222/moderation.{type}, without * and >.")
    if path.upper().startswith(_SERVERS_OWN):
        raise ValueError("The URL's path is a subject by which the server itself is told what to do: take another.")
    return path


def _length(name: str) -> int:
    return len(with_type(name, "x" * _LONGEST_TYPE).encode())


def _check_amqp(path: str, options: dict[str, str]) -> str:
    if len(path.encode()) > _LONGEST_NAME:
        raise ValueError(f"The URL's virtual host has more than {_LONGEST_NAME} bytes.")
    if ("queue" in options) == ("exchange" in options) or ("queue" in options and "routing_key" in options):
        raise ValueError("The URL's query names either a queue, or an exchange with a routing_key if it needs one.")
    return path or "/"


def _check_redis(path: str, options: dict[str, str]) -> str:
    if path and not (path.isascii() and path.isdecimal() and int(path[:6]) <= _MOST_DATABASE):
        raise ValueError("The URL's path is the number of a database, such as /0.")
    if "stream" not in options:
        raise ValueError("The URL's query names no stream: redis://host:6379/0?stream=moderation.")
    length = options.setdefault("max_length", str(DEFAULT_MAX_LENGTH))
    if not (length.isascii() and length.isdecimal() and 0 < int(length) <= _MOST_ENTRIES):
        raise ValueError(f"The URL's max_length is a whole number from 1 to {_MOST_ENTRIES}.")
    return path or "0"


_CHECKS = {"nats": _check_nats, "amqp": _check_amqp, "redis": _check_redis}
