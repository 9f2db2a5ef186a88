import subprocess
import sys

import pytest

# <linux/prctl.h>: PR_GET_DUMPABLE.
SHOW = """
import ctypes, resource
from chassis.memory import forbid_memory_dumps
before = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
forbid_memory_dumps()
print(before, ctypes.CDLL(None).prctl(3, 0, 0, 0, 0), *resource.getrlimit(resource.RLIMIT_CORE))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="what is asked for is Linux's")
def test_neither_the_kernel_nor_a_neighbour_gets_its_memory() -> None:
    shown = subprocess.run([sys.executable, "-c", SHOW], capture_output=True, check=True, text=True, timeout=60)
    assert shown.stdout.split() == ["1", "0", "0", "0"]
