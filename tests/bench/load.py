"""A load generator of our own: signed callbacks over keep-alive connections, from a process of its own.

`Load` starts the process and gives it one `Job` at a time; `python -m tests.bench.load` is that process. It
makes all requests before it sends the first, and does next to nothing for each, so that it measures the server.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
import random
import re
import selectors
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from pydoc_data.topics import topics
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote_plus

import msgspec
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator

UID = "42"
_NUMBER = "NUMBER"  # what stands for a callback's number until it is known
_VARIANTS = 16  # of content at the most; what is the same in two callbacks is nobody's gain: each is stored by itself
_VARIED_SLICES = 160  # of all variants together: large ones take long to make, and differ in themselves
_FEWEST_WORDS, _MOST_WORDS = 8, 24  # that somebody says in the ten seconds of a slice
_PHRASES = (
    "内容审核产品测试",
    "大家晚上好",
    "欢迎来到我的直播间",
    "谢谢你的礼物",
    "今天我们聊一聊",
    "请不要刷屏",
    "下一首歌是什么",
)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to send.

    Attributes:
        path, seed: of callback N, with NUMBER for N.
        first: number of the first callback; each is about a task of its own.
        count: how many there are; after `seconds` the rest is not sent.
        rate: callbacks per second, each at its time whatever became of those before it; None for as many as the
            connections bear, one after the other on each.
    """

    port: int
    path: str
    seed: str
    first: int
    count: int
    seconds: float
    connections: int = 32
    slices: int = 10
    rate: float | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it.

    Attributes:
        seconds: from the first request to the last answer.
        latencies: of each answer, in seconds, sorted; from when it was to be sent, where there was such a time.
        refused: answers that were not 200.
        next: number of the first callback that was not sent.
    """

    seconds: float
    latencies: list[float]
    refused: int
    next: int

    @property
    def rate(self) -> float:
        """Answers of 200 per second."""
        return (len(self.latencies) - self.refused) / self.seconds

    def percentile(self, share: float) -> float:
        """Return the latency that this share of the answers stayed below, in seconds."""
        return self.latencies[min(int(len(self.latencies) * share), len(self.latencies) - 1)]


class Load:
    """The load generator's process."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, job: Job) -> Outcome:
        """Send a job's callbacks, and wait for their answers."""
        self.start(job)
        return self.outcome()

    def start(self, job: Job) -> None:
        """Begin a job; `outcome` waits for its end."""
        assert self._process.stdin
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()

    def outcome(self) -> Outcome:
        """Wait for the end of the job that was begun."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("The load generator ended early: its error is above.")
        return msgspec.json.decode(line, type=Outcome)


def content(number: int | str, slices: int, *, variant: int = 0) -> str:
    """Return what the platform reports of one task; one slice in ten is at risk."""
    data = {"TaskId": f"vm_{number}", "RiskLevel": "high", "SliceDetails": _details(variant, slices)}
    return json.dumps({"Code": 200, "Message": "OK", "RequestId": "R", "Data": data}, ensure_ascii=False)


@functools.lru_cache(maxsize=_VARIANTS)
def _details(variant: int, slices: int) -> list[dict[str, Any]]:
    dice = random.Random(variant)
    words = _words()
    details = []
    for i in range(slices):
        finding = {"Label": "nonLabel", "Confidence": 12.5, "RiskLevel": "none", "Description": "No risk detected"}
        if i % 10 == 3:
            finding |= {
                "Label": "political_entity",
                "Confidence": 99.1,
                "RiskLevel": "high",
                "Description": "Suspected political entity",
                "RiskWords": "WordA,WordB",
            }
        said = dice.randrange(len(words) - _MOST_WORDS)
        text = " ".join(words[said : said + dice.randint(_FEWEST_WORDS, _MOST_WORDS)])
        details.append(
            {
                "StartTime": i * 10,
                "EndTime": i * 10 + 10,
                "StartTimestamp": 1678854649720 + i * 10000,
                "EndTimestamp": 1678854659720 + i * 10000,
                "RiskLevel": finding["RiskLevel"],
                "Text": f"{text}, {dice.choice(_PHRASES)}",
                "Url": f"https://audio.example.com/{dice.randbytes(8).hex()}/{i}.wav",
                "Result": [finding],
            }
        )
    return details


@functools.cache
def _words() -> list[str]:
    """Return running text that every Python has: what is made up of a few words compresses better than speech."""
    return re.findall(r"[a-z']+", " ".join(topics[name] for name in sorted(topics)).lower())


def requests(job: Job) -> Iterator[bytes]:
    """Yield the job's requests, each with its own task, seed and checksum."""
    stand_in = _NUMBER.encode()
    variants = min(max(_VARIED_SLICES // job.slices, 1), _VARIANTS)
    for n in range(job.first, job.first + job.count):
        number = b"%d" % n
        plain, quoted = _template(n % variants, job.slices)
        seed = job.seed.encode().replace(stand_in, number)
        checksum = hashlib.sha256(UID.encode() + seed + plain.replace(stand_in, number)).hexdigest().encode()
        body = b"checksum=" + checksum + b"&content=" + quoted.replace(stand_in, number)
        yield b"\r\n".join(
            (
                b"POST " + job.path.encode().replace(stand_in, number) + b" HTTP/1.1",
                b"Host: localhost",
                b"User-Agent: bench",
                b"Accept: */*",
                b"Content-Type: application/x-www-form-urlencoded; charset=UTF-8",
                b"Content-Length: %d" % len(body),
                b"",
                body,
            )
        )


@functools.lru_cache(maxsize=_VARIANTS)
def _template(variant: int, slices: int) -> tuple[bytes, bytes]:
    """Return content with NUMBER for the number, as it is and as a form has it."""
    plain = content(_NUMBER, slices, variant=variant).encode()
    return plain, quote_plus(plain).encode()


class _Sender:
    """Sends a job's requests over its connections.

    Attributes:
        late: requests whose time has come and for which no connection was free, each with that time.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.waiting = list(requests(job))[::-1]
        self.late: deque[tuple[bytes, float]] = deque()
        self.latencies: list[float] = []
        self.refused = 0
        self.failed: Exception | None = None
        self.idle: list[_Connection] = []
        self.done = asyncio.Event()

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        for _ in range(self.job.connections):
            _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.job.port)
            self.idle.append(connection)
        everyone = list(self.idle)
        start = time.perf_counter()
        loop.call_later(self.job.seconds, self.waiting.clear)
        if self.job.rate is None:
            while self.idle and self.waiting:
                self.idle.pop().send(self.waiting.pop(), due=time.perf_counter())
        else:
            await self._pace(self.job.rate, start)
        while len(self.idle) < len(everyone) and self.failed is None:
            self.done.clear()
            await self.done.wait()
        if self.failed is not None:
            raise self.failed
        seconds = time.perf_counter() - start
        for connection in everyone:
            connection.transport.close()
        return Outcome(
            seconds=seconds,
            latencies=sorted(self.latencies),
            refused=self.refused,
            next=self.job.first + len(self.latencies),
        )

    async def _pace(self, rate: float, start: float) -> None:
        sent = 0
        while self.waiting and self.failed is None:
            due = start + sent / rate
            await asyncio.sleep(due - time.perf_counter())
            if self.waiting and self.idle:
                self.idle.pop().send(self.waiting.pop(), due=due)
            elif self.waiting:
                self.late.append((self.waiting.pop(), due))
            sent += 1

    def answered(self, connection: _Connection, *, latency: float, ok: bool) -> None:
        self.latencies.append(latency)
        self.refused += not ok
        if self.late:
            request, due = self.late.popleft()
            connection.send(request, due=due)
        elif self.waiting and self.job.rate is None:
            connection.send(self.waiting.pop(), due=time.perf_counter())
        else:
            self.idle.append(connection)
            self.done.set()

    def fail(self, error: Exception) -> None:
        self.failed = self.failed or error
        self.done.set()


class _Connection(asyncio.Protocol):
    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._received = b""
        self._due: float | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def send(self, request: bytes, *, due: float) -> None:
        self._due = due
        self.transport.write(request)

    @override
    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        _, _, length = head.lower().partition(b"content-length:")
        if len(body) < int(length.split(b"\r\n")[0]):
            return
        self._received = b""
        assert self._due is not None
        latency, self._due = time.perf_counter() - self._due, None
        self._sender.answered(self, latency=latency, ok=head.startswith(b"HTTP/1.1 200"))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._due is not None:
            self._sender.fail(exc or ConnectionError("The server closed a connection in place of an answer."))


def _loop() -> asyncio.AbstractEventLoop:
    """Return a loop that wakes to the microsecond: epoll's would send up to a millisecond late."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main() -> None:
    """Do the jobs that come by standard input, one a line."""
    for line in sys.stdin.buffer:
        with asyncio.Runner(loop_factory=_loop) as runner:
            outcome = runner.run(_Sender(msgspec.json.decode(line, type=Job)).run())
        sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
