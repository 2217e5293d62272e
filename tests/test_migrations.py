"""The migrations lead to exactly the tables that the code works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests import databases
from webhook import migrations, models

if TYPE_CHECKING:
    from pathlib import Path


def test_an_empty_database_is_upgraded_to_the_models(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/new.db")
    with engine.begin() as connection:
        migrations.upgrade(connection)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), models.metadata) == []
    engine.dispose()


def test_what_autogenerate_does_not_see_is_the_same_too(tmp_path: Path) -> None:
    """Partial indexes, tables without rowid and AUTOINCREMENT are compared as SQLite keeps them."""
    schemas = []
    for name in ("migrated", "created"):
        engine = sa.create_engine(f"sqlite:///{tmp_path}/{name}.db")
        with engine.begin() as connection:
            if name == "migrated":
                migrations.upgrade(connection)
            else:
                models.metadata.create_all(connection)
            rows = connection.exec_driver_sql(
                "SELECT name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' AND sql IS NOT NULL"
            )
            schemas.append({row.name: " ".join(sorted(row.sql.replace(",", " ").split())) for row in rows})
        engine.dispose()
    assert schemas[0] == schemas[1]


def test_the_code_names_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.__path__[0]))
    assert ScriptDirectory.from_config(config).get_current_head() == models.REVISION


def test_labels_that_were_noted_before_are_noted_with_what_their_task_is_listed_by(tmp_path: Path) -> None:
    engine = sa.create_engine(databases.url_of(tmp_path))
    config = Config()
    config.set_main_option("script_location", str(migrations.__path__[0]))
    task = {"id": "task_1", "kind": "live", "service": "s", "updated_at": 7, "labels": '[{"label":"a\\u0000"}]'}
    rest = {"origin": "submitted", "state": "completed", "source": "{}", "crypt_type": "SHA256", "created_at": 7}
    counts = dict.fromkeys(("slice_count", "flagged_slice_count", "attempt_count"), 0)
    tasks = sa.table("tasks", *[sa.column(name) for name in task | rest | counts])
    pairs = sa.table("task_labels", sa.column("label"), sa.column("task_id"))
    noted: list[list[tuple[str, ...]]] = []
    for move, revision in ((command.upgrade, "0003"), (command.upgrade, "0005"), (command.downgrade, "0003")):
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            move(config, revision)
            if not noted:
                connection.execute(sa.insert(tasks), [task | rest | counts])
                gone = [{"label": label, "task_id": "task_1"} for label in ("a\ufffd", "gone")]
                connection.execute(sa.insert(pairs), gone)
            noted.append([tuple(row) for row in connection.exec_driver_sql("SELECT * FROM task_labels")])
    assert noted[1:] == [[("a\ufffd", "live", "s", "", 7, "task_1")], [("a\ufffd", "task_1")]]
    engine.dispose()


def test_slices_that_were_there_before_are_kept_from_their_task_s_last_change_on(tmp_path: Path) -> None:
    engine = sa.create_engine(databases.url_of(tmp_path))
    config = Config()
    config.set_main_option("script_location", str(migrations.__path__[0]))
    task = {"id": "task_1", "kind": "live", "service": "s", "updated_at": 7, "labels": "[]", "origin": "submitted"}
    task |= {"state": "completed", "source": "{}", "crypt_type": "SHA256", "created_at": 5}
    task |= dict.fromkeys(("slice_count", "flagged_slice_count", "attempt_count"), 0)
    page = {"task_id": "task_1", "first_key": b"a", "last_key": b"a", "slice_count": 1, "body": b"x"}
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
        for name, row in (("tasks", task), ("slice_pages", page)):
            connection.execute(sa.insert(sa.table(name, *map(sa.column, row))), [row])
        command.upgrade(config, "0010")
        assert connection.exec_driver_sql("SELECT written_at FROM slice_pages").scalar_one() == 7
    engine.dispose()


def test_a_downgrade_leaves_nothing(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/new.db")
    config = Config()
    config.set_main_option("script_location", str(migrations.__path__[0]))
    with engine.begin() as connection:
        migrations.upgrade(connection)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert sa.inspect(engine).get_table_names() == ["alembic_version"]
    engine.dispose()
