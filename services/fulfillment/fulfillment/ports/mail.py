"""The mail server, as fulfillment needs it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from fulfillment.domain.model import (
    OrderId,
)


@dataclass(frozen=True, slots=True)
class Letter:
    """One e-mail, ready to be sent. Its Message-ID is the same each time it is."""

    message_id: str
    to: str = field(repr=False)
    subject: str
    text: str = field(repr=False)
    html: str = field(repr=False)


class MailRefused(Exception):
    """The mail server will never take this letter."""


class MailDelayed(Exception):
    """The mail server does not take it now, or its answer was lost."""


class Mailer(Protocol):
    """The mail server."""

    async def send(self, letter: Letter) -> None:
        """Hand over a letter. Raises MailRefused or MailDelayed."""
        ...


@dataclass(frozen=True, slots=True)
class MailDue:
    """The mail of one order whose time has come."""

    order_id: OrderId
    email: str = field(repr=False)
    locale: str
    product_names: Sequence[str]
    tries: int
    claim: int
    """Counts claims: who sends under an earlier one does not mark over a later one's."""
