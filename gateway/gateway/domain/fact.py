"""What the edge tells the audit log: who began and ended a session, and how often nobody in particular was refused.

Refusals are counted per source and minute, so that whoever knocks a million times a day writes 1,440 entries and not a
million. A source is a network, not an address: an address may be a person's, and details of an entry are not personal.
"""

import ipaddress
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from gateway.domain.order import Customer

# An attacker has more addresses than these: what comes from further sources within a minute is counted together.
MOST_SOURCES = 16
OTHER_SOURCES = "other"
# So much of an address is shared by many: a network of one provider.
_IPV4_PREFIX = 24
_IPV6_PREFIX = 48
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Fact:
    """One entry to be. `identity` tells it from every other one: told twice it is the same entry."""

    action: str
    identity: tuple[str, ...]
    time: datetime
    details: Mapping[str, str] = field(default_factory=dict)
    person: Customer | None = None
    is_admin: bool = False


def network_of(address: str) -> str:
    """Return the network that an address is in; `unknown` for what is no address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    prefix = _IPV4_PREFIX if parsed.version == 4 else _IPV6_PREFIX  # noqa: PLR2004 # the Internet's version
    return str(ipaddress.ip_network((parsed, prefix), strict=False))


class RefusalCounts:
    """Counts refusals of each kind per source and minute. `replica` tells the counts of two replicas apart."""

    def __init__(self, replica: str) -> None:
        self._replica = replica
        self._counts: dict[datetime, Counter[tuple[str, str]]] = {}

    def count(self, action: str, address: str, now: datetime) -> None:
        """Count one."""
        counts = self._counts.setdefault(now.replace(second=0, microsecond=0), Counter())
        key = (action, network_of(address))
        full = sum(1 for counted, _ in counts if counted == action) >= MOST_SOURCES
        counts[key if key in counts or not full else (action, OTHER_SOURCES)] += 1

    def take(self, now: datetime, *, unfinished: bool = False) -> list[Fact]:
        """Return the facts of the minutes that are over, or of all, and forget them."""
        over = sorted(minute for minute in self._counts if unfinished or minute + MINUTE <= now)
        return [
            self._fact(action, source, minute, number)
            for minute in over
            for (action, source), number in self._counts.pop(minute).items()
        ]

    def _fact(self, action: str, source: str, minute: datetime, number: int) -> Fact:
        details = {"source": source, "count": str(number), "minute": minute.isoformat()}
        return Fact(action, (self._replica, source, minute.isoformat()), minute, details)
