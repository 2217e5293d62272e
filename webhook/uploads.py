"""Uploaded files on our disk: from a client's request until the platform has them."""

from __future__ import annotations

import os
import time
import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from webhook.store.tasks import Task

# vendor-docs/voice-moderation, "Service performance"
EXTENSIONS = (
    "mp3",
    "wav",
    "aac",
    "wma",
    "ogg",
    "m4a",
    "amr",
    "avi",
    "flv",
    "mp4",
    "mpg",
    "asf",
    "wmv",
    "mov",
    "rmvb",
    "rm",
)

_PART = ".part"
_ABANDONED_SECONDS = 600.0  # ten times the longest pause: a file that nobody wrote to for so long, and no task owns


def extension(name: str) -> str:
    """Return a file name's extension in lower case; empty where there is none."""
    return name.rpartition(".")[2].lower() if "." in name else ""


class Uploads:
    """The directory in which they wait; web and worker share it.

    Args:
        directory: made when the first one comes.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def begin(self) -> Path:
        """Return the path of a new file to be written.

        Raises:
            OSError: there is no room, or no permission.
        """
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.directory / f"{uuid.uuid4().hex}{_PART}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        return path

    def path(self, task: Task) -> Path:
        """Return where a task's file lies."""
        return self.directory / task.id

    def adopt(self, file: Path, task: Task) -> None:
        """Make a written file a task's; it is on disk for good once the task is committed."""
        target = self.path(task)
        file.rename(target)
        descriptor = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def discard(self, task: Task) -> None:
        """Delete a task's file; it may be gone already."""
        self.path(task).unlink(missing_ok=True)

    def abandoned(self) -> Iterator[Path]:
        """Yield the files that nobody has written to for a while; those that a task owns are among them."""
        if not self.directory.is_dir():
            return
        for path in self.directory.iterdir():
            try:
                if time.time() - path.stat().st_mtime >= _ABANDONED_SECONDS:
                    yield path
            except FileNotFoundError:
                continue  # handed over and deleted meanwhile
