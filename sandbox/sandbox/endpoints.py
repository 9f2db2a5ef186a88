"""The file that tells tests, tools and people where everything is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.files import write_atomically
from sandbox.layout import Layout
from sandbox.setup import Setup

# What the file calls a service, and what the table does.
GRPC_NAMES: Mapping[str, str] = {
    "fulfillment": "fulfillment",
    "kinguin": "kinguin-gateway",
    "vault": "vault",
    "audit": "audit",
}


class NotRunning(RuntimeError):
    """No sandbox runs in this folder."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """What the file says."""

    values: Mapping[str, Any]

    @classmethod
    def of(cls, setup: Setup, *, pids: Mapping[str, int], logs: Mapping[str, Path]) -> "Endpoints":
        """Describe the running sandbox. With several replicas, the gRPC addresses are the first ones'."""
        return cls(
            {
                "edge": setup.public_url,
                "grpc": {name: setup.address(f"{program}.grpc") for name, program in GRPC_NAMES.items()},
                "nats": setup.nats_url,
                "database": setup.database_server,
                "s3": setup.s3_url,
                "kinguin": setup.kinguin_url,
                "kinguin_control": setup.kinguin_control_url,
                "mailbox": setup.mailbox_url,
                "issuer": setup.issuer_url,
                "ca": str(setup.layout.pki / "ca.crt"),
                "identities": {
                    name: {"cert": str(identity.certificate), "key": str(identity.key)}
                    for name, identity in setup.identities.items()
                },
                "pids": dict(pids),
                "logs": {name: str(path) for name, path in logs.items()},
            }
        )

    @classmethod
    def read(cls, layout: Layout) -> "Endpoints":
        """Read the file. Raises NotRunning."""
        try:
            return cls(json.loads(layout.endpoints.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise NotRunning("the sandbox is not running; start it with `make run`") from None

    def write(self, layout: Layout) -> None:
        """Write the file in one step. It holds the database's password, so it is its owner's only."""
        write_atomically(layout.endpoints, json.dumps(self.values, indent=2) + "\n")

    def __getitem__(self, name: str) -> Any:
        return self.values[name]
