"""Vault's use cases put together on the fakes."""

import uuid

from chassis.secret import SecretBytes
from vault.adapters.kek_keyring import KeyringKeks
from vault.crypto import Digests, Kek, read_recipient
from vault.domain.key import KeyRecord
from vault.erasing import Eraser
from vault.listing import KeyReader
from vault.ports import Release, Viewer
from vault.releasing import Releaser, ReleaseRequest, request_digest
from vault.rewrapping import Rewrapper
from vault.sealing import Sealer
from vault.service import VaultServicer
from vault.shredding import ObjectRemover
from vault.sweeping import Sweeper
from vault.taking_back import KeyTaker
from vault.uploading import UploadKeys
from vault.wrapping import KeyEncryption

from tests.unit.vault.fakes.outside import ManualClock, MemoryAudit, MemoryObjects, Recipient
from tests.unit.vault.fakes.rows import MemoryKeys
from tests.unit.vault.fakes.samples import (
    ALICE,
    GAME_KEY,
    MOST_PER_HOUR,
    RETENTION,
    a_keyring,
    a_seal,
    wrapped_dek,
)
from tests.unit.vault.fakes.versions import MemoryWrappedDeks


class World:
    """Vault's use cases on the fakes. Several sealers and releasers are several replicas."""

    def __init__(self) -> None:
        self.keys = MemoryKeys()
        self.deks = MemoryWrappedDeks(self.keys)
        self.objects = MemoryObjects()
        self.audit = MemoryAudit(self.keys.journal)
        self.clock = ManualClock()
        self.kek = Kek(a_keyring("v1"))
        self.upload_keys = UploadKeys(a_keyring("v1"))
        self.digests = Digests(a_keyring("v2"))
        self.recipient = Recipient()

    @property
    def keks(self) -> KeyEncryption:
        return KeyEncryption(KeyringKeks(self.kek))

    @property
    def sealer(self) -> Sealer:
        return Sealer(self.keys, self.objects, self.keks, self.digests, self.clock)

    @property
    def releaser(self) -> Releaser:
        return Releaser(
            self.keys,
            self.objects,
            self.audit,
            self.keks,
            self.digests,
            clock=self.clock,
            most_per_hour=MOST_PER_HOUR,
        )

    @property
    def remover(self) -> ObjectRemover:
        return ObjectRemover(self.keys, self.objects, clock=self.clock)

    @property
    def taker(self) -> KeyTaker:
        return KeyTaker(self.keys, self.remover, clock=self.clock)

    @property
    def sweeper(self) -> Sweeper:
        return Sweeper(self.keys, self.remover, clock=self.clock, retention=RETENTION, every_seconds=1)

    @property
    def eraser(self) -> Eraser:
        return Eraser(self.keys, self.remover, self.digests, clock=self.clock)

    @property
    def rewrapper(self) -> Rewrapper:
        return Rewrapper(self.deks, self.keks, clock=self.clock)

    @property
    def servicer(self) -> VaultServicer:
        return VaultServicer(
            sealer=self.sealer,
            releaser=self.releaser,
            taker=self.taker,
            reader=KeyReader(self.keys),
            upload_keys=self.upload_keys,
            rewrapper=self.rewrapper,
            sweeper=self.sweeper,
            eraser=self.eraser,
        )

    def dek(self, record: KeyRecord) -> SecretBytes:
        return self.kek.unwrap(wrapped_dek(record), record.key_id)

    async def sealed(self, plaintext: bytes = GAME_KEY, **changes: str) -> KeyRecord:
        return await self.sealer.seal(a_seal(plaintext, **changes))

    def ask(
        self, record: KeyRecord, way: Release = Release.REVEAL, *, viewer: Viewer = ALICE, **changes: str
    ) -> ReleaseRequest:
        order_id = changes.get("order_id", record.order_id)
        parts = (way.value, order_id, record.key_id, viewer.customer_id)
        return ReleaseRequest(
            request_id=changes.get("request_id", str(uuid.uuid4())),
            digest=request_digest(*(part.encode() for part in parts), self.recipient.jwk),
            order_id=order_id,
            key_id=changes.get("key_id", record.key_id),
            viewer=viewer,
            recipient=read_recipient(self.recipient.jwk),
        )
