"""TCP ports that stay the same from one start to the next wherever they are still free.

A port that was chosen is bound only once its server is up, so that looking whether it is free does not tell whether
another sandbox has chosen it too. Each process therefore chooses from blocks of its own, whose first port it holds.
"""

import json
import random
import socket
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from sandbox.files import write_atomically

HOST = "127.0.0.1"
# Below the range from which systems pick the near end of outgoing connections (32768 and up on Linux): otherwise such a
# connection could sit on the port of a server that is just being started again.
_LOWEST, _HIGHEST = 18_000, 31_999
_BLOCK = 50
# Of one process. By the time that it begins another one, what was chosen in the first is bound or over.
_MOST_BLOCKS = 20
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


class OwnPorts:
    """The ports of this process, block after block."""

    def __init__(self) -> None:
        self._choosing = threading.Lock()
        self._held: deque[socket.socket] = deque()
        self._left: deque[int] = deque()

    def next(self) -> int:
        """Return the next one; the earliest blocks are given up when there are many. Raises NoFreePort."""
        with self._choosing:
            if not self._left:
                first, guard = hold_block()
                self._held.append(guard)
                if len(self._held) > _MOST_BLOCKS:
                    self._held.popleft().close()
                self._left.extend(range(first + 1, first + _BLOCK))
            return self._left.popleft()


_own_ports = OwnPorts()


def free_port(taken: Iterable[int] = ()) -> int:
    """Return a port that this process has to itself and that is not among the taken ones. Raises NoFreePort."""
    avoid = set(taken)
    for _ in range(_MOST_TRIES):
        port = _own_ports.next()
        if port not in avoid and is_free(port):
            return port
    raise NoFreePort(f"no free port between {_LOWEST} and {_HIGHEST}")


def hold_block() -> tuple[int, socket.socket]:
    """Return the first port of a block that nobody else chooses from, and what holds it. Raises NoFreePort."""
    for _ in range(_MOST_TRIES):
        first = random.randrange(_LOWEST, _HIGHEST, _BLOCK)  # noqa: S311 # any block will do
        guard = socket.socket()
        try:
            guard.bind((HOST, first))
            guard.listen(1)
        except OSError:
            guard.close()
            continue
        return first, guard
    raise NoFreePort(f"no free block of {_BLOCK} ports between {_LOWEST} and {_HIGHEST}")


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
