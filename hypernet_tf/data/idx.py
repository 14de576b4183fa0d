"""idx files, in which MNIST and data sets like it are published."""

from __future__ import annotations

import math
import zlib

import numpy as np

_LARGEST = 2**30  # bytes; the largest file of MNIST has 47 million


def decode(raw: bytes, rank: int) -> np.ndarray:
    """Read a gzip file that holds an idx file of unsigned bytes.

    Args:
        raw: Content of the gzip file.
        rank: Number of axes: 3 for images, 1 for labels.

    Returns:
        The array, uint8.

    Raises:
        ValueError, zlib.error: The content is truncated, damaged, huge or of another kind.
    """
    stream = zlib.decompressobj(wbits=31)  # gzip, its checksum included
    body = stream.decompress(raw, _LARGEST + 1)
    if len(body) > _LARGEST:
        raise ValueError(f"more than {_LARGEST:,} bytes")
    if not stream.eof:
        raise ValueError("truncated")
    magic, *shape = (int.from_bytes(body[4 * i : 4 * i + 4], "big") for i in range(1 + rank))
    if magic != 0x800 + rank:  # 8: unsigned bytes
        raise ValueError(f"wrong magic number 0x{magic:08x}, not 0x{0x800 + rank:08x}")
    if len(body) != 4 * (1 + rank) + math.prod(shape):
        raise ValueError(f"wrong length: {len(body)} bytes for the shape {shape}")
    return np.frombuffer(body, np.uint8, offset=4 * (1 + rank)).reshape(shape)
