from datetime import UTC, datetime

from sandbox.shop import Purchase, new_order_id, paid_order

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def test_a_paid_order_is_paid_in_full_by_its_customer() -> None:
    message = paid_order("alice", Purchase("product", 3, 500), order_id="S1", now=NOW)
    assert message.payment.amount == message.order.total
    assert message.order.total.minor_units == 1500
    assert message.payment.order_id == message.order.order_id == "S1"
    assert message.order.customer.customer_id == "alice"
    assert message.order.customer.email == "alice@example.com"
    assert [(item.product_id, item.quantity) for item in message.order.items] == [("product", 3)]


def test_order_numbers_can_be_read_out_and_do_not_repeat() -> None:
    numbers = {new_order_id(NOW) for _ in range(100)}
    assert len(numbers) == 100
    assert all(number.startswith("S260301-") and len(number) == 14 for number in numbers)
