"""TFDS sets: a tiny one prepared here, the cache under every kind of damage, and the real MNIST where there is one."""

import importlib
import io
import json
import os
import pathlib
import re
import shutil

import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets

from robustgen.data import catalogue, prepare
from robustgen.data.cache import cache_dir
from robustgen.data.source import DataError, Split
from robustgen.data.tfds import tfds
from robustgen.knobs import KnobError

MODULE = importlib.import_module("robustgen.data.tfds")

SHAPE = (6, 5, 1)


class RgTiny(tensorflow_datasets.core.GeneratorBasedBuilder):
    """Pictures of which every pixel is the index of the example; labels are the index modulo 7."""

    VERSION = tensorflow_datasets.core.Version("1.2.3")

    def _info(self):
        features = {
            "image": tensorflow_datasets.features.Tensor(shape=SHAPE, dtype=np.uint8),
            "label": tensorflow_datasets.features.ClassLabel(num_classes=7),
        }
        return self.dataset_info_from_configs(features=tensorflow_datasets.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(range(0, 120)), "test": self._generate_examples(range(120, 150))}

    def _generate_examples(self, numbers):
        for i in numbers:
            yield i, {"image": np.full(SHAPE, i, np.uint8), "label": i % 7}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("tfds")
    found = prepare.prepare("rg_tiny", root)
    assert found.folder == root / "rg_tiny" / "1.2.3" and found.sizes == {"train": 120, "test": 30}
    return root


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> pathlib.Path:
    monkeypatch.setenv("ROBUSTGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(MODULE, "CHUNK", 7)  # many chunks, so that their order matters
    return tmp_path / "cache"


def source(root, num_validation=20):
    return tfds(name="rg_tiny", num_validation=num_validation, dir=str(root))


def forbid_decoding(monkeypatch):
    def decode(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(MODULE, "decode", decode)


def test_splits_are_tfds_own_examples_in_tfds_order(tiny):
    builder = tensorflow_datasets.builder_from_directory(tiny / "rg_tiny" / "1.2.3")
    order = [int(e["image"][0, 0, 0]) for e in builder.as_data_source("train")]
    made = source(tiny)
    made.check()
    assert (made.name, made.shape, made.num_classes, made.scale) == ("rg_tiny", SHAPE, 7, 1 / 255)
    for split, expected in (("train", order[:100]), ("validation", order[100:])):
        x, y = made.load(split)
        assert x.dtype == np.uint8 and y.dtype == np.int32 and x.shape == (len(expected), *SHAPE)
        np.testing.assert_array_equal(x, np.broadcast_to(np.reshape(expected, (-1, 1, 1, 1)), x.shape))
        np.testing.assert_array_equal(y, np.array(expected) % 7)
    assert sorted(made.load("test").x[:, 0, 0, 0]) == list(range(120, 150))


def test_second_time_is_memory_mapped_and_decodes_nothing(tiny, monkeypatch):
    once = source(tiny).load("train")
    forbid_decoding(monkeypatch)
    again = source(tiny, num_validation=5)
    assert isinstance(again.load("train").x, np.memmap) and not again.load("train").x.flags.writeable
    np.testing.assert_array_equal(again.load("train").x[:100], once.x)
    assert again.load("train").x.base is not None


def damage_byte(file):
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["x.npy", "y.npy", "manifest.json"])
@pytest.mark.parametrize(
    "harm", [damage_byte, pathlib.Path.unlink, lambda f: os.truncate(f, 40), lambda f: f.write_bytes(b"")]
)
def test_damaged_cache_is_rebuilt_never_used(tiny, cache, name, harm):
    expected = Split(*map(np.array, source(tiny).load("train")))
    entry = next((cache / "data").glob("rg_tiny-1.2.3-train-*"))
    harm(entry / name)
    for actual, wanted in zip(source(tiny).load("train"), expected, strict=True):
        np.testing.assert_array_equal(actual, wanted)
    manifest = json.loads((entry / "manifest.json").read_text())
    assert set(manifest["files"]) == {"x.npy", "y.npy"} == {f.name for f in entry.iterdir()} - {"manifest.json"}


def test_other_records_make_another_entry(tiny, cache, tmp_path):
    source(tiny).load("test")
    copy = tmp_path / "copy"
    shutil.copytree(tiny, copy)
    records = next(copy.glob("rg_tiny/1.2.3/*train.array_record*"))
    shutil.copy(records, next(copy.glob("rg_tiny/1.2.3/*test.array_record*")))
    info = copy / "rg_tiny/1.2.3/dataset_info.json"
    info.write_text(info.read_text().replace('"30"', '"120"'))
    assert len(source(copy).load("test").y) == 120 and len(source(tiny).load("test").y) == 30


def test_unwritable_cache_only_costs_time(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ROBUSTGEN_CACHE", str(tmp_path / "file" / "cache"))
    assert len(source(tiny).load("train").y) == 100


def test_cache_follows_the_users_folders(monkeypatch):
    monkeypatch.delenv("ROBUSTGEN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_dir() == pathlib.Path("/somewhere/robustgen")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == pathlib.Path.home() / ".cache" / "robustgen"


def test_unprepared_set_says_the_exact_command(tiny, monkeypatch):
    with pytest.raises(DataError, match=f"run: robustgen prepare mnist --dir={tiny}") as error:
        tfds(name="mnist", num_validation=5, dir=str(tiny))
    assert "there: rg_tiny" in str(error.value) and "\n" not in str(error.value)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tiny))
    with pytest.raises(DataError, match="robustgen prepare rg_tiny:9.9.9"):
        tfds(name="rg_tiny:9.9.9", num_validation=5)
    tfds(name="rg_tiny:1.2.3", num_validation=5).check()
    with pytest.raises(KnobError, match="num_validation"):
        tfds(name="rg_tiny", num_validation=120)


@pytest.mark.parametrize(
    "file, change, words",
    [
        ("features.json", lambda t: t.replace('"image"', '"text"'), "no 'image'"),
        ("features.json", lambda t: t.replace('"6"', '"-1"'), "one fixed shape"),
        ("features.json", lambda t: t.replace("classLabel", "scalar"), "no 'label' that is a class"),
        ("features.json", lambda t: t[:50], "damaged"),
        ("dataset_info.json", lambda t: t.replace("array_record", "tfrecord"), "tfrecord files, which need TensorFlow"),
        ("dataset_info.json", lambda t: t.replace('"train"', '"training"'), "no split train"),
    ],
)
def test_sets_that_cannot_serve_are_refused_in_one_line(tiny, tmp_path, file, change, words):
    shutil.copytree(tiny, tmp_path / "copy")
    path = tmp_path / "copy/rg_tiny/1.2.3" / file
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=re.escape(words)) as error:
        source(tmp_path / "copy")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("harm", [pathlib.Path.unlink, lambda f: os.truncate(f, 0)])
def test_check_sees_missing_records(tiny, tmp_path, harm):
    shutil.copytree(tiny, tmp_path / "copy")
    harm(next((tmp_path / "copy").glob("rg_tiny/1.2.3/*train.array_record*")))
    with pytest.raises(DataError, match=f"robustgen prepare rg_tiny --dir={tmp_path / 'copy'}"):
        source(tmp_path / "copy").check()


def test_damaged_records_are_reported_not_decoded(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "copy")
    records = next((tmp_path / "copy").glob("rg_tiny/1.2.3/*test.array_record*"))
    records.write_bytes(records.read_bytes()[: records.stat().st_size // 2])
    with pytest.raises(DataError, match="is damaged"):
        source(tmp_path / "copy").load("test")


def test_newest_version_is_taken_and_half_prepared_ones_are_not_seen(tmp_path):
    for version in ("3.0.9", "3.0.10", "3.0.2", "3.1.0.incompleteA"):
        (tmp_path / "mnist" / version).mkdir(parents=True)
        (tmp_path / "mnist" / version / "dataset_info.json").touch()
    (tmp_path / "mnist" / "9.0.0").mkdir()
    assert [f.name for f in catalogue.versions(tmp_path / "mnist")] == ["3.0.2", "3.0.9", "3.0.10"]


def test_mnist_is_mnist(shared):
    root = shared / "tfds"
    test = tfds(name="mnist", num_validation=5000, dir=str(root)).load("test")
    assert test.x.shape == (10000, 28, 28, 1)
    published = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]  # yann.lecun.com/exdb/mnist
    np.testing.assert_array_equal(np.bincount(test.y), published)
    builder = tensorflow_datasets.builder("mnist", data_dir=root)
    raw = builder.as_data_source("test", decoders={"image": tensorflow_datasets.decode.SkipDecoding()})
    for i in (0, 499, 500, 9999):
        np.testing.assert_array_equal(test.x[i, ..., 0], PIL.Image.open(io.BytesIO(raw[i]["image"])))
