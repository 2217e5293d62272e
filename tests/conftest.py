"""What most tests stand on: settings, a migrated service, the API in this process, and the running service."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import hypothesis
import pytest
import structlog

from tests import databases
from tests.clients import ADMIN_KEY, AppClient
from tests.platform import Platform
from tests.running import ENCRYPTION_KEYS, Running, sandbox_variables
from tests.signed import UID
from tests.subscriber import Subscriber
from webhook import bootstrap
from webhook import settings as settings_module
from webhook.app import create_app

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhook.bootstrap import Service
    from webhook.settings import Settings


# a shell starts what it puts in the background with SIGINT ignored, and the programs under test would inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)

# how long an example takes, or is looked for, is no matter of what is right; CI says the same of the same code
hypothesis.settings.register_profile(
    "untimed",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("untimed")


class MakeSettings(Protocol):
    """Reads settings for a database in the test's directory; keyword arguments are further variables."""

    def __call__(self, **variables: str) -> Settings: ...


class MakeService(Protocol):
    """Puts a service together on the test's database; keyword arguments are further variables."""

    def __call__(self, **variables: str) -> Service: ...


class Clock:
    """A time that only moves when it is told to."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, **duration: float) -> None:
        self.time += timedelta(**duration)


@pytest.fixture(autouse=True)
def _plain_logs() -> None:
    """Log everything, whatever a test before this one configured, and without the variables of every frame."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=False,
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(),
        ],
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def settings(tmp_path: Path) -> MakeSettings:
    def make(**variables: str) -> Settings:
        return settings_module.load(
            {
                "WEBHOOK_DATABASE_URL": databases.url_of(tmp_path),
                "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
                "WEBHOOK_ADMIN_KEY": ADMIN_KEY,
                "WEBHOOK_PLATFORM_UID": UID,
                "WEBHOOK_PUBLIC_URL": "https://hooks.example.com",
                "WEBHOOK_ALLOWED_PRIVATE_NETWORKS": "127.0.0.0/8",
                **variables,
            }
        )

    return make


@pytest.fixture
def make_service(settings: MakeSettings, tmp_path: Path) -> Iterator[MakeService]:
    made: list[Service] = []
    fresh = {"WEBHOOK_DATABASE_URL": databases.fresh_url(tmp_path)}
    fresh |= databases.directories(tmp_path)

    def make(**variables: str) -> Service:
        service = bootstrap.build(settings(**fresh | variables))
        made.append(service)
        return service

    yield make
    for service in made:
        service.database.close()


@pytest.fixture
def service(make_service: MakeService) -> Service:
    return make_service()


@pytest.fixture
def client(service: Service) -> AppClient:
    """The API in this process, as an admin."""
    return AppClient(create_app(service))


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The sandbox that `running` submits to."""
    with Platform() as one:
        yield one


@pytest.fixture(scope="session")
def subscriber() -> Iterator[Subscriber]:
    with Subscriber() as one:
        yield one


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory, platform: Platform) -> Iterator[Running]:
    """`webhook serve`, started once for all tests that need the real thing; each makes what it needs."""
    one = Running(tmp_path_factory.mktemp("running"), **sandbox_variables(platform.url))
    one.start()
    yield one
    status = one.command.stop()
    assert status == 0, one.command.log
