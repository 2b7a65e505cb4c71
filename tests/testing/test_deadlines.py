"""Deadlines that leave out compiling: what is slow is found, what compiles is not, whoever gave the deadline."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjit.testing import leave_out_compiling

CONFTEST = """
from hypothesis import settings
settings.register_profile("mine", max_examples=5, database=None, deadline=150)
settings.load_profile("mine")
pytest_plugins = ["convjit.testing.deadlines"]
"""

TESTS = """
import threading, time
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from numba import njit
from numba.extending import overload


def compiled(seconds=0.0):
    def total_of(a): ...

    @overload(total_of)
    def of_a(a):
        time.sleep(0.4)  # so that compiling, anew in every example, takes longer than each deadline on any machine
        return lambda a: (a * a + a).sum()

    total = njit(lambda a: total_of(a))
    assert total(np.ones(3)) == 6
    time.sleep(seconds)


@given(st.integers(0, 1))
def test_of_the_profile(n):
    compiled()


@settings(max_examples=3)
@given(st.integers(0, 1))
def test_of_settings(n):
    compiled()


@settings(deadline=100)
@given(st.integers(0, 1))
def test_of_its_own(n):
    compiled()


@given(st.integers(0, 1))
def test_in_a_thread(n):
    thread = threading.Thread(target=compiled)
    thread.start()
    thread.join()


class TestMethods:
    @pytest.mark.parametrize("k", [1, 2])
    @given(n=st.integers(0, 1))
    def test_method(self, n, k):
        compiled()


@settings(deadline=None)
@given(st.integers(0, 0))
def test_without_one(n):
    time.sleep(0.5)


@given(st.integers(0, 0))
def test_slow(n):
    time.sleep(0.5)


@settings(deadline=300)
@given(st.integers(0, 0))
def test_slow_besides_compiling(n):
    compiled(0.6)


def test_of_another_kind():
    time.sleep(0.3)
"""


@pytest.fixture
def outcome(tmp_path):
    """The outcome of each test, run by a stranger's pytest with and without the plugin."""

    def run(conftest):
        (tmp_path / "conftest.py").write_text(conftest)
        (tmp_path / "test_them.py").write_text(TESTS)
        command = [sys.executable, "-m", "pytest", "-v", "-W", "error", "-p", "no:cacheprovider"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        lines = [line.split() for line in done.stdout.splitlines() if line.startswith("test_them.py::")]
        return {line[0].removeprefix("test_them.py::"): line[1] for line in lines}, done.stdout

    return run


def test_the_plugin(outcome):
    got, text = outcome(CONFTEST)
    slow = {"test_slow", "test_slow_besides_compiling"}
    assert {name for name, result in got.items() if result == "FAILED"} == slow, text
    assert len(got) == 10, text
    assert text.count("DeadlineExceeded") >= 2, text
    assert "Flaky" not in text


def test_without_the_plugin_compiling_counts(outcome):
    got, text = outcome(CONFTEST.replace("pytest_plugins", "nothing"))
    assert got["test_of_the_profile"] == got["test_of_its_own"] == "FAILED", text


def test_the_decorator_leaves_others_alone():
    def plain():
        pass

    assert leave_out_compiling(plain) is plain
    test = settings(deadline=None)(given(st.integers())(lambda n: None))
    body = test.hypothesis.inner_test
    assert leave_out_compiling(test) is test
    assert test.hypothesis.inner_test is body


def test_the_decorator_is_applied_once():
    test = settings(deadline=300)(given(st.integers())(lambda n: None))
    leave_out_compiling(test)
    body = test.hypothesis.inner_test
    assert leave_out_compiling(test).hypothesis.inner_test is body
    test()
