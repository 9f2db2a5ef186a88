"""Places of page tokens. They come from outside and may hold anything."""

from datetime import UTC, datetime
from uuid import UUID

from chassis.errors import InvalidRequest

_UNREADABLE = "must be the next_page_token of the page before"


def read_moment(text: str) -> datetime:
    """Return the time of a place. Raises InvalidRequest."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidRequest.of("page_token", _UNREADABLE) from None


def read_uuid(text: str) -> str:
    """Return the name of a place. Raises InvalidRequest."""
    try:
        return str(UUID(text))
    except ValueError:
        raise InvalidRequest.of("page_token", _UNREADABLE) from None
