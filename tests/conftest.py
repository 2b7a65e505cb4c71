"""Hypothesis profiles: `default`, `ci` (repeatable, where CI is set), `thorough` (HYPOTHESIS_PROFILE=thorough).

`pytest --whole` runs the stress tests in full, where a plain run takes a share of each.
"""

import os

import pytest
from hypothesis import HealthCheck, settings

# Compiling in the middle of a test is no flakiness, so there is no deadline.
_COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}

settings.register_profile("default", max_examples=60, **_COMMON)
settings.register_profile("ci", max_examples=60, derandomize=True, database=None, print_blob=True, **_COMMON)
settings.register_profile("thorough", max_examples=5000, **_COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))


def pytest_addoption(parser):
    parser.addoption("--whole", action="store_true", help="run the stress tests in full, not a share of each")


@pytest.fixture
def share(request):
    """`share(few, all)`: how much a stress test does, `all` with `--whole`."""
    return lambda few, whole: whole if request.config.getoption("--whole") else few


@pytest.fixture
def anew():
    """Nothing is remembered of how problems are cut, before and after."""
    from decisions import forget  # imports convjit, which not every run does

    forget()
    yield
    forget()
