"""Sources: the sealed test split, fingerprints, digits and the user's own arrays."""

import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from robustgen.data.arrays import arrays, npz
from robustgen.data.digits import digits
from robustgen.data.source import DataError, TestSplitError, fingerprint, first, scaled, sealed
from robustgen.knobs import KnobError

IMAGES = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
LABELS = np.array([0, 1])


def own(**changes):
    pair = (IMAGES, LABELS)
    return arrays(**{"name": "own", "train": pair, "validation": pair, "test": pair, "num_classes": 2, **changes})


def test_sealed_source_gives_everything_but_the_test_split():
    source = digits(num_validation=200)
    guarded = sealed(source)
    with pytest.raises(TestSplitError, match="digits"):
        guarded.load("test")
    with pytest.raises(TestSplitError):
        first(guarded, 10).load("test")
    for split in ("train", "validation"):
        np.testing.assert_array_equal(guarded.load(split).x, source.load(split).x)
    guarded.check()


def test_digits_splits_are_a_partition_of_scikit_learns_images():
    splits = [digits(num_validation=200).load(s) for s in ("train", "validation", "test")]
    assert [len(s.y) for s in splits] == [1097, 200, 500]
    rows = np.concatenate([np.column_stack([s.x.reshape(len(s.x), 64), s.y]) for s in splits])
    stored = load_digits()
    expected = np.column_stack([stored.images.reshape(-1, 64), stored.target])
    np.testing.assert_array_equal(rows[np.lexsort(rows.T)], expected[np.lexsort(expected.T)])
    assert all(s.x.dtype == np.uint8 and s.y.dtype == np.int32 for s in splits)


def test_digits_test_split_never_depends_on_the_validation_split():
    small, large = digits(num_validation=100), digits(num_validation=300)
    np.testing.assert_array_equal(small.load("test").x, large.load("test").x)
    np.testing.assert_array_equal(small.load("validation").x, large.load("validation").x[:100])
    with pytest.raises(KnobError):
        digits(num_validation=1297)


def test_fingerprint_is_the_hash_written_down_and_sees_a_single_pixel():
    source = digits(num_validation=200)
    assert fingerprint(source, "test") == "8a7787e96e99c80b05c762b889ea5840785812ab7e33cb5c4535426bd60243f2"
    text = b"(2, 3, 3, 1) |u1\n" + IMAGES.tobytes() + b"(2,) <i4\n" + LABELS.astype("<i4").tobytes()
    assert fingerprint(own(), "train") == hashlib.sha256(text).hexdigest()
    changed = IMAGES.copy()
    changed[1, 2, 2] ^= 1
    assert fingerprint(own(train=(changed, LABELS)), "train") != fingerprint(own(), "train")


def test_scaled_digits_lie_in_the_unit_interval():
    x, _ = scaled(digits(num_validation=200).load("train"), 1 / 16)
    assert x.dtype == np.float32 and x.min() == 0 and x.max() == 1


def test_first_shortens_every_split():
    assert [len(first(digits(num_validation=5), 10).load(s).y) for s in ("train", "validation", "test")] == [10, 5, 10]


def test_unknown_split_is_refused():
    for source in (digits(num_validation=5), own()):
        with pytest.raises(DataError, match="train, validation, test"):
            source.load("valid")


def test_arrays_become_a_source():
    source = own()
    assert (source.shape, source.num_classes, source.scale) == ((3, 3, 1), 2, 1 / 255)
    floats = own(**{s: (np.ones((2, 5)) / 3, LABELS) for s in ("train", "validation", "test")})
    assert floats.load("test").x.dtype == np.float32 and floats.scale == 1 and floats.shape == (5,)


@pytest.mark.parametrize(
    "pair, words",
    [
        ((IMAGES, LABELS[:1]), "N"),
        ((IMAGES[:0], LABELS[:0]), "N > 0"),
        ((IMAGES.astype(int), LABELS), "uint8 or float"),
        ((IMAGES, LABELS / 1), "whole numbers"),
        ((IMAGES, LABELS + 1), "from 0 to 1"),
        ((IMAGES, LABELS - 1), "from 0 to 1"),
        ((IMAGES[:, :2], LABELS), "train is uint8"),
        ((IMAGES / 255.0, LABELS), "train is uint8"),
    ],
)
def test_arrays_that_cannot_be_are_refused_in_one_line(pair, words):
    with pytest.raises(DataError, match=words) as error:
        own(validation=pair)
    assert "\n" not in str(error.value) and "own validation" in str(error.value)


def test_unscaled_or_nonfinite_floats_are_refused():
    everywhere = lambda x: {s: (x, LABELS) for s in ("train", "validation", "test")}  # noqa: E731
    with pytest.raises(DataError, match=r"in \[0, 1\]"):
        own(**everywhere(IMAGES[..., None].astype(np.float32)))
    with pytest.raises(DataError, match="not finite"):
        own(**everywhere(np.full((2, 5), np.nan)))
    with pytest.raises(KnobError, match="scale"):
        own(scale=-1.0)


def test_npz_in_keras_form_holds_out_validation(tmp_path):
    path, rng = str(tmp_path / "own.npz"), np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 4, 4), np.uint8), np.arange(20, dtype=np.uint8)
    np.savez_compressed(path, x_train=x, y_train=y, x_test=x[:3], y_test=y[:3])
    source = npz(path=path, num_classes=20, num_validation=6)
    source.check()
    assert (source.name, source.shape) == ("own", (4, 4, 1))
    train, held = source.load("train"), source.load("validation")
    assert sorted([*train.y, *held.y]) == list(range(20)) and len(held.y) == 6
    for split in (train, held):
        np.testing.assert_array_equal(split.x[..., 0], x[split.y])
    np.testing.assert_array_equal(source.load("test").y, y[:3])


def test_npz_that_is_missing_or_wrong_is_refused_at_once(tmp_path):
    wanted = {"num_classes": 2, "num_validation": 1}
    with pytest.raises(DataError, match="no.npz"):
        npz(path=str(tmp_path / "no.npz"), **wanted)
    np.savez(tmp_path / "part.npz", x_train=IMAGES)
    with pytest.raises(DataError, match="lacks y_train"):
        npz(path=str(tmp_path / "part.npz"), **wanted)
    pickled = np.array([{}, {}], dtype=object)
    np.savez(tmp_path / "pickle.npz", x_train=IMAGES, y_train=pickled, x_test=IMAGES, y_test=LABELS)
    with pytest.raises(DataError, match="cannot be read"):
        npz(path=str(tmp_path / "pickle.npz"), **wanted).load("train")
