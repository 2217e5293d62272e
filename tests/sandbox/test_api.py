"""The signed API, called by the vendor's own SDK.

Origin of the expectations: voice-moderation.txt; for HTTP errors what the SDK makes of them.
"""

from __future__ import annotations

import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from darabonba.exceptions import UnretryableException

from tests.waiting import until
from webhook.sandbox.codes import MESSAGES

from .vendor import AUDIO, LIVE, ClientException, ServerException, ThrottlingException, Vendor

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Sandbox
    from .receiver import Receiver

URL = "http://example.com/talk.mp3"
STREAM = "rtmp://example.com/live/room"


def finished(sandbox: Sandbox, task_id: str, *, service: str = AUDIO) -> dict[str, Any]:
    def ask() -> dict[str, Any] | None:
        body = sandbox.vendor.query(task_id, service=service)
        return None if body["Code"] == 280 else body

    return until(ask)


def test_a_file_is_in_progress_and_then_has_its_slices(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(moderation_delay_seconds=0.3)
    answer = sandbox.vendor.submit(
        url=f"{URL}?risk=high&label=political_entity&slices=10&flagged=2", dataId="voice.1-a_b"
    )
    assert answer["Code"] == 200
    assert answer["Message"] == "SUCCESS"
    assert answer["Data"]["DataId"] == "voice.1-a_b"
    task_id = answer["Data"]["TaskId"]
    assert {"@", "-", "_"} <= set(task_id)

    running = sandbox.vendor.query(task_id)
    assert running["Code"] == 280
    assert "Data" not in running

    done = finished(sandbox, task_id)
    assert done["Code"] == 200
    data = done["Data"]
    assert (data["TaskId"], data["DataId"], data["RiskLevel"]) == (task_id, "voice.1-a_b", "high")
    assert data["Url"].startswith(URL)
    assert [entry["RiskLevel"] for entry in data["SliceDetails"]] == ["high"] * 2 + ["none"] * 8
    finding = data["SliceDetails"][0]["Result"][0]
    assert finding["Label"] == "political_entity"
    assert 0 <= finding["Confidence"] <= 100
    assert finding["RiskWords"] == "WordA,词汇B"
    text = data["SliceDetails"][0]["Text"]
    assert [text[at["StartPos"] : at["EndPos"]] for at in finding["RiskPositions"]] == ["WordA", "词汇B"]


def test_the_older_regions_names_are_good_for_queries_only(sandbox: Sandbox) -> None:
    task_id = sandbox.vendor.submit(url=URL)["Data"]["TaskId"]
    assert sandbox.vendor.query(task_id, service="audio_detection_byllm")["Code"] in {200, 280}
    assert sandbox.vendor.submit(service="audio_detection_byllm", url=URL)["Code"] == 401


def test_without_magic_nothing_is_found_in_three_slices(sandbox: Sandbox) -> None:
    data = finished(sandbox, sandbox.vendor.submit(url=URL)["Data"]["TaskId"])["Data"]
    assert data["RiskLevel"] == "none"
    assert len(data["SliceDetails"]) == 3
    assert "DataId" not in data


def test_a_custom_library_hit_has_no_confidence(sandbox: Sandbox) -> None:
    data = finished(sandbox, sandbox.vendor.submit(url="https://x.test/customized.mp3")["Data"]["TaskId"])["Data"]
    finding = data["SliceDetails"][0]["Result"][0]
    assert "Confidence" not in finding
    assert finding["CustomizedHit"][0]["LibName"] == "CustomLibrary1"


def test_an_asynchronous_error_has_no_data(sandbox: Sandbox) -> None:
    assert finished(sandbox, sandbox.vendor.submit(url="http://x.test/404.mp3")["Data"]["TaskId"])["Code"] == 404
    body = finished(sandbox, sandbox.vendor.submit(url=f"{URL}?code=405")["Data"]["TaskId"])
    assert body["Code"] == 405
    assert "Data" not in body


def test_results_expire(start_sandbox: Callable[..., Sandbox]) -> None:
    ahead = [0.0]
    sandbox = start_sandbox(clock=lambda: time.time() + ahead[0])
    task_id = sandbox.vendor.submit(url=URL)["Data"]["TaskId"]
    finished(sandbox, task_id)
    # within the signature's tolerance for the one, past the result's life for the other
    short = start_sandbox(result_ttl_seconds=300, clock=lambda: time.time() + ahead[0])
    other = short.vendor.submit(url=URL)["Data"]["TaskId"]
    finished(short, other)
    ahead[0] = 600
    assert sandbox.vendor.query(task_id)["Code"] == 200
    assert short.vendor.query(other)["Code"] == 401
    assert short.vendor.query(other)["Code"] == 401


def test_a_stream_shows_recent_slices_then_all(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(recent_slices=2)
    answer = sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?slices=6&interval=0.05&silence=3", liveId="room1")
    task_id = answer["Data"]["TaskId"]
    started = sandbox.vendor.query(task_id, service=LIVE)
    assert started["Code"] == 280
    assert started["Data"]["LiveId"] == "room1"
    running = until(
        lambda: next(
            (
                body
                for body in [sandbox.vendor.query(task_id, service=LIVE)]
                if body["Code"] == 280 and len(body["Data"]["SliceDetails"]) == 2
            ),
            None,
        )
    )
    assert running["Data"]["SliceDetails"][0]["StartTimestamp"] > 1_600_000_000_000
    data = finished(sandbox, task_id, service=LIVE)["Data"]
    slices = data["SliceDetails"]
    assert len(slices) == 6
    assert [entry["Result"][0]["Label"] for entry in slices].count("specified_nontalk") == 2
    assert all(a["EndTimestamp"] == b["StartTimestamp"] for a, b in pairwise(slices))
    sound = sandbox.get(slices[0]["Url"].removeprefix(sandbox.url))
    assert sound.content.startswith(b"RIFF")
    assert sandbox.vendor.cancel(task_id)["Code"] == 200
    assert sandbox.task(task_id)["state"] == "finished"


def test_a_lost_source_ends_a_stream_with_404(sandbox: Sandbox) -> None:
    answer = sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?slices=1&interval=0.01&end=break")
    body = finished(sandbox, answer["Data"]["TaskId"], service=LIVE)
    assert body["Code"] == 404
    assert "Data" not in body


def test_a_stream_can_fail_at_once(sandbox: Sandbox) -> None:
    answer = sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?code=405&delay=0")
    assert finished(sandbox, answer["Data"]["TaskId"], service=LIVE)["Code"] == 405


def test_canceling_ends_a_stream_and_answers_without_data(sandbox: Sandbox) -> None:
    task_id = sandbox.vendor.submit(service=LIVE, url="rtsp://example.com/endless?interval=0.01", liveId="r")["Data"][
        "TaskId"
    ]
    until(lambda: sandbox.task(task_id)["slice_count"] > 3)
    answer = sandbox.vendor.cancel(task_id)
    assert answer["Code"] == 200
    assert "Data" not in answer
    body = sandbox.vendor.query(task_id, service=LIVE)
    assert body["Code"] == 200
    assert len(body["Data"]["SliceDetails"]) == sandbox.task(task_id)["slice_count"]
    assert sandbox.vendor.cancel(task_id)["Code"] == 200


def test_files_cannot_be_canceled(sandbox: Sandbox) -> None:
    task_id = sandbox.vendor.submit(url=URL)["Data"]["TaskId"]
    assert sandbox.vendor.cancel(task_id, service=AUDIO)["Code"] == 401
    assert sandbox.vendor.cancel(task_id)["Code"] == 401
    assert sandbox.vendor.cancel("unknown")["Code"] == 401


def test_a_live_id_is_moderated_once_at_a_time(sandbox: Sandbox, receiver: Receiver) -> None:
    stream: dict[str, Any] = {
        "service": LIVE,
        "url": f"{STREAM}?end=never&interval=0.01&slices=2&batch=2",
        "liveId": "a",
    }
    first = sandbox.vendor.submit(**stream, seed="first", callback=receiver.url)["Data"]["TaskId"]
    again = sandbox.vendor.submit(**stream, seed="second", callback="http://127.0.0.1:1/")["Data"]["TaskId"]
    other = sandbox.vendor.submit(**{**stream, "liveId": "b"})["Data"]["TaskId"]
    assert first == again
    assert other != first
    assert sandbox.ledger()["accepted"] == 2
    receiver.next()
    assert sandbox.task(first)["parameters"]["seed"] == "first"
    sandbox.vendor.cancel(first)
    assert sandbox.vendor.submit(**stream)["Data"]["TaskId"] != first


def test_more_streams_than_allowed_get_480(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(concurrent_streams=2)
    one, _ = (sandbox.vendor.submit(service=LIVE, url=f"{STREAM}?end=never", liveId=str(at)) for at in range(2))
    assert sandbox.vendor.submit(service=LIVE, url=STREAM, liveId="2")["Code"] == 480
    assert sandbox.vendor.submit(service=LIVE, url=STREAM, liveId="0")["Data"] == one["Data"]
    assert sandbox.vendor.submit(url=URL)["Code"] == 200
    sandbox.vendor.cancel(one["Data"]["TaskId"])
    assert sandbox.vendor.submit(service=LIVE, url=STREAM, liveId="2")["Code"] == 200


def test_more_calls_a_second_than_allowed_get_403(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(submits_per_second=3, queries_per_second=2)
    codes = [sandbox.vendor.submit(url=URL)["Code"] for _ in range(5)]
    assert codes == [200, 200, 200, 403, 403]
    task_id = sandbox.tasks()[0]["task_id"]
    assert [sandbox.vendor.query(task_id)["Code"] for _ in range(3)][2] == 403
    assert sandbox.ledger()["accepted"] == 3
    assert sandbox.ledger()["answers"]["VoiceModeration"] == {"200": 3, "403": 2}
    until(lambda: sandbox.vendor.submit(url=URL)["Code"] == 200)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({}, 400),
        ({"url": ""}, 400),
        ({"url": URL, "callback": "http://x.test/"}, 400),
        ({"url": URL, "callback": "http://x.test/", "seed": ""}, 400),
        ({"ossBucketName": "b", "ossObjectName": "o.mp3"}, 400),
        ({"ossBucketName": "b", "ossRegionId": "r"}, 400),
        ({"url": URL, "ossBucketName": "b"}, 401),
        ({"url": "ftp://x.test/a.mp3"}, 401),
        ({"url": "rtmp://x.test/a"}, 401),
        ({"url": "http://"}, 401),
        ({"url": "http://[::1"}, 401),
        ({"url": "http://x.test:port/a.mp3"}, 401),
        ({"url": 7}, 401),
        ({"url": URL, "callback": "ws://x.test/", "seed": "s"}, 401),
        ({"url": URL, "seed": "no-dashes"}, 401),
        ({"url": URL, "seed": "ö"}, 401),
        ({"url": URL, "cryptType": "MD5"}, 401),
        ({"url": URL, "dataId": "a b"}, 401),
        ({"url": f"{URL}?slices=many"}, 401),
        ({"url": URL, "seed": "s" * 65}, 402),
        ({"url": URL, "dataId": "d" * 65}, 402),
        ({"url": URL, "referer": "r" * 257}, 402),
        ({"url": "http://x.test/picture.JPG?x=.mp3"}, 407),
        ({"url": f"{URL}?submit_code=408"}, 408),
        ({"url": f"{URL}?submit_code=480"}, 480),
        ({"url": f"{URL}?submit_code=500"}, 500),
        ({"url": URL, "seed": "s" * 64, "dataId": "d" * 64, "referer": "r" * 256, "cryptType": "SM3"}, 200),
        ({"url": "http://x.test/what.unknown"}, 200),
        ({"url": "http://x.test/no-extension"}, 200),
        ({"ossBucketName": "b", "ossObjectName": "o/high.mp3", "ossRegionId": "cn-shanghai"}, 200),
        ({"url": URL, "liveId": "ignored", "new": {"parameter": []}}, 200),
    ],
)
def test_parameters_are_checked_with_the_vendors_codes(sandbox: Sandbox, parameters: dict[str, Any], code: int) -> None:
    answer = sandbox.vendor.submit(**parameters)
    assert answer["Code"] == code
    assert ("Data" in answer) == (code == 200)
    assert sandbox.ledger()["accepted"] == (code == 200)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"url": STREAM}, 200),
        ({"url": "https://x.test/live.flv"}, 200),
        ({"url": "https://x.test/live.m3u8"}, 200),
        ({"url": "file:///etc/passwd"}, 401),
        ({"ossBucketName": "b", "ossObjectName": "o.mp3", "ossRegionId": "r"}, 400),
    ],
)
def test_streams_come_by_their_own_protocols(sandbox: Sandbox, parameters: dict[str, Any], code: int) -> None:
    assert sandbox.vendor.submit(service=LIVE, **parameters)["Code"] == code


def test_services_are_checked(sandbox: Sandbox) -> None:
    assert sandbox.vendor.submit(service="", url=URL)["Code"] == 400
    assert sandbox.vendor.submit(service="nickname_detection", url=URL)["Code"] == 401
    assert sandbox.vendor.query("")["Code"] == 400
    task_id = sandbox.vendor.submit(url=URL)["Data"]["TaskId"]
    assert sandbox.vendor.query(task_id, service=LIVE)["Code"] == 401


@pytest.mark.parametrize("code", [code for code in MESSAGES if code not in {200, 280}])
def test_every_code_can_be_asked_for_at_every_point(sandbox: Sandbox, code: int) -> None:
    refused = sandbox.vendor.submit(url=f"{URL}?submit_code={code}")
    failed = sandbox.vendor.submit(url=f"{URL}?code={code}&delay=0")["Data"]["TaskId"]
    named = sandbox.vendor.submit(url=f"http://x.test/{code}.mp3?delay=0")["Data"]["TaskId"]
    stream = f"{STREAM}?query_code={code}&cancel_code={code}&end=never"
    asked = sandbox.vendor.submit(service=LIVE, url=stream)["Data"]["TaskId"]
    answers = [
        refused,
        finished(sandbox, failed),
        finished(sandbox, named),
        sandbox.vendor.query(asked, service=LIVE),
        sandbox.vendor.cancel(asked),
    ]
    assert [answer["Code"] for answer in answers] == [code] * 5
    assert all("Data" not in answer and answer["Message"] for answer in answers)
    assert sandbox.task(asked)["state"] == "running"


def test_a_code_can_end_the_first_tasks_only(sandbox: Sandbox) -> None:
    url = f"{URL}?code=404x2&submit_code=404x1&delay=0"
    assert sandbox.vendor.submit(url=url)["Code"] == 404
    ids = [sandbox.vendor.submit(url=url)["Data"]["TaskId"] for _ in range(3)]
    assert [finished(sandbox, task_id)["Code"] for task_id in ids] == [404, 404, 200]
    stream = f"{STREAM}?code=405x1&delay=0&interval=0"
    lives = [sandbox.vendor.submit(service=LIVE, url=stream)["Data"]["TaskId"] for _ in range(2)]
    assert [finished(sandbox, task_id, service=LIVE)["Code"] for task_id in lives] == [405, 200]


def test_a_cancellation_can_fail_first(sandbox: Sandbox) -> None:
    stream = f"{STREAM}?end=never&cancel_code=500x2"
    task_id = sandbox.vendor.submit(service=LIVE, url=stream)["Data"]["TaskId"]
    assert [sandbox.vendor.cancel(task_id)["Code"] for _ in range(3)] == [500, 500, 200]
    assert sandbox.task(task_id)["state"] == "canceled"


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        ("503", ServerException),
        ("418", ClientException),
        ("throttle", ThrottlingException),
        *((kind, UnretryableException) for kind in ("html", "cut", "hang")),
    ],
)
def test_queries_can_fail_in_http(sandbox: Sandbox, fault: str, raised: type[Exception]) -> None:
    sandbox.vendor.client._read_timeout = 300
    task_id = sandbox.vendor.submit(url=f"{URL}?query_http={fault}x1&delay=0")["Data"]["TaskId"]
    with pytest.raises(raised):
        sandbox.vendor.query(task_id)
    assert finished(sandbox, task_id)["Code"] == 200


def test_codes_can_be_for_the_first_calls_only(sandbox: Sandbox) -> None:
    url = f"{URL}?submit_code=500x2&query_code=403x1&delay=0"
    assert [sandbox.vendor.submit(url=url)["Code"] for _ in range(3)] == [500, 500, 200]
    task_id = sandbox.tasks()[0]["task_id"]
    assert sandbox.vendor.query(task_id)["Code"] == 403
    assert finished(sandbox, task_id)["Code"] == 200


def test_a_wrong_secret_is_refused_and_the_seed_echoed(sandbox: Sandbox) -> None:
    stranger = Vendor(sandbox.address, key_secret="wrong")
    with pytest.raises(ClientException) as caught:
        stranger.submit(url=URL, callback="http://x.test/", seed="SEEDSEEDSEED")
    assert caught.value.code == "SignatureDoesNotMatch"
    assert caught.value.status_code == 400
    assert "SEEDSEEDSEED" in caught.value.message
    assert sandbox.ledger()["accepted"] == 0


def test_an_unknown_access_key_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ClientException) as caught:
        Vendor(sandbox.address, key_id="nobody").upload_token()
    assert caught.value.code == "InvalidAccessKeyId.NotFound"
    assert caught.value.status_code == 404


def test_http_faults_reach_the_sdk_as_its_exceptions(sandbox: Sandbox) -> None:
    with pytest.raises(ServerException) as server:
        sandbox.vendor.submit(url=f"{URL}?http=503")
    assert (server.value.status_code, server.value.code) == (503, "ServiceUnavailable")
    with pytest.raises(ClientException) as client:
        sandbox.vendor.submit(url=f"{URL}?http=418")
    assert client.value.status_code == 418
    with pytest.raises(ThrottlingException) as throttled:
        sandbox.vendor.submit(url=f"{URL}?http=throttle:1500")
    assert throttled.value.retry_after == 1500
    with pytest.raises(UnretryableException):
        sandbox.vendor.submit(url=f"{URL}?http=html")
    with pytest.raises(UnretryableException):
        sandbox.vendor.submit(url=f"{URL}?http=cut")
    assert sandbox.ledger()["accepted"] == 0


@pytest.mark.parametrize("fault", ["drop", "hang"])
def test_a_lost_answer_was_accepted_all_the_same(sandbox: Sandbox, receiver: Receiver, fault: str) -> None:
    with pytest.raises(UnretryableException):
        sandbox.vendor.submit(url=f"{URL}?http={fault}x1", callback=receiver.url, seed="s")
    assert receiver.next().form["taskId"] == sandbox.tasks()[0]["task_id"]
    assert sandbox.ledger()["accepted"] == 1
    assert sandbox.vendor.submit(url=f"{URL}?http={fault}x1")["Code"] == 200
