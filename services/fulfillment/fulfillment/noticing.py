"""Tells customers of unusual accesses to their keys: from a country, a network or a device that is new for them.

At most one mail goes out for each key and day, however often vault tells of one. It says when and what was new, and
holds no link but the order page's: nobody should learn to follow links in warnings. As with the mail of an order, its
Message-ID is derived from what it is about, and a copy can only come about where the mail server's answer was lost.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from datetime import UTC, timedelta
from urllib.parse import quote, urlsplit

import structlog
from chassis.clock import Clock
from chassis.failpoints import effect

from fulfillment import facts
from fulfillment.domain.policy import wait_after
from fulfillment.mailing import FORGOTTEN, SEND_SECONDS, language_of, templates
from fulfillment.metrics import NOTICES
from fulfillment.ports.mail import Letter, MailDelayed, Mailer, MailRefused
from fulfillment.ports.notices import Access, NoticeDue, Notices, NoticeTransaction

logger = structlog.get_logger(__name__)

# Longer than a sending may last, for nothing extends it: a second sender would send a copy.
LEASE = timedelta(seconds=SEND_SECONDS + 15)
# After so long it warns of nothing that the customer could still act on.
MOST_AGE = timedelta(days=14)

_SUBJECTS = {
    "en": "A key of your order {order_id} was opened in a new way",
    "de": "Ein Key Ihrer Bestellung {order_id} wurde auf neue Weise geöffnet",
}


class NoticeLetters:
    """Writes notices from templates, in the customer's language or English."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url.rstrip("/")
        self._domain = urlsplit(public_url).hostname or "localhost"
        self._templates = templates()

    def write(self, due: NoticeDue) -> Letter:
        """Return the letter of a notice."""
        language = language_of(due.locale)
        access = due.access
        subject = _SUBJECTS[language].format(order_id=access.order_id)
        values = {
            "subject": subject,
            "order_id": access.order_id,
            # The same in every language, and no customer's time zone is known.
            "time": access.time.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "news": [each.value for each in access.news],
            "link": f"{self._public_url}/orders/{quote(access.order_id, safe='')}",
        }
        return Letter(
            message_id=self.message_id(access),
            to=due.email,
            subject=subject,
            text=self._templates.get_template(f"unusual.{language}.txt").render(values),
            html=self._templates.get_template(f"unusual.{language}.html").render(values),
        )

    def message_id(self, access: Access) -> str:
        """Return the one Message-ID of a key's notice of a day (RFC 5322 section 3.6.4)."""
        name = f"notice/{access.key_id}/{access.day.isoformat()}"
        return f"<{hashlib.sha256(name.encode()).hexdigest()[:40]}@{self._domain}>"


class Noticing:
    """Sends the notices that are due. Any number of replicas may."""

    def __init__(
        self,
        notices: Notices,
        mailer: Mailer,
        letters: NoticeLetters,
        *,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._notices = notices
        self._mailer = mailer
        self._letters = letters
        self._clock = clock
        self._chance = chance

    async def claim(self, limit: int) -> Sequence[NoticeDue]:
        """Claim what is due."""
        return await self._notices.due_notices(limit, lease=LEASE, now=self._clock.now())

    async def send(self, due: NoticeDue) -> None:
        """Send one notice and write down what came of it."""
        access = due.access
        if not due.email:
            await self._notices.notice_waits(access, run_at=None, failure=FORGOTTEN)
            return
        letter = self._letters.write(due)
        try:
            await effect("fulfillment.notice.send", lambda: self._mailer.send(letter))
        except MailRefused as refused:
            NOTICES.labels("refused").inc()
            logger.error("the mail server refuses a notice", order_id=access.order_id, answer=str(refused))  # noqa: TRY400 # the answer says it all
            await self._notices.notice_waits(access, run_at=None, failure=f"refused: {refused}")
            return
        except MailDelayed as delayed:
            await self._delay(due, delayed)
            return
        now = self._clock.now()
        async with self._notices.transaction("notice") as transaction:
            await transaction.notice_done(access, now=now)
            await facts.record(
                transaction,
                "mail.notice_sent",
                access.order_id,
                now=now,
                identity=[letter.message_id],
                details={"message_id": letter.message_id},
                key_id=access.key_id,
            )
        NOTICES.labels("sent").inc()

    async def _delay(self, due: NoticeDue, delayed: MailDelayed) -> None:
        now = self._clock.now()
        if due.access.time + MOST_AGE <= now:
            NOTICES.labels("refused").inc()
            logger.error("a notice was given up", order_id=due.access.order_id, answer=str(delayed))
            await self._notices.notice_waits(due.access, run_at=None, failure=f"given up: {delayed}")
            return
        NOTICES.labels("delayed").inc()
        wait = wait_after(due.tries, jitter=self._chance())
        logger.warning(
            "a notice waits", order_id=due.access.order_id, answer=str(delayed), seconds=wait.total_seconds()
        )
        await self._notices.notice_waits(due.access, run_at=now + wait, failure=str(delayed))


async def take_access(transaction: NoticeTransaction, access: Access, *, clock: Clock) -> None:
    """Let the owner of a key of ours be told of an access, within the caller's transaction."""
    order_id = await transaction.order_of_key(access.key_id)
    if order_id == access.order_id:
        await transaction.want_notice(access, now=clock.now())
