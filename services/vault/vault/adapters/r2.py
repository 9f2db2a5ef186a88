"""Cloudflare R2, or any store that speaks S3, through obstore."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import obstore
import structlog
from chassis.buckets import CALL_SECONDS, NOT_FOUND, is_missing, is_refusal, open_bucket
from chassis.deadline import bounded
from obstore.exceptions import AlreadyExistsError, BaseError

from vault.errors import ObjectStoreRefused, ObjectStoreUnavailable
from vault.metrics import OBJECT_STORE_FAILURES
from vault.ports import ObjectExists, ObjectMissing, ObjectTooLarge

logger = structlog.get_logger(__name__)

# Larger than the largest key in base64 with its header.
MOST_OBJECT_BYTES = 4 * 1024 * 1024


class R2ObjectStore:
    """Sealed objects in one bucket."""

    def __init__(self, *, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str) -> None:
        self._store = open_bucket(
            endpoint=endpoint, bucket=bucket, access_key_id=access_key_id, secret_access_key=secret_access_key
        )

    async def create(self, name: str, data: bytes) -> None:
        """Store an object that is not there yet (`If-None-Match: *`)."""
        async with _mapped_errors("put"):
            try:
                await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                # A 412, or a 409 while another put is under way: reading it tells which.
                raise ObjectExists(name) from None

    async def read(self, name: str) -> bytes:
        """Return an object."""
        async with _mapped_errors("get"):
            try:
                result = await obstore.get_async(self._store, name)
                if result.meta["size"] > MOST_OBJECT_BYTES:
                    raise ObjectTooLarge(name)
                return bytes(await result.bytes_async())
            except NOT_FOUND as error:
                if is_missing(error):
                    raise ObjectMissing(name) from None
                raise

    async def delete(self, name: str) -> None:
        """Make sure that there is no object of this name."""
        async with _mapped_errors("delete"):
            try:
                await obstore.delete_async(self._store, name)
            except NOT_FOUND as error:
                # S3 itself says yes to what is not there; not every store that speaks it does.
                if not is_missing(error):
                    raise

    async def presign(self, name: str, lifetime: timedelta) -> str:
        """Return a URL that gives the object to whoever holds it, for this long."""
        async with _mapped_errors("sign"):
            return await obstore.sign_async(self._store, "GET", name, lifetime)


@asynccontextmanager
async def _mapped_errors(call: str) -> AsyncIterator[None]:
    # The text of a store's error may quote a signed URL: it is looked at, and never passed on.
    try:
        async with bounded(CALL_SECONDS):
            yield
    except TimeoutError as error:
        OBJECT_STORE_FAILURES.labels(call, "timeout").inc()
        raise ObjectStoreUnavailable("the object store does not answer in time") from error
    except (BaseError, OSError) as error:
        if is_refusal(error):
            OBJECT_STORE_FAILURES.labels(call, "refused").inc()
            logger.error("the object store refuses us", call=call, kind=type(error).__name__)  # noqa: TRY400 # see above
            raise ObjectStoreRefused("the object store does not let us in, or has no such bucket") from error
        OBJECT_STORE_FAILURES.labels(call, "unavailable").inc()
        raise ObjectStoreUnavailable("the object store does not answer") from error
