"""Collects every fault of a request, so that its caller mends them in one go."""

import re
import uuid
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from chassis.errors import FieldViolation, InvalidRequest

IDENTIFIER = re.compile(r"[A-Za-z0-9._-]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Faults:
    """Faults found so far. `raise_if_any` at the end of a conversion."""

    def __init__(self) -> None:
        self._violations: list[FieldViolation] = []

    def add(self, field: str, description: str) -> None:
        """Note a fault: the field's path, and what it must be."""
        self._violations.append(FieldViolation(field, description))

    def require(self, field: str, value: str, *, longest: int = 255) -> str:
        """Demand text of 1 to `longest` characters, none of them a control character: PostgreSQL cannot store NUL."""
        if not value:
            self.add(field, "is required")
        elif _CONTROL.search(value):
            self.add(field, "must hold no control characters")
        elif len(value) > longest:
            self.add(field, f"must have at most {longest} characters")
        return value

    def identifier(self, field: str, value: str, *, longest: int = 64) -> str:
        """Demand 1 to `longest` letters, digits, dots, underscores and hyphens."""
        if value and not IDENTIFIER.fullmatch(value):
            self.add(field, "may hold letters, digits, dots, underscores and hyphens only")
            return value
        return self.require(field, value, longest=longest)

    def request_id(self, value: str) -> str:
        """Demand a UUID in `request_id`."""
        try:
            return str(uuid.UUID(value))
        except ValueError:
            self.add("request_id", "must be a UUID, kept by the caller so that it can repeat the request")
            return value

    def moment(self, field: str, value: Timestamp | None) -> datetime | None:
        """Read a time; None for an absent one. Demand one that a calendar knows."""
        if value is None:
            return None
        try:
            return value.ToDatetime(UTC)
        except (ValueError, OverflowError):
            self.add(field, "must be a time between the years 1 and 9999")
            return None

    def raise_if_any(self) -> None:
        """Raise InvalidRequest with every fault noted."""
        if self._violations:
            raise InvalidRequest.of_all(self._violations)
