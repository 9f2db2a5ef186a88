"""How long our money at the supplier lasts."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Reading:
    """What was left on our account at a moment."""

    balance_cents: int
    read_time: datetime


@dataclass(frozen=True, slots=True)
class Balance:
    """A reading, and what a day costs us; None where nothing was bought lately."""

    reading: Reading
    daily_cents: int | None
    alert_days: float

    @property
    def days_left(self) -> float | None:
        """How many days it lasts at the present pace."""
        if not self.daily_cents:
            return None
        return max(0.0, self.reading.balance_cents / self.daily_cents)

    @property
    def low(self) -> bool:
        """Whether it lasts for less than it should, or is gone."""
        if self.reading.balance_cents <= 0:
            return True
        return self.days_left is not None and self.days_left < self.alert_days


@dataclass(frozen=True, slots=True)
class TopUp:
    """Money that a person has added to our account, or the correction of one (K5). It has a name once it is kept."""

    amount_cents: int
    top_up_time: datetime
    reference: str
    top_up_id: str = ""
