import re
from collections.abc import MutableMapping
from datetime import timedelta
from typing import Any

import pytest
from fulfillment.domain.model import KeyId, OrderId
from fulfillment.mailing import SEND_SECONDS
from fulfillment.noticing import LEASE, MOST_AGE, NoticeLetters, Noticing, take_access
from fulfillment.ports.mail import Letter, MailDelayed, MailRefused
from fulfillment.ports.notices import Access, News, NoticeDue
from keyferry.events.v1.audit_events_pb2 import AuditRecorded

from tests.unit.fulfillment.examples import NOON, HandClock
from tests.unit.fulfillment.memory_notices import MemoryNotices
from tests.unit.fulfillment.test_mailing import FakeMailer, Links

LINK = "https://shop.example/orders/order-1"
LETTERS = NoticeLetters("https://shop.example/")
HOUR = timedelta(hours=1)


def an_access(*news: News, key_id: str = "key-1", order_id: str = "order-1", hours: int = 0) -> Access:
    return Access(KeyId(key_id), OrderId(order_id), NOON + hours * HOUR, news or (News.DEVICE,))


def letter_of(*news: News, locale: str = "") -> Letter:
    return LETTERS.write(NoticeDue(an_access(*news), "alice@example.com", locale, tries=1))


@pytest.mark.parametrize(
    ("locale", "language", "words"),
    [
        ("", "en", {News.COUNTRY: "from a country", News.NETWORK: "from a network", News.DEVICE: "with a browser"}),
        ("de-AT", "de", {News.COUNTRY: "aus einem Land", News.NETWORK: "aus einem Netz", News.DEVICE: "Browser oder"}),
        ("fr", "en", {News.COUNTRY: "from a country", News.NETWORK: "from a network", News.DEVICE: "with a browser"}),
    ],
    ids=["english", "german", "other"],
)
def test_a_letter_says_what_was_new_in_the_customers_language(
    locale: str, language: str, words: dict[News, str]
) -> None:
    for kind in News:
        letter = letter_of(kind, locale=locale)
        assert f'<html lang="{language}">' in letter.html
        for other, word in words.items():
            assert (word in letter.text) == (other is kind)
            assert (word in letter.html) == (other is kind)


@pytest.mark.parametrize("locale", ["en", "de"])
def test_a_letter_has_one_link_and_the_time(locale: str) -> None:
    letter = letter_of(*News, locale=locale)
    assert Links(letter.html).links == [LINK]
    assert re.findall(r"https?://\S+", letter.text) == [LINK]
    assert "2026-" in letter.text
    assert "UTC" in letter.text
    assert "order-1" in letter.subject
    assert "key-1" not in letter.text + letter.html + letter.subject


def test_an_order_number_cannot_write_html() -> None:
    due = NoticeDue(an_access(order_id="<b>&"), "alice@example.com", "", tries=1)
    assert "b" not in Links(LETTERS.write(due).html).tags


def test_a_message_id_is_of_a_key_and_a_day() -> None:
    ids = [LETTERS.message_id(an_access(key_id=key_id, hours=hours)) for key_id in "ab" for hours in (0, 1, 24)]
    assert len(set(ids)) == 4


class Post:
    def __init__(self) -> None:
        self.notices, self.mailer, self.clock = MemoryNotices({"key-1": "order-1"}), FakeMailer(), HandClock()
        self.noticing = Noticing(self.notices, self.mailer, LETTERS, clock=self.clock, chance=lambda: 0.5)

    async def take(self, access: Access) -> None:
        await take_access(self.notices, access, clock=self.clock)

    async def send_due(self) -> int:
        claimed = await self.noticing.claim(10)
        for each in claimed:
            await self.noticing.send(each)
        return len(claimed)


@pytest.fixture
def post() -> Post:
    return Post()


async def test_a_key_has_one_notice_a_day(post: Post) -> None:
    for hours in (0, 1, 11):
        await post.take(an_access(hours=hours))
        await post.send_due()
    assert len(post.mailer.taken) == 1
    await post.take(an_access(News.COUNTRY, hours=12))
    await post.send_due()
    assert len(post.mailer.taken) == 2
    facts = [fact for fact in post.notices.told.values() if isinstance(fact, AuditRecorded)]
    assert [(fact.action, fact.key_id, fact.order_id) for fact in facts] == [
        ("mail.notice_sent", "key-1", "order-1"),
        ("mail.notice_sent", "key-1", "order-1"),
    ]
    assert "alice" not in str(facts)


@pytest.mark.parametrize("access", [an_access(key_id="key-9"), an_access(order_id="order-9")], ids=["key", "order"])
async def test_an_access_to_a_key_that_is_none_of_ours_is_nothing(post: Post, access: Access) -> None:
    await post.take(access)
    assert await post.send_due() == 0


async def test_a_notice_that_is_delayed_is_tried_again_ever_later_but_not_for_ever(post: Post) -> None:
    await post.take(an_access())
    post.mailer.answers = [MailDelayed("451") for _ in range(999)]
    (place,) = post.notices.rows
    waits = []
    for _ in range(4):
        run_at = post.notices.rows[place].run_at
        assert run_at is not None
        waits.append(run_at - post.clock.now())
        post.clock.time = run_at
        assert await post.send_due() == 1
        assert await post.send_due() == 0
    assert timedelta() < waits[1] < waits[2] < waits[3]
    post.clock.time = NOON + MOST_AGE
    assert await post.send_due() == 1
    assert post.notices.rows[place].run_at is None
    assert post.notices.rows[place].failure == "given up: 451"


async def test_a_notice_that_is_refused_is_told_and_never_tried_again(
    post: Post, logs: list[MutableMapping[str, Any]]
) -> None:
    await post.take(an_access())
    post.mailer.answers = [MailRefused("550")]
    await post.send_due()
    post.clock.pass_seconds(99999)
    assert await post.send_due() == 0
    assert [(log["log_level"], log["answer"]) for log in logs] == [("error", "550")]


async def test_a_notice_whose_sender_died_is_sent_when_the_lease_ends_under_the_same_message_id(post: Post) -> None:
    await post.take(an_access())
    (claimed,) = await post.noticing.claim(10)
    await post.mailer.send(LETTERS.write(claimed))
    post.clock.pass_seconds(SEND_SECONDS)
    # Whoever is at it may be at it for so long.
    assert await post.send_due() == 0
    post.clock.time += LEASE
    assert await post.send_due() == 1
    assert len({letter.message_id for letter in post.mailer.taken}) == 1
