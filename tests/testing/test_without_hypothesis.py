"""What needs no Hypothesis works without it: the demo and the bench install nothing for tests."""

from __future__ import annotations

import subprocess
import sys

import pytest

WITHOUT = """
import sys
sys.modules["hypothesis"] = None
from convjit.testing import NumpyConv2D, check_adjoint, reference_conv2d
try:
    IMPORT
except ImportError as error:
    print(error)
"""
NAMES = {
    "conv2d_cases": "from convjit.testing import conv2d_cases",
    "leave_out_compiling": "from convjit.testing import leave_out_compiling",
    "deadlines": "import convjit.testing.deadlines",
}


@pytest.mark.parametrize("name", NAMES)
def test_only_strategies_and_deadlines_import_hypothesis(name):
    program = WITHOUT.replace("IMPORT", NAMES[name])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        f'convjit.testing.{name} needs hypothesis, which is not installed: pip install "convjit[test]"'
    )
