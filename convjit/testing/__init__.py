"""Property-based testing of convolutions: strategies, checks and references. The strategies need Hypothesis.

Nothing here knows convjit's own functions: test a convolution of yours with it.

Examples
--------
>>> from hypothesis import given, settings
>>> from convjit import conv2d, conv2d_input_grad
>>> from convjit.testing import check_adjoint, conv2d_cases
>>> @settings(deadline=None)  # compiling takes time, once
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

from .checks import assert_within_rounding, check_adjoint, check_gradients, inner_product
from .oracle import (
    reference_avg_pool2d,
    reference_col2im,
    reference_conv2d,
    reference_conv2d_backward,
    reference_conv_transpose2d,
    reference_im2col,
    reference_max_pool2d,
    reference_max_pool2d_backward,
    reference_pad2d,
    reference_pad2d_backward,
    reference_pads,
)
from .seed import NumpyConv2D

if TYPE_CHECKING:
    from .strategies import (
        LAYOUTS,
        PADDING_MODES,
        PADDING_NAMES,
        Case,
        Problem,
        conv2d_cases,
        conv2d_problems,
        exact_arrays,
        layouts,
        real_arrays,
    )

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
    if name in __all__:
        return getattr(import_module(".strategies", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
