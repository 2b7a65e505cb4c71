"""Bridges whose package is not installed say so in one sentence, with the command that installs it."""

import subprocess
import sys

import pytest

EXTRA = 'pip install "convjit[interop]"'
SAVE = "convjit.interop.weights.save_weights(convjit.Flatten(), 'w.safetensors')"


@pytest.mark.parametrize(
    ("package", "code", "said"),
    [
        ("autograd", "", f"convjit.interop.autograd needs autograd, which is not installed: {EXTRA}"),
        ("dask", "", f"convjit.interop.dask needs dask, which is not installed: {EXTRA}"),
        ("onnx", "", f"convjit.interop.onnx needs onnx, which is not installed: {EXTRA}"),
        ("torch", "", "convjit.interop.torch needs torch, which is not installed: pip install torch"),
        ("safetensors", SAVE, f"a .safetensors file needs safetensors, which is not installed: {EXTRA}"),
    ],
    ids=lambda value: value.partition(" ")[0],
)
def test_a_missing_package_is_one_sentence(package, code, said, tmp_path):
    bridge = "weights" if code else package
    program = f"import sys\nsys.modules[{package!r}] = None\nimport convjit, convjit.interop.{bridge}\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {said}"
    assert not list(tmp_path.iterdir())
