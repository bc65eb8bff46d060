"""Augmentation against loops in NumPy, its statistics, and its independence of the rest of the batch.

`python tests/data/test_augment.py` measures its speed.
"""

import time

import jax
import numpy as np
import pytest

from robustgen.data.augment import compose, crop_offsets, flip, flip_coins, none, pad_crop
from robustgen.knobs import KnobError
from robustgen.spread import example_keys

AUGMENTS = [none(), pad_crop(pad=2), flip(), compose(pad_crop(pad=2), flip())]


def images(key, num=40, height=5, width=7, channels=2):
    return jax.random.uniform(key, (num, height, width, channels))


def test_pad_crop_is_the_crop_at_its_offsets(key):
    x, keys = images(key), example_keys(key, 40)
    padded = np.pad(np.asarray(x), ((0, 0), (3, 3), (3, 3), (0, 0)))
    expected = [p[r : r + 5, c : c + 7] for p, (r, c) in zip(padded, crop_offsets(keys, pad=3), strict=True)]
    np.testing.assert_array_equal(jax.jit(pad_crop(pad=3))(x, keys), np.stack(expected))


def test_flip_is_the_mirror_where_its_coin_says_so(key):
    x, keys = images(key), example_keys(key, 40)
    expected = [i[:, ::-1] if c else i for i, c in zip(np.asarray(x), flip_coins(keys), strict=True)]
    np.testing.assert_array_equal(jax.jit(flip())(x, keys), np.stack(expected))


def test_offsets_and_coins_are_uniform_and_independent(key):
    keys = jax.random.split(key, 20000)
    offsets, coins = np.asarray(crop_offsets(keys, pad=2)), np.asarray(flip_coins(keys))
    counts = np.unique(offsets @ np.array([5, 1]), return_counts=True)[1]
    assert len(counts) == 25 and offsets.min() == 0 and offsets.max() == 4
    assert ((counts - 800) ** 2 / 800).sum() < 51.2  # chi-square, 24 degrees of freedom: exceeded once in 1000
    assert abs(coins.mean() - 0.5) < 3.3 * 0.5 / np.sqrt(20000)


def test_composed_augmentations_draw_apart(key):
    x, keys = images(key), example_keys(key, 40)
    twice = compose(flip(), flip())(x, keys)
    same = np.mean([np.array_equal(a, b) for a, b in zip(twice, x, strict=True)])
    assert 0.2 < same < 0.8  # one coin for both would give x back everywhere


@pytest.mark.parametrize("augment", AUGMENTS)
def test_each_example_depends_on_its_own_key_alone(key, augment):
    x, keys = images(key), example_keys(key, 40)
    together = augment(x, keys)
    order = np.random.default_rng(0).permutation(40)[:17]
    np.testing.assert_array_equal(augment(x[order], keys[order]), together[order])
    np.testing.assert_array_equal(augment(x, keys), together)
    assert together.shape == x.shape and together.dtype == x.dtype
    assert together.min() >= 0 and together.max() <= 1


def test_padding_is_a_count():
    with pytest.raises(KnobError, match="pad"):
        pad_crop(pad=0)


def main() -> None:
    x = images(jax.random.key(0), 128, 32, 32, 3)
    augment = jax.jit(lambda x, key: compose(pad_crop(pad=4), flip())(x, example_keys(key, 128)))
    augment(x, jax.random.key(1)).block_until_ready()
    seconds = []
    for i in range(200):
        start = time.perf_counter()
        augment(x, jax.random.key(i)).block_until_ready()
        seconds.append(time.perf_counter() - start)
    print(f"pad-crop and flip, 128 x 32 x 32 x 3: {128 / np.median(seconds):.0f} images/s (median of 200 calls)")


if __name__ == "__main__":
    main()
