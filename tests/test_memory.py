"""The command keeps memory that was freed, unless the environment says otherwise."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
from ser_jax import memory
print(memory.keep_freed())
import resource
import numpy as np
np.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(2**24)  # 128 MB, taken and given back
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run(**variables):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))} | variables
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    kept, faults = done.stdout.split()
    return kept == "True", int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is on Linux")
def test_memory_is_not_cleared_anew():
    kept, faults = run()
    plain, more = run(MALLOC_TOP_PAD_="131072")
    assert not plain
    if kept:  # glibc
        assert faults < more / 10 and more > 100


def test_own_settings_are_left_alone():
    assert run(GLIBC_TUNABLES="glibc.malloc.mmap_threshold=1000000")[0] is False
    assert run(GLIBC_TUNABLES="glibc.malloc.hugetlb=1")[0] is run()[0]
