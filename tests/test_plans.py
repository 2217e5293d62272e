"""What the service asks of its database stays as cheap as it is while the tables grow: by the databases' own plans.

A statement may look at some hundreds of rows, and sort those; none may go through a table, or what of it there is
ever more of. So the tables hold some ten thousand rows, of which most are alike and some are rare.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import sqlalchemy as sa

from tests import databases, history, looked_for
from tests.clients import ADMIN_KEY, AppClient
from tests.running import ENCRYPTION_KEYS
from webhook import bootstrap, models, settings
from webhook.app import create_app
from webhook.db import postgres, sqlite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from webhook.bootstrap import Service

_TASKS = 24_000
_MOST_ROWS = 1200  # of a statement, in the largest of them some for each label, kind, service and level
_MOST_INSTRUCTIONS = 15_000  # of SQLite's machine; to go through one of the tables takes several times as many
_MOST_BLOCKS = 1500  # of 8 KB, each time that PostgreSQL looks at one
_COUNTED = 100  # instructions
_SMALL = {"subscriptions", "api_keys", "limits", "cursors", "heartbeats", "receivers", "meta", "holds"}
_GROWING = models.metadata.tables.keys() - _SMALL


Statement = tuple[str, Any]


class _Undone(Exception):
    pass


class Asked:
    """A service with years behind it, and what its database is asked."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.client = AppClient(create_app(service))
        self.statements: list[Statement] = []
        self._engine = service.database._engine
        sa.event.listen(self._engine, "before_cursor_execute", self._note)
        self._execute: Any = sqlite.execute
        self._ask: Any = postgres.ask

    def execute(self, session: sa.Connection, statement: str, values: Any = ()) -> Any:
        """Stand in for what goes past SQLAlchemy to SQLite, and note it."""
        self._note(session, None, statement, values)
        return self._execute(session, statement, values)

    def ask(self, session: sa.Connection, asked: Sequence[Statement]) -> Any:
        """Stand in for what goes past SQLAlchemy to PostgreSQL, and note it."""
        for statement, values in asked:
            self._note(session, None, statement, values)
        return self._ask(session, asked)

    def _note(self, _session: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        if any(table in statement for table in _GROWING):
            self.statements.append((statement, parameters))

    def by(self, name: str) -> list[Statement]:
        """Return the statements that a question comes to; what they change is undone."""
        self.statements.clear()
        question = looked_for.own(_TASKS).get(name)
        if question is None:
            looked_for.asked(self.client, looked_for.routes(_TASKS)[name])
        else:
            with contextlib.suppress(_Undone), self.service.database.transaction() as session:
                question(session)
                raise _Undone
        return [(text, values) for text, values in self.statements if not isinstance(values, list)]

    @contextlib.contextmanager
    def explaining(self) -> Iterator[sa.Connection]:
        """Open a transaction that is undone."""
        with self._engine.connect() as session:
            yield session
            session.rollback()


@pytest.fixture(scope="module", params=["as it is", "analyzed"])
def asked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    if databases.SERVER is not None and request.param == "as it is":
        pytest.skip("PostgreSQL analyzes by itself")
    directory: Path = tmp_path_factory.mktemp("plans")
    url = databases.fresh_url(directory)
    history.fill(url, tasks=_TASKS, analyze=request.param == "analyzed")
    variables = {
        "WEBHOOK_DATABASE_URL": url,
        "WEBHOOK_ENCRYPTION_KEYS": ENCRYPTION_KEYS,
        "WEBHOOK_ADMIN_KEY": ADMIN_KEY,
    }
    service = bootstrap.build(settings.load(variables | databases.directories(directory)))
    one = Asked(service)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "execute", one.execute)
        patch.setattr(postgres, "ask", one.ask)
        yield one
    service.database.close()
    shutil.rmtree(directory)


NAMES = [*looked_for.own(_TASKS), *looked_for.routes(_TASKS)]


@pytest.mark.parametrize("name", NAMES)
def test_a_question_is_answered_from_indexes_however_much_there_is(asked: Asked, name: str) -> None:
    statements = asked.by(name)
    assert statements
    faults = _faults_on_sqlite if databases.SERVER is None else _faults_on_postgresql
    with asked.explaining() as session:
        found = {text: faults(session, text, values) for text, values in statements}
    assert {text: fault for text, fault in found.items() if fault} == {}


@databases.needs_sqlite
@pytest.mark.parametrize(
    ("index", "name"),
    [
        ("tasks_due", "due queries"),
        ("tasks_data_id", f"/v1/tasks?data_id={history.HOT_DATA_ID}"),
        ("tasks_verdicts", "/v1/verdicts"),
        ("callbacks_not_accepted", "/v1/callbacks?state=unreadable"),
        ("deliveries_of_subscription", "/v1/subscriptions/sub_0/deliveries?state=dead"),
        ("events_type", "feed of types"),
        ("audit_log_actor_at", "audit log of an actor"),
        ("events_task", "what an erased task's events say"),
        ("slice_pages_text", "old transcripts"),
        ("evidence_kept", "old evidence"),
        ("tombstones_unfinished", "erasures to be finished"),
    ],
)
def test_without_its_index_a_question_would_not_pass(asked: Asked, index: str, name: str) -> None:
    statements = asked.by(name)
    with asked.explaining() as session:
        session.exec_driver_sql(f"DROP INDEX {index}")
        with pytest.raises((AssertionError, sa.exc.OperationalError)):  # some name their index
            assert [_faults_on_sqlite(session, text, values) for text, values in statements] == [[]] * len(statements)


def _faults_on_sqlite(session: sa.Connection, statement: str, values: Any) -> list[str]:
    plan = [row.detail for row in session.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    faults = [step for step in plan if step.startswith("SCAN ") and _grows(step)]
    faults += [step for step in plan if "AUTOMATIC" in step]
    calls = 0

    def count() -> None:
        nonlocal calls
        calls += 1

    driver: Any = session.connection.driver_connection
    driver.set_progress_handler(count, _COUNTED)
    try:
        result = session.exec_driver_sql(statement, values)
        if result.returns_rows:
            result.all()
    finally:
        driver.set_progress_handler(None, 0)
    if calls * _COUNTED > _MOST_INSTRUCTIONS:
        faults.append(f"{calls * _COUNTED} instructions: {plan}")
    return faults


def _grows(step: str) -> bool:
    """Whether a scan is of a table that grows; one in the order of an index may end at once, as is counted then."""
    table = step.split()[1]
    return table in _GROWING and " INDEX " not in step


def _faults_on_postgresql(session: sa.Connection, statement: str, values: Any) -> list[str]:
    connection: Any = session.connection.driver_connection
    cursor = (psycopg.RawCursor if "$1" in statement else psycopg.Cursor)(connection)
    [[[top]]] = cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", values)
    nodes = list(_nodes(top["Plan"]))
    faults = [
        f"{node['Node Type']} of {node['Relation Name']}"
        for node in nodes
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in _GROWING
    ]
    rows = sum(_examined(node) for node in nodes if "Scan" in node["Node Type"])
    blocks = top["Plan"]["Shared Hit Blocks"] + top["Plan"]["Shared Read Blocks"]
    if rows > _MOST_ROWS or blocks > _MOST_BLOCKS:
        faults.append(f"{rows:.0f} rows, {blocks} blocks: {json.dumps(top['Plan'])[:4000]}")
    return faults


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


def _examined(node: dict[str, Any]) -> float:
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    return float((node["Actual Rows"] + removed) * node["Actual Loops"])
