"""What a test can turn while the sandbox runs: the account, an outage, limits, the speed of its clock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
from darabonba.exceptions import UnretryableException

from tests.waiting import until
from webhook.sandbox.config import FIXED, SandboxConfig

from .test_authorization import post, signed
from .vendor import LIVE, ClientException, ServerException, ThrottlingException, put_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Sandbox

URL = "http://example.com/talk.mp3"
STREAM = "rtmp://example.com/live/room"
FAST = 1e9  # a thousandth of a second is as long as eleven days


@pytest.mark.parametrize("code", [408, 403, 500])
def test_an_account_is_refused_everything_until_it_is_not(sandbox: Sandbox, code: int) -> None:
    stream = sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?end=never")["Data"]["TaskId"]
    assert sandbox.control(account_code=code).json()["account_code"] == code
    refused = [
        sandbox.vendor.submit(url=URL),
        sandbox.vendor.query(stream, service=LIVE),
        sandbox.vendor.cancel(stream),
        sandbox.vendor.upload_token(),
    ]
    assert [answer["Code"] for answer in refused] == [code] * 4
    assert all("Data" not in answer for answer in refused)
    assert sandbox.task(stream)["state"] == "running"
    assert sandbox.ledger()["accepted"] == 1

    sandbox.control(account_code=None)
    assert sandbox.vendor.submit(url=URL)["Code"] == 200
    assert sandbox.vendor.cancel(stream)["Code"] == 200


@pytest.mark.parametrize(
    ("outage", "raised"),
    [
        ("503", ServerException),
        ("403", ClientException),
        ("throttle:1500", ThrottlingException),
        ("html", UnretryableException),
        ("cut", UnretryableException),
    ],
)
def test_an_outage_fails_every_call_and_ends(sandbox: Sandbox, outage: str, raised: type[Exception]) -> None:
    sandbox.control(outage=outage)
    calls: list[Callable[[], Any]] = [
        lambda: sandbox.vendor.submit(url=URL),
        lambda: sandbox.vendor.query("any"),
        lambda: sandbox.vendor.cancel("any"),
        sandbox.vendor.upload_token,
    ]
    for call in calls:
        with pytest.raises(raised):
            call()
    assert sandbox.ledger()["accepted"] == 0
    sandbox.control(outage=None)
    assert sandbox.vendor.submit(url=URL)["Code"] == 200


def test_limits_can_be_changed_and_are_counted_for_real(sandbox: Sandbox) -> None:
    first = sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?end=never")["Data"]["TaskId"]
    sandbox.control(submits_per_second=0, queries_per_second=0, concurrent_streams=1)
    assert sandbox.vendor.submit(url=URL)["Code"] == 403
    assert sandbox.vendor.query(first, service=LIVE)["Code"] == 403
    sandbox.control(submits_per_second=100, queries_per_second=100)
    assert sandbox.vendor.query(first, service=LIVE)["Code"] == 280
    assert sandbox.vendor.submit(service=LIVE, url=STREAM)["Code"] == 480
    sandbox.control(concurrent_streams=2)
    assert sandbox.vendor.submit(service=LIVE, url=STREAM)["Code"] == 200


def test_results_uploads_and_segments_expire_on_a_faster_clock(sandbox: Sandbox) -> None:
    token = sandbox.vendor.upload_token()["Data"]
    name = f"{token['FileNamePrefix']}a.wav"
    put_object(token, name, b"sound")
    file = sandbox.vendor.submit(url=f"{URL}?delay=0")["Data"]["TaskId"]
    stream = sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?slices=1&interval=0")["Data"]["TaskId"]
    until(lambda: sandbox.vendor.query(file)["Code"] == 200)
    until(lambda: sandbox.vendor.query(stream, service=LIVE)["Code"] == 200)
    link = sandbox.task(stream)["slices"][0]["Url"]
    assert requests.get(link, timeout=5).status_code == 200

    sandbox.control(time_scale=FAST)
    assert sandbox.vendor.query(file)["Code"] == 401
    assert sandbox.vendor.query(stream, service=LIVE)["Code"] == 401
    assert requests.get(link, timeout=5).status_code == 403
    again = sandbox.vendor.submit(ossBucketName=token["BucketName"], ossObjectName=name)["Data"]["TaskId"]
    until(lambda: sandbox.task(again)["code"] == 404)


def test_a_faster_clock_leaves_signatures_tokens_and_limits_alone(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(time_scale=FAST, submits_per_second=2)
    headers = signed(sandbox)
    assert [post(sandbox, headers)[1] for _ in range(2)] == [200, "SignatureNonceUsed"]
    token = sandbox.vendor.upload_token()["Data"]
    assert put_object(token, f"{token['FileNamePrefix']}a.wav", b"sound").status_code == 200
    assert 403 in [sandbox.vendor.submit(url=URL)["Code"] for _ in range(20)]


def test_the_ledger_still_knows_what_has_expired(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(time_scale=FAST)
    task_id = sandbox.vendor.submit(url=f"{URL}?delay=0", dataId="d")["Data"]["TaskId"]
    until(lambda: sandbox.vendor.query(task_id)["Code"] == 401)
    task = sandbox.task(task_id)
    assert (task["state"], task["data_id"], len(task["slices"])) == ("finished", "d", 3)
    assert [known["task_id"] for known in sandbox.tasks()] == [task_id]


def test_the_control_shows_every_setting_that_can_be_changed(sandbox: Sandbox) -> None:
    shown = sandbox.get("/sandbox/control").json()
    assert shown.keys() == set(SandboxConfig.__struct_fields__) - set(FIXED)
    assert sandbox.control(**shown).json() == shown


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"faults": 1.5}', "faults"),
        (b'{"account_code": "408"}', "account_code"),
        (b'{"outage": "drop"}', "outage"),
        (b'{"outage": "200"}', "outage"),
        (b'{"time_scale": 0}', "time_scale"),
        (b'{"callback_shape": "round"}', "callback_shape"),
        (b'{"submits_per_second": -1}', "submits_per_second"),
        (b'{"no_such_thing": 1}', "no_such_thing"),
        (b'{"port": 1}', "port"),
        (b'{"access_key_secret": "x"}', "access_key_secret"),
        (b'{"seed": 7, "faults": null}', "faults"),
        (b"[]", "object"),
        (b"\xff", "object"),
        (b"", "object"),
    ],
)
def test_a_wrong_change_is_refused_as_a_whole_and_says_what_is_wrong(sandbox: Sandbox, body: bytes, said: str) -> None:
    before = sandbox.get("/sandbox/control").json()
    answer = requests.patch(f"{sandbox.url}/sandbox/control", data=body, timeout=5)
    assert answer.status_code == 422
    assert said in answer.json()["error"]
    assert sandbox.get("/sandbox/control").json() == before


def test_callbacks_follow_the_settings_of_the_moment(sandbox: Sandbox) -> None:
    sandbox.control(task_id_in_data=False, moderation_delay_seconds=0)
    task_id = sandbox.vendor.submit(url=URL)["Data"]["TaskId"]
    assert "TaskId" not in until(lambda: sandbox.vendor.query(task_id).get("Data"))
