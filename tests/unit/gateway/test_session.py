"""Sessions, CSRF and the login."""

import base64
import hashlib
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from chassis.keyring import Keyring
from gateway.auth.cookies import CookieSealer
from gateway.auth.login import FLOW_COOKIE
from gateway.auth.principal import Principal
from gateway.auth.session import COOKIE

from tests.unit.gateway.edge_fakes import CLIENT_ID, ISSUER, ORIGIN, World, an_order, one_time_key

HTML = {"accept": "text/html"}
LINK = "/v1/orders/order-1/keys/key-order-1-1/download-link"
OWN_PAGE = {"origin": ORIGIN, "sec-fetch-site": "same-origin"}


async def begin_login(client: httpx.AsyncClient, next_path: str = "/orders/order-1") -> dict[str, str]:
    response = await client.get("/login", params={"next": next_path})
    assert response.status_code == 303
    url = urlsplit(response.headers["location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{ISSUER}/authorize"
    return {name: values[0] for name, values in parse_qs(url.query).items()}


async def come_back(
    world: World, client: httpx.AsyncClient, question: dict[str, str], **changes: str
) -> httpx.Response:
    world.issuer.id_token_claims = {"nonce": question["nonce"], "name": "Alice", **world.issuer.id_token_claims}
    answer = {"code": "the-code", "state": question["state"], "iss": ISSUER, **changes}
    return await client.get("/callback", params={name: value for name, value in answer.items() if value}, headers=HTML)


async def test_a_login_leads_back_to_where_it_began(world: World, client: httpx.AsyncClient) -> None:
    question = await begin_login(client)
    response = await come_back(world, client, question)
    assert (response.status_code, response.headers["location"]) == (303, "/orders/order-1")
    challenge = hashlib.sha256(world.issuer.exchanged["code_verifier"].encode()).digest()
    assert question["code_challenge"] == base64.urlsafe_b64encode(challenge).rstrip(b"=").decode()
    assert question["code_challenge_method"] == "S256"
    assert (
        base64.b64decode(world.issuer.authorization.removeprefix("Basic ")) == f"{CLIENT_ID}:client%3Asecret".encode()
    )
    cookies = response.headers.get_list("set-cookie")
    session = next(cookie for cookie in cookies if cookie.startswith(f"{COOKIE}=eyJ"))
    assert {part.strip().lower() for part in session.split(";")[1:]} >= {"secure", "httponly", "path=/", "samesite=lax"}
    assert "domain" not in session.lower()
    page = await client.get("/orders/order-1", headers=HTML)
    assert page.status_code == 200
    assert "alice@example.test" in page.text


async def test_a_client_may_have_to_send_its_secret_in_the_form(world: World, client: httpx.AsyncClient) -> None:
    world.issuer.auth_methods = ["client_secret_post"]
    question = await begin_login(client)
    assert (await come_back(world, client, question)).status_code == 303
    assert world.issuer.exchanged["client_secret"] == "client:secret"
    assert world.issuer.authorization == ""


@pytest.mark.parametrize(
    "changes",
    [{"state": "other"}, {"state": ""}, {"code": ""}, {"error": "access_denied"}, {"iss": "https://evil.example.test"}],
)
async def test_a_foreign_answer_is_refused(world: World, client: httpx.AsyncClient, changes: dict[str, str]) -> None:
    question = await begin_login(client)
    response = await come_back(world, client, question, **changes)
    assert response.status_code == 400
    assert "LOGIN_FAILED" in response.text
    assert COOKIE not in client.cookies
    assert world.issuer.exchanged == {}


@pytest.mark.parametrize(
    "claims",
    [
        {"nonce": "other"},
        {"aud": "other"},
        {"aud": ["keyferry-edge", "other"]},
        {"aud": ["keyferry-edge", "other"], "azp": "other"},
        {"azp": "other"},
        {"iss": "https://evil.example.test"},
        {"exp": 1},
        {"sub": None},
    ],
)
async def test_a_wrong_id_token_is_refused(world: World, client: httpx.AsyncClient, claims: dict[str, object]) -> None:
    question = await begin_login(client)
    world.issuer.id_token_claims = {"nonce": question["nonce"], **claims}
    response = await client.get("/callback", params={"code": "c", "state": question["state"]}, headers=HTML)
    assert response.status_code == 400
    assert COOKIE not in client.cookies


async def test_an_id_token_for_several_audiences_names_us(world: World, client: httpx.AsyncClient) -> None:
    question = await begin_login(client)
    world.issuer.id_token_claims = {"aud": [CLIENT_ID, "other"], "azp": CLIENT_ID}
    assert (await come_back(world, client, question)).status_code == 303


async def test_a_login_that_took_too_long_is_refused(world: World, client: httpx.AsyncClient) -> None:
    question = await begin_login(client)
    world.clock.advance(601)
    assert (await come_back(world, client, question)).status_code == 400


async def test_an_answer_without_a_question_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.get("/callback", params={"code": "c", "state": "s"}, headers=HTML)
    assert response.status_code == 400


async def test_a_session_cookie_is_no_login_cookie(world: World, client: httpx.AsyncClient) -> None:
    _, cookie = world.session()
    value = cookie["cookie"].partition("=")[2]
    response = await client.get("/callback?code=c&state=s", headers={**HTML, "cookie": f"{FLOW_COOKIE}={value}"})
    assert response.status_code == 400


@pytest.mark.parametrize(("status", "expected"), [(400, 400), (500, 503)])
async def test_a_refused_code_is_told_apart_from_an_outage(
    world: World, client: httpx.AsyncClient, status: int, expected: int
) -> None:
    question = await begin_login(client)
    world.issuer.token_status = status
    assert (await come_back(world, client, question)).status_code == expected


async def test_an_issuer_that_is_down_is_told_honestly(world: World, client: httpx.AsyncClient) -> None:
    question = await begin_login(client)
    world.issuer.is_down = True
    answer = await come_back(world, client, question)
    assert answer.status_code == 503
    assert 'href="/login"' in answer.text
    world.clock.advance(25 * 3600)
    response = await client.get("/login?next=/orders/order-1", headers=HTML)
    assert response.status_code == 503
    assert "ISSUER_UNAVAILABLE" in response.text
    assert 'href="/login?next=/orders/order-1"' in response.text


@pytest.mark.parametrize(
    "path",
    ["https://evil.example.test", "//evil.example.test", "/\\evil.example.test", "/a\r\nb", "javascript:alert(1)", ""],
)
async def test_a_login_never_leads_to_another_site(world: World, client: httpx.AsyncClient, path: str) -> None:
    question = await begin_login(client, path)
    assert (await come_back(world, client, question)).headers["location"] == "/"


async def test_who_is_logged_in_goes_straight_on(world: World, client: httpx.AsyncClient) -> None:
    _, cookie = world.session()
    response = await client.get("/login?next=/orders/order-1", headers=cookie)
    assert (response.status_code, response.headers["location"]) == (303, "/orders/order-1")


async def test_logging_out_ends_copies_of_the_cookie_too(world: World, client: httpx.AsyncClient) -> None:
    session, cookie = world.session()
    assert (await client.get("/", headers={**HTML, **cookie})).status_code == 200
    asked = await client.get("/logout", headers={**HTML, **cookie})
    assert "Log out?" in asked.text
    refused = await client.post("/logout", data={"csrf_token": "x"}, headers={**HTML, **cookie, **OWN_PAGE})
    assert refused.status_code == 403
    done = await client.post("/logout", data={"csrf_token": session.csrf_token}, headers={**HTML, **cookie, **OWN_PAGE})
    assert (done.status_code, done.headers["location"]) == (303, "/logout")
    assert (await client.get("/", headers={**HTML, **cookie})).status_code == 303
    assert (await client.get("/v1/orders", headers=cookie)).status_code == 401
    assert "You are logged out" in (await client.get("/logout", headers=HTML)).text
    assert (await client.post("/logout", headers=HTML)).status_code == 303


async def test_ended_sessions_are_forgotten_once_they_would_have_expired(world: World) -> None:
    for _ in range(3):
        world.sessions.end(world.session()[0])
    world.clock.advance(3601)
    last = world.session()[0]
    world.sessions.end(last)
    assert set(world.sessions._ended) == {last.session_id}


async def test_a_session_ends_by_itself(world: World, client: httpx.AsyncClient) -> None:
    _, cookie = world.session()
    world.clock.advance(3599)
    assert (await client.get("/v1/orders", headers=cookie)).status_code == 200
    world.clock.advance(2)
    assert (await client.get("/v1/orders", headers=cookie)).status_code == 401


async def test_tampered_cookies_are_no_session(world: World, client: httpx.AsyncClient) -> None:
    value = world.session()[1]["cookie"].partition("=")[2]
    header, key, iv, text, tag = value.split(".")
    swapped = "A" if text[0] != "A" else "B"
    other = CookieSealer(Keyring.parse("v1:" + "oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8"), purpose="session")
    login = CookieSealer(world.keyring, purpose="login")
    claims = {"sid": "a", "csrf": "b", "exp": 99999999999, "sub": "alice"}
    hostile = [
        "",
        "x",
        "....",
        f"{header}.{key}.{iv}.{swapped}{text[1:]}.{tag}",
        f"{header}.{key}.{iv}.{text}.{'A' if tag[0] != 'A' else 'B'}{tag[1:]}",
        f"{header}.{key}.{iv}.{text}",
        value + "." + value,
        "e" * 5000,
        other.seal(claims),
        login.seal(claims),
        CookieSealer(world.keyring, purpose="session").seal({"sub": "alice"}),
        CookieSealer(world.keyring, purpose="session").seal(claims | {"exp": "never"}),
        CookieSealer(world.keyring, purpose="session").seal([1]),  # type: ignore[arg-type] # hostile on purpose
    ]
    for cookie in hostile:
        response = await client.get("/v1/orders", headers={"cookie": f"{COOKIE}={cookie}"})
        assert response.status_code == 401, cookie
        assert response.json()["reason"] == "LOGIN_REQUIRED"


async def test_a_rotated_session_secret_keeps_sessions(world: World) -> None:
    old = world.keyring
    new = Keyring.parse("v2:oKGio6SlpqeoqaqrrK2ur7CxsrO0tba3uLm6u7y9vr8,v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
    value = CookieSealer(old, purpose="session").seal({"a": 1})
    assert CookieSealer(new, purpose="session").open(value) == {"a": 1}
    assert CookieSealer(old, purpose="session").open(CookieSealer(new, purpose="session").seal({"a": 1})) is None


async def test_hundreds_of_roles_still_fit_a_cookie(world: World) -> None:
    roles = (*(f"role-{number}-of-many" for number in range(300)), "keyferry-admin")
    _, cookie = world.session(roles=roles)
    value = cookie["cookie"].partition("=")[2]
    assert len(value) < 3800
    session = world.sessions.read(value)
    assert session is not None
    assert session.principal.roles == ("keyferry-admin",)
    assert session.name == "Alice"


async def test_the_longest_claims_still_fit_a_cookie(world: World) -> None:
    claims = {"sub": "s" * 255, "email": "e" * 320, "name": "\U0001f511" * 400, "locale": "l" * 400}
    _, value = world.sessions.begin(Principal.from_claims(claims))
    assert len(value) < 3800
    session = world.sessions.read(value)
    assert session is not None
    assert session.principal.subject == claims["sub"]


async def test_a_session_opens_keys_only_for_our_own_pages(world: World, client: httpx.AsyncClient) -> None:
    session, cookie = world.session()
    body = {"recipient_jwk": one_time_key()[1]}
    token = {"x-csrf-token": session.csrf_token}
    good = [
        OWN_PAGE,
        {"origin": ORIGIN},
        {"origin": "null", "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin"},
    ]
    for headers in good:
        assert (await client.post(LINK, json=body, headers={**cookie, **token, **headers})).status_code == 200
    opened = len(world.fulfillments.requests)
    bad = [
        {**token},
        {**token, "origin": "https://evil.example.test"},
        {**token, "origin": ORIGIN + ".evil.example.test"},
        {**token, "origin": "null"},
        {**token, "origin": "null", "sec-fetch-site": "cross-site"},
        {**token, "sec-fetch-site": "same-site"},
        {**OWN_PAGE},
        {**OWN_PAGE, "x-csrf-token": ""},
        {**OWN_PAGE, "x-csrf-token": "wrong"},
        {**OWN_PAGE, "x-csrf-token": world.session("bob")[0].csrf_token},
    ]
    for headers in bad:
        response = await client.post(LINK, json=body, headers={**cookie, **headers})
        assert response.status_code == 403, headers
        assert response.json()["reason"] == "CSRF_REJECTED"
    assert len(world.fulfillments.requests) == opened


async def test_a_bearer_token_needs_no_csrf_proof(world: World, client: httpx.AsyncClient) -> None:
    response = await client.post(LINK, json={"recipient_jwk": one_time_key()[1]}, headers=world.bearer())
    assert response.status_code == 200


async def test_a_page_without_session_leads_to_the_login(world: World, client: httpx.AsyncClient) -> None:
    world.fulfillments.put("alice", an_order("order-2"))
    response = await client.get("/orders/order-2?a=1&b=2", headers=HTML)
    assert response.status_code == 303
    assert response.headers["location"] == "/login?next=/orders/order-2%3Fa%3D1%26b%3D2"
    posted = await client.post("/orders/order-2/keys/k", headers=HTML)
    assert posted.status_code == 401
