"""Teams give way while somebody else has the cores, and come back."""

from __future__ import annotations

import numpy as np
import pytest
from fresh import output

import convjit
from convjit.runtime import contention, threads

MS = 1_000_000

pytestmark = pytest.mark.skipif(
    contention.resource is None, reason="no getrusage here, so cores are taken to be free: nothing is watched"
)


@pytest.fixture
def seen(monkeypatch):
    """A watch that has seen nothing, with clocks and a count of context switches that the test sets."""
    watch, clock = contention._Watch(), {"now": 1000 * MS, "thread": 0, "process": 0, "switches": 5}
    usage = type("Usage", (), {"ru_nivcsw": property(lambda _: clock["switches"])})
    monkeypatch.setattr(contention, "_seen", watch)
    monkeypatch.setattr(contention, "perf_counter_ns", lambda: clock["now"])
    monkeypatch.setattr(contention, "thread_time_ns", lambda: clock["thread"])
    monkeypatch.setattr(contention, "process_time_ns", lambda: clock["process"])
    monkeypatch.setattr(contention.numba.config, "NUMBA_DEFAULT_NUM_THREADS", 4)
    monkeypatch.setattr(contention.resource, "getrusage", lambda _: usage())

    def team(lost_ms, switches=0, took_ms=5):
        clock["now"] += took_ms * MS
        clock["switches"] += switches
        contention._look(took_ms * MS, int((took_ms - lost_ms) * MS), clock["now"])
        return contention.are_free()

    def alone(ms, others=0.0):
        """Time in which calls run on their own threads, beside so many others of this process, on the average."""
        for _ in range(ms):
            clock["now"] += MS
            clock["thread"] += MS
            clock["process"] += int((1 + others) * MS)
            free = contention.are_free()
        return free

    team.clock, team.watch, team.alone = clock, watch, alone
    return team


def test_one_slow_team_is_no_reason(seen):
    assert seen(4, switches=3)
    assert seen(0.1)
    assert seen(4, switches=3)


def test_two_in_a_row_are(seen):
    assert seen(4, switches=1)
    assert not seen(4, switches=1)
    seen.clock["now"] += 24 * MS
    assert not contention.are_free()
    seen.clock["now"] += 2 * MS
    assert contention.are_free()


def test_waiting_for_the_last_task_is_not(seen):
    """Without a thread that was made to leave its core, or for a small part of a long loop."""
    assert all(seen(4) for _ in range(10))
    assert all(seen(7, switches=1, took_ms=40) for _ in range(10))
    seen(9, switches=1, took_ms=40)
    assert not seen(9, switches=1, took_ms=40)


def test_what_is_tried_in_vain_is_tried_less_often(seen):
    seen(4, switches=1)
    waits = []
    for _ in range(8):
        assert not seen(4, switches=1)
        waits.append((seen.watch.until - seen.clock["now"]) // MS)
        seen.clock["now"] = seen.watch.until
    assert waits == [25, 50, 100, 100, 100, 100, 100, 100]
    assert seen(0.2)
    seen(4, switches=1)
    assert not seen(4, switches=1)
    assert (seen.watch.until - seen.clock["now"]) // MS == 25


def give_way(seen):
    seen(4, switches=1)
    assert not seen(4, switches=1)


def test_while_others_of_this_process_have_the_cores_no_team_is_tried(seen):
    give_way(seen)
    assert not seen.alone(500, others=3)
    assert not seen.alone(9)  # in the last 10 ms they still had them for a moment
    assert seen.alone(21)


def test_others_that_leave_cores_are_not_waited_for(seen):
    """Of four cores two others have two: a team finds two, and one thread would have one."""
    give_way(seen)
    assert not seen.alone(24, others=2)
    assert seen.alone(2, others=2)


def test_what_a_team_took_is_not_taken_for_others(seen):
    give_way(seen)
    assert seen.alone(30)  # a span ends with them
    seen.clock["process"] += 3 * 20 * MS
    assert seen(19, took_ms=20)  # no switch: nobody was made to leave a core
    assert seen.alone(20)


def test_another_thread_does_not_judge(seen, monkeypatch):
    """It cannot know what of the time was its own."""
    give_way(seen)
    assert not seen.alone(24, others=3)
    monkeypatch.setattr(contention.threading, "get_ident", lambda: 1)
    assert any(seen.alone(1, others=3) for _ in range(11))


def test_calls_take_their_own_thread_meanwhile(monkeypatch):
    monkeypatch.setattr(contention, "_seen", contention._Watch())
    if threads.available() == 1:
        pytest.skip("one core, or a process that was forked: every call takes its own thread")
    x, weight = np.ones((2, 16, 40, 40), "f4"), np.ones((16, 16, 3, 3), "f4")
    wanted = convjit.conv2d(x, weight)
    monkeypatch.setattr(contention, "are_free", lambda: False)
    monkeypatch.setattr(threads, "run_parallel", lambda *arguments: pytest.fail("a team"))
    assert threads.available() == 1
    assert "has the cores" in (threads.why_serial() or "")
    assert convjit.conv2d(x, weight).tobytes() == wanted.tobytes()


BUSY = """
    import os, subprocess, sys, time
    import numba
    import numpy as np
    import convjit
    from convjit.runtime import contention, threads

    x, weight = np.ones((1, 64, 56, 56), "f4"), np.ones((64, 64, 3, 3), "f4")
    if numba.config.NUMBA_NUM_THREADS == 1:
        print("given way, back, same")
        sys.exit()
    wanted = convjit.conv2d(x, weight)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        same, end = True, time.monotonic() + 60
        while contention.are_free() and time.monotonic() < end:
            same &= convjit.conv2d(x, weight).tobytes() == wanted.tobytes()
        given_way = "given way" if threads.available() == 1 else "not"
        for _ in range(5):
            same &= convjit.conv2d(x, weight).tobytes() == wanted.tobytes()
    finally:
        for each in busy:
            each.kill()
    while not contention.are_free():
        time.sleep(0.01)
    print(f"{given_way}, {'back' if threads.available() > 1 else 'not'}, {'same' if same else 'not'}")
"""


def test_beside_processes_that_have_all_cores():
    assert output(BUSY) == "given way, back, same"


def test_short_teams_lose_nothing_and_tell_when_they_ended(seen, monkeypatch):
    """Less than `_LOST_NS` in all cannot be lost in part."""

    def team():
        seen.clock["now"] += contention._LOST_NS - 1  # while the thread's own clock stands still

    for _ in range(3):
        contention.watched(2, team)
        seen.clock["switches"] += 1
        assert contention.are_free()
        assert contention.since_last_team() == 0
    seen.clock["now"] += 7
    assert contention.since_last_team() == 7
    monkeypatch.setattr(contention.threading, "get_ident", lambda: 1)  # each thread has a team of its own
    assert contention.since_last_team() == seen.clock["now"]


def test_more_threads_than_cores_are_not_watched(monkeypatch):
    """Who asks for them shares cores on purpose."""
    ran = []
    monkeypatch.setattr(contention, "_look", lambda *arguments: pytest.fail("a look"))
    contention.watched(contention.numba.config.NUMBA_DEFAULT_NUM_THREADS + 1, ran.append, 1)
    assert ran == [1]
