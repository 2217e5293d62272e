"""The platform's client: the real SDK against the sandbox; each answer becomes the error that says what to do."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.running import free_port
from webhook import platform_client
from webhook.errors import OutcomeUnknown, PlatformBusy, PlatformError, PlatformRefused
from webhook.platform_client import PlatformClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.platform import Platform

AUDIO = "audio_detection_byllm_global"
LIVE = "live_detection_byllm_global"
SECRET = "sandbox-secret"

_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    # the SDK honours http_proxy even for loopback
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def calls(platform: Platform) -> Iterator[PlatformClient]:
    yield client_of(platform.url)
    close_connections()


def client_of(url: str, *, secret: str = SECRET) -> PlatformClient:
    return PlatformClient(
        endpoint=url, region="ap-southeast-1", access_key_id="sandbox", access_key_secret=secret, security_token=None
    )


def close_connections() -> None:
    """Close the connections that the SDK keeps for ever."""
    from darabonba.core import DaraCore

    while DaraCore._sessions:
        DaraCore._sessions.popitem()[1].close()


def submit(client: PlatformClient, platform: Platform, name: str, *, service: str = AUDIO) -> str:
    parameters = {
        "url": platform.source(f"{name},n={next(_numbers)}.mp3"),
        "seed": "a_secret_seed",
        "cryptType": "SHA256",
    }
    return client.submit(service=service, parameters=parameters | {"callback": "http://127.0.0.1:9/"})


def test_a_submit_returns_the_platform_s_id(calls: PlatformClient, platform: Platform) -> None:
    assert submit(calls, platform, "none").startswith("au_f_")


def test_a_stream_is_canceled_and_canceling_it_again_changes_nothing(calls: PlatformClient, platform: Platform) -> None:
    task_id = submit(calls, platform, "endless", service=LIVE)
    calls.cancel(service=LIVE, platform_task_id=task_id)
    calls.cancel(service=LIVE, platform_task_id=task_id)


def test_a_stream_that_the_platform_does_not_know_is_not_canceled(calls: PlatformClient) -> None:
    with pytest.raises(PlatformRefused):
        calls.cancel(service=LIVE, platform_task_id="au_l_nobody")


@pytest.mark.parametrize(
    ("magic", "kind", "reason"),
    [
        ("submit_code=400", PlatformRefused, "parameter_missing"),
        ("submit_code=401", PlatformRefused, "parameter_invalid"),
        ("submit_code=402", PlatformRefused, "parameter_too_long"),
        ("submit_code=403", PlatformBusy, "rate_limited"),
        ("submit_code=404", PlatformBusy, "source_unreachable"),
        ("submit_code=405", PlatformBusy, "source_unreachable"),
        ("submit_code=406", PlatformRefused, "source_too_large"),
        ("submit_code=407", PlatformRefused, "format_not_supported"),
        ("submit_code=408", PlatformBusy, "not_authorized"),
        ("submit_code=480", PlatformBusy, "concurrency_limited"),
        ("submit_code=500", PlatformBusy, "platform_error"),
        ("submit_code=599", PlatformBusy, "platform_error"),
        ("http=400", PlatformRefused, "parameter_invalid"),
        ("http=401", PlatformBusy, "not_authorized"),
        ("http=403", PlatformBusy, "not_authorized"),
        ("http=404", PlatformBusy, "platform_unreachable"),
        ("http=429", PlatformBusy, "rate_limited"),
        ("http=500", PlatformBusy, "platform_error"),
        ("http=503", PlatformBusy, "platform_error"),
        ("http=throttle", PlatformBusy, "rate_limited"),
        ("http=drop", OutcomeUnknown, "submit_outcome_unknown"),
        ("http=cut", OutcomeUnknown, "submit_outcome_unknown"),
        ("http=html", PlatformBusy, "platform_error"),
    ],
)
def test_every_answer_becomes_the_error_that_says_what_to_do(
    calls: PlatformClient, platform: Platform, magic: str, kind: type[PlatformError], reason: str
) -> None:
    with pytest.raises(PlatformError) as raised:
        submit(calls, platform, magic)
    assert type(raised.value) is kind
    assert raised.value.reason == reason
    assert raised.value.__cause__ is None


def test_an_answer_that_never_comes_is_an_outcome_unknown(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform_client, "_READ_TIMEOUT_MS", 200)
    with pytest.raises(OutcomeUnknown):
        submit(client_of(platform.url), platform, "http=hang")
    close_connections()


def test_a_platform_that_is_not_there_was_not_asked(platform: Platform) -> None:
    with pytest.raises(PlatformBusy) as raised:
        submit(client_of(f"http://127.0.0.1:{free_port()}"), platform, "none")
    assert raised.value.reason == "platform_unreachable"
    assert "WEBHOOK_PLATFORM_ENDPOINT" in raised.value.message


def test_a_server_that_hangs_up_may_have_been_asked(platform: Platform) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(OutcomeUnknown):
            submit(client_of(f"http://127.0.0.1:{listener.getsockname()[1]}"), platform, "none")
        thread.join()
    close_connections()


def test_a_wrong_secret_is_told_without_the_vendor_s_words_which_echo_our_seed(platform: Platform) -> None:
    with pytest.raises(PlatformBusy) as raised:
        submit(client_of(platform.url, secret="wrong"), platform, "none")
    assert raised.value.reason == "not_authorized"
    assert "a_secret_seed" not in f"{raised.value!r} {raised.value.__dict__}"
    assert raised.value.__suppress_context__
    close_connections()


def test_the_sdk_logs_nothing(calls: PlatformClient, platform: Platform, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        submit(calls, platform, "none")
    assert "a_secret_seed" not in caplog.text
    own = logging.getLogger("darabonba-core")
    assert not own.propagate
    assert [handler for handler in own.handlers if type(handler) is logging.StreamHandler] == []


def test_a_load_of_the_sdk_that_failed_leaves_nothing_of_it_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "alibabacloud_of_a_test"
    package.mkdir()
    (package / "part.py").write_text("")
    whole = "import alibabacloud_of_a_test.part\n"
    (package / "__init__.py").write_text(f"{whole}raise OSError(24, 'Too many open files')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(OSError, match="Too many open files"):
        platform_client._sdk(package.name)
    (package / "__init__.py").write_text(whole)
    assert platform_client._sdk(package.name).part
