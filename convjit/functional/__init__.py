"""The public functions: normalise, geometry, choose, allocate, call.

Every argument is checked here, once, before anything is allocated; below the choice of an algorithm nothing raises.

A call goes down; a file imports from its own line and those below it only:

======================================  ================================================================================
`conv`, `conv1d`, `conv3d`, `plan`      signatures, and what they mean
`transpose`, `planning`, `explaining`   what stands on convolutions; what a call would do
`convolving`                            arrays as they are given, and what shapes and options decide of them
`pooling*`, `pools`, `seed`             signatures of pools, and what they share; those of the text that this grew from
`padding`, `columns`                    images with borders, and as columns
`bilinear`                              dtypes: a complex operation is several real ones
`slicing`, `batches`                    workers, workspaces and slices of volumes and of images
`volumes`, `calls`                      what is decided before any array is looked at: the operation of `algorithms`
`kept`, `bits`                          workspaces, and what runs in them; values that only move
`options`, `looking_up`, `front_door`   what was asked for; what was decided before; errors of the call itself
======================================  ================================================================================
"""

from .columns import col2im, col2im1d, col2im3d, im2col, im2col1d, im2col3d
from .conv import conv2d, conv2d_backward, conv2d_input_grad, conv2d_weight_grad
from .conv1d import (
    conv1d,
    conv1d_backward,
    conv1d_input_grad,
    conv1d_weight_grad,
    conv_transpose1d,
    conv_transpose1d_backward,
)
from .conv3d import (
    conv3d,
    conv3d_backward,
    conv3d_input_grad,
    conv3d_weight_grad,
    conv_transpose3d,
    conv_transpose3d_backward,
)
from .explaining import explain
from .padding import pad1d, pad1d_backward, pad2d, pad2d_backward, pad3d, pad3d_backward
from .plan import conv1d_plan, conv2d_plan, conv3d_plan
from .pooling import avg_pool2d, avg_pool2d_backward, max_pool2d, max_pool2d_backward
from .pooling1d import avg_pool1d, avg_pool1d_backward, max_pool1d, max_pool1d_backward
from .pooling3d import avg_pool3d, avg_pool3d_backward, max_pool3d, max_pool3d_backward
from .seed import column_to_image, determine_padding, get_im2col_indices, image_to_column
from .transpose import conv_transpose2d, conv_transpose2d_backward

__all__ = [
    "avg_pool1d",
    "avg_pool1d_backward",
    "avg_pool2d",
    "avg_pool2d_backward",
    "avg_pool3d",
    "avg_pool3d_backward",
    "col2im",
    "col2im1d",
    "col2im3d",
    "column_to_image",
    "conv1d",
    "conv1d_backward",
    "conv1d_input_grad",
    "conv1d_plan",
    "conv1d_weight_grad",
    "conv2d",
    "conv2d_backward",
    "conv2d_input_grad",
    "conv2d_plan",
    "conv2d_weight_grad",
    "conv3d",
    "conv3d_backward",
    "conv3d_input_grad",
    "conv3d_plan",
    "conv3d_weight_grad",
    "conv_transpose1d",
    "conv_transpose1d_backward",
    "conv_transpose2d",
    "conv_transpose2d_backward",
    "conv_transpose3d",
    "conv_transpose3d_backward",
    "determine_padding",
    "explain",
    "get_im2col_indices",
    "im2col",
    "im2col1d",
    "im2col3d",
    "image_to_column",
    "max_pool1d",
    "max_pool1d_backward",
    "max_pool2d",
    "max_pool2d_backward",
    "max_pool3d",
    "max_pool3d_backward",
    "pad1d",
    "pad1d_backward",
    "pad2d",
    "pad2d_backward",
    "pad3d",
    "pad3d_backward",
]
