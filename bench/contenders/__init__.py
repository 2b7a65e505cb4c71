"""Who is measured: a file each, a row each in `CONTENDERS`.

A contender says what it cannot express, and makes of a problem one prepared call for each of its passes. Libraries are
imported in the worker's process only: two OpenMP runtimes in one process ruin both.

====================  ================================================================
`forward`             the result; of convjit, with `algorithm="auto"`
`fastest`             convjit's, with `algorithm="fastest"`
`plan`                convjit's, with the weights packed beforehand
`plan-fastest`        both
`backward`            the gradients in the input, the weight and the bias
`backward-fastest`    convjit's, with `algorithm="fastest"`
`layer`               a layer that holds weight and bias, forward then backward
====================  ================================================================
"""

from __future__ import annotations

from importlib.util import find_spec

from .contender import COMPARED, DIRECT, INFERENCE, OURS, PASSES, TRAINING, Contender, Pass
from .ncnn_net import Ncnn
from .onnx_runtime import OnnxRuntime
from .open_vino import OpenVino
from .original import OriginalNumPy
from .ours import Convjit
from .pytorch import Torch

__all__ = [
    "BY_NAME", "COMPARED", "CONTENDERS", "Contender", "Convjit", "DIRECT", "INFERENCE", "Ncnn", "OURS", "OnnxRuntime",
    "OpenVino", "OriginalNumPy", "PASSES", "Pass", "TRAINING", "Torch", "installed",
]  # fmt: skip

CONTENDERS: tuple[Contender, ...] = (Convjit(), OriginalNumPy(), Torch(), OnnxRuntime(), OpenVino(), Ncnn())
BY_NAME = {contender.name: contender for contender in CONTENDERS}


def installed() -> list[Contender]:
    """The contenders whose libraries are here."""
    return [contender for contender in CONTENDERS if all(find_spec(module) for module in contender.modules)]
