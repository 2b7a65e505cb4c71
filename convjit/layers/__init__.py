"""Layers: thin classes that hold weights and optimizer state, and nothing else.

What they compute are the functions of `convjit.functional`; every layer keeps the contract of `Layer`.
"""

from .activation import Activation
from .base import Layer
from .conv import Conv2D
from .dense import Dense, Flatten
from .losses import CrossEntropy, Loss, SquareLoss
from .optimizers import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop
from .pooling import AveragePooling2D, MaxPooling2D
from .regularization import BatchNormalization, Dropout
from .sequential import Sequential
from .transpose import Conv2DTranspose

__all__ = [
    "SGD",
    "Activation",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "AveragePooling2D",
    "BatchNormalization",
    "Conv2D",
    "Conv2DTranspose",
    "CrossEntropy",
    "Dense",
    "Dropout",
    "Flatten",
    "Layer",
    "Loss",
    "MaxPooling2D",
    "Optimizer",
    "RMSprop",
    "Sequential",
    "SquareLoss",
]
