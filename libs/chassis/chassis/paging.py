"""Page tokens (AIP-158): opaque to callers, and good for the listing they came from and for no other."""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence

from chassis.errors import InvalidRequest

DEFAULT_PAGE = 100
LARGEST_PAGE = 1000
_LONGEST_TOKEN = 2048
_DIGEST_BYTES = 12
_UNREADABLE = "must be the next_page_token of the page before"


def page_size(asked: int, *, default: int = DEFAULT_PAGE, largest: int = LARGEST_PAGE) -> int:
    """Return how many results a page holds. Raises InvalidRequest for a negative number."""
    if asked < 0:
        raise InvalidRequest.of("page_size", f"must be 1 to {largest}, or absent")
    return min(asked, largest) or default


def write_page_token(filters: Sequence[str], place: Sequence[str]) -> str:
    """Return the token of the page after `place`, the sort key of a page's last result. It hides nothing."""
    body = json.dumps({"place": list(place), "filters": _digest(filters)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def read_page_token(filters: Sequence[str], token: str, *, parts: int) -> Sequence[str] | None:
    """Return the place that a token was written for, with so many parts; None for no token.

    Raises InvalidRequest for a token of a listing with other filters, and for what is no token. The parts come from
    outside and may hold anything.
    """
    if not token:
        return None
    try:
        text = token[:_LONGEST_TOKEN]
        body = json.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
        place, digest = body["place"], body["filters"]
    except (binascii.Error, ValueError, TypeError, KeyError, RecursionError):
        raise InvalidRequest.of("page_token", _UNREADABLE) from None
    if not isinstance(place, list) or len(place) != parts or not all(isinstance(part, str) for part in place):
        raise InvalidRequest.of("page_token", _UNREADABLE)
    if digest != _digest(filters):
        raise InvalidRequest.of("page_token", "belongs to a listing with other filters")
    return place


def _digest(filters: Sequence[str]) -> str:
    content = json.dumps(list(filters), separators=(",", ":")).encode()
    return hashlib.sha256(content).digest()[:_DIGEST_BYTES].hex()
