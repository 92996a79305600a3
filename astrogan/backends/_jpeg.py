"""What saving a stretched image as an 8-bit JPEG and reading it back does to it."""

from __future__ import annotations

import io

import numpy as np

__all__ = ["through_jpeg"]


def through_jpeg(stretched, quality):
    """One or three bands (band, y, x), clipped to [0, 1], after 8 bits and JPEG with chroma subsampling; float32."""
    from PIL import Image

    grey = np.rint(np.clip(stretched, 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(grey[0] if len(grey) == 1 else np.ascontiguousarray(np.moveaxis(grey, 0, -1)))
    file = io.BytesIO()
    picture.save(file, format="JPEG", quality=quality)
    with Image.open(io.BytesIO(file.getvalue())) as decoded:
        levels = np.asarray(decoded)
    return (np.atleast_3d(levels).transpose(2, 0, 1) / 255).astype(np.float32)
