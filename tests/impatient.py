"""`python -m tests.impatient …` is `webhook …` whose web process waits seconds where it waits a minute otherwise."""

from __future__ import annotations

from webhook import bodies, http1, web
from webhook.cli import main

FIRST_SECONDS = 2
BODY_SECONDS = 2
UNTAKEN_SECONDS = 2
UNWANTED_SECONDS = 4
KEEPALIVE_SECONDS = 30

if __name__ == "__main__":
    http1._FIRST_SECONDS = FIRST_SECONDS
    web._UNTAKEN_SECONDS = UNTAKEN_SECONDS
    http1._NEXT_SECONDS = KEEPALIVE_SECONDS
    http1._LINGER_SECONDS = UNWANTED_SECONDS
    bodies.LONGEST_SECONDS = BODY_SECONDS
    main()
