"""The one mail of an order: its number, its products, one link. Never a key, and never a reason to hold the order.

The Message-ID is derived from the order. If the mail server takes the mail and its answer is lost, the mail is sent
again under the same Message-ID: that is the only way a copy can come about.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from urllib.parse import quote, urlsplit

import structlog
from chassis.clock import Clock
from chassis.failpoints import effect
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from fulfillment import facts
from fulfillment.domain.policy import wait_after
from fulfillment.metrics import MAILS
from fulfillment.ports.mail import Letter, MailDelayed, MailDue, Mailer, MailRefused
from fulfillment.ports.orders import Orders

logger = structlog.get_logger(__name__)

SEND_SECONDS = 40.0
# Short, so that a dead sender's mails are soon another's; what is being sent has its lease extended.
LEASE = timedelta(seconds=15)
EXTEND_SECONDS = 4.0
FORGOTTEN = "the customer was forgotten"
DEFAULT_LOCALE = "en"
LOCALES = frozenset({"en", "de"})

_SUBJECTS = {"en": "Your order {order_id} is ready", "de": "Ihre Bestellung {order_id} ist bereit"}


def templates() -> Environment:
    """Return the templates of all letters."""
    return Environment(
        loader=PackageLoader("fulfillment"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


class Letters:
    """Writes letters from templates, in the customer's language or English."""

    def __init__(self, public_url: str) -> None:
        self._public_url = public_url.rstrip("/")
        self._domain = urlsplit(public_url).hostname or "localhost"
        self._templates = templates()

    def write(self, due: MailDue) -> Letter:
        """Return the letter of an order."""
        locale = language_of(due.locale)
        subject = _SUBJECTS[locale].format(order_id=due.order_id)
        values = {
            "subject": subject,
            "order_id": due.order_id,
            # The supplier's words: a line break in one would make it look like a line of ours.
            "product_names": list(dict.fromkeys(" ".join(name.split()) for name in due.product_names)),
            "link": f"{self._public_url}/orders/{quote(due.order_id, safe='')}",
        }
        return Letter(
            message_id=self.message_id(due.order_id),
            to=due.email,
            subject=subject,
            text=self._templates.get_template(f"ready.{locale}.txt").render(values),
            html=self._templates.get_template(f"ready.{locale}.html").render(values),
        )

    def message_id(self, order_id: str) -> str:
        """Return the order's one Message-ID (RFC 5322 section 3.6.4)."""
        return f"<{hashlib.sha256(f'mail/{order_id}'.encode()).hexdigest()[:40]}@{self._domain}>"


def language_of(tag: str) -> str:
    """Return the language in which a customer is written to."""
    language = tag.replace("_", "-").partition("-")[0].lower()
    return language if language in LOCALES else DEFAULT_LOCALE


class Mailing:
    """Sends the mails that are due. Any number of replicas may."""

    def __init__(
        self,
        orders: Orders,
        mailer: Mailer,
        letters: Letters,
        *,
        clock: Clock,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._orders = orders
        self._mailer = mailer
        self._letters = letters
        self._clock = clock
        self._chance = chance

    async def claim(self, limit: int) -> Sequence[MailDue]:
        """Claim what is due."""
        return await self._orders.due_mails(limit, lease=LEASE, now=self._clock.now())

    async def extend(self, sending: Sequence[MailDue]) -> None:
        """Keep what is being sent from others for another while."""
        now = self._clock.now()
        await self._orders.extend_mails({due.order_id: due.claim for due in sending}, now=now, until=now + LEASE)

    async def send(self, due: MailDue) -> None:
        """Send one mail and write down what came of it."""
        if not due.email:
            await self._orders.mail_waits(due.order_id, due.claim, run_at=None, failure=FORGOTTEN)
            return
        try:
            letter = self._letters.write(due)
        except Exception:  # asked for again it would be as unwritable: a person has to look at the order
            MAILS.labels("unwritable").inc()
            logger.exception("a mail cannot be written", order_id=due.order_id)
            await self._orders.mail_waits(due.order_id, due.claim, run_at=None, failure="unwritable")
            return
        try:
            await effect("fulfillment.mail.send", lambda: self._mailer.send(letter))
        except MailRefused as refused:
            MAILS.labels("refused").inc()
            logger.error("the mail server refuses a mail", order_id=due.order_id, answer=str(refused))  # noqa: TRY400 # the answer says it all
            await self._orders.mail_waits(due.order_id, due.claim, run_at=None, failure=f"refused: {refused}")
            return
        except MailDelayed as delayed:
            MAILS.labels("delayed").inc()
            wait = wait_after(due.tries, jitter=self._chance())
            logger.warning("mail waits", order_id=due.order_id, answer=str(delayed), seconds=wait.total_seconds())
            run_at = self._clock.now() + wait
            await self._orders.mail_waits(due.order_id, due.claim, run_at=run_at, failure=str(delayed))
            return
        now = self._clock.now()
        async with self._orders.transaction("mail") as transaction:
            await transaction.mail_done(due.order_id, due.claim, now=now)
            await facts.record(
                transaction,
                "mail.sent",
                due.order_id,
                now=now,
                # Sent again, on request or because its answer was lost, it is another sending of the same letter.
                identity=[letter.message_id, now.isoformat()],
                details={"message_id": letter.message_id},
            )
        MAILS.labels("sent").inc()
