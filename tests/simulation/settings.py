"""How a process lives histories: without logs, and with ages that a history reaches."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fulfillment.domain import policy
from fulfillment.domain.model import State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# Short of the longest doubt, and of the longest wait for keys and returns, so that some of each grow too old.
AGES: Mapping[State, timedelta] = {
    State.PENDING: timedelta(minutes=4),
    State.PURCHASING: timedelta(seconds=15),
    State.AWAITING_KEYS: timedelta(minutes=8),
    State.WITHDRAWING: timedelta(seconds=60),
    State.REVOKING: timedelta(seconds=60),
    State.RETURNING: timedelta(minutes=4),
    State.SHREDDING: timedelta(seconds=60),
}


class _Silence:
    def __getattr__(self, _: str) -> Any:
        return _nothing


def _nothing(*_: object, **__: object) -> None:
    """Log nothing: a history that fails is lived again."""


@contextmanager
def simulated() -> Iterator[None]:
    """Silence the services' logs and shorten their ages, within the block."""
    loggers: dict[Any, Any] = {
        module: vars(module)["logger"]
        for name, module in sys.modules.items()
        if name.startswith(("fulfillment.", "kinguin_gateway.")) and hasattr(module, "logger")
    }
    ages, parked = policy.MOST_AGE, policy.MOST_PARKED
    for module in loggers:
        module.logger = _Silence()
    policy.MOST_AGE, policy.MOST_PARKED = AGES, AGES[State.PENDING]
    try:
        yield
    finally:
        for module, logger in loggers.items():
            module.logger = logger
        policy.MOST_AGE, policy.MOST_PARKED = ages, parked
