"""What processes use: their CPU time, and by how much their memory grows (proc(5))."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_RESET_PEAK = "5"


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time that processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def proportional_bytes(pids: Iterable[int]) -> int:
    """Return the memory that processes hold, of what they share each its part (PSS)."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


class Growth:
    """How far above its present size a process's resident memory rises from now on, between two looks too."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text(_RESET_PEAK)
        self.before = self._bytes("VmRSS")

    def peak(self) -> int:
        """Return by how many bytes it rose at the most."""
        return max(self._bytes("VmHWM") - self.before, 0)

    def _bytes(self, name: str) -> int:
        lines = Path(f"/proc/{self._pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024
