"""The decorator of every public callable: an unknown keyword is answered with the right word."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Words of other libraries (Keras, TensorFlow, JAX, PyTorch, SciPy) and what they are here.
_ELSEWHERE = {
    "strides": "stride",
    "window_strides": "stride",
    "dilation_rate": "dilation",
    "dilations": "dilation",
    "rhs_dilation": "dilation",
    "pads": "padding",
    "pad": "padding",
    "padding_type": "padding",
    "feature_group_count": "groups",
    "group": "groups",
    "input": "x",
    "inputs": "x",
    "images": "x",
    "filters": "weight",
    "filter": "weight",
    "kernel": "weight",
    "w": "weight",
    "weights": "weight",
    "b": "bias",
    "kernel_shape": "kernel_size",
    "pool_size": "kernel_size",
    "filter_size": "kernel_size",
    "lr": "learning_rate",
    "n_epochs": "epochs",
    "activation": "name",
}
_LAYOUTS = ("data_format", "layout")


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse unknown keywords with one sentence that names the right word, where there is one."""
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    known = frozenset(parameters)
    where = function.__qualname__.removesuffix(".__init__")

    @wraps(function)
    def front_door(*args: P.args, **kwargs: P.kwargs) -> R:
        if not known.issuperset(kwargs):
            raise TypeError(_complaint(where, parameters, next(name for name in kwargs if name not in known)))
        return function(*args, **kwargs)

    return front_door


def _complaint(where: str, parameters: list[str], unknown: str) -> str:
    if unknown in _LAYOUTS:
        return f"{where}: unknown keyword {unknown!r}; arrays are (N, C, H, W), transpose before the call"
    meant = _ELSEWHERE.get(unknown)
    if meant in parameters:
        return f"{where}: unknown keyword {unknown!r}; it is called {meant!r} here"
    return f"{where}: unknown keyword {unknown!r}; it takes {', '.join(parameters)}"
