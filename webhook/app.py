"""The Flask application of the web process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask

from webhook.api.http import Api
from webhook.callbacks import CallbackReceiver
from webhook.metrics import Metrics
from webhook.proxies import Proxies

if TYPE_CHECKING:
    from webhook.bootstrap import Service


def create_app(service: Service) -> Flask:
    """Make the application. Call it in the web process, after the fork."""
    app = Flask("webhook", static_folder=None)
    metrics = Metrics()
    receiver = CallbackReceiver(
        settings=service.settings,
        database=service.database,
        ingest=service.ingest,
        quarantine=service.quarantine,
        metrics=metrics,
    )
    app.add_url_rule("/callbacks/<token>", "callback", receiver.view, methods=["POST"], provide_automatic_options=False)
    Api(service, metrics).register(app)
    api = Proxies(service.settings.trusted_proxies).in_front_of(app.wsgi_app)
    app.wsgi_app = receiver.in_front_of(api)  # type: ignore[method-assign,assignment] # Flask's way
    return app
