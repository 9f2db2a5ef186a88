"""A checkpoint: what the log was at one size, as text. C2SP tlog-checkpoint (https://c2sp.org/tlog-checkpoint).

    keys.example.com/audit                          origin: which log
    20852163                                        size: how many entries
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=    root hash over them

Each line ends in a line feed. Signed, it is a note (`domain/note.py`).
"""

import base64
import binascii
import re
from dataclasses import dataclass

from audit.domain.note import is_key_name
from audit.domain.tree import EMPTY_ROOT

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_LINES = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The root hash of a log at a size."""

    origin: str
    size: int
    root: bytes


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """Render what is signed."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{base64.b64encode(checkpoint.root).decode()}\n"


def read_checkpoint(text: str) -> Checkpoint:
    """Read what was signed; lines after the third are extensions, which we have none of. Raises ValueError."""
    lines = text.split("\n")
    if len(lines) <= _LINES:
        raise ValueError("a checkpoint has at least three lines")
    origin, size, root = lines[:_LINES]
    if not is_key_name(origin) or not _SIZE.fullmatch(size):
        raise ValueError("a checkpoint begins with its origin and its size")
    try:
        decoded = base64.b64decode(root, validate=True)
    except binascii.Error:
        raise ValueError("the root hash is not base64") from None
    if len(decoded) != len(EMPTY_ROOT):
        raise ValueError("the root hash has another length than SHA-256's")
    return Checkpoint(origin, int(size), decoded)
