"""The posture, shown: each ask of the vendor's, and how it is met here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from flask import Response

from webhook import clock, posture
from webhook.api.headers import secure
from webhook.api.routing import Answer, Request, Route
from webhook.api.schemas import posture as schemas
from webhook.roles import Permission

if TYPE_CHECKING:
    from collections.abc import Mapping

    from webhook.db import Session
    from webhook.posture import Item


def answer_headers() -> Mapping[str, str]:
    """Return the headers that every answer gets."""
    return dict(secure(Response()).headers)


def shape(items: list[Item]) -> dict[str, object]:
    """Return items as API and command line show them."""
    return {"ok": all(item.state != "wrong" for item in items), "items": [msgspec.structs.asdict(one) for one in items]}


def _show(request: Request, session: Session) -> Answer:
    service = request.service
    subject = posture.Subject(
        settings=service.settings,
        database=service.database,
        keyring=service.keyring,
        headers=answer_headers(),
        now=clock.now(),
        thorough=False,
    )
    return Answer(body=shape(posture.examine(subject, session)))


ROUTES = (
    Route(
        method="GET",
        path="/v1/posture",
        tag="Posture",
        permission=Permission.SEE_POSTURE,
        summary="Show how the vendor's security asks are met, each with what shows it",
        call=_show,
        answers={200: schemas.PostureOut},
    ),
)
