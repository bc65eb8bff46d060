"""Small images as PNG data URIs, without a date or an imaging library: equal arrays give equal bytes."""

import base64
import struct
import zlib

import numpy as np


def is_image(x: np.ndarray) -> bool:
    """Whether one example can be shown: [H, W], [H, W, 1] or [H, W, 3]."""
    return x.ndim == 2 or x.ndim == 3 and x.shape[-1] in (1, 3)


def data_uri(image: np.ndarray) -> str:
    """`image` [H, W], [H, W, 1] or [H, W, 3] in [0, 1] (clipped to it) as `data:image/png;base64,...`."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def png(image: np.ndarray) -> bytes:
    """8-bit grey or RGB PNG (ISO/IEC 15948) of `image` in [0, 1]."""
    image = image.reshape(*image.shape[:2], -1)
    pixels = np.round(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    height, width, channels = pixels.shape
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)  # filter type 0 each
    header = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    data = zlib.compress(lines.tobytes(), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def perturbation(x: np.ndarray, x_adv: np.ndarray) -> tuple[np.ndarray, float]:
    """x_adv - x around mid-grey, and the factor that it is magnified by: the largest that fits, of two digits."""
    shift = np.asarray(x_adv, np.float64) - x
    largest = np.abs(shift).max()
    factor = float(f"{0.5 / largest:.2g}") if largest > 0 else 1.0
    return 0.5 + factor * shift, factor


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
