"""What needs no Hypothesis works without it: the demo and the bench install nothing for tests."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = """
import sys
sys.modules["hypothesis"] = None
from convjit.testing import NumpyConv2D, check_adjoint, reference_conv2d
try:
    from convjit.testing import conv2d_cases
except ImportError as error:
    print(error)
"""


def test_only_strategies_import_hypothesis():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == (
        "convjit.testing.conv2d_cases needs hypothesis, which is not installed: pip install hypothesis"
    )
