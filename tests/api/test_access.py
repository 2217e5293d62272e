"""Who may do what: keys, roles, and a rule for every route."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.clients import NO_KEY, AppClient
from webhook import clock
from webhook.api.http import ROUTES
from webhook.app import create_app
from webhook.roles import Role
from webhook.store import keys as key_store

if TYPE_CHECKING:
    from webhook.bootstrap import Service

OPEN = {"/openapi.json", "/docs", "/livez", "/readyz", "/metrics", "/callbacks/<token>"}

# The contract, section 3: a reader may GET; a submitter also creates, refreshes and cancels tasks and streams;
# the rest (receivers, subscriptions, retries, callbacks' raw content) is the admin's.
SUBMITTERS = {
    ("POST", "/v1/tasks"),
    ("POST", "/v1/tasks/{task_id}/cancel"),
    ("POST", "/v1/tasks/{task_id}/refresh"),
    ("POST", "/v1/streams"),
    ("DELETE", "/v1/streams/{task_id}"),
}
ADMINS_GET = {"/v1/callbacks/{callback_id}", "/v1/keys", "/v1/keys/{key_id}", "/v1/audit"}
OPERATORS_GET = {"/v1/posture"}  # it tells where guards are weak, to who may mend them
# The contract knows no operator: who is on call sees no content, and mends what is stuck.
NOT_SEEN_BY_OPERATORS = ADMINS_GET | {
    "/v1/verdicts",
    "/v1/verdicts/{task_id}",
    "/v1/verdicts/{task_id}/slices",
    "/v1/tasks/{task_id}/evidence/{slice_id}",
    "/v1/events",
}
OPERATORS = {
    ("POST", "/v1/tasks/{task_id}/refresh"),
    ("PATCH", "/v1/subscriptions/{subscription_id}"),
    ("POST", "/v1/subscriptions/{subscription_id}/test"),
    ("POST", "/v1/subscriptions/{subscription_id}/recover"),
    ("POST", "/v1/deliveries/{delivery_id}/retry"),
    ("POST", "/v1/callbacks/{callback_id}/verify"),
    ("POST", "/v1/callbacks/verify"),
}


def may(role: Role, method: str, path: str) -> bool:
    if role is Role.ADMIN:
        return True
    if role is Role.OPERATOR:
        return (method, path) in OPERATORS or (method == "GET" and path not in NOT_SEEN_BY_OPERATORS)
    if (method, path) in SUBMITTERS:
        return role is Role.SUBMITTER
    return method == "GET" and path not in ADMINS_GET | OPERATORS_GET


def make_key(service: Service, role: Role, *, revoked: bool = False) -> str:
    now = clock.now()
    with service.database.transaction() as session:
        row, key = service.api_keys.create(session, name=f"a {role}", role=role, now=now)
        if revoked:
            key_store.revoke_api_key(session, row.id, now=now)
    return key


def test_every_route_has_a_rule(service: Service) -> None:
    app = create_app(service)
    client = AppClient(app)
    keys = {role: make_key(service, role) for role in Role}
    asked = 0
    for rule in app.url_map.iter_rules():
        if rule.rule in OPEN:
            continue
        path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
        for method in (rule.methods or set()) - {"HEAD"}:
            url = re.sub(r"{\w+}", "nobody", path)
            for wrong in (NO_KEY, "wk_nobodys"):
                assert client.request(method, url, key=wrong).status == 401, f"{method} {path}"
            for role, key in keys.items():
                status = client.request(method, url, key=key).status
                assert (status != 403) == may(role, method, path), f"{method} {path} as {role.name}: {status}"
                assert status not in {401, 500}, f"{method} {path} as {role.name}: {status}"
                asked += 1
    assert asked == len(ROUTES) * len(Role)


def test_a_forbidden_request_is_refused_before_it_is_looked_at(client: AppClient, service: Service) -> None:
    key = make_key(service, Role.READER)
    assert client.post("/v1/subscriptions", {"nonsense": 1}, key=key).status == 403
    assert client.delete("/v1/receivers/nobody", key=key).status == 403
    assert client.post("/v1/tasks", body=b"{", key=key, unknown=1).status == 403


def test_no_key_is_told_how_to_get_one(client: AppClient) -> None:
    reply = client.get("/v1/tasks", key=NO_KEY)
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert reply.headers["Content-Type"] == "application/problem+json"
    assert "webhook keys create" in reply.json["detail"]


@pytest.mark.parametrize(
    "authorization", ["Basic YTpi", "Bearer", "Bearer ", "bearer\tx", "Bearer a b", "Bearer \xff", "\x7f"]
)
def test_an_authorization_of_another_form_is_nobodys(client: AppClient, authorization: str) -> None:
    assert client.get("/v1/tasks", headers={"Authorization": authorization}, key=NO_KEY).status == 401


def test_a_revoked_key_is_nobodys(client: AppClient, service: Service) -> None:
    key = make_key(service, Role.ADMIN, revoked=True)
    assert client.get("/v1/tasks", key=key).status == 401


def test_the_scheme_s_case_does_not_matter(client: AppClient) -> None:
    assert client.get("/v1/tasks", headers={"Authorization": f"bearer {client.key}"}, key=NO_KEY).status == 200


@pytest.mark.parametrize("path", sorted(OPEN - {"/callbacks/<token>"}))
def test_what_machines_ask_needs_no_key(client: AppClient, path: str) -> None:
    assert client.get(path, key=NO_KEY).status == 200
