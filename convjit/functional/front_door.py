"""The decorator of every public callable: errors of the call itself are one sentence.

An unknown keyword is answered with the right word, a wrong number of arguments and a lack of memory name the function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Words of other libraries (Keras, TensorFlow, JAX, PyTorch, SciPy) and what they are here: the first that is taken.
_ELSEWHERE: dict[str, tuple[str, ...]] = {
    "strides": ("stride",),
    "window_strides": ("stride",),
    "dilation_rate": ("dilation",),
    "dilations": ("dilation",),
    "rhs_dilation": ("dilation",),
    "pads": ("padding",),
    "pad": ("padding",),
    "feature_group_count": ("groups",),
    "group": ("groups",),
    "input": ("x",),
    "inputs": ("x",),
    "images": ("x",),
    "filter": ("weight", "filter_shape"),
    "filters": ("weight", "n_filters"),
    "out_channels": ("n_filters",),
    "kernel": ("weight", "filter_shape"),
    "w": ("weight",),
    "weights": ("weight",),
    "b": ("bias",),
    "kernel_size": ("filter_shape", "pool_shape"),
    "kernel_shape": ("kernel_size", "filter_shape"),
    "filter_size": ("kernel_size", "filter_shape"),
    "pool_size": ("kernel_size", "pool_shape"),
    "units": ("n_units",),
    "out_features": ("n_units",),
    "rate": ("p",),
    "lr": ("learning_rate",),
    "beta_1": ("b1",),
    "n_epochs": ("epochs",),
    "activation": ("name",),
    "data_format": ("layout",),
}
_LAYOUTS = ("data_format", "layout")
_SHAPES = {"1d": "(N, C, L)", "3d": "(N, C, D, H, W)"}


def public(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse unknown keywords with one sentence that names the right word, where there is one."""
    return public_as(function.__qualname__.removesuffix(".__init__"))(function)


def public_as(where: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """The same for what errors call by another name than its own."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = [name for name in inspect.signature(function).parameters if name != "self"]
        known = frozenset(parameters)

        @wraps(function)
        def front_door(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except TypeError as error:
                inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
                if inside:
                    raise
                for name in kwargs:
                    if name not in known:
                        raise TypeError(unknown_keyword(where, parameters, name)) from None
                # Of arguments that are missing or too many, by the name that Python calls the function.
                raise TypeError(f"{where}: {str(error).partition('() ')[2] or error}") from None
            except MemoryError as error:
                if type(error) is MemoryError and str(error).startswith(where):
                    raise
                raise MemoryError(f"{where}: {str(error) or 'memory ran out'}") from None

        return front_door

    return decorate


def unknown_keyword(where: str, parameters: list[str], unknown: str) -> str:
    """What is said of a keyword that a callable with these parameters does not take."""
    if unknown in _LAYOUTS and "layout" not in parameters:
        shape = next((shape for rank, shape in _SHAPES.items() if rank in where.lower()), "(N, C, H, W)")
        return f"{where}: unknown keyword {unknown!r}; arrays are {shape}, transpose before the call"
    meant = next((word for word in _ELSEWHERE.get(unknown, ()) if word in parameters), None)
    if meant is not None:
        return f"{where}: unknown keyword {unknown!r}; it is called {meant!r} here"
    return f"{where}: unknown keyword {unknown!r}; it takes {', '.join(parameters)}"
