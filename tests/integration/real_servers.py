"""Real servers for the integration tests, and the databases on them: one for each test that asks."""

import asyncio
import itertools
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import nats
import yaml
from chassis.migrate import migrate
from chassis.streams import apply_streams
from sandbox.child import Child
from sandbox.ports import HOST, free_port
from sandbox.servers.nats import NatsServer
from sandbox.servers.postgres import PostgresServer, database_url, provision, role_names

REPOSITORY = Path(__file__).parents[2]
DECLARED_STREAMS = REPOSITORY / "deploy" / "nats" / "streams.yaml"
SUPERUSER_PASSWORD = "superuser-of-the-tests"
ROLE_PASSWORD = "role-of-the-tests"
READY_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class OneDatabase:
    """One database, seen by three roles."""

    name: str
    migrator_url: str
    service_url: str
    superuser_url: str


@dataclass(slots=True)
class Postgres:
    """A server with the roles of every service."""

    server: PostgresServer
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _templates: set[str] = field(default_factory=set)

    async def make_database(self, area: str, migrations: Path, *, template: str = "") -> OneDatabase:
        """Make a fresh database of an area (`audit`), migrated; later ones are copies of the first.

        Who migrates with another folder than the area's own names a template of its own.
        """
        template = template or f"{area}_template"
        if template not in self._templates:
            await self._create(template, owner=f"{area}_migrator")
            await migrate(self._url(template, f"{area}_migrator"), migrations)
            self._templates.add(template)
        name = f"{area}_{next(self._numbers)}"
        await self._create(name, owner=f"{area}_migrator", template=template)
        return OneDatabase(
            name,
            migrator_url=self._url(name, f"{area}_migrator"),
            service_url=self._url(name, f"{area}_service"),
            superuser_url=self.server.url.rpartition("/")[0] + f"/{name}",
        )

    async def _create(self, name: str, *, owner: str, template: str = "template1") -> None:
        connection = await asyncpg.connect(self.server.url)
        try:
            await connection.execute(f"CREATE DATABASE {name} OWNER {owner} TEMPLATE {template}")
        finally:
            await connection.close()

    def _url(self, database: str, role: str) -> str:
        return database_url(self.server.url, database, role, ROLE_PASSWORD)


async def provision_roles(server: PostgresServer) -> None:
    await provision(server.url, dict.fromkeys(role_names(), ROLE_PASSWORD))


async def fresh_streams(server: NatsServer) -> str:
    """Delete every stream, declare them anew as in production, and return the server's URL."""
    client = await nats.connect(server.url)
    try:
        context = client.jetstream()
        for stream in await context.streams_info():
            assert stream.config.name is not None
            await context.delete_stream(stream.config.name)
    finally:
        await client.close()
    await apply_streams(server.url, yaml.safe_load(DECLARED_STREAMS.read_text(encoding="utf-8")))
    return server.url


async def eventually(holds: Callable[[], Awaitable[bool]], *, seconds: float = 20.0) -> None:
    """Wait until something holds that only another process can make true."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 # the other process sets no event of ours
            await asyncio.sleep(0.05)


async def fetch(url: str, statement: str) -> list[asyncpg.Record]:
    """Ask a database once, over a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


class ServiceProcess:
    """A service as a process of its own, as in production: `python -m package`, told by its environment only."""

    def __init__(self, package: str, folder: Path, environment: Mapping[str, str]) -> None:
        self.private_port = free_port()
        self.log = folder / f"{package}-{self.private_port}.log"
        self._child = Child(
            package,
            [sys.executable, "-m", package],
            environment={
                "PATH": os.environ["PATH"],
                "KEYFERRY_PRIVATE_LISTEN": f"{HOST}:{self.private_port}",
                **environment,
            },
            log=self.log,
        )

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def is_running(self) -> bool:
        return self._child.is_running

    @property
    def exit_status(self) -> int | None:
        return self._child.exit_status

    async def has_ended(self) -> bool:
        return not self._child.is_running

    def start(self) -> None:
        self._child.start()

    def wait_ready(self) -> None:
        """Block until /readyz says so."""
        deadline = time.monotonic() + READY_SECONDS
        while not self._is_ready():
            self._child.check_running()
            assert time.monotonic() < deadline, f"not ready: {self.log.read_text()}"
            time.sleep(0.05)

    def stop(self) -> None:
        self._child.stop()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.private_port}/readyz", timeout=1) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False
