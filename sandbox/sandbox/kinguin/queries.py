"""Reads query parameters strictly: what the contract does not allow is refused, never guessed."""

import re

from starlette.requests import Request

from sandbox.kinguin.moments import parse_moment
from sandbox.kinguin.problems import violation

DEFAULT_LIMIT = 25
MOST_LIMIT = 100
# No list is longer. It keeps the offset within what the database can count.
_MOST_PAGE = 1_000_000_000
_POSITIVE = re.compile(r"[1-9][0-9]*")


class Query:
    """The query of one request. Every method raises Refusal where a value is not allowed."""

    def __init__(self, request: Request) -> None:
        self._given = request.query_params

    def text(self, name: str, *, least: int = 0) -> str | None:
        """Return a parameter that is given at most once."""
        values = self._given.getlist(name)
        if not values:
            return None
        if len(values) > 1:
            raise violation(f'The "{name}" parameter is repeated.', name)
        if len(values[0]) < least:
            raise violation(f'The "{name}" parameter must have at least {least} characters.', name, values[0])
        return values[0]

    def _number(self, name: str, default: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        if not _POSITIVE.fullmatch(text):
            raise violation(f'The "{name}" parameter must be a positive integer.', name, text)
        return int(text) if len(text) < len(str(_MOST_PAGE)) else _MOST_PAGE

    def page(self) -> int:
        """Return the page, from 1."""
        return self._number("page", 1)

    def limit(self) -> int:
        """Return how many results a page has: 25 by default, 100 at most (K9, K44)."""
        limit = self._number("limit", DEFAULT_LIMIT)
        if limit > MOST_LIMIT:
            raise violation(f'The "limit" parameter must be at most {MOST_LIMIT}.', "limit", limit)
        return limit

    def choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        """Return one of the allowed values."""
        value = self.text(name)
        if value is not None and value not in allowed:
            raise violation(f'The "{name}" parameter must be one of: {", ".join(allowed)}.', name, value)
        return value

    def names(self, name: str) -> set[str] | None:
        """Return the members of a comma-separated list."""
        value = self.text(name)
        return None if value is None else {part.strip() for part in value.split(",")}

    def moment(self, name: str) -> float | None:
        """Return a time as seconds since 1970."""
        value = self.text(name)
        try:
            return None if value is None else parse_moment(value)
        except ValueError:
            raise violation(f'The "{name}" parameter is not a date.', name, value) from None
