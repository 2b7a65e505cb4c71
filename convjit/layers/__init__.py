"""Layers: thin classes that hold weights and optimizer state, and nothing else.

What they compute are the functions of `convjit.functional`; every layer keeps the contract of `Layer`.

=========================  =============================================================================================
`base`                     the contract, and the one way in which weights change
`conv`, `transpose`        convolutions, which `convolving` puts around `conv2d` and its siblings
`dense`, `pooling`         `products` are the matrix products of a dense layer
`activation`               a row each
`regularization`           dropout; batch normalisation, whose arithmetic is in `normalising`
`initializers`             first weights
`optimizers`, `losses`     how weights change, and towards what
`sequential`               layers in turn: `order` runs a ReLU behind the max pool that follows it, `undo` takes back
                           a step that failed, `storage` keeps weights
`passes`, `slices`         compiled passes over arrays, and NumPy's
=========================  =============================================================================================
"""

from .activation import Activation
from .base import Layer
from .conv import Conv1D, Conv2D, Conv3D
from .dense import Dense, Flatten
from .losses import CrossEntropy, Loss, SquareLoss
from .optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop
from .pooling import (
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
)
from .regularization import BatchNormalization, Dropout
from .sequential import Sequential
from .transpose import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose

__all__ = [
    "SGD",
    "Activation",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BatchNormalization",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "CrossEntropy",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "Loss",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "Optimizer",
    "RMSprop",
    "Sequential",
    "SquareLoss",
]
