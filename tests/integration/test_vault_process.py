"""Vault as processes of its own: killed at every step, ended in order, and searched for anything that leaks."""

import base64
import json
import urllib.parse
from pathlib import Path

import grpc
import pytest
from chassis.errors import RemoteError
from joserfc import jwe
from joserfc.jwk import OctKey
from keyferry.vault.v1 import vault_service_pb2 as pb

from tests.integration.conftest import S3_SECRET_ACCESS_KEY
from tests.integration.real_servers import ServiceProcess, eventually, fetch
from tests.integration.vault_replicas import (
    BOB,
    GAME_KEY,
    Bench,
    a_seal,
    a_wish,
    dump,
    fetch_and_open,
    make_bench,
    run_audit,
)
from tests.unit.vault.fakes import Recipient, a_secret

audit = pytest.fixture(scope="module")(run_audit)
bench = pytest.fixture(make_bench)


@pytest.mark.parametrize("step", ["after_row", "after_put", "before_commit", "after_commit"])
async def test_a_killed_sealing_is_finished_by_the_repeat(bench: Bench, step: str) -> None:
    dying, address = bench.start(failpoints=f"vault.seal.{step}=crash")
    with pytest.raises(RemoteError) as raised:
        await (await bench.call("kinguin-gateway", address)).SealKey(a_seal())
    assert raised.value.code is grpc.StatusCode.UNAVAILABLE
    await eventually(dying.has_ended)
    assert dying.exit_status == 137
    here, recipient = await bench.here(), Recipient()
    sealed = (await (await bench.call("kinguin-gateway", here)).SealKey(a_seal())).key
    fulfillment = await bench.call("fulfillment", here)
    link = await fulfillment.CreateDownloadLink(pb.CreateDownloadLinkRequest(**a_wish(sealed.key_id, recipient)))
    assert await fetch_and_open(link, recipient) == GAME_KEY
    (row,) = await fetch(bench.database.superuser_url, "TABLE sealed_key")
    assert (row["key_id"], row["state"]) == (sealed.key_id, "SEALED")
    assert bench.objects().keys() == {sealed.object_name}


@pytest.mark.parametrize("step", ["after_audit", "after_commit"])
async def test_a_killed_reveal_is_finished_by_the_repeat_and_audited_once(bench: Bench, step: str) -> None:
    _, address = bench.start(failpoints=f"vault.release.{step}=crash")
    sealed = (await (await bench.call("kinguin-gateway", address)).SealKey(a_seal())).key
    recipient = Recipient()
    wish = pb.RevealKeyRequest(**a_wish(sealed.key_id, recipient))
    with pytest.raises(RemoteError):
        await (await bench.call("fulfillment", address)).RevealKey(wish)
    # A replica that lives also publishes what the dead one had committed.
    bench.start()
    revealed = await (await bench.call("fulfillment", await bench.here())).RevealKey(wish)
    assert recipient.open(revealed.key_jwe) == GAME_KEY
    actions = await bench.audit_actions(sealed.key_id, at_least=3)
    assert sorted(actions) == ["key.reveal_authorized", "key.reveal_released", "key.sealed"]


def spellings(secret: bytes) -> list[bytes]:
    """Return every form in which a secret could lie about; base64 of each of the three shifts without its ends."""
    shifted = [base64.b64encode(b"\0" * shift + secret)[4:-4] for shift in range(3)]
    return [
        secret,
        secret.hex().encode(),
        secret.hex().upper().encode(),
        urllib.parse.quote(secret, safe="").encode(),
        urllib.parse.quote_plus(secret).encode(),
        json.dumps(secret.decode("latin-1")).encode()[1:-1],
        repr(secret)[2:-1].encode(),
        *shifted,
        *(text.replace(b"+", b"-").replace(b"/", b"_") for text in shifted),
    ]


async def test_neither_key_nor_dek_nor_link_lies_about_anywhere(bench: Bench) -> None:
    process, address = bench.start()
    recipient = Recipient()
    gateway, fulfillment = await bench.call("kinguin-gateway", address), await bench.call("fulfillment", address)
    sealed = (await gateway.SealKey(a_seal())).key
    with pytest.raises(RemoteError):
        await gateway.SealKey(a_seal(plaintext=GAME_KEY + b"-2"))
    link = await fulfillment.CreateDownloadLink(pb.CreateDownloadLinkRequest(**a_wish(sealed.key_id, recipient)))
    revealed = await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(sealed.key_id, recipient)))
    with pytest.raises(RemoteError):
        await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(sealed.key_id, recipient, BOB)))
    await bench.audit_actions(sealed.key_id, at_least=6)
    process.stop()
    (ciphertext,) = bench.objects().values()
    places = {
        "vault's database": await dump(bench.database),
        "audit's database": await dump(bench.audit.database),
        "objects": ciphertext,
        "log": process.log.read_bytes(),
        "spans": bench.spans.read_bytes(),
    }
    dek = recipient.open(link.content_key_jwe)
    assert jwe.decrypt_compact(ciphertext.decode(), OctKey.import_key(dek)).plaintext == GAME_KEY
    signature = link.url.partition("X-Amz-Signature=")[2].partition("&")[0]
    texts = (link.content_key_jwe, revealed.key_jwe, signature, a_secret(1), a_secret(2), S3_SECRET_ACCESS_KEY)
    sought = [*spellings(GAME_KEY), *spellings(dek), *(text.encode() for text in texts)]
    for place, content in places.items():
        assert len(content) > 100
        assert not [spelling for spelling in sought if spelling in content], place
    assert sealed.key_id.encode() in places["log"] + places["vault's database"]
    assert b"alice" not in places["log"] + places["spans"]


# Vault with a fault in it: each of these raises once, with the secrets that it was given in its text and in its locals.
BROKEN = """
import runpy
from chassis.secret import SecretBytes
from vault import opening, releasing, sealing

def break_once(module, name):
    whole = getattr(module, name)
    def broken(*arguments, **named):
        setattr(module, name, whole)
        secrets = [each.expose() for each in arguments if isinstance(each, SecretBytes)]
        raise ValueError(f"could not handle {secrets!r} {secrets[0].hex()}", secrets)
    setattr(module, name, broken)

for module, name in ((sealing, "seal"), (sealing, "open_sealed"), (opening, "open_sealed"), (releasing, "hand_over")):
    break_once(module, name)
runpy.run_module("vault", run_name="__main__", alter_sys=True)
"""


async def test_what_raises_in_the_middle_of_sealing_or_opening_tells_no_secret(bench: Bench) -> None:
    (bench.folder / "broken_vault.py").write_text(BROKEN, encoding="ascii")
    # As talkative as it gets: Python's and asyncio's debug modes print what they can.
    talkative = {"PYTHONPATH": str(bench.folder), "PYTHONDEVMODE": "1", "PYTHONWARNINGS": "ignore"}
    process, address = bench.start("broken_vault", **talkative)
    recipient = Recipient()
    gateway, fulfillment = await bench.call("kinguin-gateway", address), await bench.call("fulfillment", address)
    refusals = []
    for _ in range(2):
        with pytest.raises(RemoteError) as raised:
            await gateway.SealKey(a_seal())
        refusals.append(raised.value)
    sealed = (await gateway.SealKey(a_seal())).key
    for _ in range(2):
        with pytest.raises(RemoteError) as raised:
            await fulfillment.RevealKey(pb.RevealKeyRequest(**a_wish(sealed.key_id, recipient)))
        refusals.append(raised.value)
    link = await fulfillment.CreateDownloadLink(pb.CreateDownloadLinkRequest(**a_wish(sealed.key_id, recipient)))
    process.stop()
    said, dek = process.log.read_bytes() + bench.spans.read_bytes(), recipient.open(link.content_key_jwe)
    assert {(error.code, error.reason) for error in refusals} == {(grpc.StatusCode.INTERNAL, "INTERNAL")}
    told = "".join(f"{error!r}{error.message}{error.metadata}" for error in refusals).encode()
    assert said.count(b"builtins.ValueError") == len(refusals)
    assert not [spelling for spelling in (*spellings(GAME_KEY), *spellings(dek)) if spelling in said + told]
    # Where it happened is told, and neither the text of the exception nor the value of any variable.
    assert b"sealing.py" in said
    assert b"could not handle" not in said + told


def limit_of(process: ServiceProcess, name: str) -> list[str]:
    limits = Path(f"/proc/{process.pid}/limits").read_text(encoding="ascii").splitlines()
    (found,) = [line.removeprefix(name).split() for line in limits if line.startswith(name)]
    return found


async def test_no_core_of_it_is_ever_dumped(bench: Bench) -> None:
    process, _ = bench.start()
    assert limit_of(process, "Max core file size") == ["0", "0", "bytes"]


async def test_it_drains_and_ends_well(bench: Bench) -> None:
    process, address = bench.start()
    await (await bench.call("kinguin-gateway", address)).SealKey(a_seal())
    process.stop()
    assert process.exit_status == 0


async def test_a_start_without_settings_says_which(tmp_path: Path) -> None:
    process = ServiceProcess("vault", tmp_path, {"KEYFERRY_SPELLING": "wrong", "KEY_ENCRYPTION_SECRET": "v1:short"})
    process.start()
    await eventually(process.has_ended)
    assert process.exit_status == 2
    said = process.log.read_text()
    for name in ("KEYFERRY_SPELLING", "KEYFERRY_TLS_DIR", "KEYFERRY_DIGEST_SECRET", "R2_BUCKET", "PUBLIC_URL"):
        assert f"{name} is not" in said
    assert "KEY_ENCRYPTION_SECRET is wrong" in said
    assert "short" not in said
