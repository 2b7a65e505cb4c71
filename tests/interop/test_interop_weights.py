"""Weights under PyTorch's names: every name and shape, both formats, nothing half loaded, and PyTorch itself."""

import json
import os
import stat
import struct
from itertools import accumulate, pairwise

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import convjit
from convjit import (
    SGD,
    Activation,
    BatchNormalization,
    Conv2D,
    Conv2DTranspose,
    Dense,
    Dropout,
    Flatten,
    Layer,
    MaxPooling2D,
    Sequential,
)
from convjit.interop.weights import load_state_dict, load_weights, save_weights, state_dict

try:
    import safetensors.numpy as safetensors
except ImportError:
    safetensors = None

FORMATS = ["npz", pytest.param("safetensors", marks=pytest.mark.skipif(
    safetensors is None, reason="safetensors is not installed; the same tests run with .npz"))]  # fmt: skip
# What a network has under which name, with its shape.
SHAPES = {
    "0.weight": (4, 1, 3, 2), "0.bias": (4,), "1.weight": (4,), "1.bias": (4,), "1.running_mean": (4,),
    "1.running_var": (4,), "4.weight": (6, 2, 3, 3), "4.bias": (6,), "6.weight": (3, 96), "6.bias": (3,),
}  # fmt: skip


def network(seed=0, dtype=np.float64, filter_shape=(3, 2)):
    model = Sequential(optimizer=SGD(0.1))
    for layer in (
        Conv2D(4, filter_shape, input_shape=(1, 8, 8), dtype=dtype, rng=seed), BatchNormalization(), Activation("relu"),
        MaxPooling2D((2, 2), stride=2), Conv2D(6, (3, 3), groups=2, dtype=dtype, rng=seed + 1), Flatten(),
        Dense(3, dtype=dtype, rng=seed + 2), Activation("softmax"),
    ):  # fmt: skip
        model.add(layer)
    model.train_on_batch(images(6).astype(dtype), np.arange(6) % 3)
    return model


def images(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, 1, 8, 8))


def integers(shapes):
    """Entries of which each number is another one."""
    rng = np.random.default_rng(0)
    return {name: rng.permutation(np.arange(np.prod(shape))).reshape(shape) + 0.0 for name, shape in shapes.items()}


def everything(model):
    return {
        (i, name): value.copy()
        for i, layer in enumerate(model.layers)
        for name, value in vars(layer).items()
        if isinstance(value, np.ndarray)
    }


def assert_same(got, wanted):
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        assert_array_equal(got[name], array, strict=True, err_msg=str(name))


def path_of(tmp_path, ending):
    return tmp_path / f"weights.{ending}"


# --- names and shapes -----------------------------------------------------------------------------------------------


def test_names_and_shapes_are_pytorchs():
    state = state_dict(network())
    assert {name: array.shape for name, array in state.items()} == SHAPES
    assert all(array.flags.c_contiguous and array.flags.owndata for array in state.values())


def test_every_number_arrives_where_it_belongs():
    model, state = network(), integers(SHAPES)
    load_state_dict(model, state)
    assert_array_equal(model.layers[0].W, state["0.weight"])
    assert_array_equal(model.layers[0].w0[:, 0], state["0.bias"])
    assert_array_equal(model.layers[1].gamma, state["1.weight"])
    assert_array_equal(model.layers[1].beta, state["1.bias"])
    assert_array_equal(model.layers[1].running_mean, state["1.running_mean"])
    assert_array_equal(model.layers[1].running_var, state["1.running_var"])
    assert_array_equal(model.layers[6].W, state["6.weight"].T)
    assert_array_equal(model.layers[6].w0[0], state["6.bias"])
    assert_same(state_dict(model), state)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Conv2D(2, (3, 2), input_shape=(3, 5, 5)), (2, 3, 3, 2)),
        (Conv2DTranspose(2, (3, 2), input_shape=(3, 5, 5)), (3, 2, 3, 2)),
        (Dense(2, input_shape=(3,)), (2, 3)),
    ],
)
def test_a_layer_alone_has_no_position(layer, shape):
    layer.initialize(None)
    state = {**integers({"weight": shape}), "bias": np.array([5.0, 7.0])}
    load_state_dict(layer, state)
    assert_same(state_dict(layer), state)


def test_what_is_given_is_copied():
    layer = Dense(2, input_shape=(3,))
    layer.initialize(None)
    state = state_dict(layer)
    state["weight"][:] = 0
    assert layer.W.any()
    load_state_dict(layer, state)
    state["weight"][:] = 1
    assert not layer.W.any()


def test_a_subclass_has_the_names_of_its_base():
    class Mine(Conv2D):
        pass

    layer = Mine(2, (3, 3), input_shape=(1, 5, 5))
    layer.initialize(None)
    assert state_dict(layer).keys() == {"weight", "bias"}


# --- files ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_there_and_back(tmp_path, ending, dtype):
    model, other, file = network(dtype=dtype), network(seed=5, dtype=dtype), path_of(tmp_path, ending)
    save_weights(model, file)
    assert [entry.name for entry in tmp_path.iterdir()] == [file.name]
    load_weights(other, str(file))
    assert_same(state_dict(other), state_dict(model))
    assert_array_equal(other.predict(images(3).astype(dtype)), model.predict(images(3).astype(dtype)), strict=True)
    other.train_on_batch(images(6), np.arange(6) % 3)  # optimizers are in place


def test_the_file_can_be_read_without_convjit(tmp_path):
    model = network()
    save_weights(model, path_of(tmp_path, "npz"))
    with np.load(path_of(tmp_path, "npz"), allow_pickle=False) as archive:
        assert_same(dict(archive), state_dict(model))


@pytest.mark.skipif(safetensors is None, reason="safetensors is not installed; the same test runs with .npz")
def test_the_file_can_be_read_by_safetensors(tmp_path):
    model = network()
    save_weights(model, path_of(tmp_path, "safetensors"))
    assert_same(safetensors.load_file(path_of(tmp_path, "safetensors")), state_dict(model))


@pytest.mark.skipif(safetensors is None, reason="safetensors is not installed, and .npz has no bfloat16")
def test_bfloat16_is_read_exactly(tmp_path):
    layer = Dense(2, input_shape=(3,), dtype=np.float32)
    layer.initialize(None)
    wanted = {"weight": np.array([[1.5, -2.0, 0.0], [3.0, 2.0**100, -(2.0**-120)]], np.float32),
              "bias": np.array([np.inf, 0.5], np.float32)}  # fmt: skip
    # NumPy has no bfloat16, and versions of safetensors differ in how they take bytes: the format itself is simpler.
    halves = {name: a.view(np.uint16)[..., 1::2].tobytes() for name, a in wanted.items()}
    ends = list(accumulate(map(len, halves.values()), initial=0))
    header = json.dumps({name: {"dtype": "BF16", "shape": wanted[name].shape, "data_offsets": pair}
                         for name, pair in zip(halves, pairwise(ends), strict=True)})  # fmt: skip
    file = path_of(tmp_path, "safetensors")
    with open(file, "wb") as opened:
        opened.write(struct.pack("<Q", len(header)) + header.encode() + b"".join(halves.values()))
    load_weights(layer, file)
    assert_same(state_dict(layer), wanted)


def test_pytorchs_bfloat16_is_read_exactly():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; bfloat16 of files is tested above")
    layer = Dense(2, input_shape=(3,), dtype=np.float32)
    layer.initialize(None)
    wanted = {"weight": np.array([[1.5, -2.0, 0.0], [3.0, 2.0**100, 0.25]], np.float32),
              "bias": np.array([7, 0.5], np.float32)}  # fmt: skip
    load_state_dict(layer, {name: torch.from_numpy(array).bfloat16() for name, array in wanted.items()})
    assert_same(state_dict(layer), wanted)


@pytest.mark.parametrize("ending", FORMATS)
def test_saving_that_fails_leaves_the_old_file(tmp_path, ending, monkeypatch):
    file = path_of(tmp_path, ending)
    save_weights(network(), file)
    before = file.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        save_weights(network(seed=3), file)
    assert [entry.read_bytes() for entry in tmp_path.iterdir()] == [before]


@pytest.mark.skipif(os.name == "nt", reason="permissions are those of POSIX")
@pytest.mark.parametrize("ending", FORMATS)
def test_saving_again_keeps_the_mode(tmp_path, ending):
    file = path_of(tmp_path, ending)
    file.touch(0o600)
    save_weights(network(), file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("keep", [0, 7, 60, -5])
def test_damaged_files_are_refused(tmp_path, ending, keep):
    model, file = network(), path_of(tmp_path, ending)
    save_weights(model, file)
    file.write_bytes(file.read_bytes()[:keep])
    before = everything(model)
    with pytest.raises(ValueError, match=rf"^load_weights: .*weights\.{ending} is not a file of weights: "):
        load_weights(model, file)
    assert_same(everything(model), before)


@pytest.mark.parametrize("call", [save_weights, load_weights])
def test_paths(tmp_path, call):
    with pytest.raises(ValueError, match=rf"^{call.__name__}: path must end in .npz or .safetensors, got '.*pt'$"):
        call(network(), tmp_path / "weights.pt")
    with pytest.raises(TypeError, match=rf"^{call.__name__}: path must be a string or a path, got int 3$"):
        call(network(), 3)
    with pytest.raises(ValueError, match=rf"^{call.__name__}: path must be the name of a file, got 'a\\x00b.npz'$"):
        call(network(), "a\0b.npz")
    with pytest.raises(FileNotFoundError):
        call(network(), tmp_path / "nowhere" / "weights.npz")


# --- what does not fit ----------------------------------------------------------------------------------------------


def without(name):
    return {key: value for key, value in integers(SHAPES).items() if key != name}


STATES = {
    "missing": (without("6.bias"), ValueError, "missing 6.bias, unexpected nothing$"),
    "unexpected": (integers({**SHAPES, "7.weight": (3,)}), ValueError, "missing nothing, unexpected 7.weight$"),
    "named otherwise": (integers({f"net.{name}": shape for name, shape in SHAPES.items()}), ValueError, "missing 0.we"),
    "counter of no mean": (integers({**SHAPES, "0.num_batches_tracked": ()}), ValueError, "unexpected 0.num_batches"),
    "shape": (integers({**SHAPES, "6.bias": (4,)}), ValueError, r"6.bias of shape \(4,\), but layer 6 \(Dense\) needs "
              r"\(3,\)$"),
    "not transposed": (integers({**SHAPES, "6.weight": (96, 3)}), ValueError, r"6.weight of shape \(96, 3\), but"),
    "running": (integers({**SHAPES, "1.running_var": (1,)}), ValueError, r"1.running_var of shape \(1,\), but layer 1"),
    "integers": ({**integers(SHAPES), "6.bias": np.arange(3)}, TypeError, "6.bias as int64, but .* needs floats$"),
    "complex": ({**integers(SHAPES), "6.bias": np.arange(3) * 1j}, TypeError, "6.bias as complex128, but"),
    "objects": ({**integers(SHAPES), "6.bias": [None] * 3}, TypeError, "6.bias as object, but"),
    "masked": ({**integers(SHAPES), "6.bias": np.ma.array(np.zeros(3), mask=True)}, TypeError, "6.bias as a masked "
               "array, whose mask would be ignored$"),
    "masked running": ({**integers(SHAPES), "1.running_var": np.ma.ones(4)}, TypeError, "1.running_var as a masked ar"),
    "ragged": ({**integers(SHAPES), "6.bias": [[1.0], [1.0, 2.0]]}, TypeError, "6.bias as what is no array: "),
    "no mapping": ([1, 2], TypeError, "state must be a mapping of names to arrays, got list$"),
}  # fmt: skip


@pytest.mark.parametrize("case", STATES)
def test_what_does_not_fit_changes_nothing(case):
    state, error, said = STATES[case]
    model = network()
    before = everything(model)
    with pytest.raises(error, match=rf"^load_state_dict: .*{said}"):
        load_state_dict(model, state)
    assert_same(everything(model), before)


def test_a_file_that_does_not_fit_is_named(tmp_path):
    np.savez(path_of(tmp_path, "npz"), **integers({**SHAPES, "6.bias": (4,)}))
    with pytest.raises(ValueError, match=r"^load_weights: .*weights.npz holds 6.bias of shape \(4,\), but layer 6"):
        load_weights(network(), path_of(tmp_path, "npz"))


def test_numbers_that_are_too_large():
    layer = Dense(1, input_shape=(2,), dtype=np.float32)
    layer.initialize(None)
    fitting = {"weight": np.array([[1e30, np.inf]]), "bias": np.zeros(1)}
    load_state_dict(layer, fitting)
    assert layer.W.dtype == np.float32
    before = layer.W.copy()
    with pytest.raises(
        ValueError, match=r"^load_state_dict: state holds weight with numbers that are too large for fl"
    ):
        load_state_dict(layer, {**fitting, "weight": np.array([[1e60, np.inf]])})
    assert_array_equal(layer.W, before)


def test_frozen_layers_are_refused(tmp_path):
    model = network()
    state = state_dict(model)
    save_weights(model, path_of(tmp_path, "npz"))
    model.layers[6].freeze()
    before = everything(model)
    with pytest.raises(RuntimeError, match=r"^load_weights: layer 6 \(Dense\) is frozen; call unfreeze first$"):
        load_weights(model, path_of(tmp_path, "npz"))
    with pytest.raises(RuntimeError, match=r"^load_state_dict: layer 6 \(Dense\) is frozen"):
        load_state_dict(model, integers(SHAPES))
    assert_same(everything(model), before)
    assert_same(state_dict(model), state)


class Strange(Layer):
    weight_names = ("alpha",)
    alpha = np.zeros(2)


class Foreign:
    def parameters(self):
        return 3


def foreign_network():
    model = Sequential()
    model.layers = [Flatten(), Foreign()]
    return model


@pytest.mark.parametrize(
    ("model", "error", "said"),
    [
        (None, TypeError, "model must be a Sequential or a Layer, got NoneType$"),
        (Strange(), TypeError, "Strange has weights without a name in PyTorch: alpha$"),
        (foreign_network(), TypeError, r"layer 1 \(Foreign\) has weights without a name in PyTorch: 3 of them$"),
        (Dense(2, input_shape=(3,)), RuntimeError, "Dense has no weights yet; call initialize first$"),
    ],
)
def test_models_that_have_no_names(model, error, said):
    with pytest.raises(error, match=rf"^state_dict: {said}"):
        state_dict(model)
    with pytest.raises(error, match=rf"^load_state_dict: {said}"):
        load_state_dict(model, {})


def untrained(shape=(2, 3, 3)):
    layer = BatchNormalization()
    layer.set_input_shape(shape)
    layer.initialize(None)
    return layer


@pytest.mark.parametrize("ending", FORMATS)
def test_running_means_of_a_layer_that_was_never_trained(tmp_path, ending):
    layer, loaded = untrained(), untrained()
    fresh = {"weight": np.ones(2), "bias": np.zeros(2), "running_mean": np.zeros(2), "running_var": np.ones(2)}
    assert_same(state_dict(layer), fresh)
    assert layer.running_mean is None
    save_weights(layer, path_of(tmp_path, ending))
    load_weights(loaded, path_of(tmp_path, ending))
    assert_same(state_dict(loaded), fresh)
    x = np.random.default_rng(0).standard_normal((2, 2, 3, 3))
    assert_array_equal(loaded.forward_pass(x, training=False), layer.forward_pass(x, training=False))


def test_a_layer_that_was_never_trained_is_pytorchs():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; the numbers written out are tested")
    theirs = {name: tensor.double().numpy() for name, tensor in torch.nn.BatchNorm2d(2).state_dict().items()}
    assert theirs.pop("num_batches_tracked") == 0
    assert_same(state_dict(untrained()), theirs)


def test_a_layer_whose_channels_are_not_known():
    with pytest.raises(
        RuntimeError, match=r"^state_dict: BatchNormalization has no weights yet; call initialize first$"
    ):
        state_dict(BatchNormalization())


def test_running_means_that_are_not_there_yet_are_loaded():
    layer = untrained()
    state = {name: np.array([2, 3], np.float16) for name in ("weight", "bias", "running_mean", "running_var")}
    load_state_dict(layer, {**state, "num_batches_tracked": np.int64(7)})
    assert layer.running_mean.dtype == np.float32
    assert_array_equal(layer.forward_pass(np.full((1, 2, 3, 3), 2.0), training=False)[0, 0], np.full((3, 3), 2.0))


def test_running_means_of_long_doubles_are_narrowed():
    layer = untrained()
    state = {name: np.ones(2, np.longdouble) for name in ("weight", "bias", "running_mean", "running_var")}
    load_state_dict(layer, state)
    assert layer.running_mean.dtype == layer.running_var.dtype == np.float64


def test_layers_without_weights_have_no_entries():
    assert state_dict(Dropout(0.5)) == {}
    load_state_dict(Flatten(), {})


# --- PyTorch --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["state dict", *FORMATS])
def test_a_network_goes_to_pytorch_and_back(tmp_path, ending):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; names and shapes written out are tested")
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same"), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding="same", groups=2), nn.Flatten(), nn.Linear(96, 3), nn.Softmax(dim=1),
    ).double()  # fmt: skip
    theirs(torch.from_numpy(images(5, seed=1)))  # moves the running means
    ours, x = network(filter_shape=(3, 3)), images(4, seed=2)
    state = theirs.state_dict()
    if ending == "state dict":
        load_state_dict(ours, state)
    elif ending == "npz":
        np.savez(path_of(tmp_path, ending), **{name: tensor.numpy() for name, tensor in state.items()})
        load_weights(ours, path_of(tmp_path, ending))
    else:
        safetensors.save_file({name: tensor.numpy() for name, tensor in state.items()}, path_of(tmp_path, ending))
        load_weights(ours, path_of(tmp_path, ending))
    theirs.eval()
    with torch.no_grad():
        np.testing.assert_allclose(ours.predict(x), theirs(torch.from_numpy(x)).numpy(), rtol=1e-12, atol=1e-14)

    ours.train_on_batch(images(6), np.arange(6) % 3)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state_dict(ours).items()}, strict=True)
    with torch.no_grad():
        np.testing.assert_allclose(ours.predict(x), theirs(torch.from_numpy(x)).numpy(), rtol=1e-12, atol=1e-14)


def test_parameters_that_require_grad_are_taken():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; state dicts of arrays are loaded above")
    layer, theirs = Dense(2, input_shape=(3,)), torch.nn.Linear(3, 2)
    layer.initialize(None)
    load_state_dict(layer, dict(theirs.named_parameters()))
    assert_same(state_dict(layer), {name: value.double().numpy() for name, value in theirs.state_dict().items()})
    assert theirs.weight.requires_grad


def test_a_tensor_that_is_nowhere_is_no_array():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; other things that are no arrays are refused")
    layer = Dense(2, input_shape=(3,))
    layer.initialize(None)
    with pytest.raises(TypeError, match=r"^load_state_dict: state holds weight as what is no array: "):
        load_state_dict(layer, {"weight": torch.zeros(2, 3, device="meta"), "bias": torch.zeros(2)})


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("rank", [1, 3])
def test_layers_of_sequences_and_volumes_keep_their_weights(rank, ending, tmp_path):
    def model():
        convolution, transposed = (getattr(convjit, f"Conv{rank}D{end}") for end in ("", "Transpose"))
        layers = [convolution(4, 3, input_shape=(2, *(9, 6, 7)[:rank])), transposed(3, 2)]
        return Sequential(layers, optimizer=SGD())

    saved, loaded = model(), model()
    save_weights(saved, path_of(tmp_path, ending))
    load_weights(loaded, path_of(tmp_path, ending))
    assert list(state_dict(loaded)) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert_same(state_dict(loaded), state_dict(saved))
