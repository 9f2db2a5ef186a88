"""Cloudflare R2, or any store that speaks S3, through obstore."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import obstore
from chassis.deadline import bounded
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import S3Store

from vault.errors import ObjectStoreUnavailable
from vault.ports import ObjectExists, ObjectMissing, ObjectTooLarge

# R2 answers within tens of milliseconds; a slow one is repeated by the caller, who sees the state.
CALL_SECONDS = 8.0
# Larger than the largest key in base64 with its header.
MOST_OBJECT_BYTES = 4 * 1024 * 1024


class R2ObjectStore:
    """Sealed objects in one bucket."""

    def __init__(self, *, endpoint: str, bucket: str, access_key_id: str, secret_access_key: str) -> None:
        self._store = S3Store(
            bucket,
            endpoint=endpoint,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            region="auto",
            virtual_hosted_style_request=False,
            conditional_put="etag",
            client_options={"allow_http": endpoint.startswith("http://"), "timeout": "5s", "connect_timeout": "2s"},
            retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=CALL_SECONDS)},
        )

    async def create(self, name: str, data: bytes) -> None:
        """Store an object that is not there yet (`If-None-Match: *`)."""
        async with _mapped_errors():
            try:
                await obstore.put_async(self._store, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                raise ObjectExists(name) from None

    async def read(self, name: str) -> bytes:
        """Return an object."""
        async with _mapped_errors():
            try:
                result = await obstore.get_async(self._store, name)
                if result.meta["size"] > MOST_OBJECT_BYTES:
                    raise ObjectTooLarge(name)
                return bytes(await result.bytes_async())
            except (NotFoundError, FileNotFoundError):
                raise ObjectMissing(name) from None

    async def delete(self, name: str) -> None:
        """Make sure that there is no object of this name."""
        async with _mapped_errors():
            # S3 itself says yes to what is not there; not every store that speaks it does.
            with suppress(NotFoundError, FileNotFoundError):
                await obstore.delete_async(self._store, name)

    async def presign(self, name: str, lifetime: timedelta) -> str:
        """Return a URL that gives the object to whoever holds it, for this long."""
        async with _mapped_errors():
            return await obstore.sign_async(self._store, "GET", name, lifetime)


@asynccontextmanager
async def _mapped_errors() -> AsyncIterator[None]:
    try:
        async with bounded(CALL_SECONDS):
            yield
    except (BaseError, TimeoutError, OSError) as error:
        # The text of a store's error may quote a signed URL.
        raise ObjectStoreUnavailable("the object store does not answer") from error
