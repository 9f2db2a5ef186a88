"""What is kept of each thing that was done with a key, and how often one may be handed over."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

# How many links and reveals a key's log remembers one by one; all are counted. Limits look back into the log, so that
# none may be higher.
MOST_RELEASES_KEPT = 200
LIMIT_WINDOW = timedelta(hours=1)


class Act(Enum):
    """Something that is done with a key."""

    STORED = "STORED"
    LINK_ISSUED = "LINK_ISSUED"
    REVEALED = "REVEALED"
    REVOKED = "REVOKED"
    EXPIRED = "EXPIRED"
    SHREDDED = "SHREDDED"


RELEASES = frozenset({Act.LINK_ISSUED, Act.REVEALED})


@dataclass(frozen=True, slots=True)
class Delivery:
    """One line of a key's delivery log. Without a caller it was the owner, of whom two coarse traits are kept."""

    act: Act
    time: datetime
    caller: str = ""
    request_id: str = ""
    reason: str = ""
    network: str = field(default="", repr=False)
    device: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """When a key was handed over lately, the earliest first, and whether a request is among those."""

    times: Sequence[datetime]
    is_counted: bool


def wait_of(usage: Usage, *, limit: int, now: datetime) -> timedelta:
    """Return how long a request has to wait until the key may be handed over once more; zero when it may be now.

    `usage` is of the last hour. What was counted once is never counted, nor refused, again.
    """
    if usage.is_counted or len(usage.times) < limit:
        return timedelta()
    return max(usage.times[-limit] + LIMIT_WINDOW - now, timedelta(seconds=1))
