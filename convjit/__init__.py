"""Convolution for NumPy arrays, compiled just in time by Numba, with gradients.

Stateless functions (`conv2d` and its family), layers that hold weights and optimizer state (`Conv2D` and companions),
and, in `convjit.testing`, the tools of property-based testing. Importing compiles nothing.
"""

from .functional import (
    avg_pool2d,
    avg_pool2d_backward,
    col2im,
    column_to_image,
    conv2d,
    conv2d_backward,
    conv2d_input_grad,
    conv2d_weight_grad,
    conv_transpose2d,
    conv_transpose2d_backward,
    determine_padding,
    get_im2col_indices,
    im2col,
    image_to_column,
    max_pool2d,
    max_pool2d_backward,
    pad2d,
    pad2d_backward,
)

__version__ = "0.1.0"
