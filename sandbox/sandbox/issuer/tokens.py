"""The signing key, kept on disk so that tokens survive a restart, and the tokens signed with it."""

import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import ECKey

from sandbox.files import write_atomically
from sandbox.issuer.accounts import ADMIN_ROLE, Account

ALGORITHM = "ES256"
ACCESS_SECONDS = 3600
_ID_SECONDS = 600


class SigningKey:
    """An ES256 key with a name."""

    def __init__(self, key: ECKey) -> None:
        self._key = key
        self.key_id = key.thumbprint()

    @classmethod
    def ensure(cls, path: Path) -> "SigningKey":
        """Read the key, or make it."""
        try:
            return cls(ECKey.import_key(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            key = ECKey.generate_key("P-256", private=True)
            write_atomically(path, json.dumps(key.as_dict(private=True)))
            return cls(key)

    def public_keys(self) -> dict[str, object]:
        """Return the JWK set."""
        public = {**self._key.as_dict(private=False), "kid": self.key_id, "use": "sig", "alg": ALGORITHM}
        return {"keys": [public]}

    def sign(self, claims: dict[str, object], *, kind: str) -> str:
        """Return a compact JWT; `kind` is its `typ`."""
        header = {"alg": ALGORITHM, "typ": kind, "kid": self.key_id}
        return jwt.encode(header, claims, self._key, algorithms=[ALGORITHM])

    def read(self, token: str) -> dict[str, object]:
        """Return the claims of a token of ours, without looking at its times. Raises JoseError or ValueError."""
        return dict(jwt.decode(token, self._key, algorithms=[ALGORITHM]).claims)


@dataclass(frozen=True, slots=True)
class Mint:
    """Makes tokens of one issuer for one audience."""

    key: SigningKey
    issuer: str
    audience: str

    def access_token(self, account: Account, *, now: int, seconds: int = ACCESS_SECONDS, admin: bool = False) -> str:
        """Return an access token (RFC 9068); `admin` adds the role."""
        claims = self._claims(account, audience=self.audience, now=now, seconds=seconds)
        if admin:
            claims["roles"] = sorted({*account.roles, ADMIN_ROLE})
        return self.key.sign(claims, kind="at+jwt")

    def id_token(self, account: Account, *, client_id: str, nonce: str, now: int) -> str:
        """Return an ID token for the client that asked with this nonce."""
        claims = self._claims(account, audience=client_id, now=now, seconds=_ID_SECONDS)
        if nonce:
            claims["nonce"] = nonce
        return self.key.sign(claims, kind="JWT")

    def _claims(self, account: Account, *, audience: str, now: int, seconds: int) -> dict[str, object]:
        return {
            "iss": self.issuer,
            "sub": account.subject,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + seconds,
            "jti": str(uuid.uuid4()),
            **account.claims(),
        }
