"""Children of a process that computes, on every threading layer: forked, spawned, in pools, at the worst moment."""

from __future__ import annotations

import os
from functools import cache

import pytest
from fresh import LAYERS, finish, output, report_lines_on

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="no fork on this system: children are spawned, which the other tests do"
)

# The parent has used its pool before anything is forked.
SETUP = """
import hashlib, multiprocessing, os, sys, threading, time
import numpy as np
import convjit

rng = np.random.default_rng(0)
x, weight = rng.normal(size=(2, 16, 40, 40)), rng.normal(size=(16, 16, 3, 3))
plan = convjit.conv2d_plan(weight)

def digest(*ignored):
    y = convjit.conv2d(x, weight)
    assert (plan(x) == y).all()
    gradients = convjit.conv2d_backward(y, x, weight)
    return hashlib.sha256(b"".join(a.tobytes() for a in (y, *gradients, convjit.max_pool2d(y, 3)))).hexdigest()

def in_child(work):
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if work() else 3)
        except BaseException:
            os._exit(4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

expected = digest()
right = lambda: digest() == expected
"""

# One after the other in one process, each leaves 0 in `status`. The last one has threads of its own.
PROGRAMS = {
    "child": "status = in_child(right)",
    "grandchild": "status = in_child(lambda: right() and in_child(right) == 0 and right())",
    "child of a child that did nothing": "status = in_child(lambda: in_child(right) == 0)",
    "parent goes on": "status = in_child(right) or 0 if right() and in_child(right) == 0 and right() else 1",
    "fork pool of 8": """
with multiprocessing.get_context("fork").Pool(8) as pool:
    status = len(set(pool.map(digest, range(32))) - {expected})
""",
    "compiles in the child": """
def work():
    new = np.ones((2, 3, 9, 9), "int64")
    y = convjit.conv2d(new, np.ones((1, 3, 2, 2), "int64"))
    first = plan(new.repeat(16, 1)[:, :16])
    return (y == 12).all() and convjit.pad2d(new, 1).sum() == new.sum() and first.dtype == "f8"
status = in_child(work)
""",
    "while another thread is inside a kernel": """
stop = threading.Event()
def busy():
    while not stop.is_set():
        assert right()
threads_ = [threading.Thread(target=busy) for _ in range(2)]
for t in threads_: t.start()
statuses = []
for _ in range(20):
    time.sleep(0.003)
    statuses.append(in_child(right))
stop.set()
for t in threads_: t.join()
status = max(statuses, key=abs)
""",
}
ONE_BY_ONE = (
    SETUP
    + """
import json
for name, program in json.loads(sys.argv[1]).items():
    exec(program)
    print(json.dumps([name, status]), flush=True)
"""
)


@cache
def statuses(layer):
    """What each program comes to on a threading layer."""
    return report_lines_on(layer, ONE_BY_ONE, PROGRAMS)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("layer", LAYERS)
def test_a_forked_child_computes_the_same_bits(layer, program):
    assert statuses(layer)[program] == 0


def test_a_fork_while_another_thread_compiles():
    code = (
        SETUP
        + """
from convjit.runtime import emitting
compiling = threading.Event()
optimised = emitting._optimised
def slow(*arguments):
    compiling.set()
    return optimised(*arguments)
emitting._optimised = slow
statuses = []
def compiler():
    few, taps, y = x.astype("f4"), weight.astype("f4"), convjit.avg_pool2d(x, 2)
    calls = [
        lambda: convjit.im2col(x, 3), lambda: convjit.conv2d(few, taps), lambda: convjit.max_pool2d(x, 3),
        lambda: convjit.conv_transpose2d(few, taps), lambda: convjit.avg_pool2d_backward(y, x.shape[2:], 2),
        lambda: convjit.conv2d_weight_grad(few, few, 1), lambda: convjit.conv2d_weight_grad(x, x, 1),
        lambda: convjit.conv2d(few, taps[:, :1], groups=16), lambda: convjit.max_pool2d_backward(y, x, 2),
    ]
    while calls and len(statuses) < 2:  # until two forks have met it
        calls.pop(0)()
thread = threading.Thread(target=compiler)
thread.start()
compiling.wait()
def work():
    y = convjit.conv2d(np.ones((2, 3, 9, 9), "int64"), np.ones((1, 3, 2, 2), "int64"))
    return (y == 12).all() and convjit.pad2d(x.astype("f4"), 1, mode="edge").shape[-1] == 42
while thread.is_alive():
    statuses.append(in_child(work))
thread.join()
print(len(statuses) > 1, max(statuses, key=abs))
"""
    )
    assert output(code, CONVJIT_CACHE="0").splitlines()[-1] == "True 0"  # on tbb, Numba has printed a word of its own


METHODS = """
import hashlib, multiprocessing, sys
import numpy as np
import convjit

rng = np.random.default_rng(0)
x, weight = rng.normal(size=(2, 16, 40, 40)), rng.normal(size=(16, 16, 3, 3))

def digest(k):
    y = convjit.conv2d(x, weight)
    return hashlib.sha256(y.tobytes()).hexdigest()

if __name__ == "__main__":
    expected = digest(0)
    with multiprocessing.get_context(sys.argv[1]).Pool(4) as pool:
        print(len(set(pool.map(digest, range(16))) - {expected}))
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_pools_of_every_start_method(method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(METHODS)
    assert output("import runpy, sys; sys.argv = sys.argv[1:]; " + _AS_MAIN, str(program), method) == "0"


# Run as a script, so that spawned children find its functions.
_AS_MAIN = """
import subprocess
done = subprocess.run([sys.executable, *sys.argv], capture_output=True, text=True, timeout=200)
sys.exit(done.stderr) if done.returncode else print(done.stdout, end="")
"""

PICKLED = """
import copy, pickle, sys
import numpy as np
import convjit

def network():
    model = convjit.Sequential(optimizer=convjit.Adam(0.01), loss="cross_entropy")
    for layer in (
        convjit.Conv2D(4, (3, 3), input_shape=(1, 8, 8), rng=0),
        convjit.BatchNormalization(), convjit.Activation("relu"),
        convjit.MaxPooling2D((2, 2), stride=2), convjit.Flatten(), convjit.Dropout(0.5, rng=3), convjit.Dense(3, rng=1),
        convjit.Activation("softmax"),
    ):
        model.add(layer)
    return model

rng = np.random.default_rng(0)
x, labels = rng.normal(size=(12, 1, 8, 8)), rng.integers(0, 3, 12)
model = network()
model.train_on_batch(x, labels)
twins = [model, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
losses = [[twin.train_on_batch(x, labels)[0] for _ in range(3)] for twin in twins]
assert losses[0] == losses[1] == losses[2], losses
for layer in model.layers:
    copied = pickle.loads(pickle.dumps(layer)), copy.deepcopy(layer), copy.copy(layer)
    for name in layer.weight_names:
        assert all((getattr(c, name) == getattr(layer, name)).all() for c in copied)
model.freeze()
wanted = model.predict(x).tobytes()
for copied in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
    assert copied.predict(x).tobytes() == wanted and not copied.layers[0].W.flags.writeable
images = rng.normal(size=(2, 1, 8, 8)).astype("f4")
plan = convjit.conv2d_plan(model.layers[0].W, np.ones(4), 2, "same")
wanted = plan(images).tobytes()
for copied in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan), copy.copy(plan)):
    assert copied(images).tobytes() == wanted and not copied.weight.flags.writeable
print("same")
"""


def test_layers_pickle_and_copy():
    assert output(PICKLED) == "same"


def test_a_pool_that_numba_started_before_convjit_came():
    """The parent knows Numba only; the worker that is forked imports convjit and must not start a parallel loop."""
    code = """
        import multiprocessing
        import numba, numpy as np
        @numba.njit(parallel=True)
        def total(a):
            s = 0.0
            for i in numba.prange(a.size):
                s += a[i]
            return s
        total(np.ones(1000))
        def work(k):
            import convjit
            return float(convjit.conv2d(np.ones((2, 16, 40, 40)), np.ones((16, 16, 3, 3))).sum())
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(set(pool.map_async(work, range(4)).get(60)))
    """
    assert output(code, NUMBA_THREADING_LAYER="omp", NUMBA_NUM_THREADS="2") == str({2 * 16 * 38 * 38 * 144.0})


AT_ONCE = """
import os, sys, threading, warnings
import convjit
sys.setswitchinterval(1e-5)
def forking():
    for _ in range(100):
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
threads = [threading.Thread(target=forking, daemon=True) for _ in range(8)]
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)  # that is the point
[thread.start() for thread in threads]
[thread.join(120) for thread in threads]
print(sum(thread.is_alive() for thread in threads), flush=True)
os._exit(0)
"""


def test_threads_that_fork_at_the_same_time_do_not_wait_for_ever():
    done = finish(AT_ONCE)
    assert (done.stdout.strip(), done.stderr) == ("0", "")


INTERRUPTED = (
    SETUP
    + """
import signal
from numba.core.compiler_lock import global_compiler_lock
from convjit.runtime import forks
locked = threading.Event()
def compiles():
    with global_compiler_lock:
        locked.set()
        time.sleep(1)
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
thread = threading.Thread(target=compiles)
thread.start()
locked.wait()
signal.setitimer(signal.ITIMER_REAL, 0.1)
status = None
try:
    status = in_child(lambda: not forks._fork.held and global_compiler_lock._is_owned() is False and right())
    print("no interrupt")
except KeyboardInterrupt:
    print("interrupted after the fork", thread.is_alive())
thread.join()
print(in_child(right))
"""
)


def test_an_interrupt_while_a_fork_waits_comes_after_it():
    """Python raises nothing out of its hooks: the fork would go on while the other thread holds the lock."""
    done = finish(INTERRUPTED)
    assert done.stdout.split("\n")[0].startswith("interrupted after the fork False"), done.stderr
    assert done.stdout.split()[-1] == "0"
    assert "Exception ignored" not in done.stderr


EXIT = """
import sys, threading, time
import convjit
from numba.core.compiler_lock import global_compiler_lock
locked = threading.Event()
def compiles():
    with global_compiler_lock:
        locked.set()
        time.sleep(1)
        open(sys.argv[1], "w").close()
threading.Thread(target=compiles, daemon=True).start()
locked.wait()
"""


def test_a_process_ends_when_no_thread_compiles_any_more(tmp_path):
    """LLVM's tables are gone behind the end, and a daemon thread that still compiled would crash."""
    assert finish(EXIT, str(tmp_path / "compiled")).returncode == 0
    assert (tmp_path / "compiled").exists()


EXIT_HANDLER = """
import atexit, queue, sys, threading
jobs = queue.Queue()
def work():
    while (job := jobs.get()) is not None:
        job()
workers = [threading.Thread(target=work, daemon=True) for _ in range(2)]
for worker in workers:
    worker.start()
def flush():
    for worker in workers:
        jobs.put(None)
    for worker in workers:
        worker.join()
atexit.register(flush)  # before convjit is there, so that it is called when convjit has done with the end
import numpy as np
import convjit
for _ in range(2):
    jobs.put(lambda: sys.stdout.write(f"{convjit.conv2d(np.ones((1, 1, 5, 5)), np.ones((1, 1, 3, 3))).sum()}\\n"))
"""


def test_an_exit_handler_may_wait_for_a_thread_that_compiles():
    done = finish(EXIT_HANDLER)
    assert (done.returncode, done.stdout.split()) == (0, ["81.0", "81.0"])


def test_a_thread_that_wants_to_compile_at_the_end_does_not_begin():
    """The end comes while it waits for its turn."""
    code = """
import sys, threading, time
import convjit
from convjit.runtime import ending
from numba.core.compiler_lock import global_compiler_lock
ending.wait_for_compiles()
def compiles():
    with global_compiler_lock:
        print("begins")
threading.Thread(target=compiles, daemon=True).start()
time.sleep(0.1)
"""
    done = finish(code)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_harness_sees_a_killed_child():
    """Without the flag a forked child is killed by libgomp at its first parallel loop."""
    code = (
        SETUP
        + """
from convjit.runtime import contention, forks
contention.are_free = lambda: True  # others may have the cores: a child would compute on its own thread
def unguarded():
    forks._forked = False
    return right()
print(in_child(unguarded))
"""
    )
    assert finish(code, NUMBA_NUM_THREADS="2", NUMBA_THREADING_LAYER="omp").stdout.strip() == "-15"
