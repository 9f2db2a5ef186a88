"""The offline verifier: finds whatever was done to an export, and agrees with an implementation that is not ours."""

import ast
import base64
import io
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from cli.app import app
from cli.verifier import Checkpoint, PublicKey, Refused, Tree, leaf_hash, verify_export
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree
from typer.testing import CliRunner

from cli import verifier
from tests.unit.cli.signed_notes import LogKey, consistency_proof, merkle_tree_hash

SOURCE = Path(verifier.__file__)
KEY = LogKey()
VKEY = PublicKey.parse(KEY.vkey)


def an_entry(sequence: int, *, order_id: str = "order-1") -> bytes:
    return json.dumps({"order_id": order_id, "note": "\u2028\x85", "sequence": sequence}, ensure_ascii=False).encode()


ENTRIES = [an_entry(sequence) for sequence in range(23)]


def export_of(entries: Sequence[bytes]) -> io.BytesIO:
    return io.BytesIO(b"".join(entry + b"\n" for entry in entries))


def checkpoint_of(entries: Sequence[bytes]) -> Checkpoint:
    return Checkpoint.read(KEY.checkpoint_of(entries), VKEY)


def oracle_of(entries: Sequence[bytes]) -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for entry in entries:
        tree.append_entry(entry)
    return tree


def inclusion_path(oracle: InmemoryTree, index: int, size: int) -> list[bytes]:
    """Return the audit path of RFC 9162: the oracle counts from one and puts the leaf in front."""
    return [bytes(node) for node in oracle.prove_inclusion(index + 1, size).path[1:]]


def test_it_is_one_short_file_that_needs_the_standard_library_and_cryptography() -> None:
    source = SOURCE.read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 300
    nodes = list(ast.walk(ast.parse(source)))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} - sys.stdlib_module_names == {"cryptography"}


@pytest.mark.parametrize("size", range(18))
def test_roots_are_those_of_the_rfc_and_of_another_implementation(size: int) -> None:
    tree = Tree()
    for entry in ENTRIES[:size]:
        tree.add(leaf_hash(entry))
    assert tree.root() == merkle_tree_hash(ENTRIES[:size]) == bytes(oracle_of(ENTRIES[:size]).get_root())


def test_an_export_that_was_not_touched_is_what_was_signed() -> None:
    checkpoints = [checkpoint_of(ENTRIES[:size]) for size in (23, 0, 8, 13)]
    assert verify_export(export_of(ENTRIES), checkpoints) == (23, 0)
    assert verify_export(export_of(ENTRIES), checkpoints[1:], tail=True) == (13, 10)
    assert verify_export(export_of([]), [checkpoint_of([])]) == (0, 0)


Tampering = Callable[[list[bytes]], list[bytes]]
TAMPERINGS: dict[str, tuple[Tampering, str]] = {
    "changed": (lambda rows: [*rows[:7], an_entry(7, order_id="order-2"), *rows[8:]], "sequences 0 to 22"),
    "deleted": (lambda rows: [*rows[:7], *rows[8:]], "sequence 7: 8 stands"),
    "deleted and renumbered": (lambda rows: [*rows[:7], *map(an_entry, range(7, 22))], "sequence 22 is missing"),
    "reordered": (lambda rows: [*rows[:7], rows[8], rows[7], *rows[9:]], "sequence 7: 8 stands"),
    "reordered and renumbered": (
        lambda rows: [*rows[:7], an_entry(7, order_id="order-2"), an_entry(8), *rows[9:]],
        "sequences 0 to 22",
    ),
    "inserted": (lambda rows: [*rows[:7], rows[7], *rows[7:]], "sequence 8: 7 stands"),
    "inserted and renumbered": (lambda rows: [*rows[:7], *map(an_entry, range(7, 24))], "sequence 23: inserted"),
    "inserted at the end": (lambda rows: [*rows, an_entry(23)], "sequence 23: inserted"),
    "truncated": (lambda rows: rows[:-1], "sequence 22 is missing"),
    "emptied": (lambda _rows: [], "sequence 0 is missing"),
    "no JSON": (lambda rows: [*rows[:7], b"{", *rows[8:]], "sequence 7 is malformed"),
    "no object": (lambda rows: [*rows[:7], b"7", *rows[8:]], "sequence 7 is malformed"),
    "no sequence": (lambda rows: [*rows[:7], b"{}", *rows[8:]], "sequence 7 is malformed"),
    "no integer": (lambda rows: [*rows[:7], b'{"sequence":7.0}', *rows[8:]], "sequence 7 is malformed"),
    "no UTF-8": (lambda rows: [*rows[:7], b'{"sequence":7,"x":"\xff"}', *rows[8:]], "sequence 7 is malformed"),
    "too deep": (lambda rows: [*rows[:7], b"[" * 100_000, *rows[8:]], "sequence 7 is malformed"),
    "a line too long": (lambda rows: [*rows[:7], b" " * (1 << 20) + rows[7], *rows[8:]], "sequence 7 is malformed"),
    "an empty line": (lambda rows: [*rows[:7], b"", *rows[7:]], "sequence 7 is malformed"),
    "white space": (lambda rows: [*rows[:7], rows[7] + b" ", *rows[8:]], "sequences 0 to 22"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_whatever_is_done_to_an_export_is_found_and_where(name: str) -> None:
    tamper, told = TAMPERINGS[name]
    with pytest.raises(Refused, match=told):
        verify_export(export_of(tamper(ENTRIES.copy())), [checkpoint_of(ENTRIES)])


def test_an_older_checkpoint_narrows_down_where_it_was() -> None:
    changed = [*ENTRIES[:14], an_entry(14, order_id="order-2"), *ENTRIES[15:]]
    with pytest.raises(Refused, match="sequences 13 to 22"):
        verify_export(export_of(changed), [checkpoint_of(ENTRIES), checkpoint_of(ENTRIES[:13])])


def test_a_last_line_that_is_cut_off_is_found() -> None:
    with pytest.raises(Refused, match="sequence 22 is malformed"):
        verify_export(io.BytesIO(export_of(ENTRIES).getvalue()[:-1]), [checkpoint_of(ENTRIES)])


@given(st.integers(0, 8 * len(export_of(ENTRIES).getvalue()) - 1))
def test_no_flipped_bit_is_missed(bit: int) -> None:
    content = bytearray(export_of(ENTRIES).getvalue())
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refused):
        verify_export(io.BytesIO(bytes(content)), [checkpoint_of(ENTRIES)])


def test_signatures_of_witnesses_stand_beside_the_logs_own() -> None:
    note = KEY.checkpoint_of(ENTRIES)
    text = note.decode().rpartition("\n\n")[0] + "\n"
    both = note + LogKey("witness.example.com").line(text).encode()
    assert Checkpoint.read(both, VKEY).size == len(ENTRIES)


NOTE = KEY.checkpoint_of(ENTRIES).decode()
ANOTHER = LogKey()
BAD_NOTES = {
    "another size": NOTE.replace("\n23\n", "\n22\n"),
    "another root": KEY.checkpoint_of(ENTRIES[:5]).decode().split("\n\n")[0] + "\n\n" + NOTE.split("\n\n")[1],
    "another key of this name": ANOTHER.checkpoint_of(ENTRIES).decode(),
    "another origin": KEY.checkpoint(1, bytes(32), origin="elsewhere").decode(),
    "no signature": NOTE.split("\n\n", maxsplit=1)[0] + "\n\n",
    "cut off": NOTE[:-1],
    "no text": "\n\n" + NOTE.split("\n\n")[1],
    "no base64": NOTE[:-5] + "????\n",
    "a line that is no signature": NOTE + "yes\n",
    "a size with a leading zero": KEY.checkpoint(1, bytes(32)).decode().replace("\n1\n", "\n01\n"),
    "a short root": KEY.checkpoint(1, bytes(31)).decode(),
    "nothing": "",
}


@pytest.mark.parametrize("name", BAD_NOTES)
def test_a_checkpoint_that_was_not_signed_as_it_stands_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        Checkpoint.read(BAD_NOTES[name].encode(), VKEY)


@given(st.integers(0, 8 * len(NOTE.encode()) - 1))
def test_no_flipped_bit_of_a_checkpoint_is_taken(bit: int) -> None:
    content = bytearray(NOTE.encode())
    content[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refused):
        Checkpoint.read(bytes(content), VKEY)


@pytest.mark.parametrize(
    "vkey",
    ["", "name", "name+", KEY.vkey[:-4], KEY.vkey.replace("audit", "other"), KEY.vkey + "!", "a b" + KEY.vkey],
    ids=["empty", "name", "half", "short", "renamed", "no-base64", "space"],
)
def test_a_public_key_that_was_copied_wrongly_is_refused(vkey: str) -> None:
    with pytest.raises(Refused, match="public key"):
        PublicKey.parse(vkey)


def test_proofs_of_another_implementation_hold_and_no_others() -> None:
    tree = oracle_of(ENTRIES)
    for size in range(1, len(ENTRIES) + 1):
        checkpoint = checkpoint_of(ENTRIES[:size])
        for index in range(size):
            path = inclusion_path(tree, index, size)
            leaf = leaf_hash(ENTRIES[index])
            assert verifier.inclusion_holds(leaf, index, checkpoint, path)
            assert not verifier.inclusion_holds(leaf, index ^ 1, checkpoint, path) or size == 1
            assert not verifier.inclusion_holds(leaf_hash(b"another"), index, checkpoint, path)
            assert not verifier.inclusion_holds(leaf, index, checkpoint, [*path, bytes(32)])
            assert not path or not verifier.inclusion_holds(leaf, index, checkpoint, path[:-1])


def test_consistency_proofs_as_the_rfc_defines_them_hold_and_no_others() -> None:
    checkpoints = [checkpoint_of(ENTRIES[:size]) for size in range(len(ENTRIES) + 1)]
    for new in range(1, len(checkpoints)):
        for old in range(1, new):
            path = consistency_proof(old, ENTRIES[:new])
            older, newer = checkpoints[old], checkpoints[new]
            assert verifier.consistency_holds(older, newer, path)
            assert not verifier.consistency_holds(newer, older, path)
            assert not verifier.consistency_holds(older, newer, path[:-1])
            assert not verifier.consistency_holds(older, newer, [*path, bytes(32)])
            assert not verifier.consistency_holds(Checkpoint(old, bytes(32)), newer, path)
        assert verifier.consistency_holds(checkpoints[0], checkpoints[new], [])
        assert verifier.consistency_holds(checkpoints[new], checkpoints[new], [])
        assert not verifier.consistency_holds(checkpoints[new], Checkpoint(new, bytes(32)), [])


def a_proof(index: int, *, extra: str = "") -> bytes:
    path = inclusion_path(oracle_of(ENTRIES), index, len(ENTRIES))
    hashes = "".join(base64.b64encode(node).decode() + "\n" for node in path)
    return f"c2sp.org/tlog-proof@v1\n{extra}index {index}\n{hashes}\n".encode() + KEY.checkpoint_of(ENTRIES)


def written(folder: Path, name: str, content: bytes) -> str:
    path = folder / name
    path.write_bytes(content)
    return str(path)


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["audit", "verify", *arguments])
    return result.exit_code, result.output


def test_the_command_says_ok_or_what_is_wrong(tmp_path: Path) -> None:
    good = written(tmp_path, "good", export_of(ENTRIES).getvalue())
    bad = written(tmp_path, "bad", export_of(ENTRIES[1:]).getvalue())
    note = written(tmp_path, "note", KEY.checkpoint_of(ENTRIES))
    key = ("--public-key", KEY.vkey)
    assert run("--export", good, "--checkpoint", note, *key) == (0, "OK: 23 entries are those that were signed\n")
    status, told = run("--export", bad, "--checkpoint", note, *key)
    assert (status, told.startswith("REFUSED: sequence 0: 1 stands in its place")) == (1, True)
    status, told = run("--export", good, *key)
    assert (status, "name a checkpoint" in told) == (1, True)
    older = written(tmp_path, "older", KEY.checkpoint_of(ENTRIES[:20]))
    assert run("--export", good, "--checkpoint", older, *key)[0] == 1
    assert "3 later ones" in run("--export", good, "--checkpoint", older, "--tail", *key)[1]


def test_the_command_checks_a_proof_for_one_entry(tmp_path: Path) -> None:
    export = written(tmp_path, "export", export_of([ENTRIES[9]]).getvalue())
    key = ("--export", export, "--public-key", KEY.vkey)
    for extra in ("", "extra AAAA\n"):
        proof = written(tmp_path, "proof", a_proof(9, extra=extra))
        assert run("--inclusion", proof, *key) == (0, "OK: sequence 9 is in the log\n")
    for name, wrong in {
        "another entry": a_proof(8),
        "another form": a_proof(9).replace(b"@v1", b"@v2"),
        "no index": a_proof(9).replace(b"index 9", b"index -9"),
        "no checkpoint": a_proof(9).partition(b"\n\n")[0],
        "a hash of the wrong length": a_proof(9).replace(b"index 9\n", b"index 9\nAAAA\n"),
        "a hash too many": a_proof(9).replace(b"index 9\n", b"index 9\n" + base64.b64encode(bytes(32)) + b"\n"),
    }.items():
        proof = written(tmp_path, "proof", wrong)
        assert run("--inclusion", proof, *key)[0] == 1, name


def test_an_inclusion_proof_in_ten_million_entries_has_at_most_two_kilobytes() -> None:
    levels = (10_000_000 - 1).bit_length()
    size = len(a_proof(9).split(b"\n\n", maxsplit=1)[1]) + len("c2sp.org/tlog-proof@v1\nindex 9999999\n\n")
    assert size + levels * (44 + 1) <= 2_000
