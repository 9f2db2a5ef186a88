"""The others' books over real gRPC, by pages, and reports over their methods."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import sentinel

import grpc
import pytest
from chassis.channel import open_channel
from chassis.database import Database
from chassis.errors import InvalidRequest, KeyferryError, RemoteError, RequestIdReused
from chassis.server import GrpcServer
from chassis.tls import TlsFiles
from fulfillment.adapters.ledgers_grpc import GrpcLedgers
from fulfillment.adapters.reports import PostgresReports
from fulfillment.domain.reconciliation import Limits, Range
from fulfillment.facts import timestamp
from fulfillment.ports.reconciliation import TheirBalance, TheirKey, TheirOrder, TheirPurchase, TheirTopUp
from fulfillment.report_errors import ReportNotFound
from fulfillment.report_service import ReportMethods
from keyferry.fulfillment.v1 import fulfillment_admin_service_pb2 as pb
from keyferry.kinguin.v1 import kinguin_service_pb2 as kinguin_pb
from keyferry.kinguin.v1.kinguin_service_pb2_grpc import KinguinServiceServicer, add_KinguinServiceServicer_to_server
from keyferry.type.v1 import actor_pb2, money_pb2
from keyferry.vault.v1 import vault_service_pb2 as vault_pb
from keyferry.vault.v1.vault_service_pb2_grpc import VaultServiceServicer, add_VaultServiceServicer_to_server
from sandbox.pki import Identity
from sandbox.ports import HOST

from tests.integration.fulfillment_reports import OUTBOX, a_reconciling
from tests.integration.real_servers import REPOSITORY, OneDatabase, Postgres, fetch
from tests.unit.fulfillment.reconciled_world import END, NOW, START, FixedClock, healthy
from tests.unit.fulfillment.spoiling import SPOILS

if TYPE_CHECKING:
    from chassis.identity import AccessList

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SPAN = Range(AT, AT + timedelta(hours=1))
CAROL = actor_pb2.Actor(type=actor_pb2.ACTOR_TYPE_ADMIN, id="carol")


def euros(cents: int) -> money_pb2.Money:
    return money_pb2.Money(currency_code="EUR", minor_units=cents)


def refuse(reason: str, code: grpc.StatusCode = grpc.StatusCode.NOT_FOUND) -> RemoteError:
    return RemoteError("no", code=code, reason=reason)


@dataclass
class PagingKinguin(KinguinServiceServicer):
    """Shows two purchases on two pages, and three orders in a stream."""

    asked: list[Any] = field(default_factory=list)
    failing: Exception | None = None

    async def ListPurchases(self, request: Any, _context: Any) -> kinguin_pb.ListPurchasesResponse:  # noqa: N802 # the name in the contract
        self.asked.append(request)
        number = int(request.page_token or "1")
        key_return = kinguin_pb.KeyReturn(supplier_order_id="S-2", state=kinguin_pb.KEY_RETURN_STATE_REFUNDED)
        purchase = kinguin_pb.Purchase(
            external_id=f"kf1-{number}",
            order_id="order-1",
            supplier_order_id=f"S-{number}",
            state=kinguin_pb.PURCHASE_STATE_PLACED,
            supplier_order_state=kinguin_pb.SUPPLIER_ORDER_STATE_COMPLETED,
            quantity=1,
            charged_amount=euros(749) if number == 1 else None,
            key_return=key_return if number == 2 else None,
            surplus_order_ids=["S-9"] if number == 2 else [],
            create_time=timestamp(AT),
        )
        return kinguin_pb.ListPurchasesResponse(purchases=[purchase], next_page_token="2" if number == 1 else "")

    async def GetOrder(self, request: Any, _context: Any) -> kinguin_pb.GetOrderResponse:  # noqa: N802, ARG002 # the name in the contract
        raise self.failing or refuse("PURCHASE_UNKNOWN")

    async def SearchOrders(self, request: Any, _context: Any) -> AsyncIterator[kinguin_pb.SearchOrdersResponse]:  # noqa: N802 # the name in the contract
        self.asked.append(request)
        for number in range(3):
            order = kinguin_pb.SupplierOrder(
                supplier_order_id=f"S-{number}",
                external_id=f"kf1-{number}",
                state=kinguin_pb.SUPPLIER_ORDER_STATE_REFUNDED,
                charged_amount=euros(749),
                refunded_amount=euros(700),
                create_time=timestamp(AT),
            )
            yield kinguin_pb.SearchOrdersResponse(order=order)
        if self.failing:
            raise self.failing

    async def ListTopUps(self, request: Any, _context: Any) -> kinguin_pb.ListTopUpsResponse:  # noqa: N802, ARG002 # the name in the contract
        top_up = kinguin_pb.TopUp(top_up_id="top-1", amount=euros(-5), top_up_time=timestamp(AT))
        return kinguin_pb.ListTopUpsResponse(top_ups=[top_up])

    async def GetBalance(self, request: Any, _context: Any) -> kinguin_pb.GetBalanceResponse:  # noqa: N802, ARG002 # the name in the contract
        if self.failing:
            raise self.failing
        return kinguin_pb.GetBalanceResponse(balance=euros(100), read_time=timestamp(AT))

    async def ReturnKeys(self, request: Any, _context: Any) -> kinguin_pb.ReturnKeysResponse:  # noqa: N802 # the name in the contract
        self.asked.append(request)
        if self.failing:
            raise self.failing
        key_return = kinguin_pb.KeyReturn(state=kinguin_pb.KEY_RETURN_STATE_ACCEPTED)
        return kinguin_pb.ReturnKeysResponse(key_return=key_return)


@dataclass
class ListingVault(VaultServiceServicer):
    """Knows two keys, one of which is being sealed."""

    async def ListKeys(self, request: Any, _context: Any) -> vault_pb.ListKeysResponse:  # noqa: N802, ARG002 # the name in the contract
        sealing = vault_pb.SealedKey(key_id="key-2", order_id="order-1", state=vault_pb.STATE_SEALING)
        return vault_pb.ListKeysResponse(keys=[_sealed(), sealing])

    async def GetKey(self, request: Any, _context: Any) -> vault_pb.GetKeyResponse:  # noqa: N802 # the name in the contract
        if request.key_id != "key-1":
            raise refuse("KEY_NOT_FOUND")
        return vault_pb.GetKeyResponse(key=_sealed())


def _sealed() -> vault_pb.SealedKey:
    stamp = timestamp(AT)
    return vault_pb.SealedKey(
        key_id="key-1", order_id="order-1", state=vault_pb.STATE_SEALED, seal_time=stamp, open_time=stamp
    )


@pytest.fixture
async def served(pki: Mapping[str, Identity]) -> AsyncIterator[tuple[GrpcLedgers, PagingKinguin]]:
    # Only what is asked here is answered.
    kinguin, vault = cast("Any", PagingKinguin)(), cast("Any", ListingVault)()
    async with AsyncExitStack() as stack:
        channels: list[grpc.aio.Channel] = []
        for name, contract, register, servicer in (
            ("kinguin-gateway", kinguin_pb, add_KinguinServiceServicer_to_server, kinguin),
            ("vault", vault_pb, add_VaultServiceServicer_to_server, vault),
        ):
            (service,) = contract.DESCRIPTOR.services_by_name.values()
            access: AccessList = dict.fromkeys(service.methods_by_name, frozenset({"fulfillment"}))
            server = GrpcServer(
                listen=f"{HOST}:0",
                tls=TlsFiles(pki[name].folder),
                access=access,
                services=[service.full_name],
                registrars=[partial(register, servicer)],
            )
            await server.start()
            stack.push_async_callback(server.drain, 0)
            tls = TlsFiles(pki["fulfillment"].folder)
            address = f"{HOST}:{server.port}"
            channels.append(await stack.enter_async_context(open_channel([address], peer=name, tls=tls)))
        yield GrpcLedgers(*channels), kinguin


async def everything(pages: AsyncIterator[Sequence[Any]]) -> list[Any]:
    return [each async for page in pages for each in page]


async def test_books_are_read_to_their_end(served: tuple[GrpcLedgers, PagingKinguin]) -> None:
    ledgers, kinguin = served
    first = TheirPurchase("kf1-1", "order-1", "S-1", "PLACED", "COMPLETED", 1, 749, "", AT)
    second = TheirPurchase("kf1-2", "order-1", "S-2", "PLACED", "COMPLETED", 1, None, "REFUNDED", AT, {"S-9": "ASKED"})
    assert await everything(ledgers.purchases(SPAN)) == [first, second]
    assert {request.end_time.ToDatetime(UTC) for request in kinguin.asked} == {SPAN.end}
    orders = [TheirOrder(f"S-{n}", f"kf1-{n}", "REFUNDED", 749, 700, AT) for n in range(3)]
    assert await everything(ledgers.supplier_orders(SPAN)) == orders
    opened = TheirKey("key-1", "order-1", "SEALED", AT, AT)
    assert await everything(ledgers.keys(SPAN)) == [opened, TheirKey("key-2", "order-1", "SEALING", None, None)]
    assert await everything(ledgers.top_ups(SPAN)) == [TheirTopUp("top-1", -5, AT)]
    assert await ledgers.balance() == TheirBalance(100, AT)


async def test_one_thing_is_looked_up_and_may_not_be_there(served: tuple[GrpcLedgers, PagingKinguin]) -> None:
    ledgers, kinguin = served
    found = await ledgers.purchase("kf1-2", "order-1")
    assert found is not None
    assert found.supplier_order_id == "S-2"
    assert await ledgers.purchase("kf1-3", "order-1") is None
    assert await ledgers.purchase("kf1-3", "") is None
    assert await ledgers.key("key-1") == TheirKey("key-1", "order-1", "SEALED", AT, AT)
    assert await ledgers.key("key-9") is None
    assert len(await ledgers.orders_like("", "S-1")) == 3
    assert kinguin.asked[-1].supplier_order_id == "S-1"


async def test_who_cannot_be_asked_is_no_difference(served: tuple[GrpcLedgers, PagingKinguin]) -> None:
    ledgers, kinguin = served
    kinguin.failing = refuse("SUPPLIER_UNAUTHORIZED", grpc.StatusCode.FAILED_PRECONDITION)
    assert await ledgers.balance() is None
    with pytest.raises(KeyferryError):
        await ledgers.purchase("kf1-3", "")
    with pytest.raises(KeyferryError):
        await everything(ledgers.supplier_orders(SPAN))


async def test_an_order_is_given_back_under_one_request_id(served: tuple[GrpcLedgers, PagingKinguin]) -> None:
    ledgers, kinguin = served
    assert await ledgers.give_back("kf1-1", "S-9")
    assert await ledgers.give_back("kf1-1", "S-9")
    first, second = kinguin.asked
    assert first == second
    kinguin.failing = refuse("RETURN_NOT_ALLOWED", grpc.StatusCode.FAILED_PRECONDITION)
    assert not await ledgers.give_back("kf1-1", "S-9")


@pytest.fixture
async def report_database(postgres: Postgres) -> OneDatabase:
    return await postgres.make_database("fulfillment", REPOSITORY / "services" / "fulfillment" / "migrations")


@pytest.fixture
async def reports(report_database: OneDatabase) -> AsyncIterator[PostgresReports]:
    async with Database.open(report_database.service_url, application="test") as opened:
        reports = PostgresReports(opened, OUTBOX, clock=FixedClock(), limits=Limits())
        world = healthy(3)
        for kind, spoil in SPOILS.items():
            spoil(world, f"x-{kind.value}")
        async with opened.transaction() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            await world.load(driver)
        replica = a_reconciling(opened, reports, world.ledgers, clock=FixedClock(), limits=Limits())
        async with reports.transaction() as transaction:
            await transaction.ask(Range(START, END), report_id="done", now=NOW - timedelta(days=1))
        (run,) = await replica.claim(1)
        assert run.report_id == "done"
        await replica.work(run)
        yield reports


async def test_a_report_is_asked_for_listed_read_and_exported(
    reports: PostgresReports, report_database: OneDatabase
) -> None:
    methods, context = ReportMethods(), sentinel.context
    methods.serve_reports(reports, clock=FixedClock())
    request = pb.ReconcilePaymentsRequest(
        request_id="6b0c1d9e-94a5-4a5e-a9d5-6c2a2a5f6d11",
        start_time=timestamp(START),
        end_time=timestamp(END),
        actor=CAROL,
    )
    asked = (await methods.ReconcilePayments(request, context)).report
    assert asked.state == pb.REPORT_STATE_RUNNING
    assert (await methods.ReconcilePayments(request, context)).report == asked
    other = pb.ReconcilePaymentsRequest()
    other.CopyFrom(request)
    other.end_time.seconds += 1
    with pytest.raises(RequestIdReused):
        await methods.ReconcilePayments(other, context)

    ids, token = [], ""
    for _ in range(10):
        page = await methods.ListReports(pb.ListReportsRequest(page_size=1, page_token=token), context)
        ids += [report.report_id for report in page.reports]
        if not (token := page.next_page_token):
            break
    assert ids[-1] == "done"
    assert asked.report_id in ids
    assert len(ids) == len(set(ids))

    report = (await methods.GetReport(pb.GetReportRequest(report_id="done"), context)).report
    assert report.state == pb.REPORT_STATE_DONE
    assert dict(report.differences) == dict.fromkeys((kind.value for kind in SPOILS), 1)
    found: list[pb.Difference] = []
    for _ in range(20):
        listing = pb.ListDifferencesRequest(report_id="done", page_size=5, page_token=token)
        answer = await methods.ListDifferences(listing, context)
        found += answer.differences
        if not (token := answer.next_page_token):
            break
    assert {each.kind for each in found} == {kind.value for kind in SPOILS}
    assert len(found) == len(SPOILS)
    assert all(each.fix for each in found)
    one = pb.ListDifferencesRequest(report_id="done", kind="BOUGHT_TWICE")
    assert [each.kind for each in (await methods.ListDifferences(one, context)).differences] == ["BOUGHT_TWICE"]
    export = methods.ExportReport(pb.ExportReportRequest(report_id="done"), context)
    lines = b"".join([piece.csv async for piece in export]).split(b"\r\n")
    assert len(lines) == 1 + len(SPOILS) + 1
    # A version that knows more kinds may have found them.
    newer = "UPDATE reconciliation_difference SET kind = 'KNOWN_LATER' WHERE kind = 'BOUGHT_TWICE'"
    await fetch(report_database.superuser_url, newer)
    listing = pb.ListDifferencesRequest(report_id="done", page_size=1000)
    (later,) = (
        each for each in (await methods.ListDifferences(listing, context)).differences if each.kind == "KNOWN_LATER"
    )
    assert later.fix == pb.FIX_INVESTIGATE
    export = methods.ExportReport(pb.ExportReportRequest(report_id="done"), context)
    assert b"\r\nKNOWN_LATER," in b"".join([piece.csv async for piece in export])
    with pytest.raises(ReportNotFound):
        await methods.GetReport(pb.GetReportRequest(report_id="none"), context)
    with pytest.raises(InvalidRequest):
        await methods.ListDifferences(pb.ListDifferencesRequest(report_id="done", kind="NONE"), context)
    running = pb.ListDifferencesRequest(report_id=asked.report_id)
    assert not (await methods.ListDifferences(running, context)).differences
