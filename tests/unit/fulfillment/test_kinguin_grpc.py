"""What is asked of kinguin-gateway, and what its answers come to."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Any, cast

import grpc
import pytest
from chassis.errors import RemoteError
from fulfillment.adapters import kinguin_grpc
from fulfillment.adapters.kinguin_grpc import GrpcSupplier
from fulfillment.domain.model import ExternalId, Item, ItemId, OrderId, Purchase, State
from fulfillment.domain.planner import Known
from fulfillment.domain.product import Offer, Product, Tier
from fulfillment.ports.supplier import (
    Buying,
    Collected,
    InDoubt,
    NoAnswer,
    NoProduct,
    Placed,
    Refused,
    Returned,
    ReturnRefused,
    ReturnUnderWay,
)
from google.protobuf.message import Message
from keyferry.kinguin.v1 import kinguin_service_pb2 as pb
from keyferry.type.v1 import money_pb2

from tests.unit.fulfillment.examples import NOON
from tests.unit.fulfillment.grpc_peer import Peer

ITEM = Item(ItemId("item-1"), "product-1", 3, max_unit_price=999, offer_id="of the item", key_type="text")
PURCHASE = Purchase(
    ExternalId("kf1-a"),
    OrderId("order-1"),
    ItemId("item-1"),
    3,
    State.PURCHASING,
    NOON,
    offer_id="offer-7",
    unit_limit=1048,
)
BUYING = Buying(PURCHASE, ITEM, "alice", "AT")
PLACED = pb.Purchase(
    supplier_order_id="PHS1",
    product_name="Lantern Hollow",
    state=pb.PURCHASE_STATE_PLACED,
    charged_amount=money_pb2.Money(currency_code="EUR", minor_units=2247),
)
TERMS = ("external_id", "order_id", "item_id", "product_id", "offer_id", "quantity", "max_unit_price", "key_type")


def failing(reason: str, **rest: Any) -> RemoteError:
    return RemoteError("on purpose", code=grpc.StatusCode.UNAVAILABLE, reason=reason, **rest)


def euros(cents: int) -> money_pb2.Money:
    return money_pb2.Money(currency_code="EUR", minor_units=cents)


def supplier_of(peer: Peer) -> GrpcSupplier:
    return GrpcSupplier(cast("grpc.aio.Channel", peer))


async def test_what_was_planned_is_bought_and_not_what_the_item_says() -> None:
    peer = Peer(pb.PlaceOrderResponse(purchase=PLACED))
    assert await supplier_of(peer).place(BUYING) == Placed("PHS1", "Lantern Hollow", 2247)
    (request,) = peer.requests
    assert isinstance(request, pb.PlaceOrderRequest)
    assert (request.offer_id, request.quantity, request.max_unit_price) == ("offer-7", 3, euros(1048))
    assert (request.order_id, request.item_id, request.product_id) == ("order-1", "item-1", "product-1")
    assert (request.key_type, request.country_code) == ("text", "AT")


async def test_of_a_preorder_no_type_of_keys_is_asked_for() -> None:
    peer = Peer(pb.PlaceOrderResponse(purchase=PLACED))
    await supplier_of(peer).place(replace(BUYING, purchase=replace(PURCHASE, is_preorder=True)))
    assert isinstance(peer.requests[0], pb.PlaceOrderRequest)
    assert peer.requests[0].key_type == ""


async def test_nothing_is_bought_without_a_plan() -> None:
    peer = Peer()
    with pytest.raises(LookupError, match="not planned"):
        await supplier_of(peer).place(replace(BUYING, purchase=replace(PURCHASE, unit_limit=None)))
    assert not peer.requests


@pytest.mark.parametrize("purchase", [PURCHASE, replace(PURCHASE, is_preorder=True)])
async def test_what_is_withdrawn_is_what_was_placed(purchase: Purchase) -> None:
    peer = Peer(pb.PlaceOrderResponse(purchase=PLACED), pb.WithdrawPurchaseResponse(purchase=PLACED))
    await supplier_of(peer).place(replace(BUYING, purchase=purchase))
    await supplier_of(peer).withdraw(replace(BUYING, purchase=purchase))
    placing, withdrawing = cast("list[Any]", peer.requests)
    assert [getattr(placing, name) for name in TERMS] == [getattr(withdrawing, name) for name in TERMS]
    assert placing.request_id != withdrawing.request_id


UNPLANNED = replace(BUYING, purchase=replace(PURCHASE, unit_limit=None, offer_id=""))


async def test_what_was_never_planned_is_withdrawn_too() -> None:
    gone = pb.WithdrawPurchaseResponse(purchase=pb.Purchase(state=pb.PURCHASE_STATE_REFUSED))
    peer = Peer(pb.ListPurchasesResponse(), gone)
    assert isinstance(await supplier_of(peer).withdraw(UNPLANNED), Refused)
    request = cast("pb.WithdrawPurchaseRequest", peer.requests[1])
    assert (request.max_unit_price, request.offer_id, request.quantity) == (euros(999), "", 3)


async def test_what_a_restored_database_does_not_know_to_be_planned_is_withdrawn_on_its_own_terms() -> None:
    sent = pb.Purchase(
        external_id="kf1-a", item_id="item-1", quantity=2, offer_id="offer-9", max_unit_price=euros(1100)
    )
    gone = pb.WithdrawPurchaseResponse(purchase=pb.Purchase(state=pb.PURCHASE_STATE_REFUSED))
    peer = Peer(pb.ListPurchasesResponse(purchases=[sent]), gone)
    await supplier_of(peer).withdraw(UNPLANNED)
    request = cast("pb.WithdrawPurchaseRequest", peer.requests[1])
    assert (request.max_unit_price, request.offer_id, request.quantity) == (euros(1100), "offer-9", 2)


async def test_nothing_is_withdrawn_while_nobody_says_on_which_terms() -> None:
    assert await supplier_of(Peer(failing("SERVICE_UNAVAILABLE"))).withdraw(UNPLANNED) == NoAnswer()


@pytest.mark.parametrize(
    ("state", "sealed", "delivered", "ended"),
    [
        (pb.SUPPLIER_ORDER_STATE_PROCESSING, 1, 1, False),
        (pb.SUPPLIER_ORDER_STATE_COMPLETED, 1, 1, False),
        (pb.SUPPLIER_ORDER_STATE_CANCELED, 1, 1, True),
        (pb.SUPPLIER_ORDER_STATE_CANCELED, 1, 2, False),
        (pb.SUPPLIER_ORDER_STATE_REFUNDED, 0, 0, True),
    ],
)
async def test_only_what_the_supplier_called_off_and_we_have_all_of_is_over(
    state: pb.SupplierOrderState.ValueType, sealed: int, delivered: int, *, ended: bool
) -> None:
    told = pb.Purchase(supplier_order_state=state, sealed_count=sealed, delivered_count=delivered, quantity=3)
    answer = await supplier_of(Peer(pb.CollectKeysResponse(purchase=told))).collect(BUYING)
    assert isinstance(answer, Collected)
    assert answer.ended is ended


async def test_what_cannot_be_read_is_told_beside_the_keys_that_can() -> None:
    told = pb.CollectKeysResponse(
        purchase=pb.Purchase(quantity=2),
        keys=[pb.KeyRef(key_id="key-1", content_type="text/plain")],
        unreadable_keys=[pb.UnreadableKey(source_ref="kinguin:PHS1:2")],
        unreadable_count=1,
    )
    answer = await supplier_of(Peer(told)).collect(BUYING)
    assert isinstance(answer, Collected)
    assert ([key.key_id for key in answer.keys], answer.unreadable) == (["key-1"], 1)


REFUSED = pb.Purchase(state=pb.PURCHASE_STATE_REFUSED, refusal=pb.SupplierProblem(kind="withdrawn"))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (pb.WithdrawPurchaseResponse(purchase=REFUSED), Refused("withdrawn")),
        (pb.WithdrawPurchaseResponse(purchase=PLACED), Placed("PHS1", "Lantern Hollow", 2247)),
        (pb.WithdrawPurchaseResponse(), NoAnswer()),
        (failing("PURCHASE_IN_DOUBT", retry_after=timedelta(seconds=7)), InDoubt(timedelta(seconds=7))),
        (failing("SERVICE_UNAVAILABLE"), NoAnswer()),
        (failing("EXTERNAL_ID_CONFLICT"), NoAnswer()),
    ],
)
async def test_withdrawing_is_settled_by_a_clear_answer_alone(answer: Message | Exception, expected: object) -> None:
    assert await supplier_of(Peer(answer)).withdraw(BUYING) == expected


def a_return(state: pb.KeyReturnState.ValueType) -> pb.ReturnKeysResponse:
    return pb.ReturnKeysResponse(key_return=pb.KeyReturn(state=state, refusal=pb.SupplierProblem(kind="TooLate")))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (a_return(pb.KEY_RETURN_STATE_ASKED), ReturnUnderWay()),
        (a_return(pb.KEY_RETURN_STATE_ACCEPTED), ReturnUnderWay()),
        (a_return(pb.KEY_RETURN_STATE_RETURNED), Returned()),
        (a_return(pb.KEY_RETURN_STATE_REFUNDED), Returned()),
        (a_return(pb.KEY_RETURN_STATE_REFUSED), ReturnRefused("TooLate")),
        (a_return(pb.KEY_RETURN_STATE_UNSPECIFIED), NoAnswer()),
        (failing("RETURN_NOT_ALLOWED", metadata={"rule": "K50"}), ReturnRefused("K50")),
        (failing("PURCHASE_UNKNOWN"), NoAnswer()),
        (failing("SERVICE_UNAVAILABLE"), NoAnswer()),
    ],
)
async def test_a_return_is_over_by_a_clear_answer_alone(answer: Message | Exception, expected: object) -> None:
    peer = Peer(answer)
    assert await supplier_of(peer).give_back(PURCHASE) == expected
    assert isinstance(peer.requests[0], pb.ReturnKeysRequest)
    assert (peer.requests[0].external_id, peer.requests[0].supplier_order_id) == ("kf1-a", "")


async def test_a_product_is_read_as_it_is_sold() -> None:
    offers = [
        pb.Offer(
            offer_id="offer-1",
            price=euros(749),
            available_quantity=40,
            available_text_quantity=30,
            wholesale_tiers=[pb.WholesaleTier(min_quantity=10, price=euros(700))],
        ),
        pb.Offer(offer_id="offer-2"),
    ]
    product = pb.Product(
        product_id="product-1",
        name="Lantern Hollow",
        price=euros(749),
        available_quantity=41,
        available_text_quantity=31,
        preorder=True,
        excluded_countries=["de", "AT"],
        offers=offers,
    )
    product.release_time.FromDatetime(NOON)
    assert await supplier_of(Peer(pb.GetProductResponse(product=product))).read_product("product-1") == Product(
        product_id="product-1",
        name="Lantern Hollow",
        preorder=True,
        release_time=NOON.astimezone(UTC),
        excluded_countries=frozenset({"DE", "AT"}),
        offers=[Offer("offer-1", 749, 40, 30, [Tier(10, 700)]), Offer("offer-2", None, 0, 0, [])],
        price=749,
        available=41,
        available_text=31,
    )


async def test_what_is_not_told_of_a_product_is_not_made_up() -> None:
    bare = pb.GetProductResponse(product=pb.Product(product_id="product-1"))
    found = await supplier_of(Peer(bare)).read_product("product-1")
    assert isinstance(found, Product)
    assert (found.price, found.release_time, found.offers) == (None, None, [])


async def test_only_what_is_unknown_is_no_product() -> None:
    assert await supplier_of(Peer(failing("PRODUCT_UNKNOWN"))).read_product("product-1") == NoProduct()
    for reason in ("SUPPLIER_UNAVAILABLE", "SUPPLIER_UNAUTHORIZED", "DEADLINE_EXCEEDED"):
        assert await supplier_of(Peer(failing(reason))).read_product("product-1") == NoAnswer()


def a_purchase(number: int, **changes: Any) -> pb.Purchase:
    fields: dict[str, Any] = {
        "external_id": f"kf1-{number}",
        "item_id": "item-1",
        "offer_id": "offer-7",
        "quantity": 2,
        "max_unit_price": euros(999),
        "state": pb.PURCHASE_STATE_PLACED,
    }
    return pb.Purchase(**fields | changes)


async def test_every_page_of_what_is_known_is_read() -> None:
    refused = a_purchase(2, item_id="item-2", state=pb.PURCHASE_STATE_REFUSED)
    peer = Peer(
        pb.ListPurchasesResponse(purchases=[a_purchase(1)], next_page_token="next"),
        pb.ListPurchasesResponse(purchases=[refused, a_purchase(3, state=pb.PURCHASE_STATE_IN_DOUBT)]),
    )
    assert await supplier_of(peer).known_purchases(OrderId("order-1")) == [
        ("item-1", Known(ExternalId("kf1-1"), 2, "offer-7", 999, refused=False)),
        ("item-2", Known(ExternalId("kf1-2"), 2, "offer-7", 999, refused=True)),
        ("item-1", Known(ExternalId("kf1-3"), 2, "offer-7", 999, refused=False)),
    ]
    requests = cast("list[pb.ListPurchasesRequest]", peer.requests)
    assert [(request.order_id, request.page_token) for request in requests] == [("order-1", ""), ("order-1", "next")]


def never_ending(monkeypatch: pytest.MonkeyPatch) -> list[Message | Exception]:
    monkeypatch.setattr(kinguin_grpc, "MOST_PAGES", 3)
    return [pb.ListPurchasesResponse(purchases=[a_purchase(1)], next_page_token="next")] * 9


@pytest.mark.parametrize(
    "answers",
    [
        lambda _: [failing("SERVICE_UNAVAILABLE")],
        lambda _: [
            pb.ListPurchasesResponse(purchases=[a_purchase(1)], next_page_token="next"),
            failing("SERVICE_UNAVAILABLE"),
        ],
        lambda _: [pb.ListPurchasesResponse(purchases=[a_purchase(1, max_unit_price=None)])],
        never_ending,
    ],
)
async def test_half_of_what_is_known_is_as_good_as_nothing(
    answers: Callable[[pytest.MonkeyPatch], list[Message | Exception]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is missing in it would be bought a second time."""
    assert await supplier_of(Peer(*answers(monkeypatch))).known_purchases(OrderId("order-1")) is None
