"""Weights in files: round trips, what is refused and what is said, and maps from other layouts."""

import json
import pathlib
import struct
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import models
from robustgen.models import importing
from robustgen.models.importing import Source, import_net, torch_conv, torch_dense
from robustgen.models.weights import WeightsError, export_weights, load_weights, named_arrays

SHAPE = (8, 8, 3)


@pytest.fixture(scope="module")
def net():
    return models.init(models.resnet8(num_classes=4), SHAPE, jax.random.key(1))


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_round_trip(suffix, net, tmp_path):
    if suffix == "safetensors":
        pytest.importorskip("safetensors")
    path = export_weights(net, tmp_path / "new" / f"w.{suffix}")
    found = load_weights(path)
    assert "params/Block_1/Conv_0/kernel" in found and "batch_stats/BatchNorm_0/mean" in found
    again = import_net(models.resnet8(num_classes=4), found, shape=SHAPE)
    jax.tree.map(np.testing.assert_array_equal, (again.params, again.state), (net.params, net.state))


def test_safetensors_in_any_memory_order_and_in_bfloat16(tmp_path, net):
    library = pytest.importorskip("safetensors.numpy")
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    exported = type(net)({"w": turned}, {}, net.apply_fn)
    found = load_weights(export_weights(exported, tmp_path / "w.safetensors"))
    np.testing.assert_array_equal(found["params/w"], turned)
    assert library.load((tmp_path / "w.safetensors").read_bytes()).keys() == {"params/w"}
    header = json.dumps({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "half.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\x80\x3f\x00\x40")
    np.testing.assert_array_equal(load_weights(tmp_path / "half.safetensors")["x"].astype(np.float32), [1.0, 2.0])


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.pkl", "pytorch_model.bin", "w.ckpt"])
def test_pickles_are_refused_with_the_way_to_convert(name, tmp_path):
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(WeightsError) as refusal:
        load_weights(tmp_path / name)
    text, target = str(refusal.value), pathlib.Path(name).with_suffix(".safetensors")
    assert "torch.load" in text and f"'{target}'" in text and "\n" not in text
    code = text[text.index('-c "') + 4 : text.rindex('"')]
    compile(code, "line", "exec")


def damaged(path):
    np.savez(path, w=np.arange(2000.0))
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


def renamed_pickle(path):
    with zipfile.ZipFile(path, "w") as archive:  # how torch.save writes
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: np.savez(path, a=np.ones(2), w=np.array([{"any": "code"}], object)), "holds Python objects"),
        (lambda path: path.write_bytes(b"\x80\x04}."), "holds Python objects"),
        (lambda path: path.write_bytes(b"nothing"), "holds Python objects"),
        (damaged, "is damaged"),
        (renamed_pickle, "not arrays of numbers"),
        (lambda path: np.savez(path, names=np.array(["a"])), "names: not arrays of numbers"),
        (lambda path: None, "no such file"),
    ],
)
def test_npz_files_that_are_refused(write, words, tmp_path):
    write(tmp_path / "w.npz")
    with pytest.raises(WeightsError, match=words):
        load_weights(tmp_path / "w.npz")


def test_safetensors_that_is_none_and_without_the_library(tmp_path, monkeypatch):
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 20)
    monkeypatch.setitem(__import__("sys").modules, "safetensors.numpy", None)
    with pytest.raises(WeightsError, match="python -m pip install safetensors"):
        load_weights(tmp_path / "w.safetensors")
    monkeypatch.undo()
    pytest.importorskip("safetensors")
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_weights(tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="are .npz or .safetensors"):
        load_weights(tmp_path / "w.h5")


def test_everything_that_does_not_fit_is_in_one_line(net):
    arrays = named_arrays(net)
    del arrays["params/Conv_0/kernel"]
    arrays["params/Dense_0/bias"] = np.zeros(5, np.float32)
    arrays["batch_stats/BatchNorm_0/var"] = arrays["batch_stats/BatchNorm_0/var"] * np.nan
    arrays |= {"ema/a": np.zeros(1), "x.num_batches_tracked": np.zeros((), np.int64)}
    with pytest.raises(WeightsError) as refusal:
        import_net(models.resnet8(num_classes=4), arrays, shape=SHAPE)
    text = str(refusal.value)
    assert "1 missing: params/Conv_0/kernel" in text and "1 left over: ema/a" in text and "num_batches" not in text
    assert "2 do not fit" in text and "params/Dense_0/bias [5]" in text and "becomes (5,), not (4,)" in text
    assert "params/BatchNorm_0" not in text and "is not finite" in text and "\n" not in text
    with pytest.raises(WeightsError, match="not mapped: batch_stats/BatchNorm_0/mean"):
        import_net(models.resnet8(num_classes=4), {}, shape=SHAPE, names={})


def test_torch_layouts_against_sums_written_out():
    draw = np.random.default_rng(0).standard_normal
    kernel, x = draw((5, 3, 2, 2)), draw((3, 4, 4))  # OIHW, CHW
    by_hand = np.array([[[np.sum(kernel[o] * x[:, i : i + 2, j : j + 2]) for j in range(3)] for i in range(3)]
                        for o in range(5)])  # fmt: skip
    ours = models.conv.conv2d(jnp.asarray(x.transpose(1, 2, 0))[None], jnp.asarray(importing.from_torch_conv(kernel)),
                              stride=1, padding=((0, 0), (0, 0)))  # fmt: skip
    np.testing.assert_allclose(ours[0], by_hand.transpose(1, 2, 0), rtol=1e-4, atol=1e-5)
    dense = draw((7, 5 * 3 * 3))
    turned = importing.from_torch_flatten(5, 3, 3)(dense)
    np.testing.assert_allclose(by_hand.transpose(1, 2, 0).ravel() @ turned, dense @ by_hand.ravel(), rtol=1e-10)
    np.testing.assert_array_equal(importing.from_torch_dense(dense), dense.T)
    wrong = ((importing.from_torch_conv, "2 axes, not 4"), (importing.from_torch_flatten(5, 3, 4), "45 inputs"))
    for convert, words in wrong:
        with pytest.raises(WeightsError, match=words):
            convert(dense)


def test_wong_and_kolters_published_weights_give_the_same_logits_here(shared):
    """convex_adversarial's mnist.pth, stored as torch has it, in our `wong_cnn`."""
    folder = shared / "reference" / "certify"
    turns = {"Conv_0": ("n0", importing.from_torch_conv), "Conv_1": ("n2", importing.from_torch_conv),
             "Dense_0": ("n5", importing.from_torch_flatten(32, 7, 7)),
             "Dense_1": ("n7", importing.from_torch_dense)}  # fmt: skip
    names = {f"params/{ours}/kernel": Source(f"{theirs}.w", turn) for ours, (theirs, turn) in turns.items()}
    names |= {f"params/{ours}/bias": Source(f"{theirs}.b") for ours, (theirs, _) in turns.items()}
    stored, cases = load_weights(folder / "kw_mnist_weights.npz"), np.load(folder / "kw_mnist_s1.npz")
    net = import_net(models.wong_cnn(num_classes=10), stored, shape=(28, 28, 1), names=names)
    centre = (cases["x_lo"] + cases["x_hi"])[:, 0, :, :, None] / 2
    np.testing.assert_allclose(net(jnp.asarray(centre)), cases["logits_center"], atol=1e-4, rtol=1e-4)


def test_the_maps_of_torch_layers_are_those_of_torch():
    found = {**torch_conv("Conv_0", "0"), **torch_dense("Dense_0", "5", after_flatten=(2, 3, 3))}
    assert {path: source.name for path, source in found.items()} == {
        "params/Conv_0/kernel": "0.weight", "params/Conv_0/bias": "0.bias",
        "params/Dense_0/kernel": "5.weight", "params/Dense_0/bias": "5.bias",
    }  # fmt: skip
    assert found["params/Dense_0/kernel"].convert(np.zeros((4, 18))).shape == (18, 4)
