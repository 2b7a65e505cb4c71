"""Many Python threads at once, on every threading layer; how many threads a call uses."""

from __future__ import annotations

import pytest
from fresh import LAYERS, finish, output, output_on

from convjit.runtime import containers, threads

MANY_THREADS = """
    import sys, threading
    import numpy as np
    import convjit

    rng = np.random.default_rng(0)
    small = rng.normal(size=(1, 2, 6, 6)), rng.normal(size=(3, 2, 3, 3))
    large = rng.normal(size=(2, 8, 40, 40)), rng.normal(size=(8, 8, 3, 3))
    THREADS, CALLS = 32, {calls}
    ready, wrong = threading.Barrier(THREADS), []

    def everything(x, weight):
        y = convjit.conv2d(x, weight, padding=1)
        dx, dw, db = convjit.conv2d_backward(y, x, weight, padding=1)
        pooled = convjit.max_pool2d(x, 2)
        return b"".join(a.tobytes() for a in (y, dx, dw, db, pooled))

    def caller(k):
        ready.wait()
        for call in range(CALLS):
            data = (small, large)[(k + call) % 2]
            answers[k % 2].add((data is large, everything(*data)))

    answers = [set(), set()]
    callers = [threading.Thread(target=caller, args=(k,)) for k in range(THREADS)]
    for thread in callers: thread.start()
    for thread in callers: thread.join()
    expected = {{(False, everything(*small)), (True, everything(*large))}}
    assert answers[0] | answers[1] == expected, len(answers[0] | answers[1])
    print("right")
"""


@pytest.mark.parametrize("layer", LAYERS)
def test_many_threads_at_once_get_the_right_bits(layer, share):
    assert output_on(layer, MANY_THREADS.format(calls=share(10, 200))) == "right"


FIRST_CALLS = """
    import sys, threading
    import numba.core.dispatcher as dispatcher
    import numpy as np
    import convjit
    from convjit.runtime import emitting
    compiled = 0
    def counted(compile):
        def inner(*arguments):
            global compiled
            compiled += 1
            return compile(*arguments)
        return inner
    dispatcher._FunctionCompiler.compile = counted(dispatcher._FunctionCompiler.compile)  # by Numba
    emitting._optimised = counted(emitting._optimised)  # plain code
    x, weight = np.ones((2, 8, 40, 40)), np.ones((8, 8, 3, 3))
    callers, answers = int(sys.argv[1]), []
    ready = threading.Barrier(callers)
    def caller():
        ready.wait()
        answers.append(convjit.conv2d(x, weight).tobytes())
    callers = [threading.Thread(target=caller) for _ in range(callers)]
    for thread in callers: thread.start()
    for thread in callers: thread.join()
    assert len(answers) == len(callers) and len(set(answers)) == 1
    print(compiled)
"""


def test_first_calls_at_once_compile_once():
    alone, together = (output(FIRST_CALLS, callers, CONVJIT_CACHE="0") for callers in ("1", "16"))
    assert int(alone) >= 3  # kernels, those that fill planes, and what calls them
    assert together == alone


@pytest.mark.parametrize("since", [0, threads._AWAKE_NS])
@pytest.mark.parametrize("spin", [True, False])
def test_small_work_is_serial_and_large_work_is_not(spin, since, monkeypatch):
    monkeypatch.setattr(threads, "available", lambda: 7)
    monkeypatch.setattr(threads, "_spin", spin)
    monkeypatch.setattr(threads.contention, "since_last_team", lambda: since)
    least = threads.SERIAL_BELOW_IF_AWAKE_NS if spin and since == 0 else threads.SERIAL_BELOW_NS
    assert (threads.workers(least - 1), threads.workers(least)) == (1, 7)
    least = threads.SERIAL_BELOW_NS
    assert (threads.workers_alone(least - 1), threads.workers_alone(least)) == (1, 7)


@pytest.mark.parametrize(
    ("environment", "spin"),
    [({}, "True"), ({"GOMP_SPINCOUNT": "10"}, "False"), ({"OMP_WAIT_POLICY": "passive"}, "False"),
     ({"NUMBA_THREADING_LAYER": "workqueue"}, "False")],
)  # fmt: skip
def test_threads_spin_where_they_are_openmps_and_the_user_says_nothing(environment, spin):
    code = """
        import numba
        from convjit.runtime import threads
        threads.launch_pool()
        print(threads._spin or numba.threading_layer() == "tbb", threads.contention.since_last_team() > 10**6)
        threads.run_parallel(2, lambda: None)
        print(threads.contention.since_last_team() < 10**8)
    """
    assert output(code, NUMBA_NUM_THREADS="2", **environment).split() == [spin, "True", "True"]


WHICH_TWIN = """
    import sys, threading
    import numba
    import numpy as np
    import convjit
    from convjit.runtime import containers, launch, threads
    {prelude}
    seen = []
    run_parallel = threads.run_parallel
    def watched(workers, twin, *arguments):
        before = numba.get_num_threads()
        def inner(*arguments):
            seen.append(numba.get_num_threads())
            twin(*arguments)
        run_parallel(workers, inner, *arguments)
        assert numba.get_num_threads() == before
    threads.run_parallel = watched
    x = np.ones((2, 16, 40, 40))
    convjit.conv2d(x, np.ones((16, 16, 3, 3)))
    print(sorted(set(seen)), numba.get_num_threads())
"""


@pytest.mark.parametrize(
    ("prelude", "printed"),
    [
        ("", "[4] 4"),
        ("numba.set_num_threads(3)", "[3] 3"),
        ("numba.set_num_threads(1)", "[] 1"),
        ("containers.cpu_quota = threads.cpu_quota = lambda: 2", "[2] 4"),
        ("containers.cpu_quota = threads.cpu_quota = lambda: 1", "[] 4"),
        ("other = threading.Thread(target=numba.set_num_threads, args=(1,)); other.start(); other.join()", "[4] 4"),
    ],
)
def test_the_callers_mask_and_the_quota_are_honoured(prelude, printed):
    assert output(WHICH_TWIN.format(prelude=prelude), NUMBA_NUM_THREADS="4") == printed


def test_one_thread_starts_no_pool():
    code = """
        import numpy as np
        import convjit
        import numba.np.ufunc.parallel as parallel
        convjit.conv2d(np.ones((2, 16, 40, 40)), np.ones((16, 16, 3, 3)))
        print(parallel._is_initialized)
    """
    assert output(code, NUMBA_NUM_THREADS="1") == "False"


def test_the_environment_and_the_start_method_are_as_before():
    code = """
        import multiprocessing, os
        before = dict(os.environ)
        import convjit
        from convjit.runtime import threads
        threads.layer()
        assert dict(os.environ) == before
        multiprocessing.set_start_method("spawn")
        print("as before")
    """
    assert output(code) == "as before"


def test_a_signal_handler_may_convolve_under_workqueue():
    """It runs between two parallel loops of the thread that it interrupts, which holds the right to start one."""
    code = """
        import signal
        import numpy as np
        import convjit
        x, weight = np.ones((4, 32, 60, 60)), np.ones((32, 32, 3, 3))
        expected, calls = convjit.conv2d(x, weight), []
        def handler(number, frame):
            calls.append((convjit.conv2d(x, weight) == expected).all())
        signal.signal(signal.SIGALRM, handler)
        while len(calls) < 30:
            signal.setitimer(signal.ITIMER_REAL, 0.0005 * (1 + len(calls) % 7))
            assert (convjit.conv2d(x, weight) == expected).all()
        assert all(calls)
        print("right")
    """
    assert output_on("workqueue", code) == "right"


QUOTAS = [
    ({"cpu.max": "200000 100000\n"}, 2),
    ({"cpu.max": "50000 100000\n"}, 1),
    ({"cpu.max": "max 100000\n"}, containers.UNLIMITED),
    ({"app/cpu.max": "max 100000\n", "cpu.max": "300000 100000\n"}, 3),
    ({"app/cpu.max": "150000 100000\n", "cpu.max": "300000 100000\n"}, 1),
    ({"cpu/app/cpu.cfs_quota_us": "400000\n", "cpu/app/cpu.cfs_period_us": "100000\n"}, 4),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, containers.UNLIMITED),
    ({}, containers.UNLIMITED),
]


@pytest.mark.parametrize(("files", "quota"), QUOTAS)
def test_the_quota_of_the_container(files, quota, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    system_text = containers.system_text
    groups = "0::/app\n3:cpu,cpuacct:/app\n"
    monkeypatch.setattr(containers, "_ROOT", tmp_path)
    monkeypatch.setattr(containers, "system_text", lambda file: groups if file.name == "cgroup" else system_text(file))
    assert containers.cpu_quota.__wrapped__() == quota


def test_a_group_may_have_any_name_in_any_locale(tmp_path):
    (tmp_path / "grüße").mkdir()
    (tmp_path / "grüße/cpu.max").write_text("200000 100000\n")
    (tmp_path / "cgroup").write_text("0::/grüße\n", "utf-8")
    code = f"""
        from pathlib import Path
        from convjit.runtime import containers
        containers._ROOT = Path({str(tmp_path)!a})
        containers.Path = lambda name: Path(name.replace("/proc/self", {str(tmp_path)!a}))
        print(containers.cpu_quota())
    """
    assert output(code, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") == "2"


LARGE_CALL = """
    import numpy as np
    import convjit
    print(convjit.conv2d(np.ones((2, 16, 40, 40)), np.ones((16, 16, 3, 3))).sum())
"""


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        (
            {"NUMBA_THREADING_LAYER": "carrier-pigeon", "NUMBA_NUM_THREADS": "2"},
            "RuntimeError: convjit: Numba's threading layer 'carrier-pigeon' cannot be used here "
            "(The threading layer requested 'carrier-pigeon' is unknown to Numba); set NUMBA_THREADING_LAYER to "
            "'default', 'omp', 'workqueue' or 'tbb' (with its library installed)",
        ),
        (
            {"NUMBA_THREADING_LAYER_PRIORITY": "omp pigeon", "NUMBA_NUM_THREADS": "2"},
            "RuntimeError: convjit: NUMBA_THREADING_LAYER_PRIORITY must have 'omp', 'tbb' and 'workqueue', each once, "
            "in the order in which Numba is to try them, got 'omp pigeon'",
        ),
        ({"NUMBA_NUM_THREADS": "0"}, "ImportError: convjit: NUMBA_NUM_THREADS must be at least 1, got 0"),
        ({"NUMBA_NUM_THREADS": "-3"}, "ImportError: convjit: NUMBA_NUM_THREADS must be at least 1, got -3"),
    ],
)
def test_a_bad_environment_gets_one_sentence(environment, sentence):
    done = finish(LARGE_CALL, **environment)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == sentence


def test_absurdly_many_threads():
    assert output(LARGE_CALL, NUMBA_NUM_THREADS="100000") == "6653952.0"
