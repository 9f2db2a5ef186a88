"""One way to bring about every kind of difference: a name, and what is done to one order."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from fulfillment.domain.reconciliation import Kind, Limits
from fulfillment.ports.reconciliation import TheirKey, TheirOrder, TheirPurchase

from tests.unit.fulfillment.reconciled_world import CHARGED, MINUTE, NOW, SECOND, START, TOTAL, World

LIMITS = Limits()
Spoil = Callable[[World, str], None]
AT = START + 30 * MINUTE


def aged(age: timedelta) -> datetime:
    """Return when that began which passes its limit within the range."""
    return AT - age


def _paid_without_order(world: World, name: str) -> None:
    world.payment(name, aged(LIMITS.unmatched))


def _in_part(world: World, name: str) -> None:
    world.order(name, aged(LIMITS.in_part), state="AWAITING_PAYMENT", paid_minor=400, pay_time=None)
    world.not_bought(name)
    world.ours("payment", f"pay-{name}", minor=400)


def _too_much(world: World, name: str) -> None:
    world.order(name, AT)
    world.payment(name, AT + MINUTE, payment_id=f"again-{name}", minor=1)


def _other_currency(world: World, name: str) -> None:
    world.order(name, AT, state="NEEDS_ATTENTION", reason="PAYMENT_MISMATCH")
    world.not_bought(name)
    world.ours("payment", f"pay-{name}", currency="USD")


def _not_delivered(world: World, name: str) -> None:
    world.order(name, aged(LIMITS.unmatched), state="PENDING")
    world.not_bought(name)


def _overdue(world: World, name: str) -> None:
    world.order(name, aged(LIMITS.purchasing) - MINUTE, state="PURCHASING")
    purchase = dict(world.rows["purchase"][f"kf1-{name}"])
    world.not_bought(name)
    changes = {
        "state": "PURCHASING",
        "state_time": aged(LIMITS.purchasing),
        "place_time": None,
        "supplier_order_id": "",
    }
    world.rows["purchase"][f"kf1-{name}"] = purchase | changes


def _delivered_not_paid(world: World, name: str) -> None:
    world.order(name, AT)
    world.ours("payment", f"pay-{name}", minor=TOTAL - 1)


def _bought_not_paid(world: World, name: str) -> None:
    world.order(name, AT, state="AWAITING_KEYS")
    world.without(name, "payment", "order_key", "mail")
    del world.ledgers.sealed[f"key-{name}"]
    world.ours("purchase", f"kf1-{name}", state="AWAITING_KEYS")


def _refund_without_payment(world: World, name: str) -> None:
    world.refund(name, aged(LIMITS.unmatched))


def _refund_exceeds(world: World, name: str) -> None:
    world.order(name, AT)
    world.refund(name, AT + MINUTE, minor=TOTAL + 1)


def _unanswered(world: World, name: str) -> None:
    world.order(name, aged(LIMITS.unanswered) - MINUTE)
    world.rows["refund_request"][name] = {
        "request_id": f"request-{name}",
        "order_id": name,
        "external_id": None,
        "item_id": "a",
        "quantity": 1,
        "currency": "EUR",
        "minor": 500,
        "reason": "CANCELED",
        "create_time": aged(LIMITS.unanswered),
    }


def _refunded_but_openable(world: World, name: str) -> None:
    at = aged(LIMITS.taking_back)
    world.order(name, at - MINUTE, state="READY")
    world.ours("order_key", f"key-{name}", open_time=None)
    world.vaults(name, open_time=None)
    world.refund(name, at)


def _no_mail(world: World, name: str) -> None:
    world.order(name, aged(LIMITS.mail))
    world.without(name, "mail")


def _unknown_there(world: World, name: str) -> None:
    world.order(name, AT)
    del world.ledgers.bought[f"kf1-{name}"], world.ledgers.orders[f"S-{name}"]


def _unknown_to_us(world: World, name: str) -> None:
    world.ledgers.bought[f"kf1-{name}"] = TheirPurchase(
        f"kf1-{name}", name, f"S-{name}", "PLACED", "PROCESSING", 1, CHARGED, "", AT
    )
    world.supplier_order(f"S-{name}", f"kf1-{name}", AT)


def _state_disagrees(world: World, name: str) -> None:
    world.order(name, AT, state="NEEDS_ATTENTION", reason="PURCHASE_REFUSED")
    world.without(name, "order_key", "mail")
    del world.ledgers.sealed[f"key-{name}"]
    changes = {"state": "NEEDS_ATTENTION", "reason": "PURCHASE_REFUSED", "place_time": None, "supplier_order_id": ""}
    world.ours("purchase", f"kf1-{name}", **changes)


def _quantity(world: World, name: str) -> None:
    world.order(name, AT)
    world.theirs(name, quantity=2)


def _other_number(world: World, name: str) -> None:
    world.order(name, AT)
    world.ours("purchase", f"kf1-{name}", supplier_order_id="S-other")


def _above_limit(world: World, name: str) -> None:
    world.order(name, AT)
    world.theirs(name, charged=901)
    world.suppliers(f"S-{name}", charged=901)
    world.ours("purchase", f"kf1-{name}", charged=901)


def _charge(world: World, name: str) -> None:
    world.order(name, AT)
    world.suppliers(f"S-{name}", charged=CHARGED + 1)


def _chunk_twice(world: World, name: str) -> None:
    world.order(name, AT)
    first = world.rows["purchase"][f"kf1-{name}"]
    external_id, number, key_id = f"kf1-{name}-2", f"S-{name}-2", f"key-{name}-2"
    again = {"external_id": external_id, "attempt": 2, "supplier_order_id": number}
    world.rows["purchase"][external_id] = first | again
    world.rows["order_key"][key_id] = world.rows["order_key"][f"key-{name}"] | {
        "key_id": key_id,
        "external_id": external_id,
    }
    world.ledgers.bought[external_id] = TheirPurchase(
        external_id, name, number, "PLACED", "COMPLETED", 1, CHARGED, "", AT
    )
    world.supplier_order(number, external_id, AT)
    world.ledgers.sealed[key_id] = TheirKey(key_id, name, "SEALED", AT, AT + 8 * SECOND)


def _twice(world: World, name: str) -> None:
    world.order(name, AT)
    world.supplier_order(f"S-{name}-again", f"kf1-{name}", AT + MINUTE)


def _missing(world: World, name: str) -> None:
    world.order(name, AT)
    del world.ledgers.orders[f"S-{name}"]


def _unknown_order(world: World, name: str) -> None:
    world.supplier_order(f"S-{name}", f"kf1-{name}", AT)


def _foreign(world: World, name: str) -> None:
    world.ledgers.orders[f"S-{name}"] = TheirOrder(f"S-{name}", "", "COMPLETED", 100, 0, AT)


def _fewer_keys(world: World, name: str) -> None:
    world.order(name, AT)
    world.without(name, "order_key")
    del world.ledgers.sealed[f"key-{name}"]


def _more_keys(world: World, name: str) -> None:
    world.order(name, AT)
    world.rows["order_key"][f"key-{name}-2"] = world.rows["order_key"][f"key-{name}"] | {"key_id": f"key-{name}-2"}
    world.ledgers.sealed[f"key-{name}-2"] = TheirKey(f"key-{name}-2", name, "SEALED", AT, AT + 8 * SECOND)


def _no_key_there(world: World, name: str) -> None:
    world.order(name, AT)
    del world.ledgers.sealed[f"key-{name}"]


def _no_key_here(world: World, name: str) -> None:
    world.ledgers.sealed[f"key-{name}"] = TheirKey(f"key-{name}", name, "SEALED", AT, None)


def _never_sealed(world: World, name: str) -> None:
    world.ledgers.sealed[f"key-{name}"] = TheirKey(f"key-{name}", name, "SEALING", AT, None)


def _other_owner(world: World, name: str) -> None:
    world.order(name, AT)
    world.vaults(name, order_id="somebody-elses")


def _key_state(world: World, name: str) -> None:
    world.order(name, AT, state="READY")
    world.ours("order_key", f"key-{name}", open_time=None)
    world.vaults(name, open_time=None, state="REVOKED")


def _opened_there(world: World, name: str) -> None:
    world.order(name, AT, state="READY")
    world.ours("order_key", f"key-{name}", open_time=None)


def _opened_here(world: World, name: str) -> None:
    world.order(name, AT)
    world.vaults(name, open_time=None)


def _never_opened(world: World, name: str) -> None:
    world.order(name, aged(LIMITS.never_opened), state="READY")
    world.ours("order_key", f"key-{name}", open_time=None)
    world.vaults(name, open_time=None)


def _not_returned(world: World, name: str) -> None:
    at = aged(LIMITS.taking_back)
    world.order(name, at - MINUTE, state="CANCELED")
    world.ours("purchase", f"kf1-{name}", state="CANCELED", state_time=at)
    world.ours("order_key", f"key-{name}", open_time=None, revoke_time=at)
    world.vaults(name, open_time=None, state="SHREDDED")


def _return_refused(world: World, name: str) -> None:
    world.order(name, AT)
    world.theirs(name, surplus={f"S-{name}-2": "REFUSED"})


def _not_paid_back(world: World, name: str) -> None:
    at = aged(LIMITS.paying_back)
    world.order(name, at, state="CANCELED")
    world.ours("purchase", f"kf1-{name}", state="CANCELED")
    world.ours("order_key", f"key-{name}", open_time=None, revoke_time=at)
    world.vaults(name, open_time=None, state="SHREDDED")
    world.theirs(name, return_state="RETURNED")


SPOILS: Mapping[Kind, Spoil] = {
    Kind.PAID_WITHOUT_ORDER: _paid_without_order,
    Kind.PAID_IN_PART: _in_part,
    Kind.PAID_TOO_MUCH: _too_much,
    Kind.PAID_IN_OTHER_CURRENCY: _other_currency,
    Kind.PAID_NOT_DELIVERED: _not_delivered,
    Kind.PURCHASE_OVERDUE: _overdue,
    Kind.DELIVERED_NOT_PAID: _delivered_not_paid,
    Kind.BOUGHT_NOT_PAID: _bought_not_paid,
    Kind.REFUND_WITHOUT_PAYMENT: _refund_without_payment,
    Kind.REFUND_EXCEEDS_PAYMENT: _refund_exceeds,
    Kind.REFUND_REQUEST_UNANSWERED: _unanswered,
    Kind.REFUNDED_BUT_OPENABLE: _refunded_but_openable,
    Kind.MAIL_NEVER_SENT: _no_mail,
    Kind.PURCHASE_UNKNOWN_TO_SUPPLIER_SIDE: _unknown_there,
    Kind.PURCHASE_UNKNOWN_TO_US: _unknown_to_us,
    Kind.PURCHASE_STATE_DISAGREES: _state_disagrees,
    Kind.QUANTITY_DIFFERS: _quantity,
    Kind.SUPPLIER_ORDER_DIFFERS: _other_number,
    Kind.PRICE_ABOVE_LIMIT: _above_limit,
    Kind.CHARGE_DIFFERS: _charge,
    Kind.CHUNK_BOUGHT_TWICE: _chunk_twice,
    Kind.BOUGHT_TWICE: _twice,
    Kind.SUPPLIER_ORDER_MISSING: _missing,
    Kind.SUPPLIER_ORDER_UNKNOWN: _unknown_order,
    Kind.SUPPLIER_ORDER_FOREIGN: _foreign,
    Kind.KEYS_FEWER_THAN_BOUGHT: _fewer_keys,
    Kind.KEYS_MORE_THAN_BOUGHT: _more_keys,
    Kind.KEY_MISSING_AT_VAULT: _no_key_there,
    Kind.KEY_UNKNOWN_TO_ORDER: _no_key_here,
    Kind.KEY_NEVER_SEALED: _never_sealed,
    Kind.KEY_OF_ANOTHER_ORDER: _other_owner,
    Kind.KEY_STATE_DISAGREES: _key_state,
    Kind.OPENED_NOT_NOTED: _opened_there,
    Kind.NOTED_NOT_OPENED: _opened_here,
    Kind.KEY_NEVER_OPENED: _never_opened,
    Kind.CANCELED_NOT_RETURNED: _not_returned,
    Kind.RETURN_REFUSED: _return_refused,
    Kind.RETURN_NOT_PAID_BACK: _not_paid_back,
}
"""Every kind but the balance's, which has tests of its own."""

assert NOW > AT
