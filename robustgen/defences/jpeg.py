"""JPEG compression and decompression in JAX: what comes out is what a baseline decoder shows, and no file is written.

ITU-T T.81 with the standard tables of its annex K, JFIF colours, and the Independent JPEG Group's quality scale. Every
rounding of libjpeg is made where libjpeg makes it (bytes, colours, both passes of its integer "islow" DCT, chroma,
coefficients), since ties are common and each would tip a block: the bytes are Pillow's (tests/defences/test_jpeg.py).
"""

from collections.abc import Callable
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from robustgen.core import Array
from robustgen.defences.transforms import Transform
from robustgen.knobs import Range, checked

Quality = Annotated[int, Range(1, 100)]

LUMINANCE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
])  # fmt: skip
CHROMINANCE = np.array([
    [17, 18, 24, 47, 99, 99, 99, 99], [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99], [47, 66, 99, 99, 99, 99, 99, 99], *[[99] * 8] * 4,
])  # fmt: skip
"""Quantisation steps at quality 50: ITU-T T.81, tables K.1 and K.2."""

_TO_YCC = np.array([[19595, 38470, 7471], [-11059, -21709, 32768], [32768, -27439, -5329]]) / 65536
_TO_RGB = np.array([[0, 91881], [-22554, -46802], [116130, 0]]) / 65536
"""JFIF's colours in libjpeg's 16 bits: Y, Cb, Cr of R, G, B; what Cb and Cr add to Y. Exact in float32, ties too."""

_HALF = np.array([
    [8192, 8192, 8192, 8192], [11363, 9633, 6437, 2260], [10703, 4433, -4433, -10703], [9633, -2259, -11362, -6436],
    [8192, -8192, -8192, 8192], [6437, -11362, 2261, 9633], [4433, -10704, 10704, -4433], [2260, -6436, 9633, -11363],
])  # fmt: skip
_DCT = np.concatenate([_HALF, _HALF[:, ::-1] * np.where(np.arange(8) % 2, -1, 1)[:, None]], 1) / 8192
"""The orthogonal DCT of 8 samples times sqrt(8), in the 13 bits that libjpeg's products of constants come to."""


@checked
def jpeg(*, quality: Quality) -> Transform:
    """JPEG of x [B, H, W, 1] (grey) or [B, H, W, 3] (RGB, no chroma subsampling: 4:4:4), any H and W.

    Its derivative is zero almost everywhere; `bpda` with the identity is the adaptive attack (arXiv 1802.00420, 5.3).
    Quality 75 in Guo et al. 2018 (arXiv 1711.00117, section 5.1). Raises `ValueError` for other numbers of channels.
    """
    return lambda x, keys: _coded(x, quality, _code)


@checked
def jpeg_420(*, quality: Quality) -> Transform:
    """As `jpeg`, with chroma at half resolution (4:2:0), encoders' default; upsampled by libjpeg's triangle filter."""
    return lambda x, keys: _coded(x, quality, _code_halved)


def quality_table(table: np.ndarray, quality: int | Array) -> Array:
    """The quantisation steps [8, 8] of a quality from 1 to 100, in 1 ... 255: IJG's `jpeg_quality_scaling`."""
    quality = jnp.asarray(quality, jnp.int32)
    percent = jnp.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return jnp.clip((table * percent + 50) // 100, 1, 255)


def _coded(x: Array, quality: int | Array, code_chroma: Callable[[Array, Array], Array]) -> Array:
    channels = x.shape[-1]
    if channels not in (1, 3):
        raise ValueError(f"JPEG takes images [B, H, W, 1] or [B, H, W, 3]; got {x.shape}")
    levels = _round(255 * jnp.clip(x, 0, 1))
    if channels == 1:
        return _code(levels, quality_table(LUMINANCE, quality)) / 255
    colours = _transform("...j,ij->...i", levels, _TO_YCC)
    light = _code(_round(colours[..., :1]), quality_table(LUMINANCE, quality))
    halves_down = jnp.floor(colours[..., 1:] + (0.5 - 1 / 65536)) + 128
    chroma = code_chroma(halves_down, quality_table(CHROMINANCE, quality)) - 128
    return _bytes(light + _round(_transform("...j,ij->...i", chroma, _TO_RGB))) / 255


def _code(planes: Array, table: Array) -> Array:
    """Quantises the coefficients of each 8 x 8 block of planes [B, H, W, C] with values 0 ... 255, and decodes them."""
    batch, height, width, channels = planes.shape
    rows, columns = -(-height // 8), -(-width // 8)
    padding = ((0, 0), (0, 8 * rows - height), (0, 8 * columns - width), (0, 0))
    padded = jnp.pad(planes - 128, padding, mode="edge")
    blocks = padded.reshape(batch, rows, 8, columns, 8, channels).transpose(0, 1, 3, 5, 2, 4)
    decoded = _decode(_encode(blocks, table), table).transpose(0, 1, 4, 2, 5, 3).reshape(padded.shape)
    return _bytes(decoded[:, :height, :width] + 128)


def _encode(blocks: Array, table: Array) -> Array:
    """Quantised DCT coefficients of blocks [..., 8, 8]: along rows in quarters, then along columns in eighths."""
    quarters = _round(4 * _transform("...ij,kj->...ik", blocks, _DCT))
    eighths = _round(_transform("...ij,ki->...kj", quarters, _DCT) / 4)
    return _round_away(eighths / (8 * table).astype(blocks.dtype))


def _decode(coefficients: Array, table: Array) -> Array:
    """Samples of quantised coefficients: along columns first, then along rows."""
    quarters = _round(4 * _transform("...ij,ik->...kj", coefficients * table.astype(coefficients.dtype), _DCT))
    return _round(_transform("...ij,jk->...ik", quarters, _DCT) / 32)


def _transform(sides: str, blocks: Array, matrix: np.ndarray) -> Array:
    """In full precision: accelerators would take fewer bits than quantising bears."""
    return jnp.einsum(sides, blocks, matrix.astype(blocks.dtype), precision=jax.lax.Precision.HIGHEST)


def _code_halved(planes: Array, table: Array) -> Array:
    """As `_code`, of planes averaged over 2 x 2 pixels and brought back to their size."""
    height, width = planes.shape[1:3]
    half_height, half_width = -(-height // 2), -(-width // 2)
    # libjpeg fills blocks to the right before it averages, downwards after: hence columns first, rows in `_code`
    right = 16 * -(-half_width // 8) - width
    padded = jnp.pad(planes, ((0, 0), (0, height % 2), (0, right), (0, 0)), mode="edge")
    sums = padded.reshape(padded.shape[0], half_height, 2, -1, 2, padded.shape[-1]).sum((2, 4))
    bias = 1 + jnp.arange(sums.shape[2], dtype=sums.dtype)[:, None] % 2  # 1, 2, 1, 2, ...: ties go both ways
    coded = _code(jnp.floor((sums + bias) / 4), table)[:, :, :half_width]
    tall = _triangle(coded, 1)
    return jnp.floor((_triangle(tall, 2) + 8 - jnp.arange(2 * half_width, dtype=sums.dtype)[:, None] % 2) / 16)[
        :, :height, :width
    ]


def _triangle(planes: Array, axis: int) -> Array:
    """Twice as long along `axis`: 4 times the interpolation of 3/4 the nearer and 1/4 the next sample."""
    size = planes.shape[axis]
    padded = jnp.pad(planes, [(1, 1) if i == axis else (0, 0) for i in range(planes.ndim)], mode="edge")
    before, after = (jax.lax.slice_in_dim(padded, start, start + size, axis=axis) for start in (0, 2))
    pairs = jnp.stack([3 * planes + before, 3 * planes + after], axis + 1)
    return pairs.reshape(*planes.shape[:axis], 2 * size, *planes.shape[axis + 1 :])


def _bytes(values: Array) -> Array:
    return jnp.clip(values, 0, 255)


def _round(values: Array) -> Array:
    """To the nearest whole number, halves up: libjpeg adds one half and cuts."""
    return jnp.floor(values + 0.5)


def _round_away(values: Array) -> Array:
    """To the nearest whole number, halves away from zero: libjpeg's quantiser."""
    return jnp.sign(values) * jnp.floor(jnp.abs(values) + 0.5)
