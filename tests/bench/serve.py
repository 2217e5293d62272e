"""The service's own web process, as the benchmarks start it: `python -m tests.bench.serve`, settings as ever."""

from __future__ import annotations

import os

from webhook import bootstrap, settings
from webhook.app import create_apps
from webhook.web import Web


def main() -> None:
    """Serve until told to stop."""
    loaded = settings.load(os.environ)
    Web(loaded, lambda: create_apps(bootstrap.build(loaded))).run()


if __name__ == "__main__":
    main()
