"""Private brokers: real servers on free ports with a directory of their own, killed and started again at will."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pytest

from tests.running import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USER, PASSWORD = "webhook", "pass-word/1"
QUOTED_PASSWORD = "pass-word%2F1"
logging.getLogger("aiormq").setLevel(logging.CRITICAL)  # it tells of each look whether RabbitMQ has started

_START_SECONDS = 240  # RabbitMQ, on a busy machine
_STOPPED = "TtZX"


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A message as a broker keeps it."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


class Broker:
    """A server and its data; a context manager.

    Attributes:
        programs: where it may lie; without any of them its tests are skipped, but not in CI.
        makes_places: whether it makes what a message is published to.
    """

    programs: ClassVar[tuple[str, ...]]
    makes_places = False

    def __init__(self, directory: Path, *, certificate: Path | None = None) -> None:
        self.directory = directory
        self.certificate = certificate  # with its key; then it speaks nothing but TLS
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def program(cls) -> str:
        """Return the server's program, or skip the test."""
        for program in cls.programs:
            if found := shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin"):
                return found
        if os.environ.get("CI"):
            pytest.fail(f"{cls.programs[0]} is not installed")
        pytest.skip(f"{cls.programs[0]} is not installed")

    def __enter__(self) -> Self:
        self.start()
        asyncio.run(self.prepare())
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, on the data that it had."""
        command, environ = self.command()
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, env=os.environ | environ, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((self.directory / "log").read_text()[-2000:])
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it and its children, as a power cut would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def hang(self) -> None:
        """Stop it and its children where they stand; return when none of their threads runs any more."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGSTOP)
        while any(state not in _STOPPED for state in self._states()):
            time.sleep(0.01)

    def go_on(self) -> None:
        """Let it run again after `hang`."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGCONT)

    def _states(self) -> Iterator[str]:
        """Yield the state of each thread of the process group, as proc(5) has it."""
        assert self._process
        for found in Path("/proc").glob("[0-9]*/task/[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has ended
                state, _parent, group, *_ = found.read_text().rpartition(")")[2].split()
                if int(group) == self._process.pid:
                    yield state

    def _is_ready(self) -> bool:
        try:
            return asyncio.run(self.is_ready())
        except (OSError, TimeoutError):
            return False

    def command(self) -> tuple[list[str], dict[str, str]]:
        """Return what starts it, and its environment."""
        raise NotImplementedError

    async def is_ready(self) -> bool:
        """Return whether it can be used."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()
        return bool(reader)

    async def prepare(self) -> None:
        """Make the place that messages are published to."""

    def url(self, place: str = "", *, password: str = QUOTED_PASSWORD) -> str:
        """Return the URL of the place, or of another."""
        raise NotImplementedError

    async def kept(self) -> list[Kept]:
        """Return what was published, in order."""
        raise NotImplementedError


class Nats(Broker):
    programs = ("nats-server",)
    configuration = ""  # in place of the one user who may do everything

    def command(self) -> tuple[list[str], dict[str, str]]:
        options = ["-a", "127.0.0.1", "-p", str(self.port), "-js", "-sd", str(self.directory)]
        tls = ["--tls", "--tlscert", str(self.certificate), "--tlskey", str(self.certificate)]
        options += tls if self.certificate else []
        if self.configuration:
            file = self.directory / "nats.conf"
            file.write_text(self.configuration)
            return [self.program(), *options, "-c", str(file)], {}
        return [self.program(), *options, "--user", USER, "--pass", PASSWORD], {}

    def url(self, place: str = "moderation.{type}", *, password: str = QUOTED_PASSWORD) -> str:
        return f"nats://{USER}:{password}@127.0.0.1:{self.port}/{place}"

    async def _client(self) -> Any:
        import nats

        return await nats.connect(f"nats://127.0.0.1:{self.port}", user=USER, password=PASSWORD)

    async def prepare(self) -> None:
        client = await self._client()
        await client.jetstream().add_stream(name="moderation", subjects=["moderation.>"])
        await client.close()

    async def kept(self) -> list[Kept]:
        client = await self._client()
        stream = client.jetstream()
        state = (await stream.stream_info("moderation")).state
        found = [await stream.get_msg("moderation", seq) for seq in range(max(1, state.first_seq), state.last_seq + 1)]
        await client.close()
        assert all(message.subject.startswith("moderation.") for message in found)
        return [Kept(headers=message.headers, body=message.data) for message in found]


class Redis(Broker):
    programs = ("redis-server",)
    makes_places = True

    def command(self) -> tuple[list[str], dict[str, str]]:
        options = ["--bind", "127.0.0.1", "--dir", str(self.directory), "--save", ""]
        if self.certificate:
            files = [f"--tls-{kind}-file={self.certificate}" for kind in ("cert", "key", "ca-cert")]
            options += ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            options += [part for file in files for part in file.split("=")]
        else:
            options += ["--port", str(self.port)]
        durable = ["--appendonly", "yes", "--appendfsync", "always"]
        return [self.program(), *options, *durable, "--requirepass", PASSWORD], {}

    async def is_ready(self) -> bool:
        from redis.exceptions import RedisError

        if self.certificate:
            return await super().is_ready()
        try:
            async with self._client() as client:
                return bool(await client.ping())  # it connects before it has read what it kept
        except RedisError:
            return False

    def url(self, place: str = "stream=moderation", *, password: str = QUOTED_PASSWORD) -> str:
        return f"redis://:{password}@127.0.0.1:{self.port}/3?{place}"

    def _client(self) -> Any:
        from redis import asyncio as client

        return client.Redis(host="127.0.0.1", port=self.port, db=3, password=PASSWORD)

    async def length(self, stream: str) -> int:
        """Return how many entries a stream has."""
        async with self._client() as client:
            return int(await client.xlen(stream))

    async def kept(self) -> list[Kept]:
        async with self._client() as client:
            entries = await client.xrange("moderation")
        fields = [{name.decode(): value for name, value in entry.items()} for _, entry in entries]
        return [
            Kept(body=entry.pop("body"), headers={name: value.decode() for name, value in entry.items()})
            for entry in fields
        ]


class RabbitMq(Broker):
    programs = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")

    def __init__(self, directory: Path, *, certificate: Path | None = None) -> None:
        super().__init__(directory, certificate=certificate)
        self._distribution_port = free_port()

    def command(self) -> tuple[list[str], dict[str, str]]:
        lines = [f"default_user = {USER}", f"default_pass = {PASSWORD}"]
        if self.certificate:
            lines += ["listeners.tcp = none", f"listeners.ssl.default = 127.0.0.1:{self.port}"]
            lines += [f"ssl_options.{kind}file = {self.certificate}" for kind in ("cert", "key", "cacert")]
        else:
            lines += [f"listeners.tcp.default = 127.0.0.1:{self.port}"]
        (self.directory / "rabbitmq.conf").write_text("\n".join(lines) + "\n")
        return [self.program()], {
            "HOME": str(self.directory),  # of the Erlang cookie
            "RABBITMQ_NODENAME": f"webhook-test-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.directory),
            "RABBITMQ_LOG_BASE": str(self.directory),
            "RABBITMQ_PID_FILE": str(self.directory / "pid"),
        }

    def url(self, place: str = "exchange=moderation", *, password: str = QUOTED_PASSWORD) -> str:
        return f"amqp://{USER}:{password}@127.0.0.1:{self.port}/?{place}"

    async def _connection(self) -> Any:
        import aiormq

        return await aiormq.connect(f"amqp://{USER}:{QUOTED_PASSWORD}@127.0.0.1:{self.port}/")

    async def is_ready(self) -> bool:
        import aiormq

        if self.certificate:
            return await super().is_ready()
        try:
            await (await self._connection()).close()
        except aiormq.exceptions.AMQPError:
            return False
        return True

    async def prepare(self) -> None:
        connection = await self._connection()
        channel = await connection.channel()
        await channel.exchange_declare("moderation", exchange_type="topic", durable=True)
        await channel.queue_declare("moderation", durable=True)
        await channel.queue_bind("moderation", "moderation", "#")
        await connection.close()

    async def kept(self) -> list[Kept]:
        from pamqp.commands import Basic

        connection = await self._connection()
        channel = await connection.channel()
        found = []
        while isinstance((message := await channel.basic_get("moderation")).delivery, Basic.GetOk):
            properties = message.header.properties
            assert properties.message_id == properties.headers["webhook-id"]
            assert properties.delivery_mode == 2
            found.append(Kept(headers=properties.headers, body=message.body))
        await connection.close()  # unacknowledged, they are there again
        return found


BROKERS = {"nats": Nats, "redis": Redis, "rabbitmq": RabbitMq}
