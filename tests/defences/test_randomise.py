"""Random resizing and padding against loops in NumPy, and how transforms become models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from robustgen import defences
from robustgen.knobs import KnobError
from robustgen.spread import example_keys

X = jnp.asarray(np.random.default_rng(0).uniform(0.1, 0.9, (400, 6, 6, 1)), jnp.float32)


def nearest(image, size):
    """As tf.image.resize_images did: floor(i S / R)."""
    index = np.floor(np.arange(size) * len(image) / size + 1e-9).astype(int)
    return image[index][:, index]


def test_resize_pad_is_one_of_the_papers_patterns_and_every_pattern_occurs(key):
    out = np.asarray(defences.resize_pad(min_size=6, out_size=9)(X, example_keys(key, 400)))
    assert out.shape == (400, 9, 9, 1)
    seen = []
    for image, result in zip(np.asarray(X), out, strict=True):
        inside = result[..., 0] != 0
        size, top, left = inside.any(1).sum(), inside.any(1).argmax(), inside.any(0).argmax()
        np.testing.assert_array_equal(result[top : top + size, left : left + size], nearest(image, size))
        assert inside.sum() == size**2
        seen.append((size, top, left))
    expected = {(r, i, j) for r in (6, 7, 8) for i in range(10 - r) for j in range(10 - r)}
    assert set(seen) == expected
    sizes = np.bincount([size for size, *_ in seen])[6:] / 400
    np.testing.assert_allclose(sizes, 1 / 3, atol=4 * np.sqrt(2 / 9 / 400))


def test_resize_pad_can_shrink_and_fill(key):
    out = np.asarray(defences.resize_pad(min_size=3, out_size=6, fill=0.5)(X, example_keys(key, 400)))
    assert out.shape == X.shape and np.all(out[:, [0, 0, 5, 5], [0, 5, 0, 5]].min((1, 2)) <= 0.5)
    assert np.mean(out == 0.5) > 1 - (25 / 36) - 1e-9


@pytest.mark.parametrize("wrong", [{"min_size": 5, "out_size": 5}, {"min_size": 0, "out_size": 5}])
def test_resize_pad_refuses(wrong):
    with pytest.raises(KnobError, match="min_size"):
        defences.resize_pad(**wrong)
    with pytest.raises(ValueError, match="square"):
        defences.resize_pad(min_size=5, out_size=8)(jnp.zeros((1, 5, 6, 1)), None)


def test_noise_has_its_size_and_takes_any_shape(key):
    x = jnp.full((100, 50), 0.5)
    out = np.asarray(defences.noise(sigma=0.1)(x, example_keys(key, 100)))
    np.testing.assert_allclose([out.mean(), out.std()], [0.5, 0.1], atol=5 * 0.1 / np.sqrt(out.size))


def test_compose_goes_in_order_with_keys_of_its_own(key):
    keys = example_keys(key, 400)
    noise, bits = defences.noise(sigma=0.1), defences.bit_depth(bits=2)
    coarse = defences.compose(noise, bits)(X, keys)
    np.testing.assert_allclose(3 * coarse, np.rint(3 * coarse), atol=1e-6)
    twice = defences.compose(noise, noise)(X, keys) - X
    assert abs(float(twice.std()) - 0.1 * np.sqrt(2)) < 0.01  # were the keys the same, it would be 0.2
    np.testing.assert_array_equal(defences.compose()(X, keys), X)


def test_fixed_is_one_draw_and_defended_gives_each_example_its_key(key):
    defended = defences.defended(defences.noise(sigma=0.1))(lambda x: x.reshape(len(x), -1))
    model = defences.fixed(defended, key)
    np.testing.assert_array_equal(model(X), model(X))
    np.testing.assert_array_equal(model(X), defended(X, example_keys(key, 400)))
    assert jnp.any(model(X) != defences.fixed(defended, jax.random.key(1))(X))
    offsets = model(X) - X.reshape(400, -1)
    assert len(np.unique(np.asarray(offsets[:, 0]))) > 390
