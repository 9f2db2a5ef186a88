import uuid
from datetime import UTC, timedelta
from typing import Any

import pytest
from chassis.errors import InvalidRequest
from google.protobuf.timestamp_pb2 import Timestamp
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1.money_pb2 import Money
from kinguin_gateway.collecting import Collection
from kinguin_gateway.convert import (
    PlaceRequest,
    collect_from_proto,
    collection_to_proto,
    external_id_from_proto,
    place_from_proto,
    purchase_to_proto,
    withdraw_from_proto,
)
from kinguin_gateway.convert_account import check_to_proto, top_up_filter_from_proto
from kinguin_gateway.convert_products import product_id_from_proto, product_to_proto
from kinguin_gateway.convert_returns import purchase_filter_from_proto
from kinguin_gateway.domain.purchase import (
    KeyRef,
    Offer,
    Product,
    Purchase,
    PurchaseState,
    SupplierOrderState,
)
from kinguin_gateway.domain.switching import BuyingStatus, PauseCause
from kinguin_gateway.ports.supplier import SupplierHealth
from kinguin_gateway.reading import Check

from tests.unit.kinguin_gateway.fakes import INTENT
from tests.unit.simulated import EPOCH

BUYING = BuyingStatus(PauseCause.UNAUTHORIZED, "not let in", EPOCH, 3)
REQUEST_ID = str(uuid.uuid5(uuid.NAMESPACE_URL, "request"))


def place_message(**changes: Any) -> pb.PlaceOrderRequest:
    good: dict[str, Any] = {
        "request_id": REQUEST_ID,
        "external_id": "kf-0001",
        "order_id": "order-1",
        "item_id": "item-1",
        "product_id": INTENT.product_id,
        "quantity": 2,
        "max_unit_price": Money(currency_code="EUR", minor_units=1299),
    }
    return pb.PlaceOrderRequest(**(good | changes))


def collect_message(**changes: Any) -> pb.CollectKeysRequest:
    good = {"request_id": REQUEST_ID, "external_id": "kf-0001", "customer_id": "auth0|alice"}
    return pb.CollectKeysRequest(**(good | changes))


def withdraw_message(**changes: Any) -> pb.WithdrawPurchaseRequest:
    fields = {field.name: value for field, value in place_message().ListFields()}
    return pb.WithdrawPurchaseRequest(**(fields | changes))


def faulty_fields(error: InvalidRequest) -> list[str]:
    return [fault.field for fault in error.field_violations]


def test_a_good_request_to_buy_is_read_whole() -> None:
    assert place_from_proto(place_message()) == PlaceRequest(INTENT, REQUEST_ID, "")
    place = place_from_proto(place_message(offer_id="offer-1", key_type="text", quantity=9, country_code="AT"))
    assert (place.intent.offer_id, place.intent.key_type, place.intent.quantity) == ("offer-1", "text", 9)
    assert place.country_code == "AT"


@pytest.mark.parametrize("quantity", [10, 1000])
def test_k28_k29_many_keys_are_bought_of_one_offer(quantity: int) -> None:
    place = place_from_proto(place_message(quantity=quantity, offer_id="offer-1"))
    assert place.intent.quantity == quantity


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("request_id", {"request_id": "7"}),
        ("external_id", {"external_id": ""}),
        ("external_id", {"external_id": "x" * 65}),
        ("external_id", {"external_id": "kf 1"}),
        ("external_id", {"external_id": "kf-1\n"}),
        ("order_id", {"order_id": ""}),
        ("order_id", {"order_id": "order\x00"}),
        ("item_id", {"item_id": "a\u202eb"}),
        ("product_id", {"product_id": ""}),
        ("product_id", {"product_id": "../v1/balance"}),
        ("offer_id", {"offer_id": "a b"}),
        ("quantity", {"quantity": 0}),
        ("quantity", {"quantity": -1}),
        ("quantity", {"quantity": 1001, "offer_id": "offer-1"}),
        ("offer_id", {"quantity": 10}),
        ("country_code", {"country_code": "at"}),
        ("country_code", {"country_code": "AUT"}),
        ("max_unit_price", {"max_unit_price": None}),
        ("max_unit_price.currency_code", {"max_unit_price": Money(currency_code="USD", minor_units=1)}),
        ("max_unit_price.currency_code", {"max_unit_price": Money(currency_code="EURO", minor_units=1)}),
        ("max_unit_price.minor_units", {"max_unit_price": Money(currency_code="EUR", minor_units=0)}),
        ("max_unit_price.minor_units", {"max_unit_price": Money(currency_code="EUR", minor_units=100_000_001)}),
        ("key_type", {"key_type": "image"}),
    ],
)
def test_a_fault_in_a_request_to_buy_names_its_field(field: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as invalid:
        place_from_proto(place_message(**changes))
    assert set(faulty_fields(invalid.value)) == {field}


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as invalid:
        place_from_proto(pb.PlaceOrderRequest())
    assert set(faulty_fields(invalid.value)) == {
        "request_id", "external_id", "order_id", "item_id", "product_id", "quantity", "max_unit_price"
    }  # fmt: skip
    with pytest.raises(InvalidRequest) as invalid:
        collect_from_proto(pb.CollectKeysRequest())
    assert set(faulty_fields(invalid.value)) == {"request_id", "external_id", "customer_id"}


def test_a_request_to_collect_is_read_whole_and_its_digest_is_of_its_content() -> None:
    request = collect_from_proto(collect_message())
    assert (request.external_id, request.customer_id, request.request_id) == ("kf-0001", "auth0|alice", REQUEST_ID)
    assert request.digest == collect_from_proto(collect_message()).digest
    assert request.digest != collect_from_proto(collect_message(customer_id="bob")).digest


def test_ids_to_read_are_checked() -> None:
    assert external_id_from_proto(pb.GetOrderRequest(external_id="kf-1")) == "kf-1"
    assert product_id_from_proto(pb.GetProductRequest(product_id="p1")) == "p1"
    with pytest.raises(InvalidRequest):
        external_id_from_proto(pb.GetOrderRequest(external_id="kf/1"))
    with pytest.raises(InvalidRequest):
        product_id_from_proto(pb.GetProductRequest())


@pytest.mark.parametrize("state", PurchaseState)
@pytest.mark.parametrize("order_state", [None, *SupplierOrderState])
def test_every_state_of_a_purchase_has_its_name(state: PurchaseState, order_state: SupplierOrderState | None) -> None:
    purchase = Purchase(INTENT, state, 1, EPOCH, create_time=EPOCH, supplier_order_state=order_state, charged_cents=99)
    message = purchase_to_proto(purchase)
    assert pb.PurchaseState.Name(message.state) == f"PURCHASE_STATE_{state.name}"
    told = "UNSPECIFIED" if order_state is None else order_state.name
    assert pb.SupplierOrderState.Name(message.supplier_order_state) == f"SUPPLIER_ORDER_STATE_{told}"
    assert (message.charged_amount.currency_code, message.charged_amount.minor_units) == ("EUR", 99)


def test_a_collection_tells_its_keys_and_that_there_are_more() -> None:
    purchase = Purchase(INTENT, PurchaseState.PLACED, 1, EPOCH, create_time=EPOCH)
    keys = [KeyRef("k1", "id-1", "text/plain", held=False), KeyRef("k2", "id-2", "image/png", held=True)]
    message = collection_to_proto(Collection(purchase, keys, more_keys_ready=True))
    assert [(key.key_id, key.content_type, key.held) for key in message.keys] == [
        ("id-1", "text/plain", False),
        ("id-2", "image/png", True),
    ]
    assert message.more_keys_ready
    assert not message.purchase.HasField("charged_amount")


def test_k14_a_product_is_told_by_the_offers_that_have_keys() -> None:
    offers = [Offer(500, 0), Offer(799, 3), Offer(699, 2), Offer(None, 1)]
    product = Product(
        "p1", "Game", 450, 9, preorder=True, excluded_countries=["RU"], activation_details="type it", offers=offers
    )
    message = product_to_proto(product)
    assert (message.price.minor_units, message.available_quantity) == (699, 6)
    assert (message.preorder, list(message.excluded_countries)) == (True, ["RU"])


@pytest.mark.parametrize(("available", "price"), [(0, None), (4, 450)])
def test_a_product_without_offers_is_told_by_its_own_price(available: int, price: int | None) -> None:
    product = Product("p1", "Game", 450, available, preorder=False, excluded_countries=[], activation_details="")
    message = product_to_proto(product)
    assert message.price.minor_units == (price or 0)
    assert message.HasField("price") is (price is not None)
    assert message.available_quantity == available


def test_a_check_is_told_with_its_latency() -> None:
    health = SupplierHealth(reachable=True, authorized=False, detail="not let in")
    message = check_to_proto(
        Check(health, timedelta(milliseconds=250), BUYING, breaker_open=True, last_webhook_time=EPOCH)
    )
    assert (message.reachable, message.authorized, message.detail) == (True, False, "not let in")
    assert not message.HasField("balance")
    assert message.latency.ToTimedelta() == timedelta(milliseconds=250)
    assert (message.breaker_open, message.last_webhook_time.ToDatetime(UTC)) == (True, EPOCH)
    assert (message.buying.paused, message.buying.cause) == (True, pb.PAUSE_CAUSE_UNAUTHORIZED)


def test_a_withdrawal_names_the_purchase_in_the_words_of_the_request_to_buy_it() -> None:
    assert withdraw_from_proto(withdraw_message()) == (place_from_proto(place_message()).intent, REQUEST_ID)
    bad = withdraw_message(request_id="x", external_id="", quantity=0, key_type="image", product_id="")
    with pytest.raises(InvalidRequest) as invalid:
        withdraw_from_proto(bad)
    assert faulty_fields(invalid.value) == ["request_id", "external_id", "product_id", "quantity", "key_type"]


def test_a_time_that_no_calendar_knows_is_a_fault_of_every_listing() -> None:
    never = Timestamp(seconds=10**13)
    for request in (pb.ListPurchasesRequest, pb.ListTopUpsRequest):
        read = purchase_filter_from_proto if request is pb.ListPurchasesRequest else top_up_filter_from_proto
        with pytest.raises(InvalidRequest) as invalid:
            read(request(start_time=never, end_time=never))  # type: ignore[arg-type] # each has its own
        assert faulty_fields(invalid.value) == ["start_time", "end_time"]
