"""Amounts of money: a currency of ISO 4217 and a whole number of its minor units."""

from dataclasses import dataclass
from functools import cache, total_ordering

import pycountry
from keyferry.type.v1 import money_pb2


@cache
def _alphabetic_codes() -> frozenset[str]:
    return frozenset(currency.alpha_3 for currency in pycountry.currencies)


@total_ordering
@dataclass(frozen=True, slots=True)
class Money:
    """An amount in one currency. Comparing or adding two currencies is a mistake and raises ValueError."""

    currency_code: str
    minor_units: int

    def __post_init__(self) -> None:
        if self.currency_code not in _alphabetic_codes():
            raise ValueError("must be an ISO 4217 currency code in upper case, for example EUR")

    def __add__(self, other: "Money") -> "Money":
        if self.currency_code != other.currency_code:
            raise ValueError(f"{self.currency_code} and {other.currency_code} do not add up")
        return Money(self.currency_code, self.minor_units + other.minor_units)

    def __lt__(self, other: "Money") -> bool:
        if self.currency_code != other.currency_code:
            raise ValueError(f"{self.currency_code} and {other.currency_code} do not compare")
        return self.minor_units < other.minor_units


def money_to_proto(money: Money) -> money_pb2.Money:
    """Render an amount."""
    return money_pb2.Money(currency_code=money.currency_code, minor_units=money.minor_units)


def money_from_proto(message: money_pb2.Money) -> Money:
    """Read an amount. Raises ValueError when the currency is not one of ISO 4217."""
    return Money(message.currency_code, message.minor_units)
