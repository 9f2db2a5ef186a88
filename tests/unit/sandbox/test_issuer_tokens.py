import stat
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sandbox.issuer.accounts import ACCOUNTS
from sandbox.issuer.tokens import Mint, SigningKey

ISSUER = "http://localhost:1"
NOW = 1_800_000_000


def claims_of(key: SigningKey, token: str) -> dict[str, object]:
    keys = KeySet.import_key_set(key.public_keys())  # type: ignore[arg-type] # a plain dict is what a client has
    return dict(jwt.decode(token, keys, algorithms=["ES256"]).claims)


def test_an_access_token_says_who_for_whom_and_until_when(tmp_path: Path) -> None:
    key = SigningKey.ensure(tmp_path / "key.json")
    mint = Mint(key, issuer=ISSUER, audience="keyferry")
    claims = claims_of(key, mint.access_token(ACCOUNTS["bob"], now=NOW))
    assert claims | {"jti": ""} == {
        "iss": ISSUER,
        "sub": "bob",
        "aud": "keyferry",
        "iat": NOW,
        "nbf": NOW,
        "exp": NOW + 3600,
        "jti": "",
        "name": "Bob Bauer",
        "email": "bob@example.com",
        "email_verified": True,
        "locale": "de",
        "roles": [],
    }


def test_the_admin_role_can_be_asked_for(tmp_path: Path) -> None:
    key = SigningKey.ensure(tmp_path / "key.json")
    token = Mint(key, issuer=ISSUER, audience="keyferry").access_token(ACCOUNTS["alice"], now=NOW, admin=True)
    assert claims_of(key, token)["roles"] == ["keyferry-admin"]


def test_an_id_token_is_for_the_client_and_answers_its_nonce(tmp_path: Path) -> None:
    key = SigningKey.ensure(tmp_path / "key.json")
    mint = Mint(key, issuer=ISSUER, audience="keyferry")
    claims = claims_of(key, mint.id_token(ACCOUNTS["alice"], client_id="edge", nonce="n", now=NOW))
    assert (claims["aud"], claims["nonce"]) == ("edge", "n")


def test_tokens_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    token = Mint(SigningKey.ensure(path), issuer=ISSUER, audience="k").access_token(ACCOUNTS["alice"], now=NOW)
    assert claims_of(SigningKey.ensure(path), token)["sub"] == "alice"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_only_the_public_half_is_published(tmp_path: Path) -> None:
    published = SigningKey.ensure(tmp_path / "key.json").public_keys()["keys"]
    assert isinstance(published, list)
    assert set(published[0]) == {"kty", "crv", "x", "y", "kid", "use", "alg"}


def test_a_token_of_another_key_is_refused(tmp_path: Path) -> None:
    other = Mint(SigningKey.ensure(tmp_path / "other.json"), issuer=ISSUER, audience="k")
    with pytest.raises((JoseError, ValueError)):
        SigningKey.ensure(tmp_path / "key.json").read(other.access_token(ACCOUNTS["alice"], now=NOW))
