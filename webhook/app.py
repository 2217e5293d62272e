"""The Flask applications of the web process: one, or one for the API and one for callbacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask

from webhook.api.http import Api, register_liveness
from webhook.callbacks import CallbackReceiver
from webhook.metrics import Metrics
from webhook.proxies import Proxies

if TYPE_CHECKING:
    from webhook.bootstrap import Service


def create_apps(service: Service) -> tuple[Flask, ...]:
    """Make the application of each address: `WEBHOOK_BIND`, and `WEBHOOK_CALLBACK_BIND` where it is set.

    An application knows no routes but its own, so no other can be reached at its address. Call it in the web
    process, after the fork.
    """
    metrics = Metrics()
    app = _empty_app()
    Api(service, metrics).register(app)
    app.wsgi_app = Proxies(service.settings.trusted_proxies).in_front_of(app.wsgi_app)  # type: ignore[method-assign,assignment] # Flask's way
    if service.settings.callback_bind is None:
        _take_callbacks(app, service, metrics)
        return (app,)
    public = _empty_app()
    register_liveness(public)
    _take_callbacks(public, service, metrics)
    return app, public


def create_app(service: Service) -> Flask:
    """Make the application of `WEBHOOK_BIND`."""
    return create_apps(service)[0]


def _empty_app() -> Flask:
    return Flask("webhook", static_folder=None)


def _take_callbacks(app: Flask, service: Service, metrics: Metrics) -> None:
    receiver = CallbackReceiver(
        settings=service.settings,
        database=service.database,
        ingest=service.ingest,
        quarantine=service.quarantine,
        metrics=metrics,
    )
    app.add_url_rule("/callbacks/<token>", "callback", receiver.view, methods=["POST"], provide_automatic_options=False)
    app.wsgi_app = receiver.in_front_of(app.wsgi_app)  # type: ignore[method-assign,assignment] # Flask's way
