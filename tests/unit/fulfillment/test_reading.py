import pytest
from chassis.errors import InvalidRequest
from chassis.paging import write_page_token
from fulfillment.domain.model import Customer, KeyId, OrderId, State
from fulfillment.errors import KeyNotFound, KeyRevoked, OrderNotFound
from fulfillment.ports.vault import KeyWish, Viewer
from fulfillment.reading import Page, Reading
from keyferry.events.v1.audit_events_pb2 import AuditRecorded
from keyferry.type.v1 import actor_pb2

from tests.unit.fulfillment.examples import ALICE, an_order
from tests.unit.fulfillment.fakes import collected, key_ids
from tests.unit.fulfillment.office import Office

ORDER_ID = OrderId("order-1")
BOB = Customer("bob", "bob@example.com")


def actor(name: str, kind: actor_pb2.ActorType.ValueType = actor_pb2.ACTOR_TYPE_CUSTOMER) -> actor_pb2.Actor:
    return actor_pb2.Actor(type=kind, id=name, email=f"{name}@example.com", ip_address="192.0.2.7")


class Library(Office):
    def __init__(self) -> None:
        super().__init__()
        self.reading = Reading(self.orders, clock=self.clock)

    async def add(self, order_id: str, customer: Customer = ALICE) -> None:
        await self.order(an_order(order_id, 2, customer=customer))

    async def deliver(self, *, held: int) -> tuple[KeyId, KeyId]:
        await self.pay()
        await self.work()
        self.supplier.collecting = [collected(self.purchase(), 2, held=held)]
        await self.work()
        first, second = key_ids(self.orders.purchases()[0])
        return first, second

    async def browse(
        self,
        who: actor_pb2.Actor | None = None,
        *,
        customer_id: str = "",
        state: State | None = None,
        size: int = 0,
        token: str = "",
    ) -> Page:
        return await self.reading.page(who, customer_id=customer_id, state=state, size=size, token=token)

    def denied(self) -> list[AuditRecorded]:
        return [fact for fact in self.orders.told(AuditRecorded) if fact.action == "order.access_denied"]


@pytest.fixture
async def library() -> Library:
    library = Library()
    await library.add("order-1")
    return library


@pytest.mark.parametrize(
    "who", [None, actor("alice"), actor("carol", actor_pb2.ACTOR_TYPE_ADMIN), actor("x", actor_pb2.ACTOR_TYPE_SERVICE)]
)
async def test_owner_staff_and_the_shop_see_an_order(library: Library, who: actor_pb2.Actor | None) -> None:
    found = await library.reading.get(ORDER_ID, who, method="GetFulfillment")
    assert found.order.order_id == ORDER_ID
    assert not library.denied()


async def test_somebody_elses_order_is_answered_as_none_at_all(library: Library) -> None:
    with pytest.raises(OrderNotFound) as foreign:
        await library.reading.get(ORDER_ID, actor("bob"), method="GetFulfillment")
    with pytest.raises(OrderNotFound) as none:
        await library.reading.get(OrderId("order-9"), actor("bob"), method="GetFulfillment")
    assert str(foreign.value) == str(none.value)
    assert foreign.value.metadata == none.value.metadata == {}


async def test_a_look_at_somebody_elses_order_is_recorded_once_a_minute(library: Library) -> None:
    for method in ("GetFulfillment", "GetFulfillment", "RevealKey"):
        with pytest.raises(OrderNotFound):
            await library.reading.get(ORDER_ID, actor("bob"), method=method)
    assert [fact.details["method"] for fact in library.denied()] == ["GetFulfillment", "RevealKey"]
    library.clock.pass_seconds(60)
    with pytest.raises(OrderNotFound):
        await library.reading.get(ORDER_ID, actor("bob"), method="RevealKey")
    assert len(library.denied()) == 3
    assert {(fact.actor.type, fact.actor.id, fact.order_id) for fact in library.denied()} == {
        (actor_pb2.ACTOR_TYPE_CUSTOMER, "bob", "order-1")
    }


def wish(customer_id: str, key_id: str) -> KeyWish:
    return KeyWish("r-1", ORDER_ID, KeyId(key_id), Viewer(customer_id), b"{}")


async def test_only_the_owner_opens_a_key_that_is_there(library: Library) -> None:
    first, _ = await library.deliver(held=0)
    await library.reading.openable(wish("alice", first), actor("alice"), method="RevealKey")
    with pytest.raises(OrderNotFound):
        await library.reading.openable(wish("bob", first), actor("bob"), method="RevealKey")
    with pytest.raises(KeyNotFound):
        await library.reading.openable(wish("alice", "key-of-nobody"), actor("alice"), method="RevealKey")


async def test_only_its_owner_hears_that_a_key_was_taken_back(library: Library) -> None:
    key_id, held = await library.deliver(held=1)
    async with library.orders.transaction() as transaction:
        await transaction.revoke_keys([KeyId(key_id), KeyId(held)], now=library.clock.now())
    with pytest.raises(KeyRevoked):
        await library.reading.openable(wish("alice", key_id), actor("alice"), method="RevealKey")
    with pytest.raises(OrderNotFound):
        await library.reading.openable(wish("bob", key_id), actor("bob"), method="RevealKey")
    # It was kept for a human, and never hers.
    with pytest.raises(KeyNotFound):
        await library.reading.openable(wish("alice", held), actor("alice"), method="RevealKey")


async def test_a_key_that_is_held_is_not_there_for_its_owner(library: Library) -> None:
    first, held = await library.deliver(held=1)
    await library.reading.openable(wish("alice", first), actor("alice"), method="RevealKey")
    with pytest.raises(KeyNotFound):
        await library.reading.openable(wish("alice", held), actor("alice"), method="RevealKey")


async def test_pages_follow_one_another_newest_first() -> None:
    library = Library()
    for number in range(5):
        # Two of them at one moment.
        library.clock.pass_seconds(number % 2)
        await library.add(f"order-{number}")
    seen, token = [], ""
    while True:
        page = await library.browse(size=2, token=token)
        seen += [found.order.order_id for found in page.fulfillments]
        token = page.next_token
        if not token:
            break
    assert seen == ["order-4", "order-3", "order-2", "order-1", "order-0"]


async def test_a_last_page_that_is_full_has_no_next(library: Library) -> None:
    page = await library.browse(size=1)
    assert len(page.fulfillments) == 1
    assert page.next_token == ""


async def test_filters_choose(library: Library) -> None:
    await library.add("order-2", BOB)
    await library.deliver(held=0)

    async def listed(customer_id: str = "", state: State | None = None) -> list[str]:
        page = await library.browse(customer_id=customer_id, state=state)
        return [found.order.order_id for found in page.fulfillments]

    assert await listed(customer_id="bob") == ["order-2"]
    assert await listed(state=State.READY) == ["order-1"]
    assert await listed(state=State.AWAITING_PAYMENT) == ["order-2"]
    assert await listed(customer_id="bob", state=State.READY) == []


async def test_a_customer_lists_their_own_whatever_the_filter_says(library: Library) -> None:
    await library.add("order-2", BOB)
    page = await library.browse(actor("alice"), customer_id="bob")
    assert [found.order.order_id for found in page.fulfillments] == ["order-1"]
    everybody = await library.browse(actor("carol", actor_pb2.ACTOR_TYPE_ADMIN))
    assert len(everybody.fulfillments) == 2


@pytest.mark.parametrize(("size", "shown"), [(0, 20), (3, 3), (1000, 100)])
async def test_a_page_has_bounds(size: int, shown: int) -> None:
    library = Library()
    for number in range(101):
        await library.add(f"order-{number}")
    assert len((await library.browse(size=size)).fulfillments) == shown


async def test_a_token_belongs_to_its_filters_and_its_customer(library: Library) -> None:
    await library.add("order-2")
    token = (await library.browse(actor("alice"), size=1)).next_token
    for who, state in [(actor("bob"), None), (None, None), (actor("alice"), State.READY)]:
        with pytest.raises(InvalidRequest, match="other filters") as raised:
            await library.browse(who, size=1, token=token, state=state)
        assert raised.value.field_violations[0].field == "page_token"


@pytest.mark.parametrize(
    "token",
    [
        "!",
        write_page_token(("", ""), []),
        write_page_token(("", ""), ["no time", "order-1"]),
        write_page_token(("", ""), ["0001-01-01T00:00:00+23:00", "order-1"]),
        write_page_token(("", ""), ["2026-01-02T12:00:00+00:00", "order\x001"]),
    ],
)
async def test_a_token_that_is_not_ours_is_a_fault_and_nothing_worse(library: Library, token: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        await library.browse(token=token)
    assert raised.value.field_violations[0].field == "page_token"


async def test_a_token_without_a_zone_never_reaches_the_database_so(library: Library) -> None:
    page = await library.browse(token=write_page_token(("", ""), ["2026-01-03T12:00:00", "order-1"]))
    assert len(page.fulfillments) == 1
