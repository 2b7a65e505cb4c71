"""ncnn: a net of one convolution, whose weights it packs and transforms when it loads them.

Source: ncnn's wiki, "param and model file structure" and "operators" (Convolution, ConvolutionDepthWise).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..problems import Inputs, Problem
from .contender import INFERENCE, Pass, images_in_float32, threads

# Everything that would compute in less than float32, or not on the CPU.
SWITCHED_OFF = (
    "use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage",
    "use_int8_inference", "use_int8_packed", "use_int8_storage", "use_int8_arithmetic", "use_vulkan_compute",
)  # fmt: skip
FLOAT32_FOLLOWS = b"\0\0\0\0"


class Ncnn:
    """In float32, with its own choice of algorithm, Winograd's among them. It knows no batches: image after image."""

    name = "ncnn"
    modules: tuple[str, ...] = ("ncnn",)
    direct = False

    def offers(self) -> tuple[str, ...]:
        return INFERENCE

    def declines(self, problem: Problem, dtype: str) -> str | None:
        return images_in_float32(problem, dtype)

    def prepare(self, passed: str, problem: Problem, inputs: Inputs) -> Pass:
        import ncnn

        net = ncnn.Net()
        for option in SWITCHED_OFF:
            if hasattr(net.opt, option):
                setattr(net.opt, option, False)
        net.opt.num_threads = threads()
        _load(net, problem, inputs)
        images = [ncnn.Mat(image).clone() for image in inputs.x]  # a clone's rows lie as ncnn wants them

        def one(image: Any) -> Any:
            extractor = net.create_extractor()
            extractor.input("x", image)
            return extractor.extract("y")[1]

        return lambda: ([one(image) for image in images],)


def _load(net: Any, problem: Problem, inputs: Inputs) -> None:
    fields = {
        0: problem.out_channels, 1: problem.kernel, 2: problem.dilation, 3: problem.stride, 4: problem.padding,
        5: 1,  # there is a bias
        6: inputs.weight.size,
    }  # fmt: skip
    if problem.groups > 1:
        fields[7] = problem.groups
    kind = "Convolution" if problem.groups == 1 else "ConvolutionDepthWise"
    written = " ".join(f"{key}={value}" for key, value in fields.items())
    with TemporaryDirectory(prefix="convjit-bench-") as folder:
        text, numbers = Path(folder) / "net.param", Path(folder) / "net.bin"
        text.write_text(f"7767517\n2 2\nInput input 0 1 x\n{kind} convolution 1 1 x y {written}\n")
        numbers.write_bytes(FLOAT32_FOLLOWS + inputs.weight.tobytes() + inputs.bias.tobytes())
        for load, path in ((net.load_param, text), (net.load_model, numbers)):
            if load(str(path)) != 0:
                raise RuntimeError(f"ncnn cannot load {path.name}")
