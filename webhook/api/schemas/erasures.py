"""Erasure, and legal holds."""

from datetime import datetime

from webhook.api.schemas.base import In, Out
from webhook.api.schemas.tasks import DataId


class ErasureIn(In):
    """Whose tasks to erase."""

    data_id: DataId


class ErasureOut(Out):
    """What became of the tasks of one `data_id`; where there are `more`, ask again."""

    data_id: str
    erased: int
    held: int
    running: int
    more: bool


class HoldOut(Out):
    """A task that is neither erased nor past any retention until the hold is released."""

    task_id: str
    placed_at: datetime
    placed_by: str
