"""The callback's view in this process: what each trouble of ours is answered, and whom it concerns."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import gevent
import pytest
from flask import Flask
from structlog.testing import capture_logs

from tests import databases
from tests.clients import FORM, NO_KEY, AppClient
from tests.signed import content, form, piece
from webhook import batching, callbacks
from webhook.app import create_app
from webhook.callbacks import CallbackReceiver
from webhook.errors import DecryptionError, Overloaded
from webhook.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.clients import Reply
    from tests.conftest import MakeService
    from webhook.bootstrap import Service
    from webhook.ingest import Arrival


def post(client: AppClient, receiver: Any, body: bytes, content_type: str = FORM) -> Reply:
    path = "/" + receiver["callback_url"].split("/", 3)[3]
    return client.post(path, body=body, headers={"Content-Type": content_type}, key=NO_KEY)


def test_a_large_callback_is_worked_on_aside_and_stored_whole(client: AppClient) -> None:
    receiver = client.receiver()
    slices = [piece(at * 10, text="text " * 60) for at in range(1000)]
    body = form(content(*slices, DataId="long"), seed=receiver["seed"])
    assert len(body) > 256 * 1024
    assert post(client, receiver, body).status == 200
    [verdict] = client.items("/v1/verdicts", data_id="long")
    assert verdict["slice_count"] == 1000


@databases.needs_sqlite
def test_who_writes_meanwhile_holds_up_a_small_callback_and_nobody_else(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching, "_QUICK_IN_A_ROW", 0)
    client = AppClient(create_app(service))
    receiver = client.receiver()
    with service.database.transaction():
        waiting = gevent.spawn(post, client, receiver, form(content(piece(0)), seed=receiver["seed"]))
        for _ in range(20):  # turns of the hub, in which it would wait if it were to
            gevent.sleep()
        assert client.get("/livez", key=NO_KEY).status == 200
        assert not waiting.ready()
    assert waiting.get(timeout=10).status == 200
    assert len(client.items("/v1/verdicts")) == 1


def test_what_cannot_be_taken_is_told_by_its_status(make_service: MakeService) -> None:
    client = AppClient(create_app(make_service(WEBHOOK_CALLBACK_BODY_LIMIT_BYTES="1024")))
    receiver = client.receiver()
    assert post(client, receiver, b"checksum=" + b"a" * 1024).status == 413
    assert post(client, receiver, b"checksum=a").status == 400
    assert post(client, receiver, b"checksum=a&content=b", "text/plain").status == 415
    assert client.items("/v1/callbacks") == []


def test_flask_s_own_route_answers_the_same(service: Service) -> None:
    """It is passed by, for speed; but it is what Flask knows of."""
    app = create_app(service)
    app.wsgi_app = functools.partial(Flask.wsgi_app, app)  # type: ignore[method-assign] # as it was before
    client = AppClient(app)
    receiver = client.receiver()
    assert post(client, receiver, form(content(piece(0)), seed=receiver["seed"])).status == 200
    assert post(client, receiver, form(content(piece(0)), seed="another")).status == 403
    assert len(client.items("/v1/verdicts")) == 1


def test_a_fault_of_ours_is_a_503_and_its_log_has_no_token(
    client: AppClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = client.receiver()
    body = form(content(piece(0)), seed=receiver["seed"])

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched, capture_logs() as logged:
        patched.setattr(service.quarantine, "verify", fail)
        reply = post(client, receiver, body)
    assert (reply.status, reply.headers["Retry-After"], reply.body) == (503, "5", b"try again later\n")
    assert [entry["log_level"] for entry in logged] == ["error"]
    assert receiver["callback_url"].rpartition("/")[2] not in str(logged)
    assert post(client, receiver, body).status == 200


def test_secrets_that_do_not_open_are_a_503(
    client: AppClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = client.receiver()

    def fail(*_: object, **__: object) -> None:
        raise DecryptionError

    monkeypatch.setattr(service.keyring, "open", fail)
    with capture_logs() as logged:
        assert post(client, receiver, form(content(piece(0)), seed=receiver["seed"])).status == 503
    assert [entry["log_level"] for entry in logged] == ["warning"]


@pytest.mark.parametrize(("breaks", "status", "kept"), [("as a result", 200, 1), ("even raw", 503, 0)])
def test_a_callback_that_breaks_the_ingest_is_kept_raw_and_its_neighbours_are_stored(
    service: Service, monkeypatch: pytest.MonkeyPatch, breaks: str, status: int, kept: int
) -> None:
    app = create_app(service)
    client = AppClient(app)
    receiver = client.receiver()
    accept = service.ingest.accept

    def accept_all_but_poison(session: Any, arrivals: Sequence[Arrival]) -> list[str | None]:
        for arrival in arrivals:
            if b"poison" in arrival.content and (arrival.result is not None or breaks == "even raw"):
                raise ZeroDivisionError
        return accept(session, arrivals)

    monkeypatch.setattr(service.ingest, "accept", accept_all_but_poison)
    names = ["good-1", "poison", "good-2"]
    bodies = [form(content(piece(0), DataId=name, TaskId=name), seed=receiver["seed"]) for name in names]
    with capture_logs() as logged:
        sent = [gevent.spawn(post, AppClient(app), receiver, body) for body in bodies]
        statuses = [one.get(timeout=10).status for one in sent]
    assert statuses == [200, status, 200]
    assert {entry["event"] for entry in logged if entry["log_level"] == "error"} == {
        "A callback could not be worked into its task."
    }
    assert {verdict["data_id"] for verdict in client.items("/v1/verdicts")} == {"good-1", "good-2"}
    assert [event["type"] for event in client.feed(types="callback.*")] == ["callback.rejected"] * kept
    unreadable = client.items("/v1/callbacks", state="unreadable")
    assert len(unreadable) == kept
    assert all("fault of the service" in one["message"] for one in unreadable)


def test_bodies_are_held_up_to_a_bound_and_a_single_one_always(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "_HELD_BYTES", 100)

    def receiver() -> CallbackReceiver:
        return CallbackReceiver(
            settings=service.settings,
            database=service.database,
            ingest=service.ingest,
            quarantine=service.quarantine,
            metrics=Metrics(),
        )

    shared, alone = receiver(), receiver()
    shared.hold(90, held_before=0)
    with pytest.raises(Overloaded):
        shared.hold(20, held_before=0)
    shared.hold(10, held_before=0)
    alone.hold(90, held_before=0)
    alone.hold(90, held_before=90)
