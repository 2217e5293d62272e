"""The sliding second."""

from __future__ import annotations

from webhook.sandbox.limits import RateLimit


def test_no_second_holds_more_than_the_limit() -> None:
    now = [0.0]
    limit = RateLimit(lambda: 2, clock=lambda: now[0])
    admitted = []
    for tenth in range(40):
        now[0] = tenth / 10
        if limit.admit():
            admitted.append(now[0])
    assert admitted == [0.0, 0.1, 1.0, 1.1, 2.0, 2.1, 3.0, 3.1]
