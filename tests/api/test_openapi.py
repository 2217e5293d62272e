"""The OpenAPI document is valid, and true: schemathesis asks every route whatever the document allows and forbids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis import GenerationMode
from schemathesis.core.parameters import ParameterLocation

from tests.clients import ADMIN_KEY, Hub
from webhook import clock
from webhook.api.http import ROUTES
from webhook.app import create_app
from webhook.roles import Role
from webhook.store import keys as key_store

if TYPE_CHECKING:
    from schemathesis import Case

    from tests.clients import AppClient
    from tests.conftest import MakeService
    from webhook.api.routing import Route
    from webhook.bootstrap import Service


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


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_answer_is_as_described(service: Service, route: Route, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", create_app(service))
    operation = schema[route.path][route.method]

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: Case[Any]) -> None:
        if case.query.get("wait") in range(1, 61):
            case.query["wait"] = 0  # as good, and nobody has to wait
        if case.media_type == "multipart/form-data" and isinstance(case.body, dict):
            assume(all(isinstance(each, str | bytes) for each in case.body.values()))  # on the wire all is text
        headers = case.meta.components.get(ParameterLocation.HEADER) if case.meta else None
        if headers is None or headers.mode is GenerationMode.POSITIVE:  # else its own may be what is forbidden
            case.headers["Authorization"] = f"Bearer {ADMIN_KEY}"
        with Hub():
            case.call_and_validate()

    ask()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_role_is_answered_as_described(service: Service, route: Route) -> None:
    operation = schemathesis.openapi.from_wsgi("/openapi.json", create_app(service))[route.path][route.method]
    keys = []
    with service.database.transaction() as session:
        for role in set(Role) - {Role.ADMIN}:
            made, key = service.api_keys.create(session, name=role, role=role, now=clock.now())
            key_store.note_use(session, made.id, now=clock.now())  # so that nothing is left to be done beside the test
            keys.append(key)

    @given(case=operation.as_strategy(generation_mode=GenerationMode.POSITIVE))
    @settings(max_examples=2, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def ask(case: Case[Any]) -> None:
        if "wait" in case.query:
            case.query["wait"] = 0
        for key in keys:
            case.headers["Authorization"] = f"Bearer {key}"
            with Hub():
                case.call_and_validate()

    ask()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_an_answer_to_too_many_requests_is_as_described(make_service: MakeService, route: Route) -> None:
    app = create_app(make_service(WEBHOOK_REQUESTS_PER_SECOND="1", WEBHOOK_REQUESTS_AT_ONCE="1"))
    operation = schemathesis.openapi.from_wsgi("/openapi.json", app)[route.path][route.method]
    case = operation.Case(
        path_parameters=dict.fromkeys(re.findall(r"{(\w+)}", route.path), "nobody"),
        headers={"Authorization": f"Bearer {ADMIN_KEY}"},
    )
    answers = [case.call() for _ in range(3)]
    assert answers[-1].status_code == 429
    case.validate_response(answers[-1])
