"""What a listing of entries is restricted to."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Filters:
    """What a listing is restricted to; empty means any."""

    order_id: str = ""
    key_id: str = ""
    action: str = ""
    actor_id: str = field(default="", repr=False)
