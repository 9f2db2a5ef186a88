"""Fetches delivered keys and hands each to vault. Plaintext lives from the page it came in until vault has it."""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import structlog
from chassis.failpoints import failpoint

from kinguin_gateway.domain.looking import is_finished
from kinguin_gateway.domain.purchase import KeyRef, Purchase, PurchaseState, SupplierOrder
from kinguin_gateway.errors import KeyUnreadable, PurchaseNotPlaced, PurchaseUnknown
from kinguin_gateway.metrics import UNMATCHED_KEYS
from kinguin_gateway.ports.purchases import Purchases, SealedSoFar
from kinguin_gateway.ports.supplier import KEYS_PAGE, SuppliedKey, Supplier
from kinguin_gateway.ports.vault import KeyToSeal, Vault

logger = structlog.get_logger(__name__)

# New keys that one call seals; more of them make the caller ask again, so that no call runs for minutes.
MOST_NEW_KEYS = 100
# Vault works on each for milliseconds of CPU; more at one time would only queue there.
SEALS_AT_ONCE = 8
_REQUEST_NAMESPACE = uuid.UUID("5f0d7f0e-6f52-4c8a-9a52-0d1f8b1f3c77")


@dataclass(frozen=True, slots=True)
class Collection:
    """Every sealed key of a purchase, and whether delivered ones were left for another call."""

    purchase: Purchase
    keys: Sequence[KeyRef]
    more_keys_ready: bool


class Collector:
    """Collects keys. Whatever it is interrupted in, doing it again repeats nothing and loses nothing.

    A key is known by the supplier's order and key id, which is also its `source_ref` at vault: sealing it again gives
    the same key id.
    """

    def __init__(self, purchases: Purchases, supplier: Supplier, vault: Vault) -> None:
        self._purchases = purchases
        self._supplier = supplier
        self._vault = vault

    async def collect(self, external_id: str, *, customer_id: str, request_id: str, digest: bytes) -> Collection:
        """Seal what was delivered and not sealed yet, at most MOST_NEW_KEYS of it.

        What was sealed is kept even when another key fails; the failure is raised after that. Something that is no key
        is only raised by a call that sealed nothing, so that it never keeps good keys from their owner.
        """
        known = await self._purchases.load_keys(external_id, request_id=request_id, digest=digest)
        if known is None:
            raise PurchaseUnknown("no purchase was ever asked for under this external id")
        purchase = known.purchase
        if purchase.state is not PurchaseState.PLACED:
            raise PurchaseNotPlaced("the purchase has no supplier order", metadata={"state": purchase.state.value})
        order = await self._supplier.read_order(purchase.supplier_order_id)
        if order is None or order.delivered_count == len(known.keys) == purchase.intent.quantity:
            return Collection(purchase, known.keys, more_keys_ready=False)
        sealed, failures, more = await self._seal_new(known, order, customer_id)
        finished = is_finished(purchase, order, len(known.keys) + len(sealed)) and not more and not failures
        after = await self._purchases.record_keys(purchase, order, sealed, finished=finished)
        passing = [failure for failure in failures if not isinstance(failure, KeyUnreadable)]
        if passing:
            raise passing[0]
        if failures and not sealed:
            raise failures[0]
        return Collection(after.purchase, after.keys, more_keys_ready=more)

    async def _seal_new(
        self, known: SealedSoFar, order: SupplierOrder, customer_id: str
    ) -> tuple[list[KeyRef], list[BaseException], bool]:
        """Seal what is new, page by page as it comes; the third is whether delivered keys were left."""
        sealed: list[KeyRef] = []
        failures: list[BaseException] = []
        if order.delivered_count == 0:
            return sealed, failures, False
        seen = {key.supplier_key_id for key in known.keys}
        expected = order.delivered_count
        # Most keys are known of a purchase of a thousand: begin where the new ones should be, then look everywhere.
        hint = len(known.keys) // KEYS_PAGE + 1
        for first in dict.fromkeys((hint, 1)):
            async with aclosing(self._supplier.key_pages(known.purchase.supplier_order_id, first=first)) as pages:
                async for page in pages:
                    room = MOST_NEW_KEYS - len(sealed) - len(failures)
                    new = _new_keys(known.purchase, page, seen, room=room)
                    done, failed = await self._seal_all(known.purchase, new, customer_id)
                    sealed += done
                    failures += failed
                    if len(sealed) + len(failures) >= MOST_NEW_KEYS:
                        return sealed, failures, expected is None or len(seen) < expected
                    # A short page ends the listing only where nothing is known to be missing.
                    if len(page) < KEYS_PAGE if expected is None else len(seen) >= expected:
                        break
            if expected is None or len(seen) >= expected:
                break
        return sealed, failures, False

    async def _seal_all(
        self, purchase: Purchase, keys: Sequence[SuppliedKey], customer_id: str
    ) -> tuple[list[KeyRef], list[BaseException]]:
        places = asyncio.Semaphore(SEALS_AT_ONCE)

        async def seal(key: SuppliedKey) -> KeyRef:
            async with places:
                return await self._seal(purchase, key, customer_id)

        results = await asyncio.gather(*(seal(key) for key in keys), return_exceptions=True)
        sealed = [result for result in results if isinstance(result, KeyRef)]
        return sealed, [result for result in results if isinstance(result, BaseException)]

    async def _seal(self, purchase: Purchase, key: SuppliedKey, customer_id: str) -> KeyRef:
        if key.value is None:
            logger.error(
                "supplier delivered something that is no key",
                external_id=purchase.intent.external_id,
                supplier_key_id=key.supplier_key_id,
                content_type=key.content_type,
            )
            raise KeyUnreadable(
                "the supplier delivered something that is no key",
                metadata={"supplier_order_id": purchase.supplier_order_id, "supplier_key_id": key.supplier_key_id},
            )
        source_ref = f"kinguin:{purchase.supplier_order_id}:{key.supplier_key_id}"
        # What could not be sealed is fetched again.
        with key.value:
            await failpoint("kinguin_gateway.before_seal")
            sealed = await self._vault.seal(
                KeyToSeal(
                    request_id=str(uuid.uuid5(_REQUEST_NAMESPACE, source_ref)),
                    source_ref=source_ref,
                    order_id=purchase.intent.order_id,
                    item_id=purchase.intent.item_id,
                    customer_id=customer_id,
                    content_type=key.content_type,
                    value=key.value,
                )
            )
        await failpoint("kinguin_gateway.after_seal")
        return KeyRef(key.supplier_key_id, sealed.key_id, key.content_type, held=sealed.held)


def _new_keys(purchase: Purchase, page: Sequence[SuppliedKey], seen: set[str], *, room: int) -> list[SuppliedKey]:
    """Return the first keys of a page that were not seen before and belong to the purchase, and note them as seen."""
    new: list[SuppliedKey] = []
    for key in page:
        if key.supplier_key_id in seen:
            continue
        if len(new) == room:
            break
        seen.add(key.supplier_key_id)
        if _is_of(purchase, key):
            new.append(key)
    return new


def _is_of(purchase: Purchase, key: SuppliedKey) -> bool:
    """Tell whether a key belongs to the product that was bought (K47); never by its position."""
    if key.product_id in {None, purchase.intent.product_id}:
        return True
    UNMATCHED_KEYS.inc()
    logger.error(
        "supplier delivered a key of another product",
        external_id=purchase.intent.external_id,
        supplier_key_id=key.supplier_key_id,
        supplier_order_id=purchase.supplier_order_id,
    )
    return False
