"""Networks from layer lists: a stored reference with its logits and gradients, layouts, and refusals by layer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from robustgen.models.sequential import sequential
from robustgen.models.weights import WeightsError, load_weights

CONV = {"type": "conv", "w": "k", "b": "c", "stride": [1, 1], "padding": [[1, 0], [0, 1]], "kernel_layout": "HWIO"}
FLATTEN = {"type": "flatten", "order": "NHWC (row h, then w, then c)"}
DENSE = {"type": "dense", "w": "w", "b": "b", "layout": "in,out"}
LAYERS = [CONV, {"type": "relu"}, FLATTEN, DENSE]
SHAPE = (3, 3, 2)


def arrays():
    draw = np.random.default_rng(0).standard_normal
    sizes = {"k": (2, 2, 2, 3), "c": (3,), "w": (27, 4), "b": (4,)}
    return {name: draw(size).astype(np.float32) for name, size in sizes.items()}


def test_the_reference_net_has_the_logits_and_gradients_that_were_stored(shared):
    folder = shared / "reference" / "attacks"
    record, stored = json.loads((folder / "std.json").read_text()), np.load(folder / "std_logits16.npz")
    net = sequential(record["layers"], load_weights(folder / "std.npz"), shape=tuple(record["input_shape"]))
    images = np.load(folder / "mnist_test_first1000.npz")["image"][stored["indices"]]
    x, y = jnp.asarray(images[..., None], jnp.float32) / 255, jnp.asarray(stored["labels"])
    np.testing.assert_allclose(jax.jit(lambda net, x: net(x))(net, x), stored["logits"], rtol=1e-4, atol=1e-4)
    loss = jax.jit(jax.grad(lambda x: jnp.sum(optax.softmax_cross_entropy_with_integer_labels(net(x), y))))
    np.testing.assert_allclose(loss(x), stored["ce_input_grad"], rtol=1e-3, atol=1e-6)


def test_torch_layouts_are_the_same_net():
    ours = arrays()
    net = sequential(LAYERS, ours, shape=SHAPE)
    torch = [{**CONV, "kernel_layout": "OIHW"}, {"type": "relu"}, {"type": "flatten", "order": "NCHW"},
             {**DENSE, "layout": "out,in"}]  # fmt: skip
    channels_first = ours["w"].reshape(3, 3, 3, 4).transpose(3, 2, 0, 1).reshape(4, 27)
    theirs = {**ours, "k": ours["k"].transpose(3, 2, 0, 1), "w": channels_first}
    x = jax.random.uniform(jax.random.key(0), (5, *SHAPE))
    np.testing.assert_allclose(net(x), sequential(torch, theirs, shape=SHAPE)(x), rtol=1e-5, atol=1e-5)


def test_against_sums_written_out():
    ours, x = arrays(), np.random.default_rng(1).random((1, *SHAPE)).astype(np.float32)
    padded = np.pad(x[0], ((1, 0), (0, 1), (0, 0)))
    hidden = np.array([[np.einsum("ijc,ijcd->d", padded[i : i + 2, j : j + 2], ours["k"]) for j in range(3)]
                       for i in range(3)]) + ours["c"]  # fmt: skip
    logits = np.maximum(hidden, 0).ravel() @ ours["w"] + ours["b"]
    np.testing.assert_allclose(sequential(LAYERS, ours, shape=SHAPE)(jnp.asarray(x))[0], logits, rtol=1e-4, atol=1e-5)


def test_equal_nets_share_a_compile_and_train_mode_has_nothing_of_its_own():
    traces = []

    @jax.jit
    def logits(net, x):
        traces.append(1)
        return net.train(x, jax.random.key(0))[0]

    x = jnp.ones((2, *SHAPE))
    first, second = (sequential(LAYERS, arrays(), shape=SHAPE) for _ in range(2))
    np.testing.assert_array_equal(logits(first, x), logits(second, x))
    np.testing.assert_allclose(logits(first, x), first(x), rtol=1e-5)
    assert len(traces) == 1 and first.train(x, jax.random.key(0))[1].state == {}


def changed(i, **entries):
    return [{**layer, **entries} if j == i else layer for j, layer in enumerate(LAYERS)]


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([*LAYERS, {"type": "gelu"}], r"layer 4 \(gelu\): is not one of conv, dense, relu, flatten"),
        (changed(0, kernel_layout="OHWI"), r"layer 0 \(conv\): 'OHWI' is not one of HWIO, OIHW"),
        (changed(0, stride=[1, 2]), "strides must be equal"),
        ([{"type": "conv", "w": "k", "b": "c", "stride": [1, 1]}], "layer 0 .*has no 'padding'"),
        (changed(0, w="other"), "layers without their arrays: other"),
        (LAYERS[:2], "arrays that no layer uses: b, w"),
        (changed(3, layout="out,in"), r"layer 3 \(dense\): does not fit an input of \(27,\)"),
        (changed(2, order="HWC"), "layer 2 .*'HWC' is not one of NHWC, NCHW"),
        (changed(0, w="c", b="k"), "layer 0"),
    ],
)
def test_what_does_not_fit_is_refused_by_layer(layers, words):
    with pytest.raises(WeightsError, match=words) as refusal:
        sequential(layers, arrays(), shape=SHAPE)
    assert "\n" not in str(refusal.value)
