"""What the first call from compiled code waits for: `python -m bench.first_calls [FUNCTION ...]`.

Each function is called once from an `@njit` function, in a process with an empty cache of convjit's and in another one
with what the first has kept. The clock starts when Numba has compiled and run another function, and holds all that the
call waits for: Numba for the caller, convjit for what it calls.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parent.parent

# Arguments of `call` and what it returns; groups and modes that are not known beforehand need the most.
_ANY = "padding=1, groups=len(weight) // 3"
_CALLS = {
    "conv2d": "x, weight: convjit.conv2d(x, weight)",
    "conv2d, any": f'x, weight: convjit.conv2d(x, weight, {_ANY}, padding_mode="wrap")',
    "conv2d_backward": "x, weight: convjit.conv2d_backward(x, x, weight, padding=1)",
    "conv2d_backward, any": f'x, weight: convjit.conv2d_backward(x, x, weight, {_ANY}, padding_mode="wrap")',
    "conv2d_input_grad": "x, weight: convjit.conv2d_input_grad(x, weight, (8, 8), padding=1)",
    "conv2d_input_grad, any": f'x, weight: convjit.conv2d_input_grad(x, weight, (8, 8), {_ANY}, padding_mode="wrap")',
    "conv2d_weight_grad": "x, weight: convjit.conv2d_weight_grad(x, x, 3, padding=1)",
    "conv2d_weight_grad, any": f'x, weight: convjit.conv2d_weight_grad(x, x, 3, {_ANY}, padding_mode="wrap")',
    "conv_transpose2d": f"x, weight: convjit.conv_transpose2d(x, weight, {_ANY})",
    "conv_transpose2d_backward": f"x, weight: convjit.conv_transpose2d_backward(x, x, weight, {_ANY})",
    "pad2d": "x, weight: convjit.pad2d(x, 1)",
    "pad2d_backward": 'x, weight: convjit.pad2d_backward(x, 1, mode="edge")',
    "max_pool2d": "x, weight: convjit.max_pool2d(x, 2)",
    "max_pool2d_backward": "x, weight: convjit.max_pool2d_backward(x, x, 1)",
    "avg_pool2d": "x, weight: convjit.avg_pool2d(x, 2)",
    "avg_pool2d_backward": "x, weight: convjit.avg_pool2d_backward(x, (8, 8), 1)",
    "im2col": "x, weight: convjit.im2col(x, 3, padding=1)",
    "col2im": "x, weight: convjit.col2im(x.reshape(2, 3, 64), (8, 8), 1)",
    "image_to_column": "x, weight: convjit.image_to_column(x, (3, 3), 1)",
    "column_to_image": "x, weight: convjit.column_to_image(x.reshape(3, 128), (2, 3, 8, 8), (1, 1), 1)",
}

_PROGRAM = """
import sys
from time import perf_counter
import numba
import numpy as np
import convjit

x, weight = np.ones((2, 3, 8, 8)), np.ones((3, 3, 3, 3))
numba.njit(lambda x, weight: np.empty((2, 2)) + len(x))(x, weight)
call = numba.njit(eval("lambda " + sys.argv[1]))
began = perf_counter()
call(x, weight)
print(perf_counter() - began)
"""


def first_call(call: str, folder: str) -> float:
    """Seconds that a first call takes in a process whose cache is in a folder."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    variables = {**os.environ, "CONVJIT_CACHE": "1", "CONVJIT_CACHE_DIR": folder, "PYTHONPATH": path}
    command = [sys.executable, "-c", _PROGRAM, call]
    return float(subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout)


def main(names: list[str]) -> None:
    """Print a line for each function."""
    unknown = [name for name in names if name not in _CALLS]
    if unknown:
        raise SystemExit(f"bench.first_calls: no {', '.join(unknown)}; there are {'; '.join(_CALLS)}")
    print(f"{'seconds':<28} cold   warm")
    for name in names or _CALLS:
        with tempfile.TemporaryDirectory() as folder:
            cold, warm = first_call(_CALLS[name], folder), first_call(_CALLS[name], folder)
        print(f"{name:<28} {cold:4.2f}   {warm:4.2f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
