import dataclasses

import pytest
from sandbox.issuer.accounts import ACCOUNTS, account_of
from sandbox.issuer.flow import (
    CODE_SECONDS,
    AuthorizationRequest,
    Client,
    Codes,
    FlowError,
    UnknownClient,
    challenge_of,
)

CALLBACK = "http://localhost:1/callback"
CLIENT = Client("edge", "the secret", (CALLBACK,))
VERIFIER = "v" * 43
QUERY = {
    "response_type": "code",
    "client_id": "edge",
    "redirect_uri": CALLBACK,
    "scope": "openid email",
    "state": "state",
    "nonce": "nonce",
    "code_challenge": challenge_of(VERIFIER),
    "code_challenge_method": "S256",
}


@dataclasses.dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_challenge_is_the_one_of_rfc_7636() -> None:
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(
    "change", [{"client_id": "other"}, {"redirect_uri": f"{CALLBACK}/more"}, {"redirect_uri": "http://evil.example/"}]
)
def test_a_stranger_is_never_sent_an_answer(change: dict[str, str]) -> None:
    with pytest.raises(UnknownClient):
        AuthorizationRequest.parse(CLIENT, QUERY | change)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "email"}, "invalid_scope"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ""}, "invalid_request"),
        ({"code_challenge": "too-short"}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
    ],
)
def test_a_known_client_is_told_what_is_wrong(change: dict[str, str], error: str) -> None:
    with pytest.raises(FlowError, match=error):
        AuthorizationRequest.parse(CLIENT, QUERY | change)


def test_a_code_can_be_spent_once() -> None:
    codes = Codes(Clock())
    code = codes.issue(AuthorizationRequest.parse(CLIENT, QUERY), ACCOUNTS["alice"])
    grant = codes.spend(code, redirect_uri=CALLBACK, verifier=VERIFIER)
    assert (grant.account.subject, grant.request.nonce) == ("alice", "nonce")
    with pytest.raises(FlowError, match="invalid_grant"):
        codes.spend(code, redirect_uri=CALLBACK, verifier=VERIFIER)


@pytest.mark.parametrize(
    ("redirect_uri", "verifier"), [(CALLBACK, "w" * 43), (CALLBACK, ""), ("http://localhost:2/callback", VERIFIER)]
)
def test_a_wrong_proof_spends_the_code(redirect_uri: str, verifier: str) -> None:
    codes = Codes(Clock())
    code = codes.issue(AuthorizationRequest.parse(CLIENT, QUERY), ACCOUNTS["alice"])
    for proof in ((redirect_uri, verifier), (CALLBACK, VERIFIER)):
        with pytest.raises(FlowError, match="invalid_grant"):
            codes.spend(code, redirect_uri=proof[0], verifier=proof[1])


def test_a_code_expires() -> None:
    clock = Clock()
    codes = Codes(clock)
    code = codes.issue(AuthorizationRequest.parse(CLIENT, QUERY), ACCOUNTS["alice"])
    clock.now = CODE_SECONDS
    with pytest.raises(FlowError, match="invalid_grant"):
        codes.spend(code, redirect_uri=CALLBACK, verifier=VERIFIER)


@pytest.mark.parametrize(("client_id", "secret"), [("edge", "another"), ("other", "the secret"), ("", "")])
def test_only_the_right_pair_proves_the_client(client_id: str, secret: str) -> None:
    assert CLIENT.is_proven_by("edge", "the secret")
    assert not CLIENT.is_proven_by(client_id, secret)


def test_admin_has_the_role_and_customers_have_none() -> None:
    assert ACCOUNTS["admin"].claims()["roles"] == ["keyferry-admin"]
    assert ACCOUNTS["alice"].claims()["roles"] == []
    assert account_of("mallory").claims()["roles"] == []
