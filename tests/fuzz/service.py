"""A service of its own for a target, and its application called as a server calls it."""

from __future__ import annotations

import io
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from tests import databases
from tests.clients import ADMIN_KEY, Hub
from tests.running import ENCRYPTION_KEYS
from tests.signed import UID
from webhook import bootstrap, settings
from webhook.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from webhook.bootstrap import Service

_OFTEN = "100000"


class Reply(Struct, frozen=True, kw_only=True):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body, read."""
        return msgspec.json.decode(self.body)


@contextmanager
def fresh_service() -> Iterator[Service]:
    """Put a service together on an empty database."""
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        made = bootstrap.build(
            settings.load(
                {
                    "WEBHOOK_DATABASE_URL": databases.fresh_url(directory),
                    "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
                    "WEBHOOK_ADMIN_KEY": ADMIN_KEY,
                    "WEBHOOK_PLATFORM_UID": UID,
                    "WEBHOOK_PUBLIC_URL": "https://hooks.example.com",
                    "WEBHOOK_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
                    "WEBHOOK_REQUESTS_PER_SECOND": _OFTEN,
                    "WEBHOOK_REQUESTS_AT_ONCE": _OFTEN,
                    **databases.directories(directory),
                }
            )
        )
        try:
            yield made
        finally:
            made.database.close()


class App:
    """The application of a service, and the hub that it runs in."""

    def __init__(self, service: Service) -> None:
        self._app = create_app(service)
        self._hub = Hub()

    def ask(
        self,
        method: str,
        path: bytes,
        *,
        query: bytes = b"",
        headers: Mapping[str, str],
        body: bytes | None = b"",
        address: str = "127.0.0.1",
    ) -> Reply:
        """Send a request; whatever the application raises comes through.

        Args:
            path: with its escapes undone, as `http1` gives it.
            body: None for none, not even an empty one.
        """
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": path.decode("latin-1"),
            "QUERY_STRING": query.decode("latin-1"),
            "SCRIPT_NAME": "",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": address,
            "HTTP_HOST": "127.0.0.1:8000",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body or b""),
            "wsgi.input_terminated": True,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        if body is not None:
            environ["CONTENT_LENGTH"] = str(len(body))
        for name, value in headers.items():
            key = name.upper().replace("-", "_")
            environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
        started: list[tuple[str, list[tuple[str, str]]]] = []

        def start(status: str, fields: list[tuple[str, str]], _error: object = None) -> Any:
            started[:] = [(status, fields)]
            return None

        with self._hub:
            answer = self._app(environ, start)
            content = b"".join(answer)
            if hasattr(answer, "close"):
                answer.close()
        [(status, fields)] = started
        return Reply(status=int(status[:3]), headers={name.lower(): value for name, value in fields}, body=content)
