"""Pages of a listing: the filters, and tokens that continue one listing and no other."""

import base64
import binascii
import hashlib
import json
from dataclasses import astuple, dataclass, field

DEFAULT_PAGE = 50
LARGEST_PAGE = 500
_FILTER_DIGEST_BYTES = 12


class PageTokenUnreadable(ValueError):
    """The token was not made for this listing."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing is restricted to; empty means any."""

    order_id: str = ""
    key_id: str = ""
    action: str = ""
    actor_id: str = field(default="", repr=False)


def page_size(asked: int) -> int:
    """Return how many entries a page holds: 50 unless asked otherwise, never above 500."""
    return min(asked, LARGEST_PAGE) if asked > 0 else DEFAULT_PAGE


def make_page_token(filters: Filters, after: int) -> str:
    """Return a token for the entries after a sequence number. Opaque, no secret, and it names no person."""
    body = json.dumps({"after": after, "filters": _digest(filters)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def read_page_token(filters: Filters, token: str) -> int:
    """Return the sequence number after which the page begins; -1 for no token.

    Raises PageTokenUnreadable for a token of a listing with other filters, and for one that is no token.
    """
    if not token:
        return -1
    try:
        body = json.loads(base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True))
        after, digest = body["after"], body["filters"]
    except (binascii.Error, ValueError, TypeError, KeyError):
        raise PageTokenUnreadable("must be the next_page_token of the page before") from None
    if digest != _digest(filters):
        raise PageTokenUnreadable("belongs to a listing with other filters")
    if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after < 2**63:
        raise PageTokenUnreadable("must be the next_page_token of the page before")
    return after


def _digest(filters: Filters) -> str:
    content = json.dumps(astuple(filters), separators=(",", ":")).encode()
    return hashlib.sha256(content).digest()[:_FILTER_DIGEST_BYTES].hex()
