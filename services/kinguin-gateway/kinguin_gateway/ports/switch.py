"""The switch of buying, one for all replicas, and the line of purchases that wait for it."""

from dataclasses import dataclass
from typing import Protocol

from keyferry.type.v1.actor_pb2 import Actor

from kinguin_gateway.domain.switching import BuyingStatus


@dataclass(frozen=True, slots=True)
class SwitchOrder:
    """What a person decides about buying, and why. `digest` tells a repeat from another request with its id."""

    request_id: str
    digest: bytes
    actor: Actor
    reason: str


class Switch(Protocol):
    """Raises ServiceUnavailable while the switch cannot be reached."""

    async def status(self) -> BuyingStatus:
        """Return whether we buy."""
        ...

    async def pause(self, order: SwitchOrder) -> BuyingStatus:
        """Stop buying until `resume`. Raises RequestIdReused."""
        ...

    async def resume(self, order: SwitchOrder) -> BuyingStatus:
        """Buy again, whatever stopped it. Raises RequestIdReused."""
        ...

    async def release(self, limit: int, *, balance_cents: int | None) -> int:
        """Let the first of the line go, at most `limit`, and return how many; with an event for each.

        With a balance only as many as it covers, beside what was released before and is not charged yet; and where
        nobody waits any more, buying that was stopped for want of money goes on. Nothing happens while an operator has
        stopped it. Of two replicas one releases.
        """
        ...
