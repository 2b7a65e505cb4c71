"""The public functions: normalise, geometry, choose, allocate, call.

Every argument is checked here, once, before anything is allocated; from `algorithms` down nothing raises.
"""

from .columns import col2im, im2col
from .conv import conv2d, conv2d_backward, conv2d_input_grad, conv2d_weight_grad
from .explaining import explain
from .padding import pad2d, pad2d_backward
from .plan import conv2d_plan
from .pooling import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward
from .seed import column_to_image, determine_padding, get_im2col_indices, image_to_column
from .transpose import conv_transpose2d, conv_transpose2d_backward

__all__ = [
    "avg_pool2d",
    "avg_pool2d_backward",
    "col2im",
    "column_to_image",
    "conv2d",
    "conv2d_backward",
    "conv2d_input_grad",
    "conv2d_plan",
    "conv2d_weight_grad",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "determine_padding",
    "explain",
    "get_im2col_indices",
    "im2col",
    "image_to_column",
    "max_pool2d",
    "max_pool2d_backward",
    "pad2d",
    "pad2d_backward",
]
