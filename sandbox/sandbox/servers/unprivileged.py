"""Run a program as an unprivileged user: `python -m sandbox.servers.unprivileged USER PROGRAM ARGUMENT...`.

PostgreSQL refuses to run as root. As another user it would not reach a folder below, say, a home that only root may
enter, and the modes of such folders are not ours to change. So on Linux the program keeps the one capability to pass
them.
"""

import ctypes
import os
import pwd
import sys
from typing import NoReturn

_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_DAC_OVERRIDE = 1
_CAPABILITY_VERSION_3 = 0x2008_0522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def unprivileged_user() -> str:
    """Return the name of a user that owns nothing: `nobody` where there is one, else anybody but root."""
    names = {entry.pw_name for entry in pwd.getpwall() if entry.pw_uid != 0}
    if not names:
        raise RuntimeError("PostgreSQL refuses to run as root and the system knows no other user; add one")
    return "nobody" if "nobody" in names else min(names)


def become(user: str) -> None:
    """Become the user for good, keeping only the capability to enter any folder where the system grants it."""
    entry = pwd.getpwnam(user)
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    if libc is not None:
        libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    if libc is not None:
        # A container may withhold it; then the folders have to be open to everybody, or PostgreSQL says so.
        mask = 1 << _CAP_DAC_OVERRIDE
        sets = (_Sets * 2)(_Sets(mask, mask, mask), _Sets(0, 0, 0))
        libc.capset(ctypes.byref(_Header(_CAPABILITY_VERSION_3, 0)), ctypes.byref(sets))
        libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, _CAP_DAC_OVERRIDE, 0, 0)


def main() -> NoReturn:
    """Become the user and turn into the program."""
    user, program, *arguments = sys.argv[1:]
    become(user)
    os.execv(program, [program, *arguments])  # noqa: S606 # the caller names the program


if __name__ == "__main__":
    main()
