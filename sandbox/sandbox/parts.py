"""What the supervisor starts and stops, in one form: servers, services, and work that is done once."""

import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc
from chassis.tls import TlsFiles
from grpc_health.v1 import health_pb2

from sandbox.child import Child, StartFailed, tail
from sandbox.ledger import Ledger
from sandbox.pki import Identity
from sandbox.processes import PROGRAMS, Program, Ready
from sandbox.secret_store import role_password
from sandbox.servers.nats import NatsServer
from sandbox.servers.postgres import PostgresServer, role_names
from sandbox.servers.s3 import INNER_PORTS, S3Server
from sandbox.servers.waiting import wait_until
from sandbox.setup import Setup

_READY_SECONDS = 60.0
_ONCE_SECONDS = 90.0
_PROBE_SECONDS = 2.0
_POLL_SECONDS = 0.05
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 200),
)


class Part(Protocol):
    """Something that is started, runs and is stopped. `start` blocks until it is ready, `stop` until it has ended."""

    @property
    def log(self) -> Path:
        """Where its output goes."""
        ...

    @property
    def pid(self) -> int:
        """Its process; 0 when there is none."""
        ...

    @property
    def is_running(self) -> bool:
        """Whether it is as it should be."""
        ...

    def start(self) -> None:
        """Start it. Raises StartFailed."""
        ...

    def stop(self) -> None:
        """Stop it."""
        ...


@dataclass(frozen=True, slots=True)
class Node:
    """A part, and the names of those that must be ready before it. A name that is not there is ready: it was given."""

    name: str
    part: Part
    needs: tuple[str, ...] = ()


class Service:
    """A program of the table, running as one process."""

    def __init__(self, child: Child, is_ready: Callable[[], bool]) -> None:
        self._child = child
        self._is_ready = is_ready

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self._child.log

    @property
    def pid(self) -> int:
        """Its process."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._child.is_running

    def start(self) -> None:
        """Start it and wait until it says that it is ready."""
        self._child.start()
        wait_until(self._is_ready, self._child, seconds=_READY_SECONDS)

    def stop(self) -> None:
        """Let it drain."""
        self._child.stop()


class Once:
    """Work that is done by a process which ends by itself."""

    def __init__(self, child: Child) -> None:
        self._child = child

    @property
    def log(self) -> Path:
        """Where its output goes."""
        return self._child.log

    @property
    def pid(self) -> int:
        """None that anybody should know."""
        return 0

    @property
    def is_running(self) -> bool:
        """Done work stays done."""
        return True

    def start(self) -> None:
        """Do the work."""
        self._child.start()
        deadline = time.monotonic() + _ONCE_SECONDS
        while self._child.is_running and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        status = self._child.exit_status
        self._child.stop()
        if status != 0:
            log = self._child.log
            raise StartFailed(f"{self._child.name} ended with status {status}; see {log}{tail(log)}")

    def stop(self) -> None:
        """Interrupt the work."""
        self._child.stop()


def make_nodes(setup: Setup, ledger: Ledger) -> list[Node]:
    """Return everything to start, in an order in which each comes after what it needs."""
    return [*_servers(setup, ledger), _schema(setup, ledger), *_programs(setup, ledger)]


def _servers(setup: Setup, ledger: Ledger) -> list[Node]:
    layout, secrets = setup.layout, setup.secrets
    nodes: list[Node] = []
    if "DATABASE_URL" not in setup.given:
        postgres = PostgresServer(
            layout.data("postgres"),
            password=secrets["POSTGRES_PASSWORD"],
            port=setup.port("postgres"),
            log=layout.log("postgres"),
            ledger=ledger,
        )
        nodes.append(Node("postgres", postgres))
    if "NATS_URL" not in setup.given:
        nats = NatsServer(
            layout.data("nats"),
            port=setup.port("nats"),
            monitor_port=setup.port("nats.monitor"),
            log=layout.log("nats"),
            ledger=ledger,
        )
        nodes.append(Node("nats", nats))
    if "R2_ENDPOINT" not in setup.given:
        s3 = S3Server(
            layout.data("s3"),
            access_key_id=secrets["R2_ACCESS_KEY_ID"],
            secret_access_key=secrets["R2_SECRET_ACCESS_KEY"],
            port=setup.port("s3"),
            inner_ports={name: setup.port(f"s3.{name}") for name in INNER_PORTS},
            log=layout.log("s3"),
            ledger=ledger,
        )
        nodes.append(Node("s3", s3))
    return nodes


def _schema(setup: Setup, ledger: Ledger) -> Node:
    environment = {
        **setup.environment,
        "DATABASE_URL": setup.database_server,
        "NATS_URL": setup.nats_url,
        "ROLE_PASSWORDS": ",".join(role_password(setup.secrets, role) for role in role_names()),
    }
    child = _python("schema", ("sandbox.schema",), environment, setup.layout.log("schema"), ledger)
    return Node("schema", Once(child), ("postgres", "nats"))


def _programs(setup: Setup, ledger: Ledger) -> list[Node]:
    nodes: list[Node] = []
    for program in PROGRAMS:
        for replica in program.replicas(setup):
            environment = program.environment(setup, replica)
            command = (program.package, *program.arguments(setup))
            child = _python(replica, command, environment, setup.layout.log(replica), ledger)
            nodes.append(Node(replica, Service(child, _readiness(setup, program, replica)), program.needs))
    return nodes


def _python(name: str, module: Sequence[str], environment: Mapping[str, str], log: Path, ledger: Ledger) -> Child:
    return Child(name, [sys.executable, "-m", *module], environment=environment, log=log, ledger=ledger)


def _readiness(setup: Setup, program: Program, replica: str) -> Callable[[], bool]:
    if program.ready is Ready.GRPC_HEALTH:
        return GrpcHealth(setup.address(f"{replica}.grpc"), peer=program.name, identity=setup.identities["shop"])
    port, path = {
        Ready.PRIVATE_HTTP: (f"{replica}.private", "readyz"),
        Ready.HTTP: (replica, "readyz"),
        Ready.CONTROL: (f"{replica}.control", "healthz"),
    }[program.ready]
    return HttpReadiness(f"http://{setup.address(port)}/{path}")


class GrpcHealth:
    """Asks the standard health service over mutual TLS, and so sees that certificates are right as well."""

    def __init__(self, address: str, *, peer: str, identity: Identity) -> None:
        self._address = address
        self._options = (*_CHANNEL_OPTIONS, ("grpc.ssl_target_name_override", peer))
        self._identity = identity

    def __call__(self) -> bool:
        """Tell whether it serves."""
        credentials = TlsFiles(self._identity.folder).channel_credentials()
        with grpc.secure_channel(self._address, credentials, options=self._options) as channel:
            try:
                check = channel.unary_unary(
                    "/grpc.health.v1.Health/Check",
                    request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                    response_deserializer=health_pb2.HealthCheckResponse.FromString,
                )
                answer = check(health_pb2.HealthCheckRequest(), timeout=_PROBE_SECONDS)
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


class HttpReadiness:
    """Asks over HTTP."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self) -> bool:
        """Tell whether it is ready."""
        try:
            with urllib.request.urlopen(self._url, timeout=_PROBE_SECONDS) as answer:  # noqa: S310 # our own process
                return bool(answer.status == 200)  # noqa: PLR2004 # HTTP's OK
        except (urllib.error.URLError, OSError):
            return False
