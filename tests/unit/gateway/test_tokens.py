"""Bearer tokens: who is let in, and every way of not being."""

import base64
import hashlib
import hmac
import json
from typing import Any

import httpx
import pytest
from gateway.auth.principal import Principal
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from tests.unit.gateway.edge_fakes import AUDIENCE, ISSUER, World

URL = "/v1/orders/order-1"


def b64(data: bytes | dict[str, Any]) -> str:
    raw = json.dumps(data).encode() if isinstance(data, dict) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def mac_token(world: World, secret: bytes, **header: object) -> str:
    signed = b64({"alg": "HS256", "kid": "es-1", "typ": "JWT", **header}) + "." + b64(world.issuer.claims())
    return signed + "." + b64(hmac.new(secret, signed.encode(), hashlib.sha256).digest())


async def status(client: httpx.AsyncClient, token: str) -> int:
    response = await client.get(URL, headers={"authorization": f"Bearer {token}"})
    if response.status_code == 401:
        assert response.json()["reason"] == "TOKEN_INVALID"
        assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    return response.status_code


async def test_good_tokens_are_let_in(world: World, client: httpx.AsyncClient) -> None:
    issuer = world.issuer
    good = [
        issuer.token(),
        issuer.sign(issuer.claims(), alg="RS256", kid="rs-1"),
        issuer.sign(issuer.claims(), typ="JWT"),
        issuer.sign(issuer.claims(), typ="application/at+jwt"),
        issuer.token(aud=["other", AUDIENCE]),
        issuer.token(nbf=world.clock.now().timestamp() + 20),
        issuer.token(exp=world.clock.now().timestamp() - 20),
        issuer.token(iat=None),
    ]
    assert [await status(client, token) for token in good] == [200] * len(good)
    assert world.fulfillments.customers[0].email == "alice@example.test"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example.test"},
        {"iss": ISSUER + "/"},
        {"iss": None},
        {"iss": [ISSUER]},
        {"aud": "other"},
        {"aud": None},
        {"aud": []},
        {"aud": ["other"]},
        {"aud": {AUDIENCE: 1}},
        {"aud": AUDIENCE.upper()},
        {"exp": None},
        {"exp": 0},
        {"exp": "9999999999"},
        {"exp": True},
        {"exp": [9999999999]},
        {"exp": 1e300},
        {"nbf": 99999999999},
        {"nbf": "soon"},
        {"iat": 99999999999},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "a" * 256},
        {"sub": ["alice"]},
        {"nonce": "from-a-login"},
    ],
)
async def test_wrong_claims_are_refused(world: World, client: httpx.AsyncClient, changes: dict[str, Any]) -> None:
    token = world.issuer.sign(world.issuer.claims(**changes), typ="JWT")
    assert await status(client, token) == 401


async def test_an_expired_token_is_refused_at_its_time(world: World, client: httpx.AsyncClient) -> None:
    token = world.issuer.token()
    world.clock.advance(329)
    assert await status(client, token) == 200
    world.clock.advance(2)
    assert await status(client, token) == 401


async def test_algorithm_confusion_is_refused(world: World, client: httpx.AsyncClient) -> None:
    public = world.issuer.rsa.as_pem(private=False)
    claims = world.issuer.claims()
    hostile = [
        mac_token(world, public),
        mac_token(world, public, kid="rs-1"),
        mac_token(world, json.dumps(world.issuer.key.as_dict(private=False)).encode()),
        mac_token(world, b""),
        b64({"alg": "none", "kid": "es-1", "typ": "JWT"}) + "." + b64(claims) + ".",
        b64({"alg": "none", "kid": "es-1", "typ": "JWT"}) + "." + b64(claims) + ".AAAA",
        b64({"alg": "None", "kid": "es-1", "typ": "JWT"}) + "." + b64(claims) + ".AAAA",
        world.issuer.sign(claims, kid="rs-1"),
        world.issuer.sign(claims, alg="RS256", kid="es-1"),
        jwt.encode({"alg": "PS256", "kid": "rs-1"}, claims, world.issuer.rsa, ["PS256"]),
        jwt.encode({"alg": "RS512", "kid": "rs-1"}, claims, world.issuer.rsa, ["RS512"]),
        jwt.encode({"alg": "HS256", "kid": "es-1"}, claims, OctKey.import_key("x" * 32)),
    ]
    assert [await status(client, token) for token in hostile] == [401] * len(hostile)


async def test_keys_from_the_header_are_never_used(world: World, client: httpx.AsyncClient) -> None:
    mine = ECKey.generate_key("P-256", {"kid": "es-1"})
    claims = world.issuer.claims()
    headers: list[dict[str, Any]] = [
        {},
        {"jwk": mine.as_dict(private=False)},
        {"jku": "https://evil.example.test/jwks"},
        {"x5u": "https://evil.example.test/cert"},
        {"x5c": ["MIIB"]},
        {"kid": "mine", "jwk": mine.as_dict(private=False)},
    ]
    hostile = [jwt.encode({"alg": "ES256", "kid": "es-1", **header}, claims, mine) for header in headers]
    assert [await status(client, token) for token in hostile] == [401] * len(hostile)
    assert "/cert" not in world.issuer.requests


@pytest.mark.parametrize(
    "header",
    [
        {"kid": None},
        {"kid": ""},
        {"kid": 7},
        {"kid": ["es-1"]},
        {"kid": "../../etc/passwd"},
        {"kid": "' OR 1=1 --"},
        {"typ": None},
        {"typ": "id+jwt"},
        {"typ": "logout+jwt"},
        {"typ": "dpop+jwt"},
        {"typ": 1},
        {"crit": ["exp"], "exp": 1},
        {"b64": False, "crit": ["b64"]},
        {"b64": False},
        {"alg": ["ES256"]},
        {"alg": None},
    ],
)
async def test_hostile_headers_are_refused(world: World, client: httpx.AsyncClient, header: dict[str, Any]) -> None:
    _, payload, signature = world.issuer.token().split(".")
    full = {"alg": "ES256", "kid": "es-1", "typ": "at+jwt", **header}
    forged = b64({name: value for name, value in full.items() if value is not None}) + f".{payload}.{signature}"
    assert await status(client, forged) == 401


async def test_damaged_tokens_are_refused(world: World, client: httpx.AsyncClient) -> None:
    token = world.issuer.token()
    header, payload, signature = token.split(".")
    other = b64(world.issuer.claims(sub="bob"))
    hostile = [
        "x",
        "..",
        f"{header}.{payload}",
        f"{header}.{payload}.",
        f"{header}.{other}.{signature}",
        f"{header}.{payload}.{signature[:-4]}AAAA",
        f"{token}.{token}",
        f"{token}.x.y",
        token.replace(".", "..", 1),
        token + "=",
        "e30." + payload + "." + signature,
        b64(b"[]") + f".{payload}.{signature}",
        b64(b"[" * 5000) + f".{payload}.{signature}",
        b64(b"\xff") + f".{payload}.{signature}",
        "a" * 9000,
        world.issuer.sign({"iss": "x" * 9000}),
    ]
    assert [await status(client, each) for each in hostile] == [401] * len(hostile)


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YTpi", "Token x", "bearer  x"])
async def test_other_authorization_headers_are_refused(client: httpx.AsyncClient, value: str) -> None:
    response = await client.get(URL, headers={"authorization": value})
    assert response.status_code == 401
    assert response.json()["reason"] == "TOKEN_INVALID"


async def test_two_authorization_headers_are_refused(world: World, client: httpx.AsyncClient) -> None:
    token = world.bearer()["authorization"]
    response = await client.get(URL, headers=[("authorization", token), ("authorization", token)])
    assert response.status_code == 401


async def test_a_bad_token_is_not_saved_by_a_good_session(world: World, client: httpx.AsyncClient) -> None:
    _, cookie = world.session()
    response = await client.get(URL, headers={**cookie, "authorization": "Bearer x"})
    assert response.status_code == 401


async def test_a_rotated_key_is_found_and_unknown_ones_ask_seldom(world: World, client: httpx.AsyncClient) -> None:
    assert await status(client, world.issuer.token()) == 200
    new = ECKey.generate_key("P-256", {"kid": "es-2"})
    world.issuer.published = [new.as_dict(private=False)]
    world.clock.advance(20)
    token = jwt.encode({"alg": "ES256", "kid": "es-2"}, world.issuer.claims(), new)
    assert await status(client, token) == 200
    before = world.issuer.requests.count("/jwks")
    for number in range(20):
        stranger = jwt.encode({"alg": "ES256", "kid": f"made-up-{number}"}, world.issuer.claims(), new)
        assert await status(client, stranger) == 401
    assert world.issuer.requests.count("/jwks") == before
    assert await status(client, world.issuer.token()) == 401


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_keys_that_cannot_sign_for_us_are_passed_over(world: World, client: httpx.AsyncClient) -> None:
    weak = RSAKey.generate_key(1024, {"kid": "weak"})
    other = ECKey.generate_key("P-384", {"kid": "p384"})
    encryption = ECKey.generate_key("P-256", {"kid": "enc", "use": "enc"})
    misfit = ECKey.generate_key("P-256", {"kid": "misfit"})
    world.issuer.published = [
        *world.issuer.published,
        weak.as_dict(private=False),
        other.as_dict(private=False),
        encryption.as_dict(private=False),
        {**misfit.as_dict(private=False), "alg": "RS256"},
        {"kty": "oct", "kid": "mac", "k": "AAAA"},
        {"kty": "EC", "kid": "broken", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "kid": "poor", "crv": "P-256"},
        {"kty": ["EC"], "kid": "odd"},
        {"kty": "EC"},
        "not a key",  # type: ignore[list-item] # an issuer may publish anything
    ]
    claims = world.issuer.claims()
    hostile = [
        jwt.encode({"alg": "RS256", "kid": "weak"}, claims, weak),
        jwt.encode(
            {"alg": "ES256", "kid": "enc"}, claims, ECKey.import_key(encryption.as_dict(private=True) | {"use": "sig"})
        ),
        jwt.encode({"alg": "ES256", "kid": "misfit"}, claims, misfit),
    ]
    assert [await status(client, token) for token in hostile] == [401] * len(hostile)
    assert await status(client, world.issuer.token()) == 200


async def test_tokens_stay_good_while_the_issuer_is_down(world: World, client: httpx.AsyncClient) -> None:
    assert await status(client, world.issuer.token()) == 200
    world.issuer.is_down = True
    world.clock.advance(3600)
    assert await status(client, world.issuer.token()) == 200
    world.clock.advance(24 * 3600)
    assert await status(client, world.issuer.token()) == 503


async def test_nobody_is_let_in_before_the_keys_are_known(world: World, client: httpx.AsyncClient) -> None:
    world.issuer.is_down = True
    response = await client.get(URL, headers=world.bearer())
    assert response.status_code == 503
    assert response.json()["reason"] == "ISSUER_UNAVAILABLE"
    assert response.headers["retry-after"]
    world.issuer.is_down = False
    world.clock.advance(2)
    assert await status(client, world.issuer.token()) == 200


@pytest.mark.parametrize("published", [{"keys": "x"}, {}, {"keys": [{"kty": "x" * 300_000}]}])
async def test_an_unusable_key_set_lets_nobody_in(world: World, published: dict[str, Any]) -> None:
    handle = world.issuer.handle

    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=published) if request.url.path == "/jwks" else handle(request)

    world.http = httpx.AsyncClient(transport=httpx.MockTransport(respond))
    async with world.client() as client:
        assert (await client.get(URL, headers=world.bearer())).status_code == 503


def test_optional_claims_of_the_wrong_type_count_as_absent() -> None:
    principal = Principal.from_claims({"sub": "alice", "email": 7, "name": "\ud800", "roles": "keyferry-admin"})
    assert principal == Principal("alice", "", "?", (), "")
