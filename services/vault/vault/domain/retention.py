"""How long keys are kept, and what becomes of a customer's keys when the customer is to be forgotten."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from vault.domain.key import KeyRecord, KeyState


@dataclass(frozen=True, slots=True)
class Retention:
    """For how long a key is kept: from its first opening, or, never opened, from when it was last ours to keep."""

    opened: timedelta
    unopened: timedelta

    def is_over(self, record: KeyRecord, now: datetime) -> bool:
        """Tell whether a key is to be destroyed.

        Of a revoked key the time begins with the revocation: somebody may be giving it back just now.
        """
        if record.state is KeyState.SHREDDED:
            return False
        if record.open_time is not None:
            return record.open_time + self.opened <= now
        return max(record.create_time, record.revoke_time or record.create_time) + self.unopened <= now


class Erasing(Enum):
    """What is to be done with a key whose owner is to be forgotten."""

    OWED = "owed"
    SHRED = "shred"
    UNLINK = "unlink"


def erasing_of(record: KeyRecord, *, forfeit_unopened: bool) -> Erasing:
    """Return what is to be done with a key.

    What was paid for and never opened is still owed: the contract is what it is kept for, until the customer gives it
    up. What was opened has been delivered. What is revoked or held is nobody's: it is a matter between the shop and the
    supplier, which needs the key and not its owner.
    """
    if record.state in (KeyState.SEALING, KeyState.SEALED):
        return Erasing.SHRED if record.is_opened or forfeit_unopened else Erasing.OWED
    return Erasing.UNLINK
