"""The part of vault's rows in memory that tells what was done with keys, ends them and forgets their owners."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from vault.domain.delivery import MOST_RELEASES_KEPT, RELEASES, Act, Delivery, Usage
from vault.domain.key import NOBODY, Binding, KeyRecord, KeyState

if TYPE_CHECKING:
    from vault.domain.familiarity import Kind
    from vault.domain.retention import Retention

    from tests.unit.vault.fakes.rows import Rows


class MemoryKeeping:
    """Implements `vault.ports_keeping.DeliveryRows` and `RetentionRows`."""

    rows: "Rows"
    wrote: bool

    def change(self, stored: KeyRecord, **changes: object) -> None:
        raise NotImplementedError

    async def is_repeat(self, request_id: str, digest: bytes) -> bool:
        raise NotImplementedError

    async def note_delivery(self, key_ids: Collection[str], delivery: Delivery) -> None:
        for key_id in key_ids:
            self._note(key_id, delivery)

    def _note(self, key_id: str, delivery: Delivery) -> bool:
        natural = (delivery.act, delivery.request_id)
        if natural in [(other.act, other.request_id) for owner, other in self.rows.deliveries if owner == key_id]:
            return False
        self.rows.deliveries.append((key_id, delivery))
        self.wrote = True
        return True

    async def note_release(self, key_id: str, delivery: Delivery) -> None:
        if not self._note(key_id, delivery):
            return
        stored = self.rows.keys[key_id]
        name = "link_count" if delivery.act is Act.LINK_ISSUED else "reveal_count"
        self.change(stored, **{name: getattr(stored, name) + 1})
        released = [line for line in self.rows.deliveries if line[0] == key_id and line[1].act in RELEASES]
        for line in released[:-MOST_RELEASES_KEPT]:
            self.rows.deliveries.remove(line)

    async def usage(self, key_id: str, request_id: str, *, since: datetime) -> Usage:
        lines = [each for each in await self.read_deliveries(key_id) if each.act in RELEASES and each.time > since]
        return Usage(sorted(each.time for each in lines), any(each.request_id == request_id for each in lines))

    async def read_deliveries(self, key_id: str) -> Sequence[Delivery]:
        return [delivery for owner, delivery in self.rows.deliveries if owner == key_id]

    async def known_access(self, owners: Collection[str]) -> "Mapping[Kind, Collection[str]]":
        known: dict[Kind, set[str]] = {}
        for owner, kind, trait in self.rows.known:
            if owner in owners:
                known.setdefault(kind, set()).add(trait)
        return known

    async def know_access(self, owner: str, traits: "Mapping[Kind, str]", *, now: datetime, most: int) -> None:
        for kind, trait in traits.items():
            self.rows.known[owner, kind, trait] = now
            of_kind = [place for place in self.rows.known if place[:2] == (owner, kind)]
            for place in sorted(of_kind, key=lambda each: self.rows.known[each])[:-most]:
                del self.rows.known[place]
        self.wrote = True

    async def lock_expired(self, retention: "Retention", *, limit: int, now: datetime) -> Sequence[KeyRecord]:
        return [record for record in self.rows.keys.values() if retention.is_over(record, now)][:limit]

    async def shred(
        self, key_ids: Collection[str], *, now: datetime, delete_at: datetime, expired: bool = False
    ) -> None:
        for key_id in key_ids:
            ended = {"expire_time": now} if expired else {}
            self.change(self.rows.keys[key_id], state=KeyState.SHREDDED, shred_time=now, dek=None, **ended)
            self.rows.objects_due[key_id] = (delete_at, 0)

    async def lease_objects(self, *, limit: int, now: datetime, until: datetime) -> Sequence[tuple[KeyRecord, int]]:
        leased: list[tuple[KeyRecord, int]] = []
        for key_id, (due, tries) in list(self.rows.objects_due.items()):
            if due <= now and len(leased) < limit:
                self.rows.objects_due[key_id] = (until, tries + 1)
                leased.append((self.rows.keys[key_id], tries + 1))
                self.wrote = True
        return leased

    async def object_deleted(self, key_id: str, *, now: datetime) -> None:
        if self.rows.objects_due.pop(key_id, None):
            self.change(self.rows.keys[key_id], object_delete_time=now)

    async def object_waits(self, key_id: str, *, until: datetime) -> None:
        if key_id in self.rows.objects_due:
            self.rows.objects_due[key_id] = (until, self.rows.objects_due[key_id][1])
            self.wrote = True

    async def read_objects_left(self) -> tuple[int, datetime | None]:
        times = [self.rows.keys[key_id].shred_time for key_id in self.rows.objects_due]
        return len(times), min((time for time in times if time), default=None)

    async def read_owed(self, owners: Collection[str], *, most: int) -> tuple[int, Sequence[str]]:
        owed = [record for record in self._owned(owners) if _is_owed(record)]
        return len(owed), sorted({record.order_id for record in owed})[:most]

    async def lock_owned(self, owners: Collection[str], *, limit: int, with_owed: bool) -> Sequence[KeyRecord]:
        return [record for record in self._owned(owners) if with_owed or not _is_owed(record)][:limit]

    def _owned(self, owners: Collection[str]) -> list[KeyRecord]:
        owned = [record for record in self.rows.keys.values() if record.binding.owner in owners]
        return sorted(owned, key=lambda record: record.key_id)

    async def forget_owner(self, key_ids: Collection[str]) -> None:
        for key_id in key_ids:
            stored = self.rows.keys[key_id]
            self.change(stored, binding=Binding(stored.binding.order, NOBODY))
        self.rows.deliveries = [
            (key_id, replace(delivery, network="", device="") if key_id in key_ids else delivery)
            for key_id, delivery in self.rows.deliveries
        ]

    async def forget_access(self, owners: Collection[str]) -> None:
        self.rows.known = {place: time for place, time in self.rows.known.items() if place[0] not in owners}
        self.wrote = True

    async def read_counts(self, request_id: str, digest: bytes) -> Mapping[str, int] | None:
        return self.rows.counts[request_id] if await self.is_repeat(request_id, digest) else None

    async def keep_counts(self, request_id: str, digest: bytes, counts: Mapping[str, int]) -> None:
        self.rows.done[request_id] = digest
        self.rows.counts[request_id] = counts
        self.wrote = True


def _is_owed(record: KeyRecord) -> bool:
    return record.state in (KeyState.SEALING, KeyState.SEALED) and not record.is_opened
