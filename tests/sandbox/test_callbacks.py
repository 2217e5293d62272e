"""Callbacks as a receiver gets them; checksums are recomputed with hashlib.

Origin: voice-moderation.txt ("callback", "cryptType", "Callback message format").
"""

from __future__ import annotations

import hashlib
import hmac
import json
import queue
from typing import TYPE_CHECKING, Any

import pytest

from tests.waiting import until
from webhook.sandbox.callbacks import checksum

from .vendor import LIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    from .conftest import Sandbox
    from .receiver import Received, Receiver

URL = "http://example.com/talk.mp3"
STREAM = "rtmp://example.com/live/room"
UID = "1234567890123456"
SEED = "Seed_0123456789"


def submit(sandbox: Sandbox, receiver: Receiver, url: str = URL, **parameters: Any) -> str:
    body = sandbox.vendor.submit(url=url, callback=receiver.url, seed=SEED, **parameters)
    task_id: str = body["Data"]["TaskId"]
    return task_id


def digest(content: str, name: str = "sha256") -> str:
    return hashlib.new(name, f"{UID}{SEED}{content}".encode()).hexdigest()


def test_the_vendors_sm3_example_is_the_plain_digest() -> None:
    expected = "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"
    assert checksum("c", uid="a", seed="b", crypt_type="SM3", sm3_scheme="digest") == expected


def test_a_file_is_called_back_once_with_its_whole_result(sandbox: Sandbox, receiver: Receiver) -> None:
    task_id = submit(sandbox, receiver, f"{URL}?slices=7&label=sexual_terms,customized", dataId="d")
    received = receiver.next()
    assert received.content_type == "application/x-www-form-urlencoded"
    form = received.form
    assert set(form) == {"checksum", "content", "taskId"}
    assert form["taskId"] == task_id
    assert form["checksum"] == digest(form["content"])
    content = json.loads(form["content"])
    assert set(content) == {"Code", "Data", "Message", "RequestId"}
    assert content["Code"] == 200
    assert content["Data"]["DataId"] == "d"
    texts = "".join(entry["Text"] for entry in content["Data"]["SliceDetails"])
    assert all(sign in texts for sign in ("+", "&", "=", "%", "今", "🎵", '"'))
    assert len(content["Data"]["SliceDetails"][0]["Result"]) == 2
    assert receiver.nothing_for(0.2)
    task = sandbox.task(task_id)
    assert [attempt["status"] for attempt in task["callbacks"][0]["attempts"]] == [200]
    assert task["slices"] == content["Data"]["SliceDetails"]


@pytest.mark.parametrize("scheme", ["digest", "hmac"])
def test_sm3_follows_the_configured_scheme(
    start_sandbox: Callable[..., Sandbox], receiver: Receiver, scheme: str
) -> None:
    sandbox = start_sandbox(sm3_scheme=scheme)
    submit(sandbox, receiver, cryptType="SM3")
    form = receiver.next().form
    if scheme == "digest":
        assert form["checksum"] == digest(form["content"], "sm3")
    else:
        message = f"{UID}{SEED}{form['content']}".encode()
        assert form["checksum"] == hmac.new(SEED.encode(), message, "sm3").hexdigest()


def test_a_forged_checksum_is_wrong(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{URL}?checksum=wrong")
    form = receiver.next().form
    assert form["checksum"] != digest(form["content"])


def test_resends_go_on_until_exactly_200(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses.extend([500, 204, 302, 404])
    task_id = submit(sandbox, receiver)
    sent = [receiver.next() for _ in range(5)]
    assert len({received.body for received in sent}) == 1
    assert receiver.nothing_for(0.2)
    attempts = sandbox.task(task_id)["callbacks"][0]["attempts"]
    assert [attempt["status"] for attempt in attempts] == [500, 204, 302, 404, 200]
    assert receiver.redirected == 0


def test_after_sixteen_retries_the_platform_gives_up(start_sandbox: Callable[..., Sandbox], receiver: Receiver) -> None:
    sandbox = start_sandbox(resend_interval_seconds=0.001)
    receiver.statuses.extend([503] * 17)
    task_id = submit(sandbox, receiver)
    for _ in range(17):
        receiver.next()
    assert receiver.nothing_for(0.2)
    callback = sandbox.task(task_id)["callbacks"][0]
    assert len(callback["attempts"]) == 17
    assert not callback["acknowledged"]
    assert sandbox.ledger()["callback_attempts"] == 17


def test_a_dead_receiver_is_recorded_by_its_fault(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(callback_retries=1)
    body = sandbox.vendor.submit(url=URL, callback="http://127.0.0.1:1/", seed=SEED)
    task_id = body["Data"]["TaskId"]
    attempts = until(
        lambda: [a for c in sandbox.task(task_id)["callbacks"] for a in c["attempts"] if len(c["attempts"]) > 1]
    )
    assert attempts[0]["status"] is None
    assert attempts[0]["error"] == "ClientConnectorError"


def test_a_lost_callback_never_comes_but_the_result_does(sandbox: Sandbox, receiver: Receiver) -> None:
    task_id = submit(sandbox, receiver, "http://x.test/lost,risk=high.mp3")
    until(lambda: sandbox.vendor.query(task_id)["Code"] == 200)
    assert receiver.nothing_for(0.2)
    assert sandbox.task(task_id)["callbacks"][0]["lost"]


def test_without_a_callback_nothing_is_sent(sandbox: Sandbox) -> None:
    task_id = sandbox.vendor.submit(url=URL)["Data"]["TaskId"]
    until(lambda: sandbox.vendor.query(task_id)["Code"] == 200)
    assert sandbox.task(task_id)["callbacks"] == []


def test_a_doubled_callback_comes_again_after_its_200(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{URL}?callback=twice")
    assert receiver.next().body == receiver.next().body
    assert receiver.nothing_for(0.2)


def test_a_doubled_callback_can_come_twice_at_once(sandbox: Sandbox, receiver: Receiver) -> None:
    task_id = submit(sandbox, receiver, f"{URL}?callback=double")
    assert receiver.next().body == receiver.next().body
    attempts = until(
        lambda: [a for c in sandbox.task(task_id)["callbacks"] for a in c["attempts"] if c["acknowledged"]]
    )
    assert [attempt["status"] for attempt in attempts] == [200, 200]


def test_the_first_tries_of_a_callback_can_get_lost(sandbox: Sandbox, receiver: Receiver) -> None:
    task_id = submit(sandbox, receiver, f"{URL}?callback=lostx3")
    assert receiver.next().form["taskId"] == task_id
    [callback] = until(lambda: [c for c in sandbox.task(task_id)["callbacks"] if c["acknowledged"]])
    assert [(a["status"], a["error"]) for a in callback["attempts"]] == [(None, "lost")] * 3 + [(200, None)]
    assert (callback["way"], callback["lost"]) == ("lostx3", False)


def test_a_callback_whose_every_try_is_lost_is_given_up(start_sandbox: Callable[..., Sandbox]) -> None:
    sandbox = start_sandbox(callback_retries=2, resend_interval_seconds=0)
    body = sandbox.vendor.submit(url=f"{URL}?callback=lostx3", callback="http://127.0.0.1:1/", seed=SEED)
    attempts = until(
        lambda: [c["attempts"] for c in sandbox.task(body["Data"]["TaskId"])["callbacks"] if len(c["attempts"]) == 3]
    )
    assert [attempt["error"] for attempt in attempts[0]] == ["lost"] * 3


def starts(received: Received) -> list[int]:
    data = json.loads(received.form["content"]).get("Data", {"SliceDetails": []})
    return [entry["StartTime"] // 10 for entry in data["SliceDetails"]]


def test_the_batches_of_a_stream_can_come_in_another_order(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{STREAM}?slices=5&interval=0.01&callback=reordered", service=LIVE)
    came = [starts(receiver.next()) for _ in range(5)]
    assert sorted(came) == [[0], [1], [2], [3], [4]]
    assert came.index([1]) < came.index([0])  # each pair for itself: one does not wait for the other
    assert came.index([3]) < came.index([2])


def test_a_reordered_end_comes_before_the_last_slice(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{STREAM}?slices=3&interval=0.01&callback=reordered&end=break", service=LIVE)
    came = [starts(receiver.next()) for _ in range(4)]
    assert sorted(came) == [[], [0], [1], [2]]
    assert came.index([1]) < came.index([0])
    assert came.index([]) < came.index([2])


def test_what_waits_for_a_successor_is_sent_when_there_will_be_none(sandbox: Sandbox, receiver: Receiver) -> None:
    reordered = "interval=0.01&callback=reordered"
    stream = submit(sandbox, receiver, f"{STREAM}?{reordered}&gap=1:60", service=LIVE)
    until(lambda: sandbox.task(stream)["callbacks"])
    assert sandbox.task(stream)["callbacks"][0]["attempts"] == []
    sandbox.vendor.cancel(stream)
    assert starts(receiver.next()) == [0]
    file = submit(sandbox, receiver, f"{URL}?callback=reordered")
    assert receiver.next().form["taskId"] == file


def test_a_reordered_callback_goes_second_even_where_the_first_is_refused(sandbox: Sandbox, receiver: Receiver) -> None:
    receiver.statuses.append(503)
    submit(sandbox, receiver, f"{STREAM}?slices=2&interval=0&callback=reordered", service=LIVE)
    came = [starts(receiver.next()) for _ in range(3)]
    assert came[0] == [1]
    assert sorted(came[1:]) == [[0], [1]]


def test_an_old_batch_can_come_again_after_its_successor(sandbox: Sandbox, receiver: Receiver) -> None:
    task_id = submit(sandbox, receiver, f"{STREAM}?slices=3&interval=0.01&callback=echo", service=LIVE)
    came = [starts(receiver.next())[0] for _ in range(5)]
    assert sorted(came) == [0, 0, 1, 1, 2]
    for at in (0, 1):
        assert len(came) - 1 - came[::-1].index(at) > came.index(at + 1)
    until(lambda: [len(c["attempts"]) for c in sandbox.task(task_id)["callbacks"]] == [2, 2, 1])


def test_a_late_callback_comes_after_the_result(sandbox: Sandbox, receiver: Receiver) -> None:
    task_id = submit(sandbox, receiver, f"{URL}?callback=late:0.5&delay=0")
    until(lambda: sandbox.vendor.query(task_id)["Code"] == 200)
    with pytest.raises(queue.Empty):
        receiver.received.get_nowait()
    assert receiver.next().form["taskId"] == task_id


@pytest.mark.parametrize("source", [f"{URL}?callback=overtake", f"{URL}?callback=overtake&code=404"])
def test_an_overtaking_callback_is_answered_before_the_submit_is(
    sandbox: Sandbox, receiver: Receiver, source: str
) -> None:
    task_id = submit(sandbox, receiver, source)
    assert receiver.received.get_nowait().form["taskId"] == task_id
    assert sandbox.task(task_id)["callbacks"][0]["acknowledged"]


@pytest.mark.parametrize(
    "query",
    ["callback=overtake&interval=60", "callback=overtake&slices=0", "callback=overtake&interval=0.01&batch=2"],
)
def test_streams_overtake_with_their_first_callback(sandbox: Sandbox, receiver: Receiver, query: str) -> None:
    task_id = submit(sandbox, receiver, f"{STREAM}?{query}", service=LIVE)
    if "slices=0" in query:
        assert receiver.nothing_for(0.1)
    else:
        assert receiver.received.get_nowait().form["taskId"] == task_id


def test_overtaking_without_a_callback_just_waits_for_the_result(sandbox: Sandbox) -> None:
    task_id = sandbox.vendor.submit(url=f"{URL}?callback=overtake")["Data"]["TaskId"]
    assert sandbox.vendor.query(task_id)["Code"] == 200


def test_a_receiver_that_cannot_be_overtaken_is_not_waited_for_for_ever(
    start_sandbox: Callable[..., Sandbox], receiver: Receiver
) -> None:
    sandbox = start_sandbox(callback_timeout_seconds=0.1)
    assert submit(sandbox, receiver, f"{STREAM}?callback=overtake&batch=2&interval=60", service=LIVE)


def test_an_error_is_called_back_without_data(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{URL}?code=406")
    content = json.loads(receiver.next().form["content"])
    assert content["Code"] == 406
    assert "Data" not in content


def test_a_stream_is_called_back_slice_by_slice(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{STREAM}?slices=3&interval=0.02&risk=medium", service=LIVE, liveId="room")
    contents = [json.loads(receiver.next().form["content"]) for _ in range(3)]
    assert receiver.nothing_for(0.2)
    assert {content["Code"] for content in contents} == {200}
    assert [len(content["Data"]["SliceDetails"]) for content in contents] == [1, 1, 1]
    assert {content["Data"]["LiveId"] for content in contents} == {"room"}
    slices = [content["Data"]["SliceDetails"][0] for content in contents]
    assert [entry["RiskLevel"] for entry in slices] == ["medium", "none", "none"]
    assert len({(entry["StartTime"], entry["StartTimestamp"]) for entry in slices}) == 3
    assert all("/segments/" in entry["Url"] for entry in slices)


def test_a_stream_can_be_called_back_in_batches(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{STREAM}?slices=5&interval=0.01&batch=2", service=LIVE)
    sizes = [len(json.loads(receiver.next().form["content"])["Data"]["SliceDetails"]) for _ in range(3)]
    assert sorted(sizes) == [1, 2, 2]


def content_of(received: Received, encoding: str) -> tuple[str, str]:
    if encoding == "form":
        form = received.form
    elif encoding == "json":
        form = json.loads(received.body)
    else:
        boundary = received.headers["Content-Type"].partition("boundary=")[2]
        parts = received.body.split(f"--{boundary}".encode())[1:-1]
        form = {}
        for part in parts:
            head, _, value = part.removesuffix(b"\r\n").partition(b"\r\n\r\n")
            form[head.decode().partition('name="')[2].partition('"')[0]] = value.decode()
    return form["checksum"], form["content"]


@pytest.mark.parametrize("encoding", ["form", "multipart", "json"])
@pytest.mark.parametrize("shape", ["envelope", "bare", "camel"])
def test_content_and_form_take_the_shapes_that_the_vendor_leaves_open(
    sandbox: Sandbox, receiver: Receiver, shape: str, encoding: str
) -> None:
    submit(sandbox, receiver, f"{URL}?risk=low&shape={shape}&encoding={encoding}", dataId="d")
    received_checksum, content = content_of(receiver.next(), encoding)
    assert received_checksum == digest(content)
    keys = set(json.loads(content))
    if shape == "envelope":
        assert keys == {"Code", "Data", "Message", "RequestId"}
    elif shape == "bare":
        assert keys == {"TaskId", "Url", "DataId", "RiskLevel", "SliceDetails"}
    else:
        assert {"code", "taskId", "dataId", "riskLevel", "sliceDetails"} < keys
        assert "data" not in keys
        assert "endTime" in json.loads(content)["sliceDetails"][0]


def test_data_can_be_without_the_task_id(start_sandbox: Callable[..., Sandbox], receiver: Receiver) -> None:
    submit(start_sandbox(task_id_in_data=False), receiver)
    form = receiver.next().form
    assert form["taskId"]
    assert "TaskId" not in json.loads(form["content"])["Data"]


def test_a_long_files_result_arrives_whole(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{URL}?slices=9000&delay=0")
    form = receiver.next(10).form
    assert form["checksum"] == digest(form["content"])
    assert len(json.loads(form["content"])["Data"]["SliceDetails"]) == 9000


def test_a_transcript_can_be_dictated(sandbox: Sandbox, receiver: Receiver) -> None:
    submit(sandbox, receiver, f"{URL}?text=%00%20poison&slices=1&risk=high")
    entry = json.loads(receiver.next().form["content"])["Data"]["SliceDetails"][0]
    assert entry["Text"] == "\0 poison"
    assert "RiskWords" not in entry["Result"][0]


def test_a_proxy_in_the_environment_is_not_asked(
    sandbox: Sandbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(sandbox, receiver, f"{URL}?delay=0.3")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert receiver.next()
