import json
import stat
from pathlib import Path

from chassis.keyring import Keyring
from sandbox.secret_store import ensure_secrets, role_password


def test_secrets_are_made_once_and_are_their_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    first = ensure_secrets(path)
    assert ensure_secrets(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_two_secrets_are_the_same(tmp_path: Path) -> None:
    known = ensure_secrets(tmp_path / "secrets.json")
    assert len(set(known.values())) == len(known)


def test_a_new_secret_is_added_to_the_old_ones(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    path.write_text(json.dumps({"OIDC_CLIENT_SECRET": "old"}))
    known = ensure_secrets(path)
    assert known["OIDC_CLIENT_SECRET"] == "old"
    assert json.loads(path.read_text()) == known


def test_keyrings_are_strong_enough_for_the_services(tmp_path: Path) -> None:
    known = ensure_secrets(tmp_path / "secrets.json")
    for name in (
        "KEY_ENCRYPTION_SECRET",
        "KEYFERRY_DIGEST_SECRET",
        "KEYFERRY_AUDIT_SECRET",
        "KEYFERRY_CHECKPOINT_SECRET",
        "KEYFERRY_SESSION_SECRET",
    ):
        assert Keyring.parse(known[name]).active == "v1"


def test_every_role_has_a_password_of_its_own(tmp_path: Path) -> None:
    known = ensure_secrets(tmp_path / "secrets.json")
    assert role_password(known, "vault_service") != role_password(known, "vault_migrator")
