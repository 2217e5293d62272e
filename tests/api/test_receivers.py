"""Receivers: addresses for tasks that another system submits, and the tasks that their callbacks make."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.signed import content, form, piece

if TYPE_CHECKING:
    from tests.clients import AppClient


def test_seed_and_address_are_shown_once(client: AppClient) -> None:
    made = client.receiver(name="elsewhere", crypt_type="SM3", uid="42")
    assert made["callback_url"].startswith("https://hooks.example.com/callbacks/")
    assert len(made["seed"]) == 48
    shown = client.shown(f"/v1/receivers/{made['id']}")
    assert shown == {name: made[name] for name in ("id", "name", "crypt_type", "uid", "created_at")}
    assert client.items("/v1/receivers") == [shown]


def test_a_receiver_has_the_seed_that_it_is_given(client: AppClient) -> None:
    made = client.receiver(seed="theirs_1")
    assert made["seed"] == "theirs_1"
    assert client.callback(made["callback_url"], form(content(piece(0)), seed="theirs_1")) == 200


def test_a_receiver_of_another_account_verifies_with_its_uid(client: AppClient) -> None:
    made = client.receiver(uid="42")
    assert client.callback(made["callback_url"], form(content(piece(0)), seed=made["seed"])) == 403
    assert client.callback(made["callback_url"], form(content(piece(0)), seed=made["seed"], uid="42")) == 200


def test_a_closed_address_is_unknown(client: AppClient) -> None:
    made = client.receiver()
    body = form(content(piece(0)), seed=made["seed"])
    assert client.callback(made["callback_url"], body) == 200
    assert client.delete(f"/v1/receivers/{made['id']}").status == 204
    assert client.callback(made["callback_url"], body) == 404
    assert client.get(f"/v1/receivers/{made['id']}").status == 404
    assert client.delete(f"/v1/receivers/{made['id']}").status == 404
    assert client.items("/v1/receivers") == []
    assert len(client.items("/v1/tasks")) == 1


def test_callbacks_make_one_external_task_for_each_task_id_in_the_signed_content(client: AppClient) -> None:
    made = client.receiver()
    for said in (content(piece(0), TaskId="a"), content(piece(10), TaskId="a"), content(piece(0), TaskId="b")):
        assert client.callback(made["callback_url"], form(said, seed=made["seed"], task_id="hint")) == 200
    tasks = {task["platform_task_id"]: task for task in client.items("/v1/tasks")}
    assert {name: task["slice_count"] for name, task in tasks.items()} == {"a": 2, "b": 1}
    assert {task["origin"] for task in tasks.values()} == {"external"}
    assert {task["state"] for task in tasks.values()} == {"completed"}


def test_the_form_s_task_id_counts_only_where_the_content_has_none(client: AppClient) -> None:
    made = client.receiver()
    for start in (0, 10):
        said = content(piece(start))
        assert client.callback(made["callback_url"], form(said, seed=made["seed"], task_id="hinted")) == 200
    [task] = client.items("/v1/tasks")
    assert (task["platform_task_id"], task["slice_count"]) == ("hinted", 2)


def test_the_same_content_under_another_task_id_is_the_same_callback(client: AppClient) -> None:
    made = client.receiver()
    said = content(piece(0, risk="high"))
    for hint in ("one", "two", None):
        assert client.callback(made["callback_url"], form(said, seed=made["seed"], task_id=hint)) == 200
    assert [task["platform_task_id"] for task in client.items("/v1/tasks")] == ["one"]
    assert [event["type"] for event in client.feed()] == ["slice.flagged", "task.completed"]


def test_two_receivers_do_not_share_tasks(client: AppClient) -> None:
    for made in (client.receiver(), client.receiver()):
        said = content(piece(0), TaskId="the same")
        assert client.callback(made["callback_url"], form(said, seed=made["seed"])) == 200
    assert len(client.items("/v1/tasks")) == 2


def test_a_content_with_a_live_id_is_of_a_stream_that_goes_on(client: AppClient) -> None:
    made = client.receiver()
    said = content(piece(0), TaskId="a", LiveId="room-1", Url="rtmp://example.com/1", DataId="d-1")
    assert client.callback(made["callback_url"], form(said, seed=made["seed"])) == 200
    [task] = client.items("/v1/streams")
    assert (task["kind"], task["state"], task["live_id"], task["data_id"]) == ("live", "processing", "room-1", "d-1")
    assert task["source"] == {"url": "rtmp://example.com/1"}
    assert task["last_slice_at"] is not None


def test_an_external_task_cannot_be_canceled(client: AppClient) -> None:
    made = client.receiver()
    said = content(piece(0), TaskId="a", LiveId="room-1")
    assert client.callback(made["callback_url"], form(said, seed=made["seed"])) == 200
    [task] = client.items("/v1/streams")
    assert client.delete(f"/v1/streams/{task['id']}").status == 409
