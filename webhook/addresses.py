"""Which addresses a subscriber may live at: literals are judged here, and `connections` asks before each connection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING
from urllib.parse import quote

import yarl

from webhook.errors import AddressRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_LENGTH = 2048
"""Characters in a subscriber's URL; what browsers, proxies and Standard Webhooks' senders take without trouble."""
MAX_PORT = 65535
MAX_NAME_LENGTH = 253  # of a host, RFC 1035 section 2.3.4
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")  # RFC 1123, and the underscore of containers' names
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")

NEVER: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        # RFC 3927 and RFC 4291. Also AWS, Google, Azure, Oracle, DigitalOcean, Hetzner, OpenStack, Huawei and
        # IBM metadata (.169.254), ECS (.170.2) and EKS (.170.23) credentials, Tencent (.0.23), Scaleway (.42.42)
        ("169.254.0.0/16", "a link-local or metadata address"),
        ("fe80::/10", "a link-local address"),
        # Alibaba Cloud, "ECS instance metadata"; the IPv6 one is of the same page
        ("100.100.100.200/32", "Alibaba Cloud's metadata service"),
        ("fd00:100::100:200/128", "Alibaba Cloud's metadata service"),
        # Azure, "What is IP address 168.63.129.16?": the WireServer, on an address that looks public
        ("168.63.129.16/32", "Azure's platform service"),
        # Oracle Cloud Infrastructure Classic; OCI's SDK has the IPv6 one
        ("192.0.0.192/32", "Oracle Cloud's metadata service"),
        ("fd00:c1::a9fe:a9fe/128", "Oracle Cloud's metadata service"),
        # AWS, "Access instance metadata": ::254; EKS Pod Identity: ::23; DNS ::253, time ::123
        ("fd00:ec2::/32", "an AWS metadata or platform service"),
        # Google Cloud, "About VM metadata", for instances with IPv6 only
        ("fd20:ce::254/128", "Google Cloud's metadata service"),
        # cloud-init's data sources "Scaleway" and "Akamai"
        ("fd00:42::42/128", "Scaleway's metadata service"),
        ("fd00:a9fe:a9fe::1/128", "Akamai's metadata service"),
        # Volcano Engine's agent `volcengine/cello`, `credentialServerAddress`
        ("100.96.0.96/32", "Volcano Engine's metadata service"),
    )
)
"""Networks that no setting opens."""

SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        # IANA IPv4 Special-Purpose Address Registry, all that is not globally reachable or not a host of its own
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "shared address space (CGNAT)"),
        ("127.0.0.0/8", "loopback"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved for documentation"),
        ("192.31.196.0/24", "an anycast service of DNS (AS112)"),
        ("192.52.193.0/24", "an anycast relay of multicast (AMT)"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("192.175.48.0/24", "an anycast service of DNS (AS112)"),
        ("198.18.0.0/15", "reserved for benchmarks"),
        ("198.51.100.0/24", "reserved for documentation"),
        ("203.0.113.0/24", "reserved for documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        # IANA IPv6 Special-Purpose Address Registry, likewise
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved for documentation"),
        ("2620:4f:8000::/48", "an anycast service of DNS (AS112)"),
        ("3fff::/20", "reserved for documentation"),
        ("fc00::/7", "private"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
    )
)
"""Networks in which a subscriber may live only where the settings say so."""

GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All that IANA has given out of IPv6, "Internet Protocol Version 6 Address Space"."""

UNROUTABLE = (IPv4Network("0.0.0.0/8"), IPv4Network("240.0.0.0/4"))
"""Where no host is: what a wrong guess of an embedded address's place usually yields."""


def _low(value: int) -> tuple[int, ...]:
    return (value & 0xFFFF_FFFF,)


def _sixtofour(value: int) -> tuple[int, ...]:
    return (value >> 80 & 0xFFFF_FFFF,)


def _teredo(value: int) -> tuple[int, ...]:
    return value >> 64 & 0xFFFF_FFFF, ~value & 0xFFFF_FFFF  # server; client, inverted


def _local_nat64(value: int) -> tuple[int, ...]:
    """Find what each prefix length that RFC 6052 knows within a /48 would make of an address."""
    joined = value >> 64 << 56 | value & (1 << 56) - 1  # less bits 64 to 71, which hold nothing
    guesses = [joined >> shift & 0xFFFF_FFFF for shift in (40, 32, 24)]  # /48, /56, /64
    return value & 0xFFFF_FFFF, *(g for g in guesses if not any(IPv4Address(g) in n for n in UNROUTABLE))


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """One way to write IPv4 addresses into an IPv6 address.

    Attributes:
        network: the IPv6 addresses written so.
        find: the IPv4 addresses in one of them, all as integers.
        wrapping: whether it is the embedded address alone that is reached, so that it alone is judged.
    """

    network: IPv6Network
    find: Callable[[int], tuple[int, ...]]
    wrapping: bool = False


EMBEDDINGS = (
    Embedding(network=IPv6Network("::ffff:0:0/96"), find=_low, wrapping=True),  # mapped, RFC 4291
    Embedding(network=IPv6Network("64:ff9b::/96"), find=_low, wrapping=True),  # NAT64, RFC 6052
    Embedding(network=IPv6Network("64:ff9b:1::/48"), find=_local_nat64),  # local NAT64, RFC 8215
    Embedding(network=IPv6Network("::/96"), find=_low),  # compatible, RFC 4291
    Embedding(network=IPv6Network("::ffff:0:0:0/96"), find=_low),  # translated, RFC 2765
    Embedding(network=IPv6Network("2002::/16"), find=_sixtofour),  # 6to4, RFC 3056
    Embedding(network=IPv6Network("2001::/32"), find=_teredo),  # Teredo, RFC 4380
)
ISATAP = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""Bits 64 to 95 of an ISATAP address, whatever its prefix: RFC 5214 section 6.1."""
NOT_EMBEDDING = frozenset({IPv6Address("::"), IPv6Address("::1")})
"""In `::/96`, but no IPv4 address in disguise."""


def meanings(address: Address) -> tuple[Address, ...]:
    """Return each address that a connection to this one may reach: itself, and what is embedded in it."""
    if isinstance(address, IPv4Address) or address in NOT_EMBEDDING:
        return (address,)
    value = int(address)
    found: list[Address] = []
    wrapping = False
    for embedding in EMBEDDINGS:
        if address in embedding.network:
            found += map(IPv4Address, embedding.find(value))
            wrapping = wrapping or embedding.wrapping
    if value >> 32 & 0xFFFF_FFFF in ISATAP:
        found += map(IPv4Address, _low(value))
    return tuple(found) if wrapping else (address, *found)


@dataclass(frozen=True)
class AddressPolicy:
    """Where subscribers may live: on the public internet, and in the networks that the settings allow.

    Args:
        allowed: networks that are not public in which subscribers may live all the same.
    """

    allowed: Sequence[IPv4Network | IPv6Network] = ()

    def check(self, address: str, *, plaintext: bool = False) -> None:
        """Check one address, as it stands in the socket address that is connected to.

        Args:
            address: an IPv4 or IPv6 address in the spelling of `inet_pton`; a zone id is refused.
            plaintext: whether the connection is without TLS, which only the allowed networks may see.

        Raises:
            AddressRefused: nothing may be sent there.
        """
        if "%" in address:
            raise AddressRefused("An address with a zone id is link-local, and never allowed.")
        try:
            meant = meanings(ip_address(address))
        except ValueError as error:
            raise AddressRefused("This is not an IP address.") from error
        for one in meant:
            self._check_one(one, plaintext=plaintext)

    def _check_one(self, address: Address, *, plaintext: bool) -> None:
        for network, what in NEVER:
            if address in network:
                raise AddressRefused(f"{address} is {what}, and never allowed.")
        if any(address in network for network in self.allowed):
            return
        for network, what in SPECIAL:
            if address in network:
                raise AddressRefused(
                    f"{address} is {what}. To allow it, put its network into WEBHOOK_ALLOWED_PRIVATE_NETWORKS."
                )
        if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST:
            raise AddressRefused(f"{address} is reserved.")
        if plaintext:
            raise AddressRefused(
                f"{address} is public, and plain http:// is for allowed private networks, as are brokers without TLS: "
                "use https://, amqps://, rediss:// or tls://."
            )

    def check_url(self, url: str) -> None:
        """Check a subscriber's URL when it is created; a name's addresses are checked at each connection.

        Raises:
            ValueError: this is no URL that we send to; the message says why and never repeats it.
            AddressRefused: its host is an address that may not be reached, or may not be reached by `http://`.
        """
        parsed = parse_url(url)
        host = parsed.raw_host or ""
        plaintext = parsed.scheme == "http"
        if is_address(host):
            self.check(host, plaintext=plaintext)
        elif plaintext and not self.allowed:
            raise AddressRefused("Plain http:// is for allowed private networks, and there are none: use https://.")


def is_private(host: str) -> bool:
    """Say whether a host of the settings is this machine, or an address that is not public; a name may be either."""
    try:
        return not ip_address(host).is_global
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def parse_url(url: str, *, longest: int = MAX_URL_LENGTH) -> yarl.URL:
    """Parse a subscriber's URL, or another that we are given, strictly: into what is connected to and sent.

    The host of the result is a name in ASCII, or an address in the one spelling of `inet_pton`, whatever
    spelling of `inet_aton` or of IDNA it had. Path and query stay as they are, since some carry signatures;
    only characters that no URL may have are quoted.

    Args:
        longest: how many characters it may have.

    Raises:
        ValueError: the message says why, and never repeats the URL, which may carry a token.
    """
    if len(url) > longest:
        raise ValueError(f"The URL is longer than {longest} characters.")
    # str.isprintable is false for controls, formats, surrogates and every space but U+0020
    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("The URL contains a space, a backslash or a control character.")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in {"http", "https"}:
        raise ValueError("The URL does not begin with https:// or http://.")
    if "#" in rest:
        raise ValueError("The URL has a fragment, which is never sent.")
    authority = re.split(r"[/?]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise ValueError("The URL has a user name or password: use the signature to know who calls.")
    path, question, query = rest[len(authority) :].partition("?")
    host = parse_authority(authority)
    return yarl.URL(
        f"{scheme.lower()}://{host}{_quote(path) or '/'}{question}{_quote(query)}",
        encoded=True,
    )


def _quote(text: str) -> str:
    return quote(text, safe="%!$&'()*+,/:;=?@[]~|")


def parse_authority(authority: str) -> str:
    """Return `host` or `host:port` in their one spelling."""
    host, bracket, port = authority.partition("]")
    if bracket:
        host += bracket
    else:
        host, colon, port = authority.partition(":")
        port = colon + port
    if port and not (re.fullmatch(r":[0-9]{1,5}", port) and 0 < int(port[1:]) <= MAX_PORT):
        raise ValueError("The URL's port is not a number from 1 to 65535.")
    if host.startswith("["):
        return f"[{_parse_ipv6(host[1:-1])}]{port}"
    return _parse_host(host) + port


def _parse_ipv6(text: str) -> IPv6Address:
    if "%" in text:
        raise ValueError("The URL's address has a zone id, which means something on one machine only.")
    try:
        return IPv6Address(text)
    except ValueError as error:
        raise ValueError("The URL's address in brackets is not an IPv6 address.") from error


def _parse_host(text: str) -> str:
    """Return a name in ASCII, or the dotted quad of any spelling that a resolver takes for an IPv4 address."""
    try:
        # a percent sign would be unquoted by some and not by others
        host = "" if "%" in text else yarl.URL.build(scheme="http", host=text).raw_host or ""
    except ValueError as error:  # with UnicodeError
        raise ValueError("The URL's host is not a valid name.") from error
    host = host.removesuffix(".") if is_address(host) else host
    if is_address(host):
        return str(parse_inet_aton(host))
    labels = host.removesuffix(".").split(".")
    if len(host) > MAX_NAME_LENGTH or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("The URL's host is missing or not a valid name.")
    return host


def is_address(host: str) -> bool:
    """Tell an address, well or badly written, from a name: by its last label, as the WHATWG's URL standard does."""
    return ":" in host or _NUMBER.fullmatch(host.removesuffix(".").rpartition(".")[2]) is not None


IPV4_BYTES = 4
MAX_BYTE = 255
_NO_ADDRESS = "The URL's host looks like an IPv4 address, but is none."
_BASES = (
    (re.compile("0x([0-9a-f]+)", re.IGNORECASE), 16),
    (re.compile("(0[0-7]*)"), 8),
    (re.compile("([1-9][0-9]{0,9})"), 10),  # more digits than 32 bits need would be slow to read
)


def parse_inet_aton(text: str) -> IPv4Address:
    """Read an IPv4 address in any spelling of `inet_aton(3)`: `2130706433`, `0177.1`, `0x7f.0.0.1`, `127.1`.

    Raises:
        ValueError: it is in none of them.
    """
    parts = text.split(".")
    room = 1 + IPV4_BYTES - len(parts)  # bytes that the last number fills
    numbers = [_parse_number(part) for part in parts]
    if room < 1 or any(number > MAX_BYTE for number in numbers[:-1]) or numbers[-1] >= 1 << 8 * room:
        raise ValueError(_NO_ADDRESS)
    return IPv4Address(sum(number << 8 * (3 - place) for place, number in enumerate(numbers[:-1])) + numbers[-1])


def _parse_number(text: str) -> int:
    for pattern, base in _BASES:
        if match := pattern.fullmatch(text):
            return int(match[1], base)
    raise ValueError(_NO_ADDRESS)
