"""ONNX Runtime: a model of one `Conv`, whose weights the session packs when it is made."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..problems import Inputs, Problem
from .contender import INFERENCE, Pass, images_in_float32, threads

# The oldest that have what is needed, so that every runtime reads the model.
OPSET = 11
IR_VERSION = 6


class OnnxRuntime:
    """On the CPU; the image and the result stay bound to the session, so that a call copies neither."""

    name = "onnxruntime"
    modules: tuple[str, ...] = ("onnxruntime", "onnx")
    direct = True

    def offers(self) -> tuple[str, ...]:
        return INFERENCE

    def declines(self, problem: Problem, dtype: str) -> str | None:
        return images_in_float32(problem, dtype)

    def prepare(self, passed: str, problem: Problem, inputs: Inputs) -> Pass:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads()
        options.inter_op_num_threads = 1
        model = _model(problem, inputs).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        y = np.full(problem.y_shape, np.nan, np.float32)
        binding = session.io_binding()
        binding.bind_cpu_input("x", inputs.x)
        binding.bind_output("y", "cpu", 0, np.float32, y.shape, y.ctypes.data)

        def forward() -> tuple[Any, ...]:
            session.run_with_iobinding(binding)
            return (y,)

        return forward


def _model(problem: Problem, inputs: Inputs) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    def pair(value: int) -> list[int]:
        return [value, value]

    node = helper.make_node(
        "Conv", ["x", "weight", "bias"], ["y"], kernel_shape=pair(problem.kernel), strides=pair(problem.stride),
        pads=pair(problem.padding) * 2, dilations=pair(problem.dilation), group=problem.groups,
    )  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, problem.x_shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, problem.y_shape)
    constants = [numpy_helper.from_array(getattr(inputs, name), name) for name in ("weight", "bias")]
    graph = helper.make_graph([node], "convolution", [x], [y], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
