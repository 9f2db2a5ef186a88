"""What may be taken back: pure rules over the rows of keys."""

from collections.abc import Sequence
from enum import Enum

from vault.domain.key import KeyRecord, KeyState


class Shredding(Enum):
    """What is to be done with a key that somebody wants destroyed."""

    NOW = "now"
    DONE = "done"
    OPENED = "opened"
    NOT_REVOKED = "not revoked"


def opened_among(records: Sequence[KeyRecord]) -> Sequence[str]:
    """Return the ids of those that were opened, whatever became of them since."""
    return [record.key_id for record in records if record.is_opened]


def still_to_revoke(records: Sequence[KeyRecord]) -> Sequence[KeyRecord]:
    """Return those, of keys that were not opened, that are not taken back yet."""
    return [record for record in records if not record.is_taken_back]


def shredding_of(record: KeyRecord) -> Shredding:
    """Return what is to be done with a key.

    A key that could be opened by its owner is revoked first, so that of the two wishes the database decides and not the
    order in which they came. A held key was never to be opened, and goes at once.
    """
    if record.state is KeyState.SHREDDED:
        return Shredding.DONE
    if record.is_opened:
        return Shredding.OPENED
    if record.state in (KeyState.REVOKED, KeyState.HELD):
        return Shredding.NOW
    return Shredding.NOT_REVOKED
