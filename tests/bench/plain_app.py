"""The plain design, to compare with: an ORM session and a commit for each request, and a row for each slice.

It stores what the service stores (the raw callback, the task's verdict, slices, findings, events), with the same
durability, in plain text. The tasks are there already; their seeds follow from their tokens. The Express service
has the same tables.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from typing import Any

import sqlalchemy as sa
from flask import Flask, request
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, sessionmaker

from tests.bench.load import UID

_BUSY_SECONDS = 60
_THREADS = 32
_POOL = 16  # connections of a process to a server, which has 100 by default: the other threads wait


class Base(DeclarativeBase):
    pass


class Task(Base):
    __tablename__ = "tasks"
    id: Mapped[int] = mapped_column(primary_key=True)
    token: Mapped[str] = mapped_column(unique=True)
    seed: Mapped[str]
    state: Mapped[str]
    platform_task_id: Mapped[str | None] = mapped_column(index=True)
    risk_level: Mapped[str | None]
    slice_count: Mapped[int] = mapped_column(default=0)
    updated_at: Mapped[float] = mapped_column(index=True)


class Callback(Base):
    __tablename__ = "callbacks"
    __table_args__ = (sa.UniqueConstraint("task_id", "digest"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(sa.ForeignKey("tasks.id"))
    digest: Mapped[str]
    checksum: Mapped[str]
    content: Mapped[str]
    received_at: Mapped[float]


class Slice(Base):
    __tablename__ = "slices"
    __table_args__ = (sa.UniqueConstraint("task_id", "start_time", "end_time", "start_timestamp", "end_timestamp"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(sa.ForeignKey("tasks.id"))
    start_time: Mapped[int]
    end_time: Mapped[int]
    start_timestamp: Mapped[int] = mapped_column(sa.BigInteger)
    end_timestamp: Mapped[int] = mapped_column(sa.BigInteger)
    risk_level: Mapped[str]
    text: Mapped[str]
    url: Mapped[str]
    findings: Mapped[list[Finding]] = relationship()


class Finding(Base):
    __tablename__ = "findings"
    id: Mapped[int] = mapped_column(primary_key=True)
    slice_id: Mapped[int] = mapped_column(sa.ForeignKey("slices.id"), index=True)
    label: Mapped[str] = mapped_column(index=True)
    confidence: Mapped[float]
    risk_level: Mapped[str]
    description: Mapped[str]
    risk_words: Mapped[str | None]


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    type: Mapped[str]
    task_id: Mapped[int] = mapped_column(sa.ForeignKey("tasks.id"))
    data: Mapped[str]


def engine(url: str) -> sa.Engine:
    """Return an engine as careful about the disk as the service is."""
    if sa.make_url(url).get_backend_name() != "sqlite":
        return sa.create_engine(url, pool_size=_POOL, max_overflow=0, pool_timeout=_BUSY_SECONDS)
    made = sa.create_engine(
        url, pool_size=_THREADS, connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False}
    )

    @sa.event.listens_for(made, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")

    return made


def create_database(url: str, tasks: int) -> None:
    """Make the tables and the tasks."""
    made = engine(url)
    Base.metadata.create_all(made)
    rows = [{"token": f"t{n}", "seed": f"s{n}", "state": "processing", "updated_at": time.time()} for n in range(tasks)]
    with made.begin() as connection:
        connection.execute(sa.insert(Task).values(slice_count=0), rows)
    made.dispose()


def create_app() -> Flask:
    """Make the application, for the database that the environment names."""
    app = Flask(__name__)
    sessions = sessionmaker(engine(os.environ["PLAIN_DATABASE"]))

    @app.post("/callbacks/<token>")
    def callback(token: str) -> tuple[str, int]:
        form = request.form
        with sessions.begin() as session:
            return _accept(session, token=token, checksum=form["checksum"], content=form["content"])

    return app


def _accept(session: Session, *, token: str, checksum: str, content: str) -> tuple[str, int]:
    task = session.scalars(sa.select(Task).where(Task.token == token)).one_or_none()
    if task is None:
        return "", 404
    if not hmac.compare_digest(hashlib.sha256((UID + task.seed + content).encode()).hexdigest(), checksum):
        return "", 403
    digest = hashlib.sha256(content.encode()).hexdigest()
    if session.scalars(sa.select(Callback.id).filter_by(task_id=task.id, digest=digest)).first() is not None:
        return "", 200
    session.add(Callback(task_id=task.id, digest=digest, checksum=checksum, content=content, received_at=time.time()))
    data = json.loads(content)["Data"]
    for piece in data["SliceDetails"]:
        findings = [
            Finding(
                label=each["Label"],
                confidence=each["Confidence"],
                risk_level=each["RiskLevel"],
                description=each["Description"],
                risk_words=each.get("RiskWords"),
            )
            for each in piece["Result"]
        ]
        session.add(
            Slice(
                task_id=task.id,
                start_time=piece["StartTime"],
                end_time=piece["EndTime"],
                start_timestamp=piece["StartTimestamp"],
                end_timestamp=piece["EndTimestamp"],
                risk_level=piece["RiskLevel"],
                text=piece["Text"],
                url=piece["Url"],
                findings=findings,
            )
        )
        if piece["RiskLevel"] in {"medium", "high"}:
            session.add(
                Event(type="slice.flagged", task_id=task.id, data=json.dumps({"task": task.id, "slice": piece}))
            )
    task.state = "completed"
    task.platform_task_id = data["TaskId"]
    task.risk_level = data["RiskLevel"]
    task.slice_count += len(data["SliceDetails"])
    task.updated_at = time.time()
    session.add(Event(type="task.completed", task_id=task.id, data=json.dumps({"task": task.id, "state": task.state})))
    return "", 200
