"""What the storing of callbacks begins with; a server is asked for all of it at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from webhook.db import ask_alone, is_postgresql
from webhook.store import callbacks as callback_store
from webhook.store import tasks as task_store
from webhook.store import tombstones as tombstone_store
from webhook.store.tasks import Task  # noqa: TC001 - msgspec reads the annotations
from webhook.store.text import fetch_all

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from webhook.db import Session
    from webhook.store.callbacks import Callback


class Beginning(msgspec.Struct, frozen=True, kw_only=True):
    """What is there at the beginning.

    Attributes:
        new: ids of those of the callbacks that had not come before.
        tasks: those asked for that exist, by id.
        erased: ids of those asked for that were erased.
    """

    new: set[str]
    tasks: dict[str, Task]
    erased: set[str]


def begin(
    session: Session, rows: Sequence[Callback], *, task_ids: Collection[str], others: Collection[str]
) -> Beginning:
    """Insert callbacks; lock and read the tasks that they are about.

    Args:
        task_ids: of the tasks.
        others: those of other systems among them, which are made when they are first heard of: nobody else makes them
            before this transaction ends.
    """
    if not is_postgresql(session):  # where nobody else writes, and each question answered may spare the next
        new = callback_store.insert_callbacks(session, rows)
        tasks = task_store.tasks_by_id(session, task_ids)
        unheard = [task_id for task_id in others if task_id not in tasks]
        erased = tombstone_store.erased_tasks(session, unheard) if unheard else set()
    else:
        asked = callback_store.ask_insert(rows)
        inserts = len(asked)
        if others:
            asked.append(ask_alone(others))
        if task_ids:
            asked.append(task_store.ask_tasks(session, task_ids))
        if others:  # once no other transaction can be making or erasing one
            asked.append(tombstone_store.ask_erased(others))
        answers = fetch_all(session, asked)
        new = {id_ for answer in answers[:inserts] for (id_,) in answer}
        erased = {id_ for (id_,) in answers.pop()} if others else set()
        tasks = task_store.tasks_of(answers.pop()) if task_ids else {}
    # nothing but being erased takes away a task of ours
    erased |= {task_id for task_id in task_ids if task_id not in tasks and task_id not in others}
    return Beginning(new=new, tasks=tasks, erased=erased)
