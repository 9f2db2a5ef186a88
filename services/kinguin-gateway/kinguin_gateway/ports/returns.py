"""The rows of returns: one for each supplier order that is, or was, given back."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from kinguin_gateway.domain.purchase import Purchase, SupplierOrder
from kinguin_gateway.domain.returning import KeyReturn


class Returns(Protocol):
    """Raises ServiceUnavailable while the rows cannot be reached. Every method returns the row as it is afterwards."""

    async def of_purchases(self, external_ids: Sequence[str]) -> Mapping[str, Sequence[KeyReturn]]:
        """Return the returns of purchases, the oldest first; a purchase without any is absent."""
        ...

    async def delivered_since(self, external_id: str) -> tuple[datetime | None, datetime]:
        """Return when the first key of a purchase was sealed, and the database's clock."""
        ...

    async def ask(self, purchase: Purchase, *, request_id: str) -> KeyReturn:
        """Write that the order which a purchase keeps is to be given back; once for ever."""
        ...

    async def ask_surplus(self, purchase: Purchase, surplus: Sequence[SupplierOrder]) -> None:
        """Write that orders are to be given back which a purchase does not keep; each once for ever.

        What the purchase keeps by then is passed over: it is compared in the transaction that writes.
        """
        ...

    async def claim(self, key_return: KeyReturn, *, lease: timedelta) -> bool:
        """Lease one return; False when another works on it, or has."""
        ...

    async def claim_due(self, limit: int, *, lease: timedelta) -> Sequence[KeyReturn]:
        """Lease returns whose next look is due."""
        ...

    async def count_sending(self, key_return: KeyReturn) -> bool:
        """Count a request before it is sent; False when somebody else has sent one meanwhile."""
        ...

    async def record(self, key_return: KeyReturn, order: SupplierOrder | None, *, look: timedelta | None) -> KeyReturn:
        """Write how far it is, with an event where it moved, and give the lease back. None: nobody looks any more."""
        ...
