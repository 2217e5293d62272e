"""Who may come in, from where, how often, and with how much."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from webhook.checks import count
from webhook.posture.links import is_loopback
from webhook.posture.subject import Finding
from webhook.settings import authority
from webhook.store import keys as key_store
from webhook.store.keys import LIVE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network

    from webhook.db import Session
    from webhook.posture.subject import Subject

_MOST_PER_SECOND = 1000  # about what one web process answers: a limit beyond it limits nothing
_MIB = 1024 * 1024
_MOST_REQUEST_BYTES = 8 * _MIB
_MOST_CALLBACK_BYTES = 256 * _MIB  # a 10-hour file's result is up to 37 MB
_HEADERS = {  # OWASP, "REST Security Cheat Sheet", "Security Headers": what each must say
    "Cache-Control": "no-store",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def addresses(subject: Subject, _session: Session) -> Finding:
    """Look at where the web process listens."""
    settings = subject.settings
    binds = {"WEBHOOK_BIND": settings.bind, "WEBHOOK_CALLBACK_BIND": settings.callback_bind}
    given = {name: bind for name, bind in binds.items() if bind is not None}
    evidence = {
        "binds": {name: authority(*bind) for name, bind in given.items()},
        "callbacks_apart": settings.callback_bind is not None,
    }
    told = ", ".join(f"{name} {authority(*bind)}" for name, bind in given.items())
    public = [name for name, (host, _) in given.items() if _reach(host) == "public"]
    if public:
        mend = "It speaks plain HTTP: bind it to loopback or a private address, behind a proxy with TLS."
        found = f"{told}: {' and '.join(public)} is a public address."
        return Finding(state="wrong", finding=found, mend=mend, evidence=evidence)
    everywhere = [name for name, (host, _) in given.items() if _reach(host) == "everywhere"]
    if everywhere:
        mend = "Bind it to loopback or one private address; who else reaches it is the firewall's to say."
        found = f"{told}: {' and '.join(everywhere)} is every address of this machine, in plain HTTP."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    if settings.callback_bind is None and settings.public_url is not None:
        mend = "Set WEBHOOK_CALLBACK_BIND, and have the proxy lead there from outside."
        found = f"{told}: who reaches it for callbacks reaches the API, but for what the proxy stops."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    return Finding(state="ok", finding=f"{told}: no public address.", evidence=evidence)


def _reach(host: str) -> str:
    if is_loopback(host):
        return "machine"
    try:
        address = ip_address(host)
    except ValueError:  # a name, which whoever named it has chosen
        return "private"
    if address.is_unspecified:
        return "everywhere"
    return "public" if address.is_global else "private"


def proxies(subject: Subject, session: Session) -> Finding:
    """Look at whose word about clients' addresses is taken."""
    settings, trusted = subject.settings, subject.settings.trusted_proxies
    listed = [one for one in key_store.list_api_keys(session) if one.state(subject.now) == LIVE and one.networks]
    evidence = {"trusted": [str(network) for network in trusted], "keys_for_some_networks": len(listed)}
    if _anybody(trusted):
        mend = "Name the proxies' own networks in WEBHOOK_TRUSTED_PROXIES."
        found = "WEBHOOK_TRUSTED_PROXIES trusts everybody: whoever asks may claim any address."
        return Finding(state="wrong", finding=found, mend=mend, evidence=evidence)
    if trusted:
        found = f"Forwarded addresses are believed of {', '.join(map(str, trusted))} alone."
        return Finding(state="ok", finding=found, evidence=evidence)
    if listed and is_loopback(settings.bind[0]):
        mend = "If clients come through a proxy, set WEBHOOK_TRUSTED_PROXIES=127.0.0.1/32, and have it set all three."
        found = (
            f"No proxy is trusted, {settings.bind[0]} is where it listens, and {count(len(listed), 'API key')} are for "
            "some networks only: behind a proxy on this machine all clients have its address."
        )
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    found = "No proxy is trusted: a client's address is what its connection has, whatever its headers say."
    return Finding(state="ok", finding=found, evidence=evidence)


def subscriber_networks(subject: Subject, _session: Session) -> Finding:
    """Look at which private networks may be called."""
    allowed = subject.settings.allowed_private_networks
    evidence = {"allowed": [str(network) for network in allowed]}
    if _anybody(allowed):
        mend = "Name the networks in which subscribers live, and no others, in WEBHOOK_ALLOWED_PRIVATE_NETWORKS."
        found = "Every private address may be called by whoever sets a subscriber's URL, metadata services aside."
        return Finding(state="wrong", finding=found, mend=mend, evidence=evidence)
    if any(network.is_loopback for network in allowed):
        mend = "Take it out of WEBHOOK_ALLOWED_PRIVATE_NETWORKS, unless subscribers run on this machine."
        found = f"What listens on this machine alone may be called, too: {', '.join(map(str, allowed))}."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    told = f"{', '.join(map(str, allowed))} alone" if allowed else "none"
    return Finding(state="ok", finding=f"Private networks that may be called: {told}.", evidence=evidence)


def _anybody(networks: Iterable[IPv4Network | IPv6Network]) -> bool:
    return any(network.prefixlen == 0 for network in networks)


def rates(subject: Subject, _session: Session) -> Finding:
    """Look at how often may be asked."""
    settings = subject.settings
    each, together = settings.requests_per_second, settings.requests_per_second * settings.web_concurrency
    evidence = {
        "requests_per_second_for_each_key": each,
        "requests_at_once": settings.requests_at_once,
        "web_processes": settings.web_concurrency,
        "submits_per_second": settings.submits_per_second,
        "queries_per_second": settings.queries_per_second,
        "running_streams": settings.running_streams,
    }
    web = count(settings.web_concurrency, "web process", "web processes")
    found = (
        f"{each:,} requests a second for each key ({together:,} with {web}), {settings.requests_at_once:,} at once; "
        f"to the platform {settings.submits_per_second} submits and {settings.queries_per_second} queries a second, "
        f"{settings.running_streams} streams."
    )
    if each > _MOST_PER_SECOND:
        mend = f"Set WEBHOOK_REQUESTS_PER_SECOND to what a client needs, below {_MOST_PER_SECOND:,}."
        return Finding(state="warning", finding=f"{found} That limits nobody.", mend=mend, evidence=evidence)
    return Finding(state="ok", finding=found, evidence=evidence)


def bounds(subject: Subject, _session: Session) -> Finding:
    """Look at how much is taken in."""
    settings = subject.settings
    evidence = {
        "request_bytes": settings.request_body_limit,
        "callback_bytes": settings.callback_body_limit,
        "upload_bytes": settings.upload_limit,
        "audio_of_a_slice_bytes": settings.evidence_limit,
        "waiting_callbacks": settings.callback_queue,
        "quarantine_rows": settings.quarantine_rows,
        "quarantine_bytes": settings.quarantine_bytes,
    }
    found = (
        f"A request has up to {_mib(settings.request_body_limit)}, a callback {_mib(settings.callback_body_limit)}, "
        f"an upload {_mib(settings.upload_limit)}; every field is checked against /openapi.json."
    )
    wide = {
        "WEBHOOK_REQUEST_BODY_LIMIT_BYTES": settings.request_body_limit > _MOST_REQUEST_BYTES,
        "WEBHOOK_CALLBACK_BODY_LIMIT_BYTES": settings.callback_body_limit > _MOST_CALLBACK_BYTES,
    }
    if any(wide.values()):
        mend = f"Lower {' and '.join(name for name, is_wide in wide.items() if is_wide)}: nothing needs so much."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    return Finding(state="ok", finding=found, evidence=evidence)


def _mib(number: int) -> str:
    return f"{number / _MIB:,.0f} MiB" if number >= _MIB else f"{number:,} bytes"


def headers(subject: Subject, _session: Session) -> Finding:
    """Look at an answer's headers."""
    lacking = {
        name: subject.headers.get(name) for name, word in _HEADERS.items() if word not in subject.headers.get(name, "")
    }
    evidence = {"headers": {name: subject.headers.get(name) for name in _HEADERS}}
    if lacking:
        found = f"The service's answers lack, or have otherwise: {', '.join(lacking)}."
        return Finding(
            state="wrong", finding=found, mend="Install the service anew: its code was changed.", evidence=evidence
        )
    found = f"The service's answers have {', '.join(_HEADERS)}; what a proxy adds or takes away, `curl -i` shows."
    return Finding(state="ok", finding=found, evidence=evidence)
