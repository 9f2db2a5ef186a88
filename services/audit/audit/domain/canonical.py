"""The one way in which a value of the log becomes bytes: RFC 8785 (JCS), for the few kinds of values the log has.

Allowed are objects with ASCII names, strings, and integers that every JSON parser reads exactly. For these, sorted
names, no white space and ECMAScript's string escapes are all of RFC 8785; numbers with fractions, the hard part of
it, are refused.
"""

import json
from collections.abc import Mapping

# Above this an IEEE double, which RFC 8785 takes numbers to be, is no longer exact.
LARGEST_INTEGER = 2**53 - 1

CanonicalValue = str | int | Mapping[str, "CanonicalValue"]


def canonical_json(value: CanonicalValue) -> str:
    """Return the canonical text of a value; its UTF-8 bytes are what is hashed.

    Raises ValueError for a value outside of the restricted kinds.
    """
    _check(value)
    # Python escapes exactly what ECMAScript does (RFC 8785 section 3.2.2.2), in lower-case hexadecimal.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def _check(value: object) -> None:
    if isinstance(value, bool):
        raise ValueError("a boolean has no place in the log")  # noqa: TRY004 # one error for every value refused
    if isinstance(value, str):
        # Half of a surrogate pair has no bytes in UTF-8; RFC 8785 refuses it too.
        value.encode()
    elif isinstance(value, int):
        if abs(value) > LARGEST_INTEGER:
            raise ValueError("an integer is too large to be read exactly everywhere")
    elif isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise ValueError("a name must be ASCII, so that every language sorts it alike")
            _check(item)
    else:
        raise ValueError("only objects, strings and integers have a canonical form")  # noqa: TRY004 # same
