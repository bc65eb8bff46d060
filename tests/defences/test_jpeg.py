"""JPEG against libjpeg-turbo, as Pillow calls it: the same bytes.

One in a thousand may differ, by up to 8: products of the second DCT pass need 29 bits, float32 keeps 24, so that a tie
may tip. None did on these images (Pillow 13.0).
"""

import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from robustgen import defences
from robustgen.defences.jpeg import CHROMINANCE, LUMINANCE, quality_table

PHOTO = load_sample_image("china.jpg")[100:145, 200:267]  # odd sides: every edge rule is met
NOISE = np.random.default_rng(0).integers(0, 256, PHOTO.shape).astype(np.uint8)
SIZES = {"4:4:4": (defences.jpeg, 0), "4:2:0": (defences.jpeg_420, 2)}


def pillow(image, quality, subsampling):
    file = io.BytesIO()
    if image.shape[-1] == 1:
        Image.fromarray(image[..., 0]).save(file, "JPEG", quality=quality)
    else:
        Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file)).astype(int).reshape(image.shape)


@pytest.fixture(scope="module")
def compressed():
    """compressed(sizes, image, quality): our bytes, compiled once for all qualities."""
    compiled = {name: jax.jit(lambda x, q, f=f: f(quality=q)(x, None)) for name, (f, _) in SIZES.items()}

    def ours(sizes, image, quality):
        x = jnp.asarray(image[None] / np.float32(255))
        return np.rint(255 * np.asarray(compiled[sizes](x, quality)))[0].astype(int)

    return ours


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_is_what_pillow_decodes(compressed, sizes, channels):
    for quality in (1, 5, 30, 49, 50, 75, 95, 100):
        for image in (PHOTO[..., :channels], NOISE[..., :channels]):
            ours, theirs = compressed(sizes, image, quality), pillow(image, quality, SIZES[sizes][1])
            assert np.mean(ours != theirs) < 1e-3 and np.abs(ours - theirs).max() <= 8, quality
            assert np.any(theirs != image)


def test_quality_scales_as_pillow_writes_its_tables():
    for quality in (1, 10, 25, 49, 50, 51, 75, 99, 100):
        file = io.BytesIO()
        Image.fromarray(PHOTO).save(file, "JPEG", quality=quality)
        tables = Image.open(file).quantization
        for table, theirs in ((LUMINANCE, tables[0]), (CHROMINANCE, tables[1])):
            np.testing.assert_array_equal(np.asarray(quality_table(table, quality)).ravel(), theirs)


def test_grey_is_kept_but_for_its_quantised_mean():
    """Constant blocks are their mean in steps of the first table entry / 8, whose ties round away from 128."""
    levels = np.arange(256)
    x = jnp.asarray(np.broadcast_to(levels[:, None, None, None] / 255, (256, 8, 8, 1)), jnp.float32)
    out = np.rint(255 * np.asarray(defences.jpeg(quality=50)(x, None)))
    steps = (levels - 128) * 8 / 16
    mean = np.clip(np.sign(steps) * np.floor(np.abs(steps) + 0.5) * 16 / 8 + 128, 0, 255)
    np.testing.assert_array_equal(out, np.broadcast_to(mean[:, None, None, None], out.shape))


def test_other_channels_are_refused():
    with pytest.raises(ValueError, match="JPEG takes images"):
        defences.jpeg(quality=75)(jnp.zeros((1, 8, 8, 2)), None)
