"""The sandbox's own secrets: random, made once, readable by their owner only."""

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path

from sandbox.files import write_atomically
from sandbox.servers.postgres import role_names

_TOKEN_BYTES = 24
_KEY_BYTES = 32


def _token() -> str:
    return secrets.token_urlsafe(_TOKEN_BYTES)


def _keyring() -> str:
    return "v1:" + base64.urlsafe_b64encode(secrets.token_bytes(_KEY_BYTES)).rstrip(b"=").decode()


def _access_key() -> str:
    return secrets.token_hex(10)


_MAKERS: Mapping[str, Callable[[], str]] = {
    "POSTGRES_PASSWORD": _token,
    **{f"{role.upper()}_PASSWORD": _token for role in role_names()},
    "KEY_ENCRYPTION_SECRET": _keyring,
    "KEYFERRY_DIGEST_SECRET": _keyring,
    "KEYFERRY_AUDIT_SECRET": _keyring,
    "KEYFERRY_CHECKPOINT_SECRET": _keyring,
    "KEYFERRY_SESSION_SECRET": _keyring,
    "KINGUIN_API_KEY": _token,
    "KINGUIN_WEBHOOK_SECRET": _token,
    "OIDC_CLIENT_SECRET": _token,
    "R2_ACCESS_KEY_ID": _access_key,
    "R2_SECRET_ACCESS_KEY": _token,
}


def ensure_secrets(path: Path) -> Mapping[str, str]:
    """Return every secret by name; those that are not in the file yet are made and added to it."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        kept = {}
    known = {name: kept.get(name) or make() for name, make in _MAKERS.items()}
    if known != kept:
        write_atomically(path, json.dumps(known, indent=2) + "\n")
    return known


def role_password(known: Mapping[str, str], role: str) -> str:
    """Return the password of a database role."""
    return known[f"{role.upper()}_PASSWORD"]
