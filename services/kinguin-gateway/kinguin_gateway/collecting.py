"""Fetches delivered keys and hands each to vault. Plaintext lives from the page it came in until vault has it."""

import asyncio
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import structlog
from chassis.errors import KeyferryError
from chassis.failpoints import failpoint

from kinguin_gateway.domain.looking import is_finished
from kinguin_gateway.domain.purchase import KeyRef, Purchase, PurchaseState, SupplierOrder
from kinguin_gateway.errors import PurchaseNotPlaced, PurchaseUnknown
from kinguin_gateway.metrics import UNMATCHED_KEYS
from kinguin_gateway.ports.purchases import Purchases, SealedSoFar
from kinguin_gateway.ports.supplier import KEYS_PAGE, SuppliedKey, Supplier
from kinguin_gateway.ports.vault import KeyToSeal, Unsealable, Vault

logger = structlog.get_logger(__name__)

# New keys that one call seals; more of them make the caller ask again, so that no call runs for minutes.
MOST_NEW_KEYS = 100
# Vault works on each for milliseconds of CPU; more at one time would only queue there.
SEALS_AT_ONCE = 8
_REQUEST_NAMESPACE = uuid.UUID("5f0d7f0e-6f52-4c8a-9a52-0d1f8b1f3c77")


@dataclass(frozen=True, slots=True)
class UnreadableKey:
    """Something that was delivered and is no key, not the one that was sealed under its number, or broken at vault."""

    source_ref: str
    content_type: str


@dataclass(frozen=True, slots=True)
class Collection:
    """Every sealed key of a purchase, what cannot be sealed, and whether delivered ones were left for another call."""

    purchase: Purchase
    keys: Sequence[KeyRef]
    more_keys_ready: bool
    unreadable: Sequence[UnreadableKey] = ()


@dataclass(slots=True)
class _Haul:
    """What one call made of the keys that it fetched. `failures` are of those that another call may seal."""

    sealed: list[KeyRef] = field(default_factory=list)
    unreadable: list[UnreadableKey] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    more: bool = False

    @property
    def room(self) -> int:
        """Return how many more keys may be tried. What is no key takes none, else it could keep the others out."""
        return MOST_NEW_KEYS - len(self.sealed) - len(self.failures)


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
        """Seal what was delivered and not yet sealed, at most MOST_NEW_KEYS of it, and return all that is sealed then.

        Neither what is no key nor a failure of vault keeps keys that are sealed from their owner: an earlier answer
        that named them may have been lost. A failure is raised only where there is no sealed key to tell of; else what
        it left is sealed by a later call, which alone says what is unreadable.
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
        haul = await self._seal_new(known, order, customer_id)
        is_whole = not haul.more and not haul.failures and not haul.unreadable
        finished = is_whole and is_finished(purchase, order, len(known.keys) + len(haul.sealed))
        after = await self._purchases.record_keys(purchase, order, haul.sealed, finished=finished)
        if not haul.failures:
            return Collection(after.purchase, after.keys, more_keys_ready=haul.more, unreadable=haul.unreadable)
        _raise_unless_told_later(haul.failures, is_any_sealed=bool(after.keys))
        reasons = sorted({failure.reason for failure in haul.failures if isinstance(failure, KeyferryError)})
        logger.warning("keys were not sealed", external_id=external_id, count=len(haul.failures), reasons=reasons)
        return Collection(after.purchase, after.keys, more_keys_ready=False)

    async def _seal_new(self, known: SealedSoFar, order: SupplierOrder, customer_id: str) -> _Haul:
        """Seal what is new, page by page as it comes."""
        haul = _Haul()
        if order.delivered_count == 0:
            return haul
        seen = {key.supplier_key_id for key in known.keys}
        expected = order.delivered_count
        # Most keys are known of a purchase of a thousand: begin where the new ones should be, then look everywhere.
        hint = len(known.keys) // KEYS_PAGE + 1
        for first in dict.fromkeys((hint, 1)):
            async with aclosing(self._supplier.key_pages(known.purchase.supplier_order_id, first=first)) as pages:
                async for page in pages:
                    new = _new_keys(known.purchase, page, seen, room=haul.room)
                    await self._seal_all(known.purchase, new, customer_id, haul)
                    if haul.room <= 0:
                        haul.more = expected is None or len(seen) < expected
                        return haul
                    # A short page ends the listing only where nothing is known to be missing.
                    if len(page) < KEYS_PAGE if expected is None else len(seen) >= expected:
                        break
            if expected is None or len(seen) >= expected:
                break
        return haul

    async def _seal_all(self, purchase: Purchase, keys: Sequence[SuppliedKey], customer_id: str, haul: _Haul) -> None:
        places = asyncio.Semaphore(SEALS_AT_ONCE)

        async def seal(key: SuppliedKey) -> KeyRef | UnreadableKey:
            async with places:
                return await self._seal(purchase, key, customer_id)

        for result in await asyncio.gather(*(seal(key) for key in keys), return_exceptions=True):
            match result:
                case KeyRef():
                    haul.sealed.append(result)
                case UnreadableKey():
                    haul.unreadable.append(result)
                case BaseException():
                    haul.failures.append(result)

    async def _seal(self, purchase: Purchase, key: SuppliedKey, customer_id: str) -> KeyRef | UnreadableKey:
        source_ref = f"kinguin:{purchase.supplier_order_id}:{key.supplier_key_id}"
        if key.value is None:
            return _unreadable(purchase, key, source_ref, "supplier delivered something that is no key")
        try:
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
        except Unsealable as error:
            return _unreadable(purchase, key, source_ref, str(error))
        finally:
            # What could not be sealed is fetched again.
            key.value.drop()
        await failpoint("kinguin_gateway.after_seal")
        return KeyRef(key.supplier_key_id, sealed.key_id, key.content_type, held=sealed.held)


def _raise_unless_told_later(failures: Sequence[BaseException], *, is_any_sealed: bool) -> None:
    """Raise what is no answer of vault, and any failure where there is nothing to answer instead of it."""
    for failure in failures:
        if not isinstance(failure, KeyferryError):
            raise failure
    if not is_any_sealed:
        raise failures[0]


def _unreadable(purchase: Purchase, key: SuppliedKey, source_ref: str, why: str) -> UnreadableKey:
    logger.error(
        why,
        external_id=purchase.intent.external_id,
        supplier_key_id=key.supplier_key_id,
        content_type=key.content_type,
    )
    return UnreadableKey(source_ref, key.content_type)


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
