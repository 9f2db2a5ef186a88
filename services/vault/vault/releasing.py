"""Releases a key to its owner: authorized, written to audit, and only then handed over.

1 is it this order's and this owner's, and  no: told like no key at all, and noted as denied; or told to wait
  not asked for too often
2 append `…_authorized` to audit            dies here: an authorization that released nothing; the repeat goes on
3 keep the request                          dies here: as above; the repeat finds the same audit entry
4 read the object; sign, or open the key    dies here: as above
5 commit that it was opened, `…_released`   dies here: nothing was handed over; the repeat hands over and counts once
  and the opened event, and count it
6 hand it over

What decides is 5: it marks the key's row as opened, or finds it revoked and hands nothing over. So a key that was
handed over is marked, always; one that is marked may, after a crash, not have been handed over. There too the limit
holds, over all replicas, since whoever counts has the row; at 1 it is only looked at, so that asking on and on does not
fill the audit log.
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

import structlog
from chassis.clock import Clock
from chassis.errors import KeyferryError, RequestIdReused
from chassis.failpoints import failpoint
from joserfc.jwk import ECKey

from vault.crypto import Digests, hand_over
from vault.domain.delivery import LIMIT_WINDOW, Act, Delivery, wait_of
from vault.domain.key import KeyRecord, KeyState
from vault.errors import KeyExpired, KeyNotFound, KeyNotReady, KeyRevoked, LinkExpired, ReleaseLimit
from vault.metrics import RELEASES, UNUSUAL
from vault.opening import corrupted, open_stored, read_stored, unwrap
from vault.ports import AuditLog, Authorization, Keys, KeyTransaction, ObjectMissing, ObjectStore, Release, Viewer
from vault.recognizing import Recognizer, seen
from vault.wrapping import KeyEncryption

logger = structlog.get_logger(__name__)

LINK_LIFETIME = timedelta(minutes=15)
# A link that is signed again for the last moments of the first one must still be worth fetching.
LEAST_LIFETIME = timedelta(seconds=5)
DEK_CONTENT_TYPE = "application/octet-stream"
_ACTS = {Release.LINK: Act.LINK_ISSUED, Release.REVEAL: Act.REVEALED}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """An owner's wish to open one key."""

    request_id: str
    digest: bytes
    order_id: str
    key_id: str
    viewer: Viewer
    recipient: ECKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class DownloadLink:
    """What the owner's page needs to open the key by itself."""

    url: str = field(repr=False)
    expire_time: datetime
    content_key_jwe: str = field(repr=False)
    object_sha256: bytes


class Releaser:
    """Hands keys to their owners. No audit, no key."""

    def __init__(
        self,
        keys: Keys,
        store: ObjectStore,
        audit: AuditLog,
        keks: KeyEncryption,
        digests: Digests,
        *,
        clock: Clock,
        most_per_hour: int,
    ) -> None:
        self._keys = keys
        self._store = store
        self._audit = audit
        self._keks = keks
        self._digests = digests
        self._clock = clock
        self._most_per_hour = most_per_hour
        self._recognizer = Recognizer(digests)

    async def create_link(self, request: ReleaseRequest) -> DownloadLink:
        """Return a link of at most 15 minutes.

        Raises KeyNotFound, KeyNotReady, KeyRevoked, KeyExpired, ReleaseLimit, RequestIdReused, LinkExpired for the
        repeat of an old request, AuditUnavailable, ObjectStoreUnavailable, KeyEncryptionUnavailable,
        SecretVersionMissing and KeyCorrupted.
        """

        async def make(record: KeyRecord, authorization: Authorization) -> DownloadLink:
            with await unwrap(self._keks, record) as dek:
                content_key = hand_over(dek, request.recipient, content_type=DEK_CONTENT_TYPE, key_id=record.key_id)
            # A link counts as opened: one to an object that is gone or changed must not be handed over.
            await self._stored(record, read_stored(self._store, record))
            lifetime = authorization.expire_time - self._clock.now()
            return DownloadLink(
                url=await self._store.presign(record.object_name, lifetime),
                expire_time=authorization.expire_time,
                content_key_jwe=content_key,
                object_sha256=record.object_sha256 or b"",
            )

        return await self._release(Release.LINK, request, make)

    async def reveal(self, request: ReleaseRequest) -> str:
        """Return the opened key as a JWE to the recipient. Raises as `create_link` does."""

        async def make(record: KeyRecord, _authorization: Authorization) -> str:
            with await unwrap(self._keks, record) as dek:
                plaintext = await self._stored(record, open_stored(self._store, record, dek))
            with plaintext:
                return hand_over(plaintext, request.recipient, content_type=record.content_type, key_id=record.key_id)

        return await self._release(Release.REVEAL, request, make)

    async def _release(
        self,
        release: Release,
        request: ReleaseRequest,
        make: Callable[[KeyRecord, Authorization], Awaitable[T]],
    ) -> T:
        record = await self._authorize(release, request)
        authorization = await self._written_down(release, request, record)
        try:
            made = await make(record, authorization)
        except Exception as error:
            RELEASES.labels(release.value, "failed").inc()
            reason = error.reason if isinstance(error, KeyferryError) else KeyferryError.reason
            await self._tell_failure(authorization, record, request.viewer, reason)
            raise
        await failpoint("vault.release.before_commit")
        await self._mark_opened(release, authorization, record, request.viewer)
        await failpoint("vault.release.after_commit")
        RELEASES.labels(release.value, "released").inc()
        return made

    async def _authorize(self, release: Release, request: ReleaseRequest) -> KeyRecord:
        viewer = request.viewer
        wait = timedelta()
        async with self._keys.transaction() as transaction:
            now = self._clock.now()
            record = await transaction.key(request.key_id)
            allowed = record is not None and self._is_owned(record, request)
            if record is not None and not allowed:
                await transaction.tell_denied(
                    record.key_id, record.order_id, viewer, request_id=request.request_id, now=now
                )
            elif record is not None and record.state is KeyState.SEALED:
                wait = await self._wait(transaction, record.key_id, request.request_id, now)
                if wait:
                    await transaction.tell_limited(record, viewer, request_id=request.request_id, now=now)
            await failpoint("vault.release.before_look")
        await failpoint("vault.release.after_look")
        if record is None or not allowed:
            RELEASES.labels(release.value, "denied").inc()
            raise KeyNotFound("there is no such key")
        if record.is_taken_back:
            raise _gone(record)
        if record.state is not KeyState.SEALED:
            raise KeyNotReady("the key cannot be opened yet", metadata={"state": record.state.value})
        if wait:
            RELEASES.labels(release.value, "limited").inc()
            raise self._limited(wait)
        return record

    def _is_owned(self, record: KeyRecord, request: ReleaseRequest) -> bool:
        if record.is_nobodys:
            return False
        return self._digests.matches(record.binding, request.order_id, request.viewer.customer_id)

    async def _wait(self, transaction: KeyTransaction, key_id: str, request_id: str, now: datetime) -> timedelta:
        usage = await transaction.usage(key_id, request_id, since=now - LIMIT_WINDOW)
        return wait_of(usage, limit=self._most_per_hour, now=now)

    def _limited(self, wait: timedelta) -> ReleaseLimit:
        return ReleaseLimit(
            "the key was opened too often within an hour; wait before it is opened again",
            metadata={"most_per_hour": str(self._most_per_hour)},
            retry_after=wait,
        )

    async def _written_down(self, release: Release, request: ReleaseRequest, record: KeyRecord) -> Authorization:
        async with self._keys.transaction() as transaction:
            known = await transaction.authorization(request.request_id)
        if known is not None:
            return self._check_repeat(known, request)
        await failpoint("vault.release.before_audit")
        sequence = await self._audit.append(
            f"{release.value}_authorized",
            request_id=request.request_id,
            viewer=request.viewer,
            order_id=record.order_id,
            key_id=record.key_id,
        )
        await failpoint("vault.release.after_audit")
        fresh = Authorization(
            request_id=request.request_id,
            request_digest=request.digest,
            release=release,
            key_id=record.key_id,
            audit_sequence=sequence,
            expire_time=self._clock.now() + LINK_LIFETIME,
        )
        async with self._keys.transaction() as transaction:
            await transaction.add_authorization(fresh)
            kept = await transaction.authorization(request.request_id)
            await failpoint("vault.release.before_keep")
        await failpoint("vault.release.after_keep")
        return self._check_repeat(kept or fresh, request)

    def _check_repeat(self, known: Authorization, request: ReleaseRequest) -> Authorization:
        if known.request_digest != request.digest:
            raise RequestIdReused(
                "request_id: was used with another body; use a new id for a new request",
                metadata={"request_id": request.request_id},
            )
        if known.expire_time - self._clock.now() < LEAST_LIFETIME:
            raise LinkExpired("this request's link has expired or is about to; ask with a new request_id")
        return known

    async def _stored(self, record: KeyRecord, reading: Awaitable[T]) -> T:
        try:
            return await reading
        except ObjectMissing as error:
            await self._check_not_taken_back(record)
            raise corrupted(record, "object") from error

    async def _check_not_taken_back(self, record: KeyRecord) -> None:
        """Raise KeyRevoked for a key that was destroyed while it was being opened: that is no corruption."""
        async with self._keys.transaction() as transaction:
            present = await transaction.key(record.key_id)
        if present is not None and present.is_taken_back:
            raise _gone(present)

    async def _mark_opened(
        self, release: Release, authorization: Authorization, record: KeyRecord, viewer: Viewer
    ) -> None:
        """Commit that the key was opened and counted; or that it was taken back, or is opened too often, and is not."""
        error: KeyferryError | None = None
        is_unusual = False
        async with self._keys.transaction() as transaction:
            now = self._clock.now()
            if not await transaction.mark_opened(record.key_id, now=now):
                error = _gone(await transaction.key(record.key_id) or record)
            elif wait := await self._wait(transaction, record.key_id, authorization.request_id, now):
                error = self._limited(wait)
            else:
                await transaction.note_release(record.key_id, _delivery(authorization, viewer, now))
                is_unusual = bool(await self._recognizer.meet(transaction, authorization, record, viewer, now=now))
            failure = error.reason if error else ""
            await transaction.tell_outcome(authorization, record, viewer, failure=failure, now=now)
        if error:
            RELEASES.labels(release.value, "failed").inc()
            raise error
        if is_unusual:
            UNUSUAL.inc()

    async def _tell_failure(self, authorization: Authorization, record: KeyRecord, viewer: Viewer, reason: str) -> None:
        try:
            await failpoint("vault.release.before_failure")
            async with self._keys.transaction() as transaction:
                await transaction.tell_outcome(authorization, record, viewer, failure=reason, now=self._clock.now())
            await failpoint("vault.release.after_failure")
        except KeyferryError as error:
            # The caller needs the first failure; the authorization stands in audit without an outcome.
            logger.warning("the outcome could not be told", key_id=record.key_id, why=error.message)


def _gone(record: KeyRecord) -> KeyferryError:
    if record.expire_time is not None:
        return KeyExpired("the key's retention has passed, and it was destroyed")
    return KeyRevoked("the key was taken back and is not opened any more")


def _delivery(authorization: Authorization, viewer: Viewer, now: datetime) -> Delivery:
    here = seen(viewer)
    return Delivery(
        _ACTS[authorization.release],
        now,
        request_id=authorization.request_id,
        network=here.network,
        device=here.device,
    )


def request_digest(*parts: bytes) -> bytes:
    """Return SHA-256 of a request's parts, each with its length: none of them is secret."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()
