"""The issuer and the mailbox as processes: a login as a browser does it, mail as a mail client sends it."""

import asyncio
import html
import os
import re
import secrets
import smtplib
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import KeySet
from sandbox.child import Child
from sandbox.issuer.flow import challenge_of
from sandbox.ports import HOST, free_port
from sandbox.servers.waiting import wait_until

CALLBACK = "http://localhost:9/callback"


def start(package: str, folder: Path, url: str, environment: Mapping[str, str]) -> Child:
    def is_ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", timeout=1, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    child = Child(
        package,
        [sys.executable, "-m", package],
        environment={"PATH": os.environ["PATH"], **environment},
        log=folder / f"{package}.log",
    )
    child.start()
    wait_until(is_ready, child, seconds=20)
    return child


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("issuer")
    port = free_port()
    url = f"http://localhost:{port}"
    child = start(
        "sandbox.issuer",
        folder,
        url,
        {
            "ISSUER_LISTEN": f"{HOST}:{port}",
            "ISSUER_URL": url,
            "ISSUER_KEY_FILE": str(folder / "key.json"),
            "ISSUER_REDIRECT_URIS": CALLBACK,
            "OIDC_CLIENT_ID": "the edge",
            "OIDC_CLIENT_SECRET": "s3cr:t",
            "OIDC_AUDIENCE": "keyferry",
        },
    )
    yield url
    child.stop()
    assert child.exit_status == 0


@dataclass
class Post:
    url: str
    smtp_port: int
    folder: Path

    def send(self, subject: str = "Your keys", to: str = "alice@example.com") -> None:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = "keys@example.com", to, subject
        mail["Message-ID"] = f"<{secrets.token_hex(8)}@keyferry>"
        mail.set_content("A link: http://localhost:1/orders/S1\n")
        mail.add_alternative("<p>A <a href='http://localhost:1/orders/S1'>link</a><script>x</script>", subtype="html")
        with smtplib.SMTP(HOST, self.smtp_port, timeout=10) as client:
            client.send_message(mail)


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    http_port = free_port()
    post = Post(f"http://localhost:{http_port}", free_port([http_port]), tmp_path / "mail")
    child = start(
        "sandbox.mailbox",
        tmp_path,
        post.url,
        {
            "MAILBOX_SMTP_LISTEN": f"{HOST}:{post.smtp_port}",
            "MAILBOX_HTTP_LISTEN": f"{HOST}:{http_port}",
            "MAILBOX_FOLDER": str(post.folder),
        },
    )
    yield post
    child.stop()
    assert child.exit_status == 0


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        yield client


def request_of(verifier: str, **change: str) -> dict[str, str]:
    return {
        "response_type": "code",
        "client_id": "the edge",
        "redirect_uri": CALLBACK,
        "scope": "openid email profile",
        "state": "the state",
        "nonce": "the nonce",
        "code_challenge": challenge_of(verifier),
        "code_challenge_method": "S256",
        **change,
    }


async def log_in(http: httpx.AsyncClient, metadata: dict[str, str], account: str, verifier: str) -> dict[str, str]:
    """Choose an account on the login page, as a browser would, and return what comes back."""
    page = await http.get(metadata["authorization_endpoint"], params=request_of(verifier))
    assert page.status_code == 200
    hidden = dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', page.text))
    form = {name: html.unescape(value) for name, value in hidden.items()}
    answer = await http.post(metadata["authorization_endpoint"], data={**form, "account": account})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith(f"{CALLBACK}?")
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


async def discover(http: httpx.AsyncClient, issuer: str) -> dict[str, str]:
    return dict((await http.get(f"{issuer}/.well-known/openid-configuration")).json())


async def test_a_login_with_pkce_ends_in_tokens_that_verify(http: httpx.AsyncClient, issuer: str) -> None:
    metadata = await discover(http, issuer)
    assert metadata["issuer"] == issuer
    verifier = secrets.token_urlsafe(48)
    answer = await log_in(http, metadata, "alice", verifier)
    assert (answer["state"], answer["iss"]) == ("the state", issuer)
    exchange = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    # The credentials are form-encoded inside of the header (RFC 6749 2.3.1).
    response = await http.post(metadata["token_endpoint"], data=exchange, auth=("the%20edge", "s3cr%3At"))
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    tokens = response.json()
    keys = KeySet.import_key_set((await http.get(metadata["jwks_uri"])).json())
    id_token = jwt.decode(tokens["id_token"], keys, algorithms=["ES256"])
    assert (id_token.claims["aud"], id_token.claims["nonce"]) == ("the edge", "the nonce")
    access = jwt.decode(tokens["access_token"], keys, algorithms=["ES256"])
    assert (access.claims["aud"], access.claims["sub"], access.claims["iss"]) == ("keyferry", "alice", issuer)
    person = await http.get(
        metadata["userinfo_endpoint"], headers={"authorization": f"Bearer {tokens['access_token']}"}
    )
    assert person.json()["email"] == "alice@example.com"
    again = await http.post(metadata["token_endpoint"], data=exchange, auth=("the%20edge", "s3cr%3At"))
    assert (again.status_code, again.json()) == (400, {"error": "invalid_grant"})


async def test_a_wrong_verifier_gets_nothing(http: httpx.AsyncClient, issuer: str) -> None:
    metadata = await discover(http, issuer)
    answer = await log_in(http, metadata, "bob", secrets.token_urlsafe(48))
    response = await http.post(
        metadata["token_endpoint"],
        data={
            "grant_type": "authorization_code",
            "code": answer["code"],
            "redirect_uri": CALLBACK,
            "code_verifier": secrets.token_urlsafe(48),
            "client_id": "the edge",
            "client_secret": "s3cr:t",
        },
    )
    assert (response.status_code, response.json()) == (400, {"error": "invalid_grant"})


async def test_a_client_without_its_secret_gets_nothing(http: httpx.AsyncClient, issuer: str) -> None:
    metadata = await discover(http, issuer)
    verifier = secrets.token_urlsafe(48)
    answer = await log_in(http, metadata, "bob", verifier)
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": CALLBACK,
        "code_verifier": verifier,
    }
    for proof in ({}, {"client_id": "the edge", "client_secret": "wrong"}, {"client_id": "the edge"}):
        response = await http.post(metadata["token_endpoint"], data=form | proof)
        assert (response.status_code, response.json()) == (401, {"error": "invalid_client"})


async def test_an_unknown_callback_is_not_redirected_to(http: httpx.AsyncClient, issuer: str) -> None:
    query = request_of("v" * 43, redirect_uri="http://evil.example/callback")
    page = await http.get(f"{issuer}/authorize", params=query)
    assert page.status_code == 400
    assert "location" not in page.headers


async def test_a_login_without_pkce_is_refused(http: httpx.AsyncClient, issuer: str) -> None:
    query = request_of("v" * 43)
    del query["code_challenge"]
    answer = await http.get(f"{issuer}/authorize", params=query)
    assert answer.status_code == 303
    assert "error=invalid_request" in answer.headers["location"]
    assert "state=the+state" in answer.headers["location"]


async def test_an_account_that_is_not_there_is_denied(http: httpx.AsyncClient, issuer: str) -> None:
    answer = await http.post(f"{issuer}/authorize", data=request_of("v" * 43) | {"account": "mallory"})
    assert "error=access_denied" in answer.headers["location"]


async def test_a_logout_leads_back_to_registered_places_only(http: httpx.AsyncClient, issuer: str) -> None:
    there = await http.get(f"{issuer}/logout", params={"post_logout_redirect_uri": "http://localhost:9/bye"})
    assert there.headers["location"] == "http://localhost:9/bye"
    elsewhere = await http.get(f"{issuer}/logout", params={"post_logout_redirect_uri": "http://evil.example/"})
    assert elsewhere.status_code == 200
    assert "location" not in elsewhere.headers


async def test_a_bad_token_is_told_nothing(http: httpx.AsyncClient, issuer: str) -> None:
    for header in ({}, {"authorization": "Bearer x.y.z"}, {"authorization": "Basic abc"}):
        assert (await http.get(f"{issuer}/userinfo", headers=header)).status_code == 401


async def test_mail_is_kept_and_shown(http: httpx.AsyncClient, post: Post) -> None:
    await asyncio.to_thread(post.send, "Your <keys>")
    listed = (await http.get(f"{post.url}/messages")).json()
    assert [(mail["subject"], mail["to"]) for mail in listed] == [("Your <keys>", ["alice@example.com"])]
    mail = (await http.get(f"{post.url}/messages/{listed[0]['id']}")).json()
    assert "http://localhost:1/orders/S1" in mail["text"]
    assert "<a href=" in mail["html"]
    assert ["Subject", "Your <keys>"] in mail["headers"]
    page = await http.get(f"{post.url}/")
    assert "Your &lt;keys&gt;" in page.text
    shown = await http.get(f"{post.url}/mail/{listed[0]['id']}")
    assert 'sandbox="' in shown.text
    assert "<script>" not in shown.text
    assert len(list(post.folder.glob("*.eml"))) == 1


async def test_a_message_can_show_itself_and_do_nothing(http: httpx.AsyncClient, post: Post) -> None:
    await asyncio.to_thread(post.send)
    message_id = (await http.get(f"{post.url}/messages")).json()[0]["id"]
    policy = (await http.get(f"{post.url}/mail/{message_id}/html")).headers["content-security-policy"]
    assert policy.startswith("sandbox ")
    assert "allow-scripts" not in policy
    assert "default-src 'none'" in policy


async def test_mail_can_be_removed(http: httpx.AsyncClient, post: Post) -> None:
    await asyncio.to_thread(post.send)
    assert (await http.delete(f"{post.url}/messages")).json() == {"removed": 1}
    assert (await http.get(f"{post.url}/messages")).json() == []
    assert (await http.get(f"{post.url}/messages/none")).status_code == 404


@pytest.mark.parametrize(
    ("mode", "error", "kept"),
    [
        ("refuse", smtplib.SMTPDataError, 0),
        ("defer", smtplib.SMTPDataError, 0),
        ("drop", smtplib.SMTPServerDisconnected, 0),
        ("lose_answer", smtplib.SMTPServerDisconnected, 1),
    ],
)
async def test_the_server_can_have_a_bad_day(
    http: httpx.AsyncClient, post: Post, mode: str, error: type[Exception], kept: int
) -> None:
    assert (await http.post(f"{post.url}/control", json={"mode": mode, "count": 1})).status_code == 200
    with pytest.raises(error):
        await asyncio.to_thread(post.send)
    assert len((await http.get(f"{post.url}/messages")).json()) == kept
    await asyncio.to_thread(post.send)
    assert len((await http.get(f"{post.url}/messages")).json()) == kept + 1


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"mode": "sulk"}', b'{"mode": "drop", "count": "x"}'])
async def test_nonsense_does_not_change_the_behavior(http: httpx.AsyncClient, post: Post, body: bytes) -> None:
    assert (await http.post(f"{post.url}/control", content=body)).status_code == 400
    assert (await http.get(f"{post.url}/control")).json() == {"mode": "accept", "count": None}
