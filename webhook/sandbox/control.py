"""The configuration as it stands now: tests switch faults on, and off again, while the sandbox runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from .config import FIXED, ConfigError, SandboxConfig, changed

if TYPE_CHECKING:
    from collections.abc import Callable


class Control:
    """Holds the one configuration that every part reads whenever it needs it.

    Args:
        config: what it is at the start.
        clock: seconds since 1970; what results, uploads and segments age by.
    """

    def __init__(self, config: SandboxConfig, *, clock: Callable[[], float]) -> None:
        self.config = config
        self._clock = clock

    def change(self, body: bytes) -> None:
        """Change what a JSON object names.

        Raises:
            ConfigError: it is no object, or a field in it is unknown, fixed, or has a wrong value.
        """
        try:
            changes: dict[str, Any] = msgspec.json.decode(body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"The body is not a JSON object: {error}") from error
        fixed = sorted(changes.keys() & set(FIXED))
        if fixed:
            raise ConfigError(f"{', '.join(fixed)}: said once, when the sandbox starts")
        self.config = changed(self.config, changes)

    def shown(self) -> dict[str, Any]:
        """Return what can be changed, as it is."""
        return {name: value for name, value in msgspec.to_builtins(self.config).items() if name not in FIXED}

    def is_over(self, lifetime_seconds: float, *, since: float) -> bool:
        """Say whether a lifetime is over, on the clock that `time_scale` makes faster.

        Args:
            lifetime_seconds: how long it is.
            since: when it began, in seconds since 1970.
        """
        return (self._clock() - since) * self.config.time_scale >= lifetime_seconds
