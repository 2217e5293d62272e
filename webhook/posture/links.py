"""What is said over a network: whether TLS is spoken, and which."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections import Counter
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from webhook import bootstrap, platform_client
from webhook.addresses import is_private
from webhook.checks import count
from webhook.connections import default_ssl_context
from webhook.errors import ServiceError, StoreUnavailable
from webhook.evidence_stores import Bucket
from webhook.posture.subject import Finding
from webhook.store import deliveries as delivery_store

if TYPE_CHECKING:
    from webhook.checks import State
    from webhook.db import Session
    from webhook.posture.subject import Subject

_OVER_TLS = frozenset({"https", "amqps", "rediss", "tls"})
_TRY_SECONDS = 4.0
_HTTPS_PORT = 443
_CHECKED = frozenset({"verify-ca", "verify-full"})
# https://www.postgresql.org/docs/current/libpq-ssl.html: the names that PostgreSQL has for what may be spoken
_NEW = frozenset({"TLSv1.2", "TLSv1.3"})


def platform(subject: Subject, _session: Session) -> Finding:
    """Look at how the platform is called."""
    endpoint = subject.settings.platform_endpoint
    make_client = bootstrap.platform_client(subject.settings) if subject.thorough else None
    oldest = platform_client.MINIMUM_TLS if make_client is None else make_client().minimum_tls()
    evidence = {"endpoint": endpoint, "minimum": oldest.name, "looked_into_client": make_client is not None}
    if not endpoint.startswith("https://"):
        mend = "Leave WEBHOOK_PLATFORM_ENDPOINT out, or set it to an https:// one."
        found = f"{endpoint} is called without TLS: links to audio and seeds can be read on the way."
        is_near = is_private(urlsplit(endpoint).hostname or "")
        return Finding(state="warning" if is_near else "wrong", finding=found, mend=mend, evidence=evidence)
    if oldest < ssl.TLSVersion.TLSv1_2:
        return Finding(
            state="wrong",
            finding=f"The client of {endpoint} would speak {oldest.name}.",
            mend="Mend this machine's OpenSSL configuration.",
            evidence=evidence,
        )
    return Finding(
        state="ok", finding=f"{endpoint}, by {_named(oldest)} or later; its certificate is checked.", evidence=evidence
    )


def _named(version: ssl.TLSVersion) -> str:
    """Return a version as people write it."""
    return version.name.replace("TLSv1_", "TLS 1.").replace("TLSv1", "TLS 1.0")


def callbacks(subject: Subject, _session: Session) -> Finding:
    """Look at the proxy that callbacks come by."""
    url = subject.settings.public_url
    evidence = {"public_url": url}
    if url is None:
        found = "WEBHOOK_PUBLIC_URL is not set: where callbacks come by cannot be seen from here."
        return Finding(state="unseen", finding=found, mend="Set it.", evidence=evidence)
    parts = urlsplit(url)
    if parts.scheme != "https":
        state: State = "warning" if is_private(parts.hostname or "") else "wrong"
        mend = "Put a proxy with TLS in front, and set WEBHOOK_PUBLIC_URL to https://."
        found = f"Callbacks come to {url}, without TLS: transcripts can be read on the way."
        return Finding(state=state, finding=found, mend=mend, evidence=evidence)
    if not subject.thorough:
        found = f"Callbacks come to {url}, over TLS; which version its proxy takes is not tried by a request."
        return Finding(state="unseen", finding=found, mend="Run `webhook doctor --security`.", evidence=evidence)
    return _tried(url, parts.hostname or "", parts.port or _HTTPS_PORT)


def _tried(url: str, host: str, port: int) -> Finding:
    """Speak TLS there, the newest and then what is too old."""
    try:
        spoken = _spoken(host, port, default_ssl_context())
    except ssl.SSLCertVerificationError as error:
        found = f"The certificate of {url} does not hold: {error.verify_message}."
        mend = "Renew it, or mend the proxy: the platform will not call back."
        return Finding(state="wrong", finding=found, mend=mend, evidence={"public_url": url, "spoken": None})
    except OSError:
        found = f"{url} cannot be reached from here, so which TLS its proxy takes cannot be seen."
        mend = f"From outside: openssl s_client -tls1_1 -connect {host}:{port} must fail."
        return Finding(state="unseen", finding=found, mend=mend, evidence={"public_url": url, "spoken": None})
    try:
        old = _spoken(host, port, _old_context())
    except OSError:  # refused, as it should be
        evidence = {"public_url": url, "spoken": spoken, "refused": "TLSv1.1"}
        return Finding(state="ok", finding=f"{url} speaks {spoken}, and refuses what is older.", evidence=evidence)
    evidence = {"public_url": url, "spoken": spoken, "taken": old}
    mend = "Have the proxy take TLS 1.2 and later alone (nginx: ssl_protocols TLSv1.2 TLSv1.3)."
    return Finding(state="wrong", finding=f"{url} speaks {spoken}, and {old}, too.", mend=mend, evidence=evidence)


def _spoken(host: str, port: int, context: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection((host, port), timeout=_TRY_SECONDS) as plain,
        context.wrap_socket(plain, server_hostname=host) as secured,
    ):
        return secured.version()


def _old_context() -> ssl.SSLContext:
    """Return what speaks TLS 1.0 and 1.1 alone, to see that nobody answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is said to whoever answers
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():  # that they are old is why they are tried
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def deliveries(_subject: Subject, session: Session) -> Finding:
    """Look at where events go."""
    active = [url for state, _, url in delivery_store.subscription_links(session) if state == "active"]
    schemes = Counter(url.partition("://")[0].lower() for url in active)
    oldest = default_ssl_context().minimum_version
    plain = {scheme: number for scheme, number in sorted(schemes.items()) if scheme not in _OVER_TLS}
    evidence = {"minimum": oldest.name, "active": dict(sorted(schemes.items())), "without_tls": sum(plain.values())}
    if plain:
        told = ", ".join(f"{number} by {scheme}://" for scheme, number in plain.items())
        found = f"Of {count(len(active), 'active subscription')}, some are without TLS: {told}."
        mend = "Use https://, amqps://, rediss:// or tls://. Without TLS nothing leaves the allowed private networks."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    found = f"{count(len(active), 'active subscription')}, none without TLS; {_named(oldest)} or later is spoken."
    return Finding(state="ok", finding=found, evidence=evidence)


def database(subject: Subject, _session: Session) -> Finding:
    """Look at the database's connection, as it is."""
    link = subject.database.link()
    if link is None:
        return Finding(state="ok", finding="A file: nothing of it crosses a network.", evidence={"server": None})
    evidence = {"server": link.host, "tls": link.tls, "sslmode": link.mode}
    if link.host.startswith("/") or is_loopback(link.host):
        found = f"The server is on this machine ({link.host}): nothing crosses a network."
        return Finding(state="ok", finding=found, evidence=evidence)
    if link.tls not in _NEW:
        return Finding(
            state="wrong",
            finding=f"The connection to {link.host} speaks {link.tls or 'no TLS'}.",
            mend="Add ?sslmode=verify-full&sslrootcert=… to WEBHOOK_DATABASE_URL.",
            evidence=evidence,
        )
    found = f"The connection to {link.host} speaks {link.tls}"
    if link.mode not in _CHECKED:
        mend = "Add ?sslmode=verify-full&sslrootcert=… to WEBHOOK_DATABASE_URL."
        found += f", but whose certificate it is, is not checked (sslmode={link.mode})."
        return Finding(state="warning", finding=found, mend=mend, evidence=evidence)
    return Finding(state="ok", finding=f"{found}; the certificate is checked.", evidence=evidence)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine."""
    return host in {"localhost", "::1"} or host.startswith("127.")


def evidence(subject: Subject, _session: Session) -> Finding:
    """Look at where saved audio goes."""
    try:
        store = bootstrap.evidence_store(subject.settings)
        endpoint = store.endpoint() if isinstance(store, Bucket) else None
    except (ServiceError, StoreUnavailable) as error:
        return Finding(state="unseen", finding=str(error), evidence={"endpoint": None})
    if endpoint is None:
        found = "Audio is saved in a directory: nothing of it crosses a network that the service knows of."
        return Finding(state="ok", finding=found, evidence={"endpoint": None})
    if endpoint.startswith("https://"):
        found = f"Audio is saved at {endpoint}, over TLS, and is encrypted before."
        return Finding(state="ok", finding=found, evidence={"endpoint": endpoint})
    found = f"Audio is saved at {endpoint}, without TLS; it is encrypted before, but the store's answers are not."
    mend = "Set AWS_ENDPOINT_URL to an https:// one."
    return Finding(state="warning", finding=found, mend=mend, evidence={"endpoint": endpoint})
