"""The chain of the audit log: whatever is done to it behind the service's back is found, and named."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa

from tests import databases
from tests.running import ENCRYPTION_KEYS, environment
from webhook import audit, bootstrap, clock
from webhook import settings as settings_module
from webhook.audit import EMPTY, Head, Report
from webhook.crypto import Keyring
from webhook.errors import DatabaseError, DecryptionError
from webhook.models import audit_log
from webhook.store import audit as audit_store
from webhook.store.audit import Entry

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Clock, MakeService
    from webhook.bootstrap import Service

TRIGGERS = ("audit_log_no_update", "audit_log_no_delete")


def entry(number: int = 0) -> Entry:
    return Entry(actor=f"key_{number}", action="task.created", status=201, details=audit.details({"n": number}))


def append(service: Service, *numbers: int) -> None:
    with service.database.transaction() as session:
        audit.append(session, service.keyring, [entry(number) for number in numbers], now=clock.now())


def verify(service: Service, **more: Any) -> Report:
    with service.database.read() as session:
        return audit.verify(session, service.keyring, **more)


def rows(service: Service) -> list[tuple[Any, ...]]:
    with service.database.read() as session:
        return list(audit_store.in_order(session))


@pytest.fixture
def log(service: Service) -> Service:
    """A service with nine rows."""
    append(service, 1, 2, 3)
    for number in range(4, 10):
        append(service, number)
    return service


def attack(service: Service, *statements: str) -> None:
    """Change the database as somebody can who owns it, but has no key."""
    opened, closed = [f"DROP TRIGGER IF EXISTS {name}" for name in TRIGGERS], []
    if databases.SERVER:
        opened, closed = ([f"ALTER TABLE audit_log {verb} TRIGGER USER"] for verb in ("DISABLE", "ENABLE"))
    with service.database.transaction() as session:
        for statement in (*opened, *statements, *closed):
            session.exec_driver_sql(statement)


COLUMNS = ", ".join(column.name for column in audit_log.c if column.name != "number")


def update(change: str, number: int) -> str:
    return f"UPDATE audit_log SET {change} WHERE number = {number}"  # noqa: S608


def renumber(*moves: tuple[int, int]) -> list[str]:
    return [update(f"number = {to}", of) for of, to in moves]


def copy(number: int, to: int) -> str:
    return f"INSERT INTO audit_log (number, {COLUMNS}) SELECT {to}, {COLUMNS} FROM audit_log WHERE number = {number}"  # noqa: S608


def delete(where: str) -> str:
    return f"DELETE FROM audit_log WHERE {where}"  # noqa: S608


ALTERED = (
    "at = at + 1",
    "actor = 'key_5'",
    "actor_name = 'another'",
    "role = 'admin'",
    "address = '192.0.2.1'",
    "request_id = 'another'",
    "action = 'task.canceled'",
    "object_id = 'task_1'",
    "status = 403",
    "details = '{\"n\": 4}'",
    "hash = (SELECT hash FROM audit_log WHERE number = 1)",
)
Attack = tuple[list[str], int, str]
ATTACKS: dict[str, Attack] = {
    **{f"altered: {change}": ([update(change, 4)], 4, "altered") for change in ALTERED},
    "the first altered": ([update("status = 1", 1)], 1, "altered"),
    "the last altered": ([update("status = 1", 9)], 9, "altered"),
    "a middle row deleted": ([delete("number = 4")], 4, "removed"),
    "the first deleted": ([delete("number = 1")], 1, "removed"),
    "the tail deleted": ([delete("number > 7")], 8, "removed"),
    "all deleted": ([delete("true")], 1, "removed"),
    "a gap closed": ([delete("number = 4"), *renumber((5, 4), (6, 5), (7, 6), (8, 7), (9, 8))], 4, "altered"),
    "two swapped": (renumber((4, 99), (6, 4), (99, 6)), 4, "moved"),
    "one put at the end": (renumber((4, 20)), 4, "moved"),
    "one put at the beginning": (renumber((4, 0)), 0, "inserted"),
    "one inserted": ([*renumber((9, 10), (8, 9), (7, 8), (6, 7), (5, 6), (4, 5)), copy(1, 4)], 4, "moved"),
    "one appended": ([copy(9, 10)], 10, "inserted"),
}


@pytest.mark.parametrize(("statements", "number", "kind"), ATTACKS.values(), ids=ATTACKS)
def test_what_is_done_to_the_log_is_found_and_named(
    log: Service, statements: list[str], number: int, kind: str
) -> None:
    attack(log, *statements)
    fault = verify(log).fault
    assert fault is not None
    assert (fault.number, fault.kind) == (number, kind)
    assert f"ow {number} " in fault.sentence


def verify_end(service: Service, rows: int) -> Report:
    with service.database.read() as session:
        return audit.verify_end(session, service.keyring, rows=rows)


@pytest.mark.parametrize("rows", [3, 9, 100])
def test_the_end_of_a_log_that_is_as_it_was_written_is_verified_alone(log: Service, rows: int) -> None:
    assert verify_end(log, rows) == verify(log)
    append(log, 10)
    assert verify_end(log, rows) == verify(log)


@pytest.mark.parametrize("statements", [statements for statements, _, _ in ATTACKS.values()], ids=ATTACKS)
def test_what_is_done_to_the_end_of_the_log_is_found(log: Service, statements: list[str]) -> None:
    attack(log, *statements)
    assert verify_end(log, 9).fault is not None


@pytest.mark.parametrize(
    ("statement", "number", "kind"),
    [
        (update("status = 1", 8), 8, "altered"),
        (delete("number = 8"), 8, "removed"),
        (delete("number > 7"), 8, "removed"),
        (delete("true"), 7, "removed"),
        (update("status = 1", 9), 9, "altered"),
        (update("hash = (SELECT hash FROM audit_log WHERE number = 1)", 6), 7, "altered"),
        (update("status = 1", 6), None, None),
    ],
)
def test_the_end_is_told_from_the_row_before_it_on(
    log: Service, statement: str, number: int | None, kind: str | None
) -> None:
    attack(log, statement)
    fault = verify_end(log, 3).fault
    assert (fault and fault.number, fault and fault.kind) == (number, kind)


def test_the_end_needs_its_note(log: Service) -> None:
    attack(log, *forged(log))
    assert (verify_end(log, 3).fault or audit._UNNOTED).kind == "rewritten"
    attack(
        log, "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'api_key_pepper') WHERE name = 'audit_head'"
    )
    assert (verify_end(log, 3).fault or audit._inserted(1)).kind == "head"
    attack(log, "DELETE FROM meta WHERE name = 'audit_head'")
    assert verify_end(log, 3).fault == audit._UNNOTED
    attack(log, delete("true"))
    assert verify_end(log, 3).fault == verify(log).fault == audit._UNNOTED
    attack(log, "DELETE FROM data_keys")  # with which all that was ever sealed is gone
    assert verify_end(log, 3) == verify(log) == Report(head=EMPTY, fault=None)


@databases.needs_sqlite
@pytest.mark.parametrize("altered", ["actor = CAST(x'6bff' AS TEXT)", "details = x'7b7d'", "role = x'69b7'"])
def test_a_row_that_was_made_unreadable_is_told_as_altered(log: Service, altered: str) -> None:
    attack(log, update(altered, 4))
    fault = verify(log).fault
    assert fault is not None
    assert (fault.number, fault.kind) == (4, "altered")


@databases.needs_sqlite
def test_bytes_that_read_like_the_text_they_replace_are_told_as_altered(log: Service) -> None:
    with log.database.transaction() as session:
        written = Entry(actor="key_1", action="task.created", role="abcd")
        audit.append(session, log.keyring, [written, entry(11)], now=clock.now())
    attack(log, update(f"role = x'{base64.b64decode('abcd').hex()}'", 10))
    fault = verify(log).fault
    assert fault is not None
    assert (fault.number, fault.kind) == (10, "altered")


@databases.needs_sqlite
def test_a_row_that_was_made_unreadable_is_listed_all_the_same(log: Service) -> None:
    attack(log, update("actor = CAST(x'6bff' AS TEXT)", 9))
    with log.database.read() as session:
        [row] = audit_store.newest(session, audit_store.AuditQuery(limit=1))
    assert row.actor == "k\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("details", ["x", "[]", ""])
def test_details_that_somebody_altered_are_shown_as_they_are(log: Service, details: str) -> None:
    attack(log, update(f"details = '{details}'", 9))
    with log.database.read() as session:
        [row] = audit_store.newest(session, audit_store.AuditQuery(limit=1))
    assert audit.shape(row)["details"] == {"unreadable": details}


def test_what_was_removed_is_missed_also_when_the_service_went_on(log: Service) -> None:
    attack(log, delete("number > 7"))
    append(log, 10)
    assert [row[0] for row in rows(log)] == [*range(1, 8), 10]
    fault = verify(log).fault
    assert fault is not None
    assert (fault.number, fault.kind) == (8, "removed")


def test_a_chain_made_anew_by_somebody_without_the_keys_is_found(log: Service) -> None:
    attack(log, *forged(log))
    report = verify(log)
    assert report.head.number == 9
    assert report.fault is not None
    assert report.fault.kind == "rewritten"


def test_a_chain_made_anew_for_a_stretch_does_not_fit_what_follows(log: Service) -> None:
    attack(log, *forged(log)[:6])
    fault = verify(log).fault
    assert fault is not None
    assert (fault.number, fault.kind) == (7, "altered")


def test_an_older_state_of_the_log_put_back_is_shown_by_a_head_that_was_noted(log: Service) -> None:
    with log.database.transaction() as session:
        before = audit_store.head(session)
    append(log, 10)
    noted = verify(log).head
    attack(log, delete("number = 10"))
    with log.database.transaction() as session:
        audit_store.set_head(session, before or b"")
    assert verify(log).fault is None
    append(log, 10)  # with another time
    assert verify(log, noted=noted).fault == audit._rewritten(10)


def forged(service: Service) -> list[str]:
    """Return what alters row 4, and makes the chain anew from there on."""
    statements, previous = [], EMPTY.hash
    for values in rows(service):
        changed = (*values[:2], "key_0", *values[3:-1]) if values[0] == 4 else values[:-1]
        previous = audit.link(previous, changed)
        new = f"'\\x{previous.hex()}'" if databases.SERVER else f"x'{previous.hex()}'"
        statements.append(update(f"actor = '{changed[2]}', hash = {new}", values[0]))
    return statements


def test_a_head_that_was_noted_elsewhere_shows_what_was_forged_with_the_keys(log: Service) -> None:
    noted = verify(log).head
    assert verify(log, noted=noted).fault is None
    attack(log, *forged(log))
    with log.database.transaction() as session:
        last = rows(log)[-1]
        place = {"table": "meta", "column": "value", "row": "audit_head"}
        audit_store.set_head(session, log.keyring.seal(last[0].to_bytes(8) + last[-1], **place))
    append(log, 10)
    assert verify(log).fault is None
    fault = verify(log, noted=noted).fault
    assert fault is not None
    assert (fault.number, fault.kind) == (9, "rewritten")
    beyond = verify(log, noted=Head(12, bytes(32))).fault
    assert beyond is not None
    assert (beyond.number, beyond.kind) == (11, "removed")


def test_without_its_note_the_chain_goes_on_and_says_so_for_ever(log: Service) -> None:
    attack(log, delete("number = 9"), "DELETE FROM meta WHERE name = 'audit_head'")
    missing = verify(log).fault
    assert missing is not None
    assert (missing.number, missing.kind) == (None, "head")
    append(log, 10)
    assert rows(log)[-2][2:9] == ("service", None, None, None, None, audit.RESUMED, None)
    fault = verify(log).fault
    assert fault is not None
    assert (fault.number, fault.kind) == (9, "head")


def test_a_log_that_was_emptied_together_with_its_note_is_no_new_one(log: Service) -> None:
    attack(log, delete("true"), "DELETE FROM meta WHERE name = 'audit_head'")
    again = bootstrap.build(log.settings)  # as `webhook audit verify` does
    try:
        missing = verify(again).fault
        assert missing is not None
        assert (missing.number, missing.kind) == (None, "head")
        append(again, 1)
    finally:
        again.database.close()
    assert [row[7] for row in rows(log)] == [audit.RESUMED, "task.created"]
    fault = verify(log).fault
    assert fault is not None
    assert (fault.number, fault.kind) == (1, "head")


def test_a_note_that_does_not_open_is_told_and_nothing_is_appended_behind_it(log: Service) -> None:
    attack(
        log, "UPDATE meta SET value = (SELECT value FROM meta WHERE name = 'api_key_pepper') WHERE name = 'audit_head'"
    )
    with pytest.raises(DecryptionError):
        append(log, 10)
    report = verify(log)
    assert report.head.number == 9
    assert report.fault is not None
    assert (report.fault.number, report.fault.kind) == (None, "head")
    stranger = Keyring({"k9": bytes(32)})
    with log.database.read() as session:
        assert audit.verify(session, stranger).fault is not None


def test_an_untouched_log_is_right_and_so_is_an_empty_one(service: Service) -> None:
    assert verify(service) == Report(head=EMPTY, fault=None)
    append(service, *range(1, 2501))  # several pages
    report = verify(service)
    assert (report.head.number, report.fault) == (2500, None)
    assert str(report.head) == f"2500:{rows(service)[-1][-1].hex()}"


def test_the_hash_is_what_the_documentation_says(log: Service) -> None:
    """By other means: json and hashlib."""
    previous = bytes(32)
    for *values, kept in rows(log):
        text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
        previous = hashlib.sha256(previous + text.encode()).digest()
        assert bytes(kept) == previous


@pytest.mark.parametrize("statement", [update("status = 1", 1), delete("number = 2")])
def test_the_database_itself_refuses_changes(log: Service, statement: str) -> None:
    def change() -> None:
        with log.database.transaction() as session:
            session.exec_driver_sql(statement)

    with pytest.raises((DatabaseError, sa.exc.IntegrityError)):
        change()
    assert verify(log).fault is None


@databases.needs_postgresql
def test_postgresql_refuses_to_empty_the_table_too(log: Service) -> None:
    def empty() -> None:
        with log.database.transaction() as session:
            session.exec_driver_sql("TRUNCATE audit_log")

    with pytest.raises(DatabaseError):
        empty()


def test_appends_at_once_of_several_processes_are_one_chain(service: Service) -> None:
    other = bootstrap.build(service.settings)  # with a pool, and on SQLite a lock file, of its own
    try:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda number: append(other if number % 2 else service, number), range(200)))
    finally:
        other.database.close()
    assert sorted(row[2] for row in rows(service)) == sorted(f"key_{number}" for number in range(200))
    report = verify(service)
    assert (report.head.number, report.fault) == (200, None)


def test_a_log_that_grows_while_it_is_verified_is_right(log: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    in_order = audit_store.in_order

    def growing(session: sa.Connection) -> Any:
        append(log, 10)
        yield from in_order(session)

    with log.database.read() as session:
        first = audit_store.last(session)
        monkeypatch.setattr(audit_store, "in_order", growing)
        assert first is not None
        report = audit.verify(session, log.keyring)
    assert (report.head.number, report.fault) == (9, None)


KILLED = """
import os, signal
from webhook import audit, bootstrap, settings
from webhook.app import create_app
from webhook.store import audit as audit_store
from tests.clients import AppClient

def then_die(call):
    def called(*arguments, **more):
        call(*arguments, **more)
        os.kill(os.getpid(), signal.SIGKILL)
    return called

{where} = then_die({call})
service = bootstrap.build(settings.load(os.environ))
AppClient(create_app(service)).post("/v1/receivers", {{"name": "half"}})
"""


@pytest.mark.parametrize(
    ("where", "call"),
    [
        ("audit.append", "lambda *_, **__: None"),  # before it
        ("audit_store.insert", "audit_store.insert"),
        ("audit.append", "audit.append"),
    ],
)
def test_a_request_killed_between_its_change_and_its_commit_leaves_neither_it_nor_its_entry(
    tmp_path: Path, where: str, call: str
) -> None:
    variables = environment(tmp_path)
    migrated = subprocess.run([sys.executable, "-m", "webhook", "migrate"], env=variables, check=False)
    assert migrated.returncode == 0
    program = KILLED.format(where=where, call=call)
    killed = subprocess.run([sys.executable, "-c", program], env=variables, check=False, capture_output=True)
    assert killed.returncode == -9, killed.stderr
    service = bootstrap.build(settings_module.load(variables))
    try:
        with service.database.read() as session:
            assert session.exec_driver_sql("SELECT count(*) FROM receivers").scalar() == 0
        assert verify(service) == Report(head=EMPTY, fault=None)
        append(service, 1)
        assert verify(service).fault is None
    finally:
        service.database.close()


def test_rows_are_told_apart_by_every_filter(service: Service, clock: Clock) -> None:
    for number in range(6):
        with service.database.transaction() as session:
            one = Entry(
                actor=f"key_{number % 2}",
                action=f"task.{'created' if number < 3 else 'canceled'}",
                object_id=f"task_{number % 3}",
            )
            audit.append(session, service.keyring, [one], now=clock())
        clock.advance(seconds=1)
    start = clock.time.replace(second=0)

    def numbers(**wanted: Any) -> list[int]:
        with service.database.read() as session:
            return [row.number for row in audit_store.newest(session, audit_store.AuditQuery(**{"limit": 10} | wanted))]

    assert numbers() == [6, 5, 4, 3, 2, 1]
    assert numbers(actor="key_1") == [6, 4, 2]
    assert numbers(action="task.created") == [3, 2, 1]
    assert numbers(actor="key_1", action="task.created") == [2]
    assert numbers(object_id="task_0", action="task.canceled") == [4]
    assert numbers(since=start.replace(second=2), until=start.replace(second=4)) == [4, 3]
    assert numbers(limit=2, after=(start.replace(second=4), 5)) == [4, 3]


def test_the_chain_goes_on_under_a_new_master_key(log: Service, make_service: MakeService) -> None:
    new = make_service(WEBHOOK_ENCRYPTION_KEYS=f"k2:{base64.b64encode(bytes(32)).decode()},{ENCRYPTION_KEYS}")
    append(new, 10)
    append(log, 11)
    assert verify(new) == Report(head=verify(log).head, fault=None)
