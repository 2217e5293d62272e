"""The OpenAPI document is valid, and true: schemathesis asks every route whatever the document allows and forbids.

TEST_OPENAPI_EXAMPLES says how much of it, for each route: 12 by default, a sixth of that for each role but the admin.
"""

from __future__ import annotations

import os
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema_rs import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.core.parameters import ParameterLocation
from schemathesis.transport.serialization import Binary

from tests.clients import ADMIN_KEY, Hub
from webhook import clock, services
from webhook.api import openapi
from webhook.api.http import ROUTES
from webhook.api.routing import FORM
from webhook.app import create_app
from webhook.roles import Role
from webhook.store import keys as key_store

if TYPE_CHECKING:
    from flask import Flask
    from schemathesis import Case

    from tests.clients import AppClient
    from tests.conftest import MakeService
    from webhook.api.routing import Route
    from webhook.bootstrap import Service

EXAMPLES = int(os.environ.get("TEST_OPENAPI_EXAMPLES", "12"))


def test_the_document_is_valid_openapi(client: AppClient) -> None:
    OpenAPIV31SpecValidator(client.shown("/openapi.json")).validate()


def test_the_document_describes_every_route_and_nothing_else(client: AppClient, service: Service) -> None:
    described = {
        (method.upper(), path)
        for path, operations in client.shown("/openapi.json")["paths"].items()
        for method in operations
    }
    routed = {
        (method, re.sub(r"<(\w+)>", r"{\1}", rule.rule))
        for rule in create_app(service).url_map.iter_rules()
        for method in rule.methods or ()
        if rule.rule.startswith("/v1/") and method != "HEAD"
    }
    assert described == routed == {(route.method, route.path) for route in ROUTES}


def test_no_operation_has_another_s_id(client: AppClient) -> None:
    ids = [
        operation["operationId"]
        for operations in client.shown("/openapi.json")["paths"].values()
        for operation in operations.values()
    ]
    assert len(set(ids)) == len(ids)


@cache
def description() -> dict[str, Any]:
    """Return the document, which is the same for every test here; to make and to read it takes a while."""
    return openapi.document(ROUTES, services=services.CATALOGUE)


def operation_of(route: Route, app: Flask) -> Any:
    """Return what schemathesis knows of a route, to be asked of an application."""
    schema = schemathesis.openapi.from_dict(description())
    schema.app = app
    return schema[route.path][route.method]


def sendable(case: Case[Any]) -> bool:
    """Return whether a form is on the wire what the case is meant to be: allowed, or forbidden.

    There all fields are texts. And schemathesis checks a form whose value it has broken with an empty text in the
    file's place, which is forbidden itself: so it takes any value of any field for a broken one.
    """
    if case.media_type != FORM or not isinstance(case.body, dict):
        return True
    if not all(isinstance(each, str | bytes) for each in case.body.values()):
        return False
    part = case.meta.components.get(ParameterLocation.BODY) if case.meta else None
    if part is None or part.mode is GenerationMode.POSITIVE:
        return True
    texts = {name: "a file" if is_file(value) else value for name, value in case.body.items()}
    definitions = description()["components"]
    schema = {"$ref": "#/components/schemas/UploadIn", "components": definitions}
    return not Draft202012Validator(schema).is_valid(texts)


def is_file(value: object) -> bool:
    """Return whether a value is the bytes of a file that has some."""
    content = value.data if isinstance(value, Binary) else value
    return isinstance(content, bytes) and content != b""


def ask(case: Case[Any], key: str) -> None:
    """Send a case with a key, unless its own is what is forbidden, and check the answer."""
    headers = case.meta.components.get(ParameterLocation.HEADER) if case.meta else None
    if headers is None or headers.mode is GenerationMode.POSITIVE:
        case.headers["Authorization"] = f"Bearer {key}"
    if case.query.get("wait") in range(1, 61):
        case.query["wait"] = 0  # as good, and nobody has to wait
    with Hub():
        case.call_and_validate()


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_answer_is_as_described(service: Service, route: Route, mode: GenerationMode) -> None:
    operation = operation_of(route, create_app(service))

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(case: Case[Any]) -> None:
        assume(sendable(case))
        ask(case, ADMIN_KEY)

    check()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_role_is_answered_as_described(service: Service, route: Route) -> None:
    operation = operation_of(route, create_app(service))
    keys = []
    with service.database.transaction() as session:
        for role in set(Role) - {Role.ADMIN}:
            made, key = service.api_keys.create(session, name=role, role=role, now=clock.now())
            key_store.note_use(session, made.id, now=clock.now())  # so that nothing is left to be done beside the test
            keys.append(key)

    @given(case=st.one_of([operation.as_strategy(generation_mode=mode) for mode in GenerationMode]))
    @settings(max_examples=EXAMPLES // 6, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(case: Case[Any]) -> None:
        assume(sendable(case))
        for key in keys:
            ask(case, key)

    check()


def test_an_answer_to_a_host_that_is_none_is_as_described(client: AppClient) -> None:
    for route in ROUTES:
        reply = client.request(route.method, re.sub(r"{\w+}", "nobody", route.path), headers={"Host": "a" * 300})
        assert reply.status == 400
        assert "400" in description()["paths"][route.path][route.method.lower()]["responses"]


def test_an_answer_to_too_many_requests_is_as_described(make_service: MakeService) -> None:
    app = create_app(make_service(WEBHOOK_REQUESTS_PER_SECOND="1", WEBHOOK_REQUESTS_AT_ONCE="1"))
    for route in ROUTES:
        case = operation_of(route, app).Case(
            path_parameters=dict.fromkeys(re.findall(r"{(\w+)}", route.path), "nobody"),
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
        )
        answers = [case.call() for _ in range(3)]
        assert answers[-1].status_code == 429
        case.validate_response(answers[-1])
