"""What the rows in memory say of the versions of secrets: wrapped DEKs by their KEK, and digests."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from vault.domain.key import WrappedDek
from vault.ports import Rewrapped, RewrapReport

from tests.unit.vault.fakes.rows import MemoryKeys


class MemoryWrappedDeks:
    """Implements `vault.ports.WrappedDeks` on the rows of `MemoryKeys`."""

    def __init__(self, keys: MemoryKeys) -> None:
        self.keys = keys
        self.held: set[str] = set()
        """Keys whose rows somebody else holds."""
        self.told: list[tuple[str, RewrapReport]] = []

    async def counts(self) -> Mapping[str, int]:
        return Counter(record.dek.kek_version for record in self.keys.rows.keys.values() if record.dek is not None)

    async def page(
        self, version: str, *, after: str, before: str | None, size: int
    ) -> Sequence[tuple[str, WrappedDek]]:
        found = [
            (record.key_id, record.dek)
            for record in self.keys.rows.keys.values()
            if record.dek is not None
            and record.dek.kek_version == version
            and record.key_id > after
            and (before is None or record.key_id <= before)
        ]
        return sorted(found, key=lambda piece: piece[0])[:size]

    async def replace(self, pieces: Sequence[Rewrapped]) -> Collection[str]:
        async with self.keys.transaction() as transaction:
            rows = transaction.rows.keys
            mine = [piece for piece in pieces if piece.key_id not in self.held and rows[piece.key_id].dek == piece.old]
            rows.update({piece.key_id: replace(rows[piece.key_id], dek=piece.new) for piece in mine})
        return [piece.key_id for piece in mine]

    async def begin(self, report: RewrapReport, digest: bytes, *, now: datetime) -> None:
        async with self.keys.transaction() as transaction:
            if not await transaction.is_repeat(report.wish.request_id, digest):
                await transaction.note_done(report.wish.request_id, digest)
                self._tell("keks.rewrap_started", report, now)

    async def finish(self, report: RewrapReport, *, now: datetime) -> None:
        self._tell("keks.rewrap_finished", report, now)

    def _tell(self, action: str, report: RewrapReport, now: datetime) -> None:
        assert now.tzinfo is not None
        if (action, report.wish.request_id) not in {(told, each.wish.request_id) for told, each in self.told}:
            self.told.append((action, report))


class MemoryStoredDigests:
    """Implements `vault.ports.StoredDigests` on the rows of `MemoryKeys`."""

    def __init__(self, keys: MemoryKeys) -> None:
        self.keys = keys

    async def versions(self) -> frozenset[str]:
        return frozenset(self._counts())

    async def count(self, version: str) -> int:
        return self._counts()[version]

    def _counts(self) -> Counter[str]:
        return Counter(record.fingerprint.partition(".")[0] for record in self.keys.rows.keys.values())
