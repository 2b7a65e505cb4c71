"""Compiled callers in processes of their own: parallel loops, threads, forks, functions that Numba's cache keeps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import convjit

PACKAGE = Path(convjit.__file__).parent


def run(code, *arguments, cwd=None, **environment):
    """What a program prints; one that hangs fails."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, *arguments],
        env={**os.environ, **environment}, capture_output=True, text=True, timeout=240, cwd=cwd, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


PRANGE = """
import sys
import numba, numpy as np
import convjit
from convjit.runtime import threads

@numba.njit(parallel=True)
def many(x, weight, y, rounds):
    for r in range(rounds):
        for i in numba.prange(len(x)):
            image = convjit.conv2d(x[i], weight, padding=(1, 1), padding_mode="wrap")
            for at in np.ndindex(image.shape):  # a store of all at once takes Numba seconds to compile
                y[i][at] = image[at]
            if i % 7 == 0:  # another geometry, for the first time in whatever thread it is
                convjit.max_pool2d(x[i], 1 + i % 3)

rng = np.random.default_rng(0)
x, weight = rng.normal(size=(64, 3, 12, 13)), rng.normal(size=(4, 3, 3, 3))
y = np.full((64, 4, 12, 13), np.nan)
many(x, weight, y, 5)
assert threads.layer() == sys.argv[1], threads.layer()
assert (y == convjit.conv2d(x, weight, padding=1, padding_mode="wrap")).all()
print("same")
"""


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_calls_in_a_parallel_loop(layer):
    assert run(PRANGE, layer, NUMBA_THREADING_LAYER=layer, NUMBA_NUM_THREADS="3") == "same"


DROPPED = """
import numba, numpy as np
import convjit

@numba.njit(parallel=True)
def many(x, weight):
    for i in numba.prange(len(x)):
        convjit.conv2d(x[i], weight)

try:
    many(np.ones((1000, 3, 5, 5)), np.ones((4, 2, 3, 3)))  # Numba drops exceptions of threads of its pool
except SystemError as error:  # what Numba makes of one of the calling thread
    assert str(error.__cause__).startswith("conv2d: weight expects 2 input channels"), error.__cause__
print("on")
"""


def test_refusals_in_a_parallel_loop_do_no_harm():
    assert run(DROPPED, NUMBA_NUM_THREADS="3") == "on"


THREADS = """
import threading
import numba, numpy as np
import convjit

@numba.njit(nogil=True)
def gradients(dy, x, weight):
    return convjit.conv2d_backward(dy, x, weight, stride=2)

@numba.njit(nogil=True)
def wrong(x, weight):
    return convjit.conv2d(x, weight)

rng = np.random.default_rng(0)
cases = [(rng.normal(size=(1, 2, 9, 9 + i)), rng.normal(size=(3, 2, 3, 3))) for i in range(8)]
wanted = [convjit.conv2d_backward(convjit.conv2d(x, w, stride=2), x, w, stride=2) for x, w in cases]
failures = []

def work(i):
    x, w = cases[i]
    dy = convjit.conv2d(x, w, stride=2)
    for _ in range(200):
        if any((a != b).any() for a, b in zip(gradients(dy, x, w), wanted[i])):
            failures.append(i)
        try:
            wrong(x, np.ones((1, 3 + i, 1, 1)))
        except ValueError as error:
            if f"expects {3 + i} input channels" not in str(error):
                failures.append(str(error))

crew = [threading.Thread(target=work, args=(i,)) for i in range(8)]
[t.start() for t in crew], [t.join() for t in crew]
print(failures)
"""


def test_many_threads_without_the_global_lock():
    assert run(THREADS) == "[]"


FORKED = """
import os, sys
import numba, numpy as np
import convjit

@numba.njit
def blur(x, weight):
    return convjit.conv2d(x, weight, padding="same")

x, weight = np.ones((1, 64, 64)), np.ones((1, 1, 3, 3))
convjit.conv2d(np.ones((8, 16, 64, 64)), np.ones((16, 16, 3, 3)))  # starts the pool
wanted = blur(x, weight)
child = os.fork()
if child == 0:
    os._exit(0 if (blur(x, weight) == wanted).all() else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child():
    assert run(FORKED) == "0"


# --- Numba's cache --------------------------------------------------------------------------------------------------

MODULE = """
import numba, numpy as np
import convjit

@numba.njit(cache=True, parallel=True)
def frame(images, out):
    for i in numba.prange(len(images)):
        framed = convjit.pad2d(images[i], 1, mode="edge")
        for at in np.ndindex(framed.shape):  # a store of all at once takes Numba seconds to compile
            out[i][at] = framed[at]

@numba.njit(cache=True)
def through(x):
    return _inner(x).sum()

@numba.njit
def _inner(x):
    return convjit.pad2d(x, 1, mode="edge")
"""
USE = """
import sys
import numpy as np
import convjit
import module
images, out = np.ones((8, 1, 5, 6)), np.full((8, 1, 7, 8), np.nan)
module.frame(images, out)
assert (out == 1).all(), out
assert module.through(images[0]) == out[0].sum()
print(sum(module.frame.stats.cache_hits.values()) + sum(module.through.stats.cache_hits.values()))
"""


@pytest.fixture
def project(tmp_path):
    """A user's module, and a copy of the package that a test may upgrade."""
    (tmp_path / "module.py").write_text(MODULE)
    shutil.copytree(PACKAGE, tmp_path / "convjit", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def use(project, code=USE):
    path = os.pathsep.join(filter(None, (str(project), os.environ.get("PYTHONPATH"))))
    return run(code, cwd=project, PYTHONPATH=path, NUMBA_NUM_THREADS="2")


def test_cached_functions_are_loaded_and_compiled_anew_after_an_upgrade(project):
    assert use(project) == "0"
    assert use(project) == "2"
    padding = project / "convjit" / "algorithms" / "padding.py"
    source = padding.read_text()
    # The new version pads otherwise, in the same layout of records: no old kernel, and no old copy, may run.
    for pixel in ("pixels[cols[j]] if cols[j] >= 0 else constant[0]", "source[j]"):
        assert f"= {pixel}\n" in source
        source = source.replace(f"= {pixel}\n", "= constant[0]\n")
    padding.write_text(source)
    upgraded = USE.replace("assert (out == 1).all(), out", "assert (out == 0).all(), out")
    assert use(project, upgraded) == "0"
    assert use(project, upgraded) == "2"


STALE = """
import numpy as np
import convjit
from convjit.runtime import entries
import module
image = np.ones((1, 5, 6))
module.through(image)  # loaded
entries.TABLE[entries.DIGEST] += 1
try:
    module.through(image)
except RuntimeError as error:
    print(error)
entries.TABLE[entries.DIGEST] -= 1
for entry in entries.entries():  # as if nobody had made them ready
    entries.TABLE[entry.slot] = 0
print(module.through(image))
"""


def test_code_of_another_version_that_was_loaded_all_the_same_is_refused(project):
    lines = use(project, STALE).splitlines()
    assert lines[0].startswith("pad2d: the calling function was compiled for another version of convjit; ")
    assert lines[1:] == ["56.0"]


CALLBACK = """
import numba, numpy as np
import convjit

@numba.cfunc("float64(float64)", cache=True)
def mean(a):
    y = convjit.conv2d(np.full((1, 4, 4), a), np.full((2, 1, 3, 3), a))
    return convjit.avg_pool2d(y, 2)[0, 0, 0]
"""


def test_a_callback_for_c_that_numbas_cache_keeps(project):
    (project / "callback.py").write_text(CALLBACK)
    code = "import callback; print(callback.mean.ctypes(2.0), callback.mean.cache_hits)"
    assert use(project, code) == "36.0 0"
    assert use(project, code) == "36.0 1"


RAN_OUT = """
import resource
import numba, numpy as np
import convjit

def size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

@numba.njit
def pool(x):
    return convjit.max_pool2d(x, 1, return_indices=True)

x = np.broadcast_to(np.float32(1), (1, 1, 1 << 15, 7000))  # y takes 0.9 GiB, indices 1.7 GiB
pool(x[:, :, :3, :3])
resource.setrlimit(resource.RLIMIT_AS, (size() + 2 * 2**30, -1))
before = size()
for _ in range(4):
    try:
        pool(x)
    except MemoryError as error:
        print(error)
assert size() - before < 2**28, size() - before
"""


@pytest.mark.skipif(sys.platform != "linux", reason="sizes of processes are read where Linux tells them")
def test_a_result_that_does_not_fit_leaves_nothing_behind():
    assert run(RAN_OUT).splitlines() == ["max_pool2d: an array of 1.7 GiB does not fit into memory"] * 4
