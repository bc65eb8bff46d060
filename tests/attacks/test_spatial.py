"""Rotations and shifts against scipy.ndimage, and the search against every point of its grid tried one by one."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from robustgen import attacks
from robustgen.attacks.spatial import rotate_shift
from robustgen.spread import example_keys

DRAW = np.random.default_rng(0)
X = jnp.asarray(DRAW.uniform(0, 1, (6, 7, 9, 2)), jnp.float32)
Y = jnp.asarray(DRAW.integers(0, 3, 6), jnp.int32)
W, V = (jnp.asarray(DRAW.standard_normal(shape), jnp.float32) for shape in ((126, 12), (12, 3)))
MOVE = jax.jit(rotate_shift)


def bumpy(x):
    return jnp.sin(2 * x.reshape(len(x), -1) @ W) @ V


def value(x):
    return attacks.margin(bumpy(x), Y)


def by_scipy(image, right, down, angle):
    """One image [H, W, C], in float64: read at R^-1 (p - centre - shift) + centre."""
    turn, centre = np.deg2rad(angle), (np.asarray(image.shape[:2]) - 1) / 2
    inverse = np.asarray([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # (row, column), row downwards
    offset = centre - inverse @ (centre + [down, right])
    channels = [
        scipy.ndimage.affine_transform(np.float64(channel), inverse, offset, order=1, mode="grid-constant", cval=0.0)
        for channel in np.moveaxis(np.asarray(image), -1, 0)
    ]
    return np.stack(channels, -1)


@pytest.mark.parametrize(
    "move", [(0, 0, 0), (1, 0, 0), (0, -2, 0), (0.5, 1.5, 0), (0, 0, 90), (-2.3, 1.7, 27), (1, 1, -31)]
)
def test_images_move_as_in_scipy(move):
    moved = MOVE(X, jnp.asarray(move, jnp.float32))
    expected = np.stack([by_scipy(image, *move) for image in X])
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_to_the_right_down_and_counter_clockwise():
    """A dot right of the centre goes right, then down; turned by 90 degrees it is above the centre."""
    dot = jnp.zeros((1, 5, 5, 1)).at[0, 2, 3, 0].set(1.0)
    for move, place in (((1, 0, 0), (2, 4)), ((0, 1, 0), (3, 3)), ((0, 0, 90), (1, 2)), ((1, 1, 90), (2, 3))):
        moved = np.asarray(MOVE(dot, jnp.asarray(move, jnp.float32)))[0, :, :, 0]
        assert np.unravel_index(np.argmax(moved), (5, 5)) == place and moved[place] > 1 - 1e-5


def test_standing_still_changes_nothing_and_each_example_may_move_alone():
    np.testing.assert_array_equal(MOVE(X, jnp.zeros(3)), X)
    moves = jnp.asarray(DRAW.uniform(-3, 3, (6, 3)) * [1, 1, 10], jnp.float32)
    for image, move, moved in zip(X, moves, MOVE(X, moves), strict=True):
        np.testing.assert_allclose(MOVE(image[None], move)[0], moved, atol=1e-6)


def test_no_pixel_leaves_what_the_image_and_black_span():
    """All-white images: interpolation weights do not sum to exactly 1 in float32."""
    white = jnp.ones((500, 8, 8, 1))
    moved = MOVE(white, jnp.asarray(DRAW.uniform(-1, 1, (500, 3)) * [3, 3, 30], jnp.float32))
    assert jnp.all((moved >= 0) & (moved <= 1)) and jnp.mean(moved == 1) > 0.3


@pytest.fixture(scope="module")
def brute():
    """The margin at each point of a 3 x 3 x 5 grid, moved by scipy: [45, 6]."""
    grid = itertools.product(np.linspace(-1.5, 1.5, 3), np.linspace(-1.5, 1.5, 3), np.linspace(-20, 20, 5))
    copies = [np.stack([by_scipy(image, *move) for image in X]) for move in grid]
    return np.stack([value(jnp.asarray(copy, jnp.float32)) for copy in copies]), np.stack(copies)


@pytest.mark.parametrize("group_size", [1, 7, 100])
def test_spatial_finds_the_worst_of_the_whole_grid(group_size, brute, key):
    """Whatever the groups, of which the last may be smaller."""
    attack = attacks.spatial(
        max_rotation=20.0, max_shift=1.5, num_rotations=5, num_shifts=3, judge=attacks.margin, group_size=group_size
    )
    values, copies = brute
    x_adv = jax.jit(lambda x, y: attack(bumpy, x, y, key))(X, Y)
    np.testing.assert_allclose(value(x_adv), values.max(0), atol=2e-4)
    np.testing.assert_allclose(x_adv, copies[values.argmax(0), np.arange(6)], atol=1e-5)
    assert np.all(values.max(0) > value(X) + 0.1)


def test_one_point_is_x_itself_and_an_even_grid_never_does_worse(key):
    still = attacks.spatial(max_rotation=0.0, max_shift=0.0, num_rotations=1, num_shifts=1, judge=attacks.margin)
    np.testing.assert_array_equal(still(bumpy, X, Y, key), X)
    corners = attacks.spatial(max_rotation=90.0, max_shift=5.0, num_rotations=2, num_shifts=2, judge=attacks.margin)
    assert np.all(value(jax.jit(lambda x, y: corners(bumpy, x, y, key))(X, Y)) >= value(X))


def test_random_tries_gain_with_their_number_and_go_by_example(key):
    few, many = (
        attacks.spatial_random(max_rotation=20.0, max_shift=1.5, num_tries=n, judge=attacks.margin) for n in (1, 40)
    )
    one, forty = (jax.jit(lambda x, y, attack=attack: attack(bumpy, x, y, key))(X, Y) for attack in (few, many))
    assert np.all(value(one) >= value(X)) and np.all(value(forty) >= value(one))
    assert np.mean(value(forty)) > np.mean(value(one))
    alone = many(bumpy, X[2:3], Y[2:3], example_keys(key, 6)[2:3])
    np.testing.assert_allclose(alone, forty[2:3], atol=1e-6)


def test_flat_inputs_are_refused():
    with pytest.raises(ValueError, match="take images"):
        rotate_shift(jnp.zeros((2, 9)), jnp.zeros(3))
