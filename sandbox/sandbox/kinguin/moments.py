"""Times on the wire: the two forms that the supplier sends, and the five that it takes (K12)."""

import re
from datetime import UTC, datetime

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOST_PLUS = re.compile(r"(T[\d:.]+) (\d\d:?\d\d)$")


def moment(at: float) -> str:
    """Render seconds since 1970 as `2020-10-28T08:40:44+00:00`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def exact_moment(at: float) -> str:
    """Render seconds since 1970 as webhooks have it: `2020-10-16T11:24:08.025+00:00`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def parse_moment(text: str) -> float:
    """Read a date, or a date and time with or without fraction and offset; UTC where none is given.

    A plus sign that was not escaped arrives as a blank and is understood. Raises ValueError.
    """
    try:
        parsed = datetime.fromisoformat(_LOST_PLUS.sub(r"\1+\2", text))
        aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
        return (aware - _EPOCH).total_seconds()
    except OverflowError as error:
        raise ValueError(text) from error
