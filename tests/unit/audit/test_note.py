"""Signed notes and checkpoints, byte for byte as others write them."""

import base64
import json
from pathlib import Path

import pytest
from audit.adapters.ed25519 import Ed25519Notary
from audit.domain.checkpoint import Checkpoint, checkpoint_text, read_checkpoint
from audit.domain.entry import leaf_hash
from audit.domain.note import is_key_name, key_id, read_note, read_verifier_key, verifier_key, write_note
from audit.domain.tree import EMPTY_ROOT, GrowingTree, Node, consistency_path, fold_path, inclusion_path
from audit.ports import NoteUnproven
from chassis.keyring import Keyring
from chassis.secret import SecretBytes

# The example in the documentation of Go's golang.org/x/mod/sumdb/note: a key pair, a text and its signed note.
PETER_SEED = base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:]
PETER_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETER_NOTE = (
    PETER_TEXT
    + "\n\u2014 PeterNeumann "
    + "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The key of Go's checksum database.
GO_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
VECTORS = Path(__file__).parents[2] / "vectors"
ORIGIN = "keys.example.com/audit"
OLD = "v1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
NEW = "v2:gIGCg4SFhoeIiYqLjI2Oj5CRkpOUlZaXmJmam5ydnp8"


def notary(secret: str = OLD, origin: str = ORIGIN) -> Ed25519Notary:
    return Ed25519Notary(origin, Keyring.parse(secret))


def test_a_note_is_the_one_that_the_reference_writes() -> None:
    peter = Ed25519Notary("PeterNeumann", Keyring("v1", {"v1": SecretBytes(PETER_SEED)}))
    assert peter.sign(PETER_TEXT) == PETER_NOTE
    assert peter.verifier_keys == [PETER_KEY]
    assert peter.open(PETER_NOTE) == PETER_TEXT


@pytest.mark.parametrize("vkey", [PETER_KEY, GO_KEY], ids=["peter", "go"])
def test_a_verifier_key_names_its_key_as_others_do(vkey: str) -> None:
    name, short, encoded = vkey.split("+", 2)
    public_key = base64.b64decode(encoded)[1:]
    assert key_id(name, public_key).hex() == short
    assert verifier_key(name, public_key) == vkey
    assert read_verifier_key(vkey) == (name, public_key)


def test_a_checkpoint_is_its_three_lines() -> None:
    root = base64.b64decode("CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=")
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    checkpoint = Checkpoint("example.com/behind-the-sofa", 20852163, root)
    assert checkpoint_text(checkpoint) == text
    assert read_checkpoint(text) == checkpoint
    assert read_checkpoint(f"{text}an extension\n") == checkpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a\n1\n",
        "a\n1\nCsUY",
        "a b\n1\nCsUY\n",
        "a\n01\nCsUY\n",
        "a\n-1\nCsUY\n",
        "a\n1\nCsUY\n",
        "a\n1\n?\n",
        "\n1\nA\n",
    ],
    ids=["nothing", "two lines", "no end", "name", "zero", "negative", "short root", "no base64", "no origin"],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"checkpoint|root"):
        read_checkpoint(text)


@pytest.mark.parametrize(
    ("name", "good"),
    [("a.example/log", True), ("", False), ("a b", False), ("a+b", False), ("a\u2003b", False), ("a\x07", False)],
    ids=["good", "empty", "space", "plus", "wide space", "bell"],
)
def test_a_name_is_one_that_a_line_can_hold(name: str, good: bool) -> None:  # noqa: FBT001 # a column of the table
    assert is_key_name(name) is good


def test_what_was_signed_opens_and_an_empty_log_can_be_signed() -> None:
    text = checkpoint_text(Checkpoint(ORIGIN, 0, EMPTY_ROOT))
    assert notary().open(notary().sign(text)) == text


def test_every_version_signs_so_that_a_key_can_be_changed_without_a_day_on_which_nobody_can_verify() -> None:
    both = notary(f"{NEW},{OLD}")
    note = both.sign("text\n")
    assert [vkey in both.verifier_keys for vkey in (*notary(OLD).verifier_keys, *notary(NEW).verifier_keys)] == [
        True
    ] * 2
    assert both.verifier_keys[0] == notary(NEW).verifier_keys[0]
    for one in (both, notary(OLD), notary(NEW)):
        assert one.open(note) == "text\n"
    assert both.open(notary(OLD).sign("text\n")) == "text\n"


def test_what_a_retired_key_has_signed_stays_proven_and_it_signs_no_more() -> None:
    retired = notary(OLD).verifier_keys
    now = Ed25519Notary(ORIGIN, Keyring.parse(NEW), retired)
    assert now.open(notary(OLD).sign("text\n")) == "text\n"
    assert now.verifier_keys == notary(NEW).verifier_keys
    with pytest.raises(NoteUnproven):
        notary(OLD).open(now.sign("text\n"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        GO_KEY.replace("033de0ae", "033de0af"),
        GO_KEY + "AAAA",
        "name+00000000+?",
        GO_KEY.replace("+Ac", "+Bc"),
    ],
    ids=["nothing", "name", "hash", "length", "base64", "algorithm"],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="verifier key"):
        read_verifier_key(text)


@pytest.mark.parametrize(
    "note",
    [
        notary().sign("text\n").replace("text", "test"),
        notary(NEW).sign("text\n"),
        notary(origin="other.example/log").sign("text\n"),
        "text\n",
        "text\n\n\u2014 name\n",
        "text\n\n- keys.example.com/audit AAAA\n",
        "text\n\n\u2014 keys.example.com/audit ?\n",
        notary().sign("text\n").removesuffix("\n"),
        write_note("text\n", read_note(notary().sign("text\n"))[1] * 101),
    ],
    ids=["text", "key", "name", "unsigned", "half a line", "dash", "base64", "end", "too many"],
)
def test_what_our_key_has_not_signed_does_not_open(note: str) -> None:
    with pytest.raises(NoteUnproven):
        notary().open(note)


def test_one_wrong_signature_under_our_name_is_enough() -> None:
    good = read_note(notary().sign("text\n"))[1]
    wrong = read_note(notary().sign("other\n"))[1]
    with pytest.raises(NoteUnproven):
        notary().open(write_note("text\n", [*good, *wrong]))


def test_a_notary_does_not_print_its_key() -> None:
    seed = Keyring.parse(OLD).versions["v1"].expose()
    told = repr(vars(notary()))
    assert seed.hex() not in told
    assert base64.b64encode(seed).decode() not in told


def test_a_log_its_checkpoint_and_its_proofs_are_what_they_always_were() -> None:
    frozen = json.loads((VECTORS / "audit_checkpoint_v1.json").read_text(encoding="utf-8"))
    tree, hashes = GrowingTree(0, []), dict[Node, bytes]()
    for number, line in enumerate(frozen["lines"]):
        hashes[Node(0, number)] = leaf_hash(line)
        hashes.update(tree.add(leaf_hash(line)))
    signer = notary(frozen["secret"], frozen["origin"])
    assert tree.root().hex() == frozen["root_hash"]
    assert signer.verifier_keys == [frozen["verifier_key"]]
    assert signer.sign(checkpoint_text(Checkpoint(frozen["origin"], tree.size, tree.root()))) == frozen["note"]
    inclusion, consistency = frozen["inclusion"], frozen["consistency"]
    path = inclusion_path(inclusion["sequence"], inclusion["tree_size"])
    assert [each.hex() for each in fold_path(path, hashes)] == inclusion["hashes"]
    path = consistency_path(consistency["first_tree_size"], consistency["second_tree_size"])
    assert [each.hex() for each in fold_path(path, hashes)] == consistency["hashes"]
