"""Subscribers that do next to nothing, in a process of their own: `python -m tests.bench.sink PORT`.

Every path is a subscriber and answers 204, but for `/hung`, which takes what comes and never answers. `GET /` tells
what arrived since it was last asked.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict

from tests.bench.wire import Http

HUNG = "/hung"
_TASK = b'"platform_task_id":"'


async def _serve(port: int) -> None:
    arrived: dict[str, dict[str, float]] = defaultdict(dict)

    def take(connection: Http, head: bytes, body: bytes) -> None:
        now = time.perf_counter()
        method, path, _ = head.split(b" ", 2)
        if method == b"GET":
            told = json.dumps(arrived).encode()
            arrived.clear()
            connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(told) + told)
            return
        task = body.partition(_TASK)[2].partition(b'"')[0]
        arrived[path.decode()].setdefault(task.decode(), now)
        if path != HUNG.encode():
            connection.transport.write(b"HTTP/1.1 204 No Content\r\n\r\n")

    server = await asyncio.get_running_loop().create_server(lambda: Http(take), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
