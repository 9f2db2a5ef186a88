"""KEKs in the Transit engine of HashiCorp Vault or OpenBao, over its HTTP API.

wrapped DEK     the ciphertext as Transit gave it, such as vault:v3:…, in ASCII; Transit's AES-256-GCM, whose AAD
                (`associated_data`) is crypto.dek_aad of the key and the version below
version         transit:<name of the Transit key>:v3

Transit's own `rewrap` takes no associated data, so that what is bound cannot go through it: a DEK is moved by
unwrapping and wrapping. The Transit key is an operator's to make and rotate: its policy gives vault `update` on encrypt
and decrypt and `read` on the key, and nothing else.
"""

import asyncio
import base64
import binascii
import logging
import re
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import httpx
import structlog
from chassis.deadline import bounded
from chassis.failpoints import effect
from chassis.secret import SecretBytes
from chassis.tracing import span
from httpx_aiohttp import AiohttpTransport
from opentelemetry.trace import SpanKind

from vault.crypto import DEK_BYTES, dek_aad
from vault.domain.kek import KekVersions
from vault.domain.key import WrappedDek
from vault.errors import KeyEncryptionUnavailable, SecretVersionMissing
from vault.metrics import TRANSIT_CALLS

logger = structlog.get_logger(__name__)

# Transit answers within milliseconds; a customer waits for some of these calls.
CALL_SECONDS = 5.0
CONNECT_SECONDS = 2.0
# What Transit does it may do twice: a call that got no answer is made again, within the same deadline.
PAUSES_SECONDS = (0.0, 0.1, 0.4)
# A rotation is noticed after at most this long; until then the version of before wraps, which is as good.
FRESH_SECONDS = 30.0
CONNECTIONS = 16
# The column's limit.
MOST_WRAPPED_BYTES = 512
TOKEN_PAUSE_SECONDS = 30.0
LONGEST_TOKEN_PAUSE_SECONDS = 3600.0
KEY_TYPE = "aes256-gcm96"

_OK, _BAD_REQUEST = 200, 400
# Sealed, in standby, not caught up, too busy, or a proxy in between: asked again.
_PASSING = frozenset({412, 429, 472, 473, *range(500, 600)})
_CIPHERTEXT = re.compile(rb"vault:v([1-9][0-9]{0,8}):[A-Za-z0-9+/=]+")
# What Transit says of a ciphertext that was changed or is bound to something else; it has no codes.
_DOES_NOT_OPEN = ("message authentication failed", "invalid ciphertext", "unable to decrypt", "illegal base64")
_NOT_THIS_VERSION = ("too old", "too new", "no such key version")


class TransitKeks:
    """Implements `vault.ports.KekHolder` with one Transit key."""

    def __init__(self, client: httpx.AsyncClient, *, mount: str, key: str) -> None:
        self._client = client
        self._mount = quote(mount.strip("/"))
        self._key = quote(key, safe="")
        self._prefix = f"transit:{key}:v"
        self._latest = 0
        self._fresh_until = 0.0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, address: str, *, token: str, mount: str, key: str, namespace: str = "", ca_file: Path | None = None
    ) -> AsyncIterator["TransitKeks"]:
        """Make a pool of connections; Transit is first asked when something is wrapped or unwrapped."""
        # At its usual level it would write every URL.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        trusted = ssl.create_default_context(cafile=ca_file)
        async with httpx.AsyncClient(
            base_url=address.rstrip("/") + "/v1/",
            headers={
                "x-vault-token": token,
                # Refused by servers and agents that guard against requests made by somebody else's page.
                "x-vault-request": "true",
                **({"x-vault-namespace": namespace} if namespace else {}),
            },
            transport=AiohttpTransport(client=lambda: _session(trusted)),
            timeout=httpx.Timeout(CALL_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,
        ) as client:
            yield cls(client, mount=mount, key=key)

    def names(self, version: str) -> bool:
        """See the port."""
        return version.startswith(self._prefix) and version.removeprefix(self._prefix).isdecimal()

    async def versions(self) -> KekVersions:
        """See the port. Raises KeyEncryptionUnavailable also for a key that cannot hold KEKs."""
        key = await self._call("read_key", "GET", f"{self._mount}/keys/{self._key}")
        try:
            kind, derived = key["type"], key.get("derived", False)
            latest = int(key["latest_version"])
            lowest = max(1, int(key.get("min_decryption_version", 1)), int(key.get("min_available_version", 0)))
        except (KeyError, TypeError, ValueError):
            raise _unreadable("read_key") from None
        if kind != KEY_TYPE or derived:
            raise KeyEncryptionUnavailable(
                f"the transit key cannot wrap: it must be of type {KEY_TYPE} and not derived",
                metadata={"type": str(kind), "derived": str(derived).lower()},
            )
        self._latest, self._fresh_until = latest, _now() + FRESH_SECONDS
        return KekVersions(self._name(latest), frozenset(map(self._name, range(lowest, latest + 1))))

    async def wrap(self, deks: Sequence[tuple[str, SecretBytes]]) -> Sequence[WrappedDek]:
        """See the port."""
        if not deks:
            return ()
        if _now() >= self._fresh_until:
            await self.versions()
        version = self._latest
        name = self._name(version)
        batch = [
            {
                "plaintext": _encode(dek.expose()),
                "associated_data": _encode(dek_aad(key_id, name)),
                "key_version": version,
            }
            for key_id, dek in deks
        ]
        results = await self._batch("encrypt", batch)
        return [self._wrapped(result, name) for result in results]

    async def unwrap(self, wrapped: Sequence[tuple[str, WrappedDek]]) -> Sequence[SecretBytes | None]:
        """See the port."""
        asked = [place for place, (_, each) in enumerate(wrapped) if self._is_named_right(each)]
        batch = [
            {
                "ciphertext": wrapped[place][1].data.decode("ascii"),
                "associated_data": _encode(dek_aad(wrapped[place][0], wrapped[place][1].kek_version)),
            }
            for place in asked
        ]
        results = await self._batch("decrypt", batch) if batch else []
        found: list[SecretBytes | None] = [None] * len(wrapped)
        for place, result in zip(asked, results, strict=True):
            found[place] = _opened(result, wrapped[place][1].kek_version)
        return found

    async def keep_token(self) -> None:
        """Renew the token until canceled, well before it ends; return when it is none that ends or can be renewed."""
        while True:
            try:
                auth = await self._call("renew_token", "POST", "auth/token/renew-self", part="auth")
                lifetime, renewable = float(auth["lease_duration"]), bool(auth["renewable"])
            except (KeyEncryptionUnavailable, KeyError, TypeError, ValueError) as error:
                status = error.metadata.get("status") if isinstance(error, KeyEncryptionUnavailable) else None
                if status == str(_BAD_REQUEST):
                    logger.info("the token for transit is none that is renewed")
                    return
                logger.warning("the token for transit was not renewed")
                await asyncio.sleep(TOKEN_PAUSE_SECONDS)
                continue
            if not renewable or lifetime <= 0:
                return
            await asyncio.sleep(min(lifetime / 3, LONGEST_TOKEN_PAUSE_SECONDS))

    def _name(self, version: int) -> str:
        return f"{self._prefix}{version}"

    def _is_named_right(self, wrapped: WrappedDek) -> bool:
        match = _CIPHERTEXT.fullmatch(wrapped.data)
        return match is not None and wrapped.kek_version == self._name(int(match[1]))

    def _wrapped(self, result: Mapping[str, Any], name: str) -> WrappedDek:
        if result.get("error"):
            # It may be that the version of a moment ago may not wrap any more: the next call asks which one may.
            self._fresh_until = 0.0
            raise KeyEncryptionUnavailable("transit did not wrap")
        ciphertext = result.get("ciphertext")
        if not isinstance(ciphertext, str) or not ciphertext.isascii():
            raise _unreadable("encrypt")
        wrapped = WrappedDek(ciphertext.encode("ascii"), name)
        if not self._is_named_right(wrapped) or len(wrapped.data) > MOST_WRAPPED_BYTES:
            raise _unreadable("encrypt")
        return wrapped

    async def _batch(self, operation: str, batch: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
        path = f"{self._mount}/{operation}/{self._key}"
        results = (await self._call(operation, "POST", path, {"batch_input": batch})).get("batch_results")
        if (
            not isinstance(results, list)
            or len(results) != len(batch)
            or not all(isinstance(each, dict) for each in results)
        ):
            raise _unreadable(operation)
        return results

    async def _call(
        self, operation: str, method: str, path: str, body: Mapping[str, Any] | None = None, part: str = "data"
    ) -> Mapping[str, Any]:
        """Call Transit, again where that can help, and return the part of its answer that holds what was asked for."""
        outcome = "no answer"
        try:
            async with bounded(CALL_SECONDS):
                for pause in PAUSES_SECONDS:
                    await asyncio.sleep(pause)
                    try:
                        answer = await self._exchange(operation, method, path, body)
                    except (httpx.HTTPError, aiohttp.ClientError, OSError) as error:
                        outcome = type(error).__name__
                    else:
                        outcome = str(answer.status_code)
                        if answer.status_code not in _PASSING:
                            return _understood(operation, answer, part)
                    TRANSIT_CALLS.labels(operation, "again").inc()
        except TimeoutError:
            outcome = "too slow"
        logger.warning("transit does not answer", operation=operation, outcome=outcome)
        raise KeyEncryptionUnavailable("transit does not answer", metadata={"operation": operation})

    async def _exchange(self, operation: str, method: str, path: str, body: Mapping[str, Any] | None) -> httpx.Response:
        with span(f"transit {operation}", kind=SpanKind.CLIENT):
            return await effect(f"vault.transit.{operation}", lambda: self._client.request(method, path, json=body))


def _session(trusted: ssl.SSLContext) -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=trusted)
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())


def _now() -> float:
    return asyncio.get_running_loop().time()


def _understood(operation: str, answer: httpx.Response, part: str) -> Mapping[str, Any]:
    """Return what an answer holds: also of a refused batch, whose items say why by themselves."""
    status = answer.status_code
    try:
        content = answer.json()
    except ValueError:
        content = None
    found = content.get(part) if isinstance(content, dict) else None
    if isinstance(found, dict) and (status == _OK or (status == _BAD_REQUEST and "batch_results" in found)):
        TRANSIT_CALLS.labels(operation, "answered").inc()
        return found
    TRANSIT_CALLS.labels(operation, "refused").inc()
    # Its words are about keys and policies, but they are a stranger's: the status says enough.
    logger.warning("transit refused", operation=operation, status=status)
    raise KeyEncryptionUnavailable("transit refused", metadata={"operation": operation, "status": str(status)})


def _opened(result: Mapping[str, Any], version: str) -> SecretBytes | None:
    if error := str(result.get("error") or ""):
        if any(words in error for words in _NOT_THIS_VERSION):
            raise SecretVersionMissing(
                "a key is under a version of the transit key that cannot be used", metadata={"version": version}
            )
        if any(words in error for words in _DOES_NOT_OPEN):
            return None
        raise KeyEncryptionUnavailable("transit did not unwrap")
    try:
        dek = base64.b64decode(str(result["plaintext"]), validate=True)
    except (KeyError, binascii.Error):
        raise _unreadable("decrypt") from None
    return SecretBytes(dek) if len(dek) == DEK_BYTES else None


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _unreadable(operation: str) -> KeyEncryptionUnavailable:
    return KeyEncryptionUnavailable("transit's answer cannot be understood", metadata={"operation": operation})
