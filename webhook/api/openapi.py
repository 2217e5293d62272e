"""The OpenAPI document, made from the table of routes and the schemas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema

import webhook
from webhook.api.routing import FORM, JSON, LONGEST_KEY, PROBLEM, Route
from webhook.api.schemas.base import SERVICE_OF, ProblemOut
from webhook.uploads import EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaMode

_PROBLEMS = {
    400: "The request is malformed.",
    401: "The API key is missing, unknown, expired or revoked.",
    403: "The API key's role, or the networks that it is for, do not allow this.",
    404: "There is no such thing.",
    409: "The thing's present state does not allow this.",
    410: "The thing is not to be had any more, or never was; or its task was erased.",
    412: "The content is not the one that If-Match names.",
    413: "The body is too large.",
    415: "The body is not application/json in UTF-8, or is compressed.",
    416: "None of the content lies in the range.",
    422: "Fields are wrong; `errors` names them.",
    429: "The API key is used too often, or wrong ones are.",
    503: "Our own trouble: try again later.",
}
_SUCCESSES = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "Done",
    206: "The part of the content that Range asks for",
    304: "The content that If-None-Match names",
}
_FILE_PART = {
    "headers": {
        "Content-Disposition": {
            "description": f"The file's name ends in one of {', '.join(EXTENSIONS)}.",
            "schema": {"type": "string"},
            "example": 'form-data; name="file"; filename="recording.mp3"',
        }
    }
}
_PARTIAL = 206
_TOO_MANY = 429
_LIMITS = {
    "Retry-After": {
        "description": "Seconds until a request will be answered.",
        "required": True,
        "schema": {"type": "integer", "minimum": 1},
    },
    "RateLimit-Policy": {
        "description": "On all answers to a key: it may make `q` requests at once, and as many more in `w` seconds.",
        "schema": {"type": "string"},
        "example": '"key";q=2000;w=10',
    },
    "RateLimit": {
        "description": "`r` requests are left; `t` seconds until all of them are again, and on a 429 until one is.",
        "schema": {"type": "string"},
        "example": '"key";r=1999;t=1',
    },
}
_REFERENCES = "#/components/schemas/{model}"


def document(routes: Sequence[Route], *, services: Mapping[str, str]) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these routes.

    Args:
        services: the platform's services by name, and the kind of tasks each is for.
    """
    schemas, definitions = models_json_schema(
        [*_models(routes), (ProblemOut, "serialization")],
        ref_template=_REFERENCES,
    )
    for definition in definitions["$defs"].values():
        for field in definition.get("properties", {}).values():
            if kind := field.pop(SERVICE_OF, None):
                field["enum"] = sorted(name for name, known in services.items() if known == kind)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "webhook",
            "version": webhook.__version__,
            "description": "Voice moderation: tasks, verdicts, and the events that tell of them. Every answer has the "
            "header `X-Request-Id`: the request's own, if it is of 1 to 128 letters, digits and `._-`, or a new one.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": definitions["$defs"],
        },
    }


def _models(routes: Iterable[Route]) -> list[tuple[type[BaseModel], JsonSchemaMode]]:
    found: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {}
    for route in routes:
        if route.body is not None:
            found[route.body, "validation"] = None
        if route.form is not None:
            found[route.form, "validation"] = None
        if route.query is not None:
            found[route.query, "validation"] = None
        for model in route.answers.values():
            if isinstance(model, type):
                found[model, "serialization"] = None
    return list(found)


def _operation(route: Route, schemas: Any) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.call.__module__.rpartition(".")[2] + route.call.__name__,
        "tags": [route.tag],
        "description": _description(route),
        "parameters": list(_parameters(route)),
        "responses": _responses(route, schemas),
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": _contents(route, schemas),
        }
    return operation


def _contents(route: Route, schemas: Any) -> dict[str, Any]:
    contents = {JSON: {"schema": schemas[route.body, "validation"]}}
    if route.form is not None:
        contents[FORM] = {"schema": schemas[route.form, "validation"], "encoding": {"file": _FILE_PART}}
    return contents


def _description(route: Route) -> str:
    """Say what no schema can: a key that is used again with another body is refused, though each is well-formed."""
    whole, part = route.roles()
    roles = f"Roles: {', '.join((*whole, *(f'{role} (a part of it)' for role in part)))}."
    if not route.creates:
        return roles
    return (
        f"{roles} The header `Idempotency-Key`, of up to {LONGEST_KEY} printable characters, makes it safe to repeat: "
        "for 24 hours the same key and body get the same answer, and the same key with another body gets a 422."
    )


def _parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    if route.query is not None:
        schema = route.query.model_json_schema(ref_template=_REFERENCES)
        for name, property_ in schema["properties"].items():
            parameter: dict[str, Any] = {"name": name, "in": "query", "required": False}
            yield parameter | {"schema": _without_null(property_)}
    if _PARTIAL in route.answers:
        yield {
            "name": "Range",
            "in": "header",
            "required": False,
            "description": "`bytes=FIRST-LAST`, one range.",
            "schema": {"type": "string"},
        }
    if route.waits:
        yield {
            "name": "Prefer",
            "in": "header",
            "required": False,
            "description": "`wait=N` waits up to N seconds for the platform's acceptance.",
            "schema": {"type": "string"},
        }


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is not there is left out, not null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    kept = {key: value for key, value in schema.items() if key not in {"anyOf", "default", "title"}}
    if "default" in schema and schema["default"] is not None:
        kept["default"] = schema["default"]
    return kept | (kinds[0] if kinds else {})


def _responses(route: Route, schemas: Any) -> dict[str, Any]:
    statuses = {400, 401, 403, 429, 503, *route.errors}  # 400: any URL may be no text, and any Host no name
    if route.query is not None or route.body is not None or route.creates:
        statuses |= {422}
    if "{" in route.path:
        statuses |= {404}
    if route.body is not None:
        statuses |= {413, 415}
    statuses |= {422}  # an unknown parameter
    responses: dict[str, Any] = {
        str(status): {
            "description": _SUCCESSES[status],
            **({} if model is None else {"content": _content(model, schemas)}),
        }
        for status, model in route.answers.items()
    }
    for status in sorted(statuses):
        responses[str(status)] = {
            "description": _PROBLEMS[status],
            "content": {PROBLEM: {"schema": schemas[ProblemOut, "serialization"]}},
            **({"headers": _LIMITS} if status == _TOO_MANY else {}),
        }
    return responses


def _content(model: type[BaseModel] | tuple[str, ...], schemas: Any) -> dict[str, Any]:
    """Describe a body: JSON of a schema, or bytes of one of some media types."""
    if isinstance(model, tuple):
        return {media_type: {} for media_type in model}
    return {JSON: {"schema": schemas[model, "serialization"]}}
