"""Property-based testing of convolutions: strategies, checks and references, for anybody's functions.

Nothing here knows convjit's own functions. Problems and arrays are drawn by Hypothesis strategies (`conv2d_cases`,
`conv2d_problems`, `exact_arrays`, `real_arrays`, `layouts`), which need Hypothesis; checks and references do without.
`convjit.testing.deadlines` is a pytest plugin whose deadlines leave out compiling.

On small integers stored as floats sums have no rounding error, so most tests need no tolerance: a result is the
reference's to the bit (`reference_conv2d` and its family), a gradient is the adjoint (`check_adjoint`) and the
difference quotient (`check_gradients`). On real numbers `assert_within_rounding` counts errors in units.

Examples
--------
>>> from hypothesis import given, settings
>>> from convjit import conv2d, conv2d_input_grad
>>> from convjit.testing import check_adjoint, conv2d_cases
>>> @settings(deadline=None)  # compiling takes time, once; or see `deadlines`
... @given(conv2d_cases())
... def test_input_gradient(case):
...     problem = case.problem
...     check_adjoint(
...         lambda x: conv2d(x, case.weight, **problem.options),
...         lambda dy: conv2d_input_grad(dy, case.weight, problem.image, **problem.options),
...         case.x,
...         case.grad_output,
...     )
>>> test_input_gradient()
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .checks import assert_within_rounding, check_adjoint, inner_product
from .differences import check_gradients
from .needing import needs_hypothesis
from .oracle import (
    reference_conv2d,
    reference_conv2d_backward,
    reference_conv_transpose2d,
    reference_pad2d,
    reference_pad2d_backward,
    reference_pads,
)
from .oracle_windows import (
    reference_avg_pool2d,
    reference_col2im,
    reference_im2col,
    reference_max_pool2d,
    reference_max_pool2d_backward,
)
from .problems import PADDING_MODES, PADDING_NAMES, Case, Problem
from .seed import NumpyConv2D

if TYPE_CHECKING:
    from .arrays import exact_arrays, real_arrays
    from .deadlines import leave_out_compiling
    from .memory_layouts import LAYOUTS, layouts
    from .strategies import conv2d_cases, conv2d_problems

# What needs Hypothesis, and where it is: imported when it is asked for.
_LAZY = {
    "LAYOUTS": "memory_layouts",
    "conv2d_cases": "strategies",
    "conv2d_problems": "strategies",
    "exact_arrays": "arrays",
    "layouts": "memory_layouts",
    "leave_out_compiling": "deadlines",
    "real_arrays": "arrays",
}

__all__ = [
    "LAYOUTS",
    "PADDING_MODES",
    "PADDING_NAMES",
    "Case",
    "NumpyConv2D",
    "Problem",
    "assert_within_rounding",
    "check_adjoint",
    "check_gradients",
    "conv2d_cases",
    "conv2d_problems",
    "exact_arrays",
    "inner_product",
    "layouts",
    "leave_out_compiling",
    "real_arrays",
    "reference_avg_pool2d",
    "reference_col2im",
    "reference_conv2d",
    "reference_conv2d_backward",
    "reference_conv_transpose2d",
    "reference_im2col",
    "reference_max_pool2d",
    "reference_max_pool2d_backward",
    "reference_pad2d",
    "reference_pad2d_backward",
    "reference_pads",
]


def __getattr__(name: str) -> Any:
    """The strategies, imported when one is asked for: what needs no Hypothesis works without it."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs_hypothesis(name):
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
