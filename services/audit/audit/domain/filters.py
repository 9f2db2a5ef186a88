"""What a listing of entries is restricted to."""

from dataclasses import dataclass, field
from datetime import datetime

from audit.domain.entry import format_time


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing is restricted to; empty means any. Times: from `start_time` on, before `end_time`."""

    order_id: str = ""
    key_id: str = ""
    action: str = ""
    actor_id: str = field(default="", repr=False)
    start_time: datetime | None = None
    end_time: datetime | None = None

    def words(self) -> tuple[str, ...]:
        """Return all of it as text, to bind a page token to."""
        times = (format_time(moment) if moment else "" for moment in (self.start_time, self.end_time))
        return (self.order_id, self.key_id, self.action, self.actor_id, *times)
