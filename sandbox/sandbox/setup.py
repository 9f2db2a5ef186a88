"""Everything that is settled before the first process starts: addresses, secrets, certificates, what is given."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from sandbox.given import Given
from sandbox.layout import Layout
from sandbox.pki import Identity, ensure_pki
from sandbox.ports import HOST, PortKeeper
from sandbox.secret_store import ensure_secrets, role_password
from sandbox.servers.postgres import SUPERUSER, database_url

AUDIENCE = "keyferry"
CLIENT_ID = "keyferry-edge"
BUCKET = "keyferry"
CHECKPOINT_BUCKET = "keyferry-checkpoints"
LOG_ORIGIN = "localhost/keyferry/audit"
SMTP_SCHEME = "smtp"

# What a process of ours gets of the surroundings: enough to run, to use the machine's authorities and proxies when a
# part is given, and to have its coverage measured. Everything else could only surprise it.
_PASSED_ON = frozenset(
    {"PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR"}
    | {name for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY") for name in (proxy, proxy.lower())}
)
_PASSED_ON_PREFIX = "COVERAGE_"


@dataclass(frozen=True, slots=True)
class Options:
    """How this sandbox is to run."""

    replicas: int = 1
    log_level: str = "info"
    traces: bool = False
    failpoints: bool = False
    """Whether each service reads a plan of faults when it starts; what dies of one is started again at once."""


class Setup:
    """The settled facts. Ports are handed out as they are asked for, and kept for the next time by `save`."""

    def __init__(self, layout: Layout, options: Options, given: Given) -> None:
        self.layout = layout
        self.options = options
        self.given = given
        self.secrets = ensure_secrets(layout.secrets)
        self.identities: dict[str, Identity] = ensure_pki(layout.pki)
        self._ports = PortKeeper(layout.ports)

    def save(self) -> None:
        """Keep the ports for the next time."""
        self._ports.save()

    def port(self, name: str) -> int:
        """Return the port of this name."""
        return self._ports.port(name)

    def address(self, name: str) -> str:
        """Return host and port of this name."""
        return f"{HOST}:{self.port(name)}"

    def grpc_addresses(self, service: str) -> str:
        """Return all replicas of a service, as its clients are told."""
        return ",".join(self.address(f"{name}.grpc") for name in replica_names(service, self.options.replicas))

    @property
    def environment(self) -> dict[str, str]:
        """What every process gets of the surroundings."""
        return {
            name: value
            for name, value in os.environ.items()
            if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIX)
        }

    @property
    def public_url(self) -> str:
        """The edge, as browsers reach it."""
        return f"http://localhost:{self.port('edge')}"

    @property
    def database_server(self) -> str:
        """The database server as superuser."""
        given = self.given.get("DATABASE_URL")
        return (
            given or f"postgresql://{SUPERUSER}:{self.secrets['POSTGRES_PASSWORD']}@{self.address('postgres')}/postgres"
        )

    def database(self, name: str, kind: str) -> str:
        """Return one database as its `service` or its `migrator` role."""
        role = f"{name}_{kind}"
        return database_url(self.database_server, name, role, role_password(self.secrets, role))

    @property
    def nats_url(self) -> str:
        """NATS."""
        return self.given.get("NATS_URL") or f"nats://{self.address('nats')}"

    @property
    def s3_url(self) -> str:
        """The object store."""
        return self.given.get("R2_ENDPOINT") or f"http://{self.address('s3')}"

    @property
    def s3_origin(self) -> str:
        """The origin of presigned URLs, which the pages may fetch from."""
        parts = urlsplit(self.s3_url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def smtp_url(self) -> str:
        """Where mail goes."""
        return self.given.get("SMTP_URL") or f"{SMTP_SCHEME}://{self.address('mailbox.smtp')}"

    @property
    def mailbox_url(self) -> str:
        """Where mail is shown; empty when it goes elsewhere."""
        return "" if "SMTP_URL" in self.given else f"http://localhost:{self.port('mailbox')}"

    @property
    def issuer_url(self) -> str:
        """The OIDC issuer."""
        return self.given.get("OIDC_ISSUER") or f"http://localhost:{self.port('issuer')}"

    @property
    def kinguin_url(self) -> str:
        """The supplier's API."""
        return self.given.get("KINGUIN_BASE") or f"http://{self.address('kinguin')}"

    @property
    def kinguin_control_url(self) -> str:
        """Where the simulator is told to misbehave; empty when the supplier is given."""
        return "" if "KINGUIN_BASE" in self.given else f"http://{self.address('kinguin.control')}"

    def failpoints(self, replica: str) -> str:
        """Return the file with the faults that are planned for one process; made empty where there is none."""
        file = self.layout.failpoints(replica)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        return str(file)

    def setting(self, name: str, own: str | None = None) -> str:
        """Return a setting as given, else the sandbox's own value or secret of that name."""
        return self.given.get(name) or (own if own is not None else self.secrets[name])


def replica_names(service: str, replicas: int) -> list[str]:
    """Return the names of all replicas: `vault`, `vault-2`, …."""
    return [service, *(f"{service}-{number}" for number in range(2, replicas + 1))]
