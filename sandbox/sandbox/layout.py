"""Where things lie: the sandbox's own folder, and what it uses of the repository."""

from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MIGRATIONS = {
    "fulfillment": REPOSITORY / "services" / "fulfillment" / "migrations",
    "kinguin": REPOSITORY / "services" / "kinguin-gateway" / "migrations",
    "vault": REPOSITORY / "services" / "vault" / "migrations",
    "audit": REPOSITORY / "services" / "audit" / "migrations",
}
STREAMS = REPOSITORY / "deploy" / "nats" / "streams.yaml"
DEFAULT_FOLDER = REPOSITORY / ".sandbox"


@dataclass(frozen=True, slots=True)
class Layout:
    """The files of one sandbox. Everything it keeps is below one folder."""

    folder: Path

    @property
    def endpoints(self) -> Path:
        """Addresses, process ids and certificates of the running sandbox; absent when it does not run."""
        return self.folder / "endpoints.json"

    @property
    def lock(self) -> Path:
        """Locked by the supervisor while it runs."""
        return self.folder / "lock"

    @property
    def started(self) -> Path:
        """The ledger of started processes."""
        return self.folder / "started.json"

    @property
    def secrets(self) -> Path:
        """Random secrets, made once."""
        return self.folder / "secrets.json"

    @property
    def ports(self) -> Path:
        """Ports, kept from one start to the next."""
        return self.folder / "ports.json"

    @property
    def pki(self) -> Path:
        """The authority and one folder for each identity."""
        return self.folder / "pki"

    @property
    def signing_key(self) -> Path:
        """The OIDC issuer's key."""
        return self.folder / "issuer" / "key.json"

    @property
    def mail(self) -> Path:
        """Every message that was sent."""
        return self.folder / "mailbox"

    def data(self, name: str) -> Path:
        """Return where one server keeps its data."""
        return self.folder / "data" / name

    def log(self, name: str) -> Path:
        """Return the log of one process."""
        return self.folder / "logs" / f"{name}.log"

    def failpoints(self, name: str) -> Path:
        """Return the file of the faults that a test has planned for one service."""
        return self.folder / "failpoints" / name

    def trace(self, name: str) -> Path:
        """Return the file of one service's spans."""
        return self.folder / "traces" / f"{name}.jsonl"
