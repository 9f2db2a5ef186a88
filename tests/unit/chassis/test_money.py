import pytest
from chassis.money import Money, money_from_proto, money_to_proto
from hypothesis import given
from hypothesis import strategies as st
from keyferry.type.v1 import money_pb2


@given(st.sampled_from(["EUR", "USD", "JPY", "BHD"]), st.integers(-(2**63), 2**63 - 1))
def test_an_amount_crosses_the_wire_exactly(currency: str, minor_units: int) -> None:
    money = Money(currency, minor_units)
    assert money_from_proto(money_pb2.Money.FromString(money_to_proto(money).SerializeToString())) == money


@pytest.mark.parametrize("code", ["", "eur", "EURO", "EU", "XXZ", "€"])
def test_a_currency_that_is_not_of_iso_4217_is_refused(code: str) -> None:
    with pytest.raises(ValueError, match="ISO 4217"):
        Money(code, 1)


def test_amounts_of_one_currency_add_up_and_of_two_do_not() -> None:
    assert Money("EUR", 1) + Money("EUR", 2) == Money("EUR", 3)
    with pytest.raises(ValueError, match="do not add up"):
        Money("EUR", 1) + Money("USD", 2)


@pytest.mark.parametrize("compare", ["__lt__", "__le__", "__gt__", "__ge__"])
def test_amounts_are_compared_within_a_currency_only(compare: str) -> None:
    assert Money("EUR", 1) < Money("EUR", 2) <= Money("EUR", 2)
    assert Money("EUR", 3) > Money("EUR", 2) >= Money("EUR", 2)
    with pytest.raises(ValueError, match="do not compare"):
        getattr(Money("EUR", 1), compare)(Money("USD", 2))
