"""OpenVINO: a model of one convolution, compiled for the CPU, whose weights are packed by then."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from ..problems import Inputs, Problem
from .contender import INFERENCE, Pass, images_in_float32, threads


class OpenVino:
    """In float32 throughout, set for latency; the image and the result are tensors that the request keeps."""

    name = "openvino"
    modules: tuple[str, ...] = ("openvino",)
    direct = True

    def offers(self) -> tuple[str, ...]:
        return INFERENCE

    def declines(self, problem: Problem, dtype: str) -> str | None:
        return images_in_float32(problem, dtype)

    def prepare(self, passed: str, problem: Problem, inputs: Inputs) -> Pass:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # a measurement sends nothing
        import openvino

        setting = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads(),
            "NUM_STREAMS": 1,
        }
        request = openvino.Core().compile_model(_model(problem, inputs), "CPU", setting).create_infer_request()
        y = np.full(problem.y_shape, np.nan, np.float32)
        request.set_input_tensor(openvino.Tensor(inputs.x, shared_memory=True))
        request.set_output_tensor(openvino.Tensor(y, shared_memory=True))

        def forward() -> tuple[Any, ...]:
            request.infer()
            return (y,)

        return forward


def _model(problem: Problem, inputs: Inputs) -> Any:
    import openvino
    from openvino import opset8 as ops

    strides, pads, dilations = ([value, value] for value in (problem.stride, problem.padding, problem.dilation))
    x = ops.parameter(list(problem.x_shape), np.float32, name="x")
    if problem.groups == 1:
        y = ops.convolution(x, ops.constant(inputs.weight), strides, pads, pads, dilations)
    else:
        out_channels, *rest = problem.weight_shape
        weight = inputs.weight.reshape(problem.groups, out_channels // problem.groups, *rest)
        y = ops.group_convolution(x, ops.constant(weight), strides, pads, pads, dilations)
    y = ops.add(y, ops.constant(inputs.bias.reshape(1, -1, 1, 1)))
    return openvino.Model([y], [x], "convolution")
