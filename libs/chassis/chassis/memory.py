"""Keeps the memory of a process from lying about: no core dump, no reading by another process of the same user."""

import ctypes
import resource
import sys

# <linux/prctl.h>
_PR_SET_DUMPABLE = 4


def forbid_memory_dumps() -> None:
    """Let neither the kernel nor a debugger write this process's memory anywhere; its children begin the same way.

    The limit alone does not stop a kernel that pipes dumps into a program (`core_pattern` with a `|`). On Linux the
    process is also marked as not dumpable, which such a kernel respects, and which keeps processes of the same user
    from attaching or from reading /proc/…/mem. Root still can.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
