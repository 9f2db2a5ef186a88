"""TCP ports that stay the same from one start to the next wherever they are still free."""

import json
import random
import socket
from collections.abc import Iterable
from pathlib import Path

from sandbox.files import write_atomically

HOST = "127.0.0.1"
# Below the range from which systems pick the near end of outgoing connections (32768 and up on Linux): otherwise such a
# connection could sit on the port of a server that is just being started again.
_LOWEST, _HIGHEST = 18_000, 31_999
_MOST_TRIES = 500


class NoFreePort(RuntimeError):
    """Every port that was tried is taken."""


def is_free(port: int) -> bool:
    """Tell whether nobody listens there. Connections that are winding down do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(taken: Iterable[int] = ()) -> int:
    """Return a port on which nobody listens now and which is not among the taken ones. Raises NoFreePort."""
    avoid = set(taken)
    for _ in range(_MOST_TRIES):
        port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 # any free port will do
        if port not in avoid and is_free(port):
            return port
    raise NoFreePort(f"no free port between {_LOWEST} and {_HIGHEST}")


class PortKeeper:
    """Hands out one port for each name and remembers it in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept = _read(path)
        self._given: dict[str, int] = {}

    def port(self, name: str) -> int:
        """Return the port of this name: last time's if it is still free, otherwise a new one."""
        if name not in self._given:
            kept = self._kept.get(name)
            taken = {*self._given.values(), *self._kept.values()}
            usable = kept is not None and kept not in self._given.values() and is_free(kept)
            self._given[name] = kept if kept is not None and usable else free_port(taken)
        return self._given[name]

    def save(self) -> None:
        """Remember the ports handed out; names that were not asked for keep theirs."""
        write_atomically(self._path, json.dumps({**self._kept, **self._given}, indent=2) + "\n")


def _read(path: Path) -> dict[str, int]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(name): port for name, port in kept.items() if isinstance(port, int)} if isinstance(kept, dict) else {}
