"""What a convolution would do: which algorithm, with how many workers, in which workspaces, and how fast.

Of sequences, images or volumes, as the weight has it.

Knows the choice and its reasons; computes nothing and measures nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .. import algorithms
from ..algorithms import check_algorithm, depthwise_volumes
from ..arrays import DTYPES, as_array, as_dtype, as_images, result_dtype
from ..geometry import check_bias, check_weight_rank
from ..layouts import as_layout
from ..parsing import AXES, as_index, is_sequence
from ..runtime.memory import readable_size
from ..runtime.threads import workers_alone
from ..typing import Array, ArrayLike, DType, DTypeLike, IntOrPair, Padding
from .bilinear import decide_any
from .calls import Call, decide, space_bytes
from .convolving import new_problem
from .front_door import public
from .options import ConvOptions
from .volumes import Turn, VolumeCall

_PASSES = {"forward": "forward", "input_grad": "input gradient", "weight_grad": "weight gradient"}


_ROWS = [row.name for row in algorithms.ALGORITHMS]


class Pass(NamedTuple):
    """One of the three operations: what runs it, and why nothing else does."""

    algorithm: str
    others: dict[str, str]  # why each of the other rows does not run
    workers: int
    images: int  # computed together; of volumes that are computed slice by slice, slices
    workspace: dict[str, int]  # bytes by what they hold
    multiplications: int  # of the direct method, in real numbers
    cut: str  # how the product is cut; empty where there is none
    share_of_peak: float | None  # to expect; None where nothing is known

    @property
    def workspace_bytes(self) -> int:
        """Bytes of all workspaces."""
        return sum(self.workspace.values())


class Explanation(NamedTuple):
    """What `explain` found; printed, it is a table."""

    problem: str
    forward: Pass
    input_grad: Pass
    weight_grad: Pass

    def __repr__(self) -> str:
        lines = [self.problem]
        for name, title in _PASSES.items():
            lines += _lines(title, getattr(self, name))
        return "\n".join(lines)


def _lines(title: str, found: Pass) -> list[str]:
    parts = ", ".join(f"{name} {readable_size(size)}" for name, size in found.workspace.items() if size)
    rows = [(f"not {name}", reason) for name, reason in found.others.items()]
    rows += [
        ("multiplications", f"{found.multiplications:,}"),
        ("workers", f"{found.workers}"),
        ("images together", f"{found.images}"),
        ("workspace", readable_size(found.workspace_bytes) + (f": {parts}" if parts else "")),
    ]
    if found.cut:
        rows.append(("product", found.cut))
    if found.share_of_peak is not None:
        rows.append(("share of peak", f"about {found.share_of_peak:.0%}"))
    return [f"{title:<17} {found.algorithm}", *(f"  {name:<16}{value}" for name, value in rows)]


@public
def explain(
    x: ArrayLike | tuple[int, ...],
    weight: ArrayLike | tuple[int, ...],
    bias: ArrayLike | tuple[int] | None = None,
    stride: IntOrPair = 1,
    padding: Padding = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    *,
    padding_mode: str = "constant",
    algorithm: str = "auto",
    dtype: DTypeLike = "float32",
    layout: str = "NCHW",
) -> Explanation:
    """What `conv2d` and its gradients would do with these arguments, in this thread of this process.

    Or `conv1d`, or `conv3d`, as the dimensions of `weight` decide.

    Parameters
    ----------
    x : array_like or shape, (N, C, H, W) or (C, H, W)
        An array, or the shape of one: a tuple of ints. Or sequences (N, C, L), or volumes (N, C, D, H, W), or one.
    weight : array_like or shape, (O, C // groups, KH, KW)
        Or (O, C // groups, K), or (O, C // groups, KD, KH, KW).
    bias : array_like or shape, (O,), optional
    stride, padding, dilation, groups, padding_mode, algorithm
        As `conv2d` takes them.
    dtype : dtype
        Of what is given as a shape.
    layout : {"NCHW", "NHWC"}
        As `conv2d` takes it, of images: where `x` has its channels. What is said of an algorithm is said of images
        that lie so; it is told where they are turned for it, some at a time.

    Returns
    -------
    Explanation
        Printed, a table. Its entries `forward`, `input_grad` and `weight_grad` each have the name of the `algorithm`
        that runs; `others`, why each other one does not; `workers`; how many `images` are computed together, or how
        many slices, of volumes whose slices are gathered into images; `workspace`, bytes by what they hold, and
        `workspace_bytes`; `multiplications`; how the product is `cut`; and `share_of_peak`, None where there is no
        estimate.

    Raises
    ------
    TypeError, ValueError
        As `conv2d`.

    Notes
    -----
    The share is of the multiply-add units' peak of as many cores as there are workers. It is estimated, not measured:
    from how much of its registers the micro-kernel fills with these rows and lanes, from what packing, filling of
    padded planes, transposing and transforming cost beside it, and from how evenly tasks can be dealt. Of `"winograd"`
    it is the share of the multiplications that it does, about a quarter of the direct method's. Caches, memory and
    the ten microseconds of a call are left out, so small and memory-bound problems reach less.

    Workers are those of a call by itself. A call of 25 to 120 us soon after one on several threads, as a network makes
    them, gets several, too, as these threads are still awake.

    Workspaces are what kernels need beside input, weights and output. They stay within twice the input or 32 MiB: a
    batch that would need more is computed some images at a time. One image may still need more, such as a small one in
    a wide padding or one that dozens of workers share, each with scratch of its own, and so may a weight gradient of
    few pixels an image, which sums 16384 pixels at once; weights in another form do not count. Beside workspaces, an
    array that is not C-contiguous or not of the dtype that is computed in is copied, and a `padding_mode` other than
    `"constant"` makes a padded image. Complex arrays are computed by parts, one after the other.

    Examples
    --------
    >>> from convjit import explain
    >>> found = explain((1, 3, 32, 32), (16, 3, 3, 3), padding="same")
    >>> found.forward.multiplications
    442368
    >>> print(found.problem)
    float32 x (1, 3, 32, 32), weight (16, 3, 3, 3) -> y (1, 16, 32, 32)
    """
    function = "explain"
    given = {"x": x, "weight": weight} if bias is None else {"x": x, "weight": weight, "bias": bias}
    fallback = as_dtype(function, "dtype", dtype)
    arrays = {key: _stand_in(function, key, value, fallback) for key, value in given.items()}
    weights, rank = arrays["weight"], arrays["weight"].ndim - 2
    if rank not in AXES:
        check_weight_rank(function, weights.shape, 2)
    lying = as_layout(function, layout)
    if lying.channels_last and rank != 2:
        raise ValueError(f"{function}: layout {layout!r} is for images, but weight is of shape {weights.shape}")
    images = as_images(function, "x", arrays["x"], rank, lying)
    options = ConvOptions(stride, padding, dilation, groups)
    problem = new_problem(function, lying.told(images.shape), weights.shape, options, padding_mode, lying)
    if bias is not None:
        check_bias(function, arrays["bias"].shape, problem.geometry.out_channels)
    check_algorithm(function, algorithm)
    result = result_dtype(*arrays.values())
    compute, is_complex = DTYPES[result]
    products = 1
    if is_complex:
        products = (2 if images.dtype.kind == "c" else 1) * (2 if weights.dtype.kind == "c" else 1)
    passes = []
    for operation in _PASSES:
        call = decide_any(function, algorithm, problem.inner, compute, operation, lying)
        if isinstance(call, Call):
            passes.append(_explain_pass(call, algorithm, products))
        else:
            passes.append(_explain_volumes(call, algorithm, products))
    y_shape = lying.lying(problem.geometry.y_shape)
    y_shape = y_shape if images is arrays["x"] else y_shape[1:]
    text = f"{result} x {arrays['x'].shape}, weight {weights.shape} -> y {y_shape}"
    text += ", channels last" if lying.channels_last else ""
    return Explanation(text + (f", computed as {compute}" if result != compute else ""), *passes)


def _explain_pass(call: Call, algorithm: str, products: int) -> Pass:
    crew = workers_alone(call.nanoseconds)
    images = call.images(crew)
    together = call if images == call.geometry.batch else call.of_batch(images)
    cut = None if call.operation.explained is None else call.operation.explained(together.geometry, crew, call.compute)
    rows = {row.name: row for row in algorithms.ALGORITHMS}
    last = call.layout.channels_last
    chosen = next(
        name for name, row in rows.items() if algorithms.operation_of(row, call.operation_name, last) is call.operation
    )
    # A named row that cannot leaves it to "auto".
    asked = algorithm if algorithm in ("fastest", chosen) else "auto"
    return Pass(
        chosen, {name: _why_not(row, call, asked) for name, row in rows.items() if name != chosen}, crew, images,
        {space.name: space_bytes(space) for space in together.spaces(crew)},
        products * call.geometry.multiplications, cut.how if cut else "", cut.share_of_peak if cut else None,
    )  # fmt: skip


def _explain_volumes(call: VolumeCall, algorithm: str, products: int) -> Pass:
    """Of whole volumes, or of the images that most of their slices are gathered into."""
    turn = call.main
    if turn is None or turn.call is None:  # there are no slices
        none = decide("explain", algorithm, call.volume.plane, call.compute, call.operation_name)
        return _explain_pass(none.of_batch(0), algorithm, products)
    here = turn.gathered
    assert here is not None
    found, multiplications = _explain_pass(here, algorithm, products), products * call.volume.multiplications
    if call.whole is not None:
        way, job = call.whole.way, call.whole.job
        crew = workers_alone(job.nanoseconds)
        sizes = {space.name: space_bytes(space) for space in way.workspace(job, crew, call.compute)}
        cut, volumes = way.explained(job, crew, call.compute)
        name, others = found.algorithm, found.others
        if way is depthwise_volumes:  # in place of what would compute images of slices
            name, others = way.NAME, {each: others.get(each, "slower") for each in _ROWS if each != way.NAME}
        return Pass(name, others, crew, volumes, sizes, multiplications, cut, None)
    workspace: dict[str, int] = {}  # each as the turn needs it that needs most
    for part in call.turns:
        for name, size in _workspace_of_slices(part).items():
            workspace[name] = max(workspace.get(name, 0), size)
    g = here.geometry
    channels = g.out_channels if here.operation_name == "input_grad" else g.in_channels
    cut = f"slices as images of {channels} channels"
    if turn.is_row:
        cut = "the voxels that strides meet, copied, as one row"
    cut += f", {found.cut}" if found.cut else ""
    return found._replace(images=g.batch, workspace=workspace, multiplications=multiplications, cut=cut)


def _workspace_of_slices(turn: Turn) -> dict[str, int]:
    """Bytes for the planes that are gathered, what is made of them, and what that needs."""
    if turn.gathered is None or turn.copies is None:
        return {}
    crew = workers_alone(turn.gathered.nanoseconds)
    together = turn.gathered.of_batch(turn.gathered.images(crew))
    copies = [space for space in turn.copies.spaces(crew) if space_bytes(space) > 0]
    return {space.name: space_bytes(space) for space in (*copies, *together.spaces(crew))}


def _why_not(row: algorithms.Algorithm, call: Call, algorithm: str) -> str:
    """Why a row does not run the call."""
    reason = row.declines(call.geometry, call.compute)
    if reason is not None:
        return reason
    operation = algorithms.operation_of(row, call.operation_name, call.layout.channels_last)
    if operation is None:
        return f"it has no {_PASSES[call.operation_name]}"
    reason = operation.declines(call.geometry, call.compute)
    if reason is not None:
        return reason
    if not algorithms.is_choice(algorithm):
        return f"algorithm={algorithm!r} was asked for"
    if not row.keeps_promises and algorithm != "fastest":
        return "breaks promises: only with algorithm='fastest', or by name"
    return operation.yields(call.geometry, call.compute) or "slower"


def _stand_in(function: str, name: str, value: Any, dtype: DType) -> Array:
    """An array for its shape and dtype: the caller's, or one without memory."""
    entries = value if isinstance(value, tuple) else ()
    if not entries or any(is_sequence(entry) or isinstance(entry, bool | float | complex) for entry in entries):
        return as_array(function, name, value)
    shape = [as_index(function, f"the shape of {name}", size, "ints") for size in entries]
    try:
        return np.broadcast_to(np.zeros((), dtype), shape)
    except ValueError:
        raise ValueError(f"{function}: {name} cannot have the shape {tuple(shape)}") from None
