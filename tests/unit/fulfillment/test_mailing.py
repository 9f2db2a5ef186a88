import re
from collections.abc import MutableMapping
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import pytest
from fulfillment.domain.model import OrderId
from fulfillment.mailing import EXTEND_SECONDS, LEASE, SEND_SECONDS, Letters, Mailing
from fulfillment.ports.mail import Letter, MailDelayed, MailDue, MailRefused
from hypothesis import given
from hypothesis import strategies as st
from keyferry.events.v1.audit_events_pb2 import AuditRecorded

from tests.unit.fulfillment.examples import DIGEST, NOON, HandClock, an_order
from tests.unit.fulfillment.memory_orders import MemoryOrders
from tests.unit.fulfillment.office import Office

LINK = "https://shop.example/orders/order-1"
LETTERS = Letters("https://shop.example/")
ORDER_ID = OrderId("order-1")


def due(locale: str = "", names: tuple[str, ...] = ("Lantern Hollow",), order_id: str = "order-1") -> MailDue:
    return MailDue(OrderId(order_id), "alice@example.com", locale, names, tries=1, claim=1)


class Links(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


@pytest.mark.parametrize(
    ("locale", "subject"),
    [
        ("", "Your order order-1 is ready"),
        ("en", "Your order order-1 is ready"),
        ("fr-CA", "Your order order-1 is ready"),
        ("de", "Ihre Bestellung order-1 ist bereit"),
        ("de-AT", "Ihre Bestellung order-1 ist bereit"),
        ("DE_de", "Ihre Bestellung order-1 ist bereit"),
    ],
)
def test_a_letter_is_in_the_customers_language_or_english(locale: str, subject: str) -> None:
    letter = LETTERS.write(due(locale))
    assert letter.subject == subject
    language = "de" if "Bestellung" in subject else "en"
    assert f'<html lang="{language}">' in letter.html


@pytest.mark.parametrize("locale", ["en", "de"])
def test_both_forms_hold_the_order_its_products_and_exactly_one_link(locale: str) -> None:
    letter = LETTERS.write(due(locale, ("Lantern Hollow", "Two Towers", "Lantern Hollow")))
    assert re.findall(r"https?://\S+", letter.text) == [LINK]
    html = Links(letter.html)
    assert html.links == [LINK]
    assert letter.text.count("- Lantern Hollow\n- Two Towers\n") == 1
    assert [word for word in html.words if word in {"Lantern Hollow", "Two Towers"}] == ["Lantern Hollow", "Two Towers"]
    assert "order-1" in letter.text
    assert letter.to == "alice@example.com"


def test_names_are_the_suppliers_words_and_change_nothing_else() -> None:
    letter = LETTERS.write(due(names=("<img src=x onerror=alert(1)>&amp;", "Two\r\nTowers\n\nYour account:")))
    html = Links(letter.html)
    assert "img" not in html.tags
    assert html.links == [LINK]
    assert "<img src=x onerror=alert(1)>&amp;" in html.words
    assert "- Two Towers Your account:\n" in letter.text


@given(st.text("abc019._-", min_size=1, max_size=64))
def test_a_subject_is_one_line_and_a_link_leads_to_the_order(order_id: str) -> None:
    letter = LETTERS.write(due(order_id=order_id))
    assert letter.subject.isprintable()
    assert Links(letter.html).links == [f"https://shop.example/orders/{order_id}"]


def test_whatever_an_order_is_called_the_link_stays_one_path() -> None:
    assert Links(LETTERS.write(due(order_id="../a?b#c")).html).links == ["https://shop.example/orders/..%2Fa%3Fb%23c"]


def test_the_message_id_is_the_orders_own_for_ever() -> None:
    first, again, other = (LETTERS.message_id(order_id) for order_id in ("order-1", "order-1", "order-2"))
    assert first == again != other
    assert re.fullmatch(r"<[0-9a-f]{40}@shop\.example>", first)


def test_a_letter_printed_shows_neither_reader_nor_text() -> None:
    text = repr(LETTERS.write(due()))
    assert "alice" not in text
    assert "Lantern" not in text


class FakeMailer:
    """Takes letters, or answers as it is told."""

    def __init__(self) -> None:
        self.taken: list[Letter] = []
        self.answers: list[Exception] = []

    async def send(self, letter: Letter) -> None:
        if self.answers:
            raise self.answers.pop(0)
        self.taken.append(letter)


class Post:
    """Mailing over orders in memory, with one order whose mail is wanted."""

    def __init__(self) -> None:
        self.orders, self.mailer, self.clock = MemoryOrders(), FakeMailer(), HandClock()
        self.mailing = Mailing(self.orders, self.mailer, LETTERS, clock=self.clock, chance=lambda: 0.5)

    async def want(self) -> None:
        async with self.orders.transaction() as transaction:
            await Office().intake.take_order(transaction, an_order(), DIGEST)
            await transaction.want_mail(ORDER_ID, now=self.clock.now())

    async def send_due(self) -> int:
        claimed = await self.mailing.claim(10)
        for each in claimed:
            await self.mailing.send(each)
        return len(claimed)


@pytest.fixture
async def post() -> Post:
    post = Post()
    await post.want()
    return post


async def test_a_mail_is_sent_once_and_noted(post: Post) -> None:
    assert await post.send_due() == 1
    post.clock.pass_seconds(99999)
    assert await post.send_due() == 0
    (letter,) = post.mailer.taken
    row = post.orders.rows.mails[ORDER_ID]
    assert (row.send_time, row.run_at) == (NOON, None)
    order = post.orders.rows.orders[ORDER_ID]
    assert (order.mail_time, order.version) == (NOON, 2)
    (fact,) = [fact for fact in post.orders.told(AuditRecorded) if fact.action == "mail.sent"]
    assert dict(fact.details) == {"message_id": letter.message_id}


async def test_a_mail_wanted_again_is_not_sent_again(post: Post) -> None:
    await post.send_due()
    async with post.orders.transaction() as transaction:
        await transaction.want_mail(ORDER_ID, now=post.clock.now())
    assert await post.send_due() == 0


async def test_a_mail_that_is_delayed_is_tried_again_ever_later(post: Post) -> None:
    post.mailer.answers = [MailDelayed("451"), MailDelayed("451")]
    waits: list[timedelta] = []
    for _ in range(2):
        await post.send_due()
        run_at = post.orders.rows.mails[ORDER_ID].run_at
        assert run_at is not None
        waits.append(run_at - post.clock.now())
        assert await post.send_due() == 0
        post.clock.time = run_at
    await post.send_due()
    assert timedelta() < waits[0] < waits[1]
    assert len(post.mailer.taken) == 1


async def test_a_mail_that_is_refused_is_never_tried_again_and_told(
    post: Post, logs: list[MutableMapping[str, Any]]
) -> None:
    post.mailer.answers = [MailRefused("550")]
    await post.send_due()
    post.clock.pass_seconds(99999)
    assert await post.send_due() == 0
    row = post.orders.rows.mails[ORDER_ID]
    assert (row.run_at, row.send_time, row.failure) == (None, None, "refused: 550")
    assert [(log["log_level"], log["order_id"], log["answer"]) for log in logs] == [("error", "order-1", "550")]


async def test_a_mail_whose_sender_died_is_sent_when_the_lease_ends_under_the_same_message_id(post: Post) -> None:
    (claimed,) = await post.mailing.claim(10)
    await post.mailer.send(LETTERS.write(claimed))
    assert await post.send_due() == 0
    post.clock.time += LEASE
    assert await post.send_due() == 1
    assert len({letter.message_id for letter in post.mailer.taken}) == 1


async def test_a_mail_is_nobody_elses_while_it_is_being_sent(post: Post) -> None:
    claimed = await post.mailing.claim(10)
    for _ in range(5):
        post.clock.time += LEASE - timedelta(seconds=1)
        await post.mailing.extend(claimed)
        assert await post.send_due() == 0
    post.clock.time += LEASE
    await post.mailing.extend(claimed)
    assert await post.send_due() == 1


def test_a_lease_is_short_and_outlives_missed_extensions() -> None:
    assert timedelta(seconds=3 * EXTEND_SECONDS) < LEASE < timedelta(seconds=SEND_SECONDS)


async def overtaken(post: Post) -> MailDue:
    """Let a sender be so slow that another one has its mail; return what the slow one still sends."""
    (slow,) = await post.mailing.claim(10)
    post.clock.time += LEASE
    (later,) = await post.mailing.claim(10)
    assert later.claim == slow.claim + 1
    return slow


async def test_a_slow_sender_tells_that_it_was_taken_and_marks_over_nobody(post: Post) -> None:
    await post.mailing.send(await overtaken(post))
    row = post.orders.rows.mails[ORDER_ID]
    assert (row.send_time, row.run_at) == (post.clock.now(), post.clock.now() + LEASE)


@pytest.mark.parametrize("answer", [MailRefused("550"), MailDelayed("451")])
async def test_what_a_slow_sender_was_answered_is_not_the_others_answer(post: Post, answer: Exception) -> None:
    slow = await overtaken(post)
    before = post.orders.rows.mails[ORDER_ID]
    post.mailer.answers = [answer]
    await post.mailing.send(slow)
    assert post.orders.rows.mails[ORDER_ID] == before


async def test_a_mail_that_is_wanted_again_while_it_is_being_sent_is_sent_again(post: Post) -> None:
    (slow,) = await post.mailing.claim(10)
    async with post.orders.transaction() as transaction:
        await transaction.want_mail_again(ORDER_ID, now=post.clock.now(), most=5, within=timedelta(days=1))
    await post.mailing.send(slow)
    assert await post.send_due() == 1
    assert len(post.mailer.taken) == 2


async def test_a_mail_that_cannot_be_written_is_set_aside_and_stops_no_other(
    post: Post, logs: list[MutableMapping[str, Any]]
) -> None:
    (claimed,) = await post.mailing.claim(10)
    # A row that PostgreSQL would not hold, but a template may fail on something else some day.
    await post.mailing.send(replace(claimed, product_names=[None]))  # type: ignore[list-item] # on purpose
    row = post.orders.rows.mails[ORDER_ID]
    assert (row.run_at, row.send_time, row.failure) == (None, None, "unwritable")
    assert [(log["log_level"], log["order_id"]) for log in logs] == [("error", "order-1")]
