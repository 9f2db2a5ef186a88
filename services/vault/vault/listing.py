"""Reads what may be known of keys: one, or page after page."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from chassis.errors import InvalidRequest
from chassis.paging import page_size, read_page_token, write_page_token
from chassis.validation import IDENTIFIER

from vault.domain.delivery import Act, Delivery
from vault.domain.key import KeyRecord
from vault.errors import KeyNotFound
from vault.ports import KeyFilter, Keys

STORED_BY = "vault"


@dataclass(frozen=True, slots=True)
class KeyPage:
    """Some keys, and where the next ones begin."""

    records: Sequence[KeyRecord]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class DeliveryLog:
    """A key, and what was done with it, the earliest first."""

    record: KeyRecord
    deliveries: Sequence[Delivery]


class KeyReader:
    """Reads keys for their keepers. It shows nothing that opens one."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def get(self, key_id: str) -> KeyRecord:
        """Return a key. Raises KeyNotFound."""
        async with self._keys.transaction() as transaction:
            found = await transaction.key(key_id)
        if found is None:
            raise KeyNotFound("there is no such key")
        return found

    async def log(self, key_id: str) -> DeliveryLog:
        """Return what was done with a key. Raises KeyNotFound."""
        async with self._keys.transaction() as transaction:
            record = await transaction.key(key_id)
            noted = [] if record is None else await transaction.read_deliveries(key_id)
        if record is None:
            raise KeyNotFound("there is no such key")
        # The row tells it by itself: noting it once more would make every sealing dearer.
        stored = [] if record.seal_time is None else [Delivery(Act.STORED, record.seal_time, caller=STORED_BY)]
        return DeliveryLog(record, [*stored, *noted])

    async def page(self, wanted: KeyFilter, *, size: int, token: str) -> KeyPage:
        """Return a page, the earliest keys first. Raises InvalidRequest for a token that is none of this listing."""
        size = page_size(size)
        filters = (wanted.order_id, _text(wanted.start_time), _text(wanted.end_time))
        place = read_page_token(filters, token, parts=2)
        after = None if place is None else _read_place(*place)
        async with self._keys.transaction() as transaction:
            found = await transaction.page(wanted, size=size + 1, after=after)
        shown = found[:size]
        more = len(found) > size
        return KeyPage(shown, _token_after(shown[-1], filters) if more else "")


def _text(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat()


def _token_after(last: KeyRecord, filters: Sequence[str]) -> str:
    return write_page_token(filters, [last.create_time.isoformat(), last.key_id])


def _read_place(time: str, key_id: str) -> tuple[datetime, str]:
    """Read what a token says; it came from outside and may hold anything."""
    try:
        if IDENTIFIER.fullmatch(key_id):
            return datetime.fromisoformat(time).astimezone(UTC), key_id
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest.of("page_token", "must be the next_page_token of the page before")
