"""Notices of unusual accesses: what their keepers promise, and the way from vault's event to the customer's mailbox."""

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import pytest
from chassis.database import Database
from chassis.outbox import Outbox
from fulfillment.adapters.notices import PostgresNotices
from fulfillment.adapters.orders import PostgresOrders
from fulfillment.domain.model import KeyId
from fulfillment.facts import timestamp
from fulfillment.ports.notices import Access, News, Notices
from keyferry.events.v1.vault_events_pb2 import ACCESS_NEWS_COUNTRY, ACCESS_NEWS_DEVICE, VaultKeyUnusualAccess
from sandbox.pki import Identity
from sandbox.servers.nats import NatsServer

from tests.integration.fulfillment_rows import ORDER_ID, a_key, bought
from tests.integration.fulfillment_system import PUBLIC_URL, System
from tests.integration.real_servers import REPOSITORY, Postgres, eventually, fresh_streams
from tests.unit.fulfillment.examples import ALICE, NOON
from tests.unit.fulfillment.memory_notices import MemoryNotices

MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@pytest.fixture(params=["memory", "postgres"])
async def notices(request: pytest.FixtureRequest, postgres: Postgres) -> AsyncIterator[Notices]:
    """Keepers of notices beside one order with one key."""
    if request.param == "memory":
        yield MemoryNotices({"key-1": "order-1"}, ALICE.email, ALICE.locale)
        return
    made = await postgres.make_database("fulfillment", REPOSITORY / "services" / "fulfillment" / "migrations")
    async with Database.open(made.service_url, application="test") as opened:
        outbox = Outbox({"fulfillment": "FULFILLMENT", "audit": "AUDIT"})
        orders = PostgresOrders(opened, outbox)
        purchase = await bought(orders)
        async with orders.transaction() as transaction:
            await transaction.add_keys(ORDER_ID, [a_key(purchase)])
        yield PostgresNotices(opened, outbox)


def an_access(*, days: int = 0, minutes: int = 0, key_id: str = "key-1", news: News = News.DEVICE) -> Access:
    return Access(KeyId(key_id), ORDER_ID, NOON + days * DAY + minutes * MINUTE, [news])


async def want(notices: Notices, *accesses: Access) -> None:
    async with notices.transaction("notice") as transaction:
        for access in accesses:
            await transaction.want_notice(access, now=NOON)


async def test_a_key_and_day_has_one_notice_which_is_claimed_with_a_lease(notices: Notices) -> None:
    first = an_access()
    await want(notices, first, an_access(minutes=1, news=News.COUNTRY))
    assert await notices.due_notices(9, lease=MINUTE, now=NOON - MINUTE) in ([], ())
    (due,) = await notices.due_notices(9, lease=MINUTE, now=NOON)
    assert (due.access, due.email, due.locale, due.tries) == (first, ALICE.email, ALICE.locale, 1)
    assert not await notices.due_notices(9, lease=MINUTE, now=NOON + 0.5 * MINUTE)
    (again,) = await notices.due_notices(9, lease=MINUTE, now=NOON + MINUTE)
    assert again.tries == 2
    async with notices.transaction("notice") as transaction:
        await transaction.notice_done(first, now=NOON)
    await want(notices, first)
    assert not await notices.due_notices(9, lease=MINUTE, now=NOON + 9 * DAY)


async def test_a_notice_may_wait_or_never_be_sent(notices: Notices) -> None:
    waits, refused = an_access(), an_access(days=1)
    await want(notices, waits, refused)
    assert len(await notices.due_notices(1, lease=MINUTE, now=NOON)) == 1
    await notices.notice_waits(waits, run_at=NOON + DAY, failure="451")
    await notices.notice_waits(refused, run_at=None, failure="550")
    assert not await notices.due_notices(9, lease=MINUTE, now=NOON + DAY - MINUTE)
    (due,) = await notices.due_notices(9, lease=MINUTE, now=NOON + DAY)
    assert due.access == waits


async def test_whose_a_key_is_is_known(notices: Notices) -> None:
    async with notices.transaction() as transaction:
        assert await transaction.order_of_key(KeyId("key-1")) == ORDER_ID
        assert await transaction.order_of_key(KeyId("key-9")) is None


# The whole way


@pytest.fixture
async def system(
    postgres: Postgres, nats_server: NatsServer, pki: Mapping[str, Identity], tmp_path: Path
) -> AsyncIterator[System]:
    nats_url = await fresh_streams(nats_server)
    async with System.opened(postgres, nats_url, pki, tmp_path) as system:
        yield system


async def test_an_unusual_access_reaches_the_customers_mailbox_once_a_day(system: System) -> None:
    async with system.inside():
        await system.pay("order-1")
        await system.until_mailed("order-1")
        (row,) = await system.rows("SELECT key_id FROM order_key")
        morning = datetime(2026, 3, 1, 9, tzinfo=UTC)
        told = [
            VaultKeyUnusualAccess(
                key_id=row["key_id"],
                order_id="order-1",
                access_time=timestamp(morning + hours * timedelta(hours=1)),
                news=[ACCESS_NEWS_COUNTRY, ACCESS_NEWS_DEVICE],
            )
            for hours in (0, 1, 24)
        ]
        await system.publish("vault.key.unusual_access", *told, source="vault")

        async def both_sent() -> bool:
            sent = await system.rows("SELECT day FROM access_notice WHERE send_time IS NOT NULL ORDER BY day")
            return [each["day"] for each in sent] == [date(2026, 3, 1), date(2026, 3, 2)]

        await eventually(both_sent)
        facts = await system.told("audit.recorded")
    warnings = [mail.content for mail in system.mails.list() if "neue Weise" in str(mail.content["Subject"])]
    assert len(warnings) == 2
    for warning in warnings:
        assert isinstance(warning, EmailMessage)
        assert warning["To"] == "alice@example.com"
        assert row["key_id"] not in warning.as_string()
        text = warning.get_body(["plain"])
        assert text is not None
        assert "aus einem Land" in text.get_content()
        assert f"{PUBLIC_URL.rstrip('/')}/orders/order-1" in text.get_content()
    assert sum(b"mail.notice_sent" in fact for fact in facts) == 2
