"""Waiting for a server that is starting."""

import time
from collections.abc import Callable

from sandbox.child import Child, StartFailed

_POLL_SECONDS = 0.05


def wait_until(ready: Callable[[], bool], child: Child, *, seconds: float) -> None:
    """Return once it is ready. Raises StartFailed when its process ends or the time is over."""
    deadline = time.monotonic() + seconds
    while not ready():
        child.check_running()
        if time.monotonic() > deadline:
            raise StartFailed(f"{child.name} was not ready after {seconds:.0f} s; see {child.log}")
        time.sleep(_POLL_SECONDS)
