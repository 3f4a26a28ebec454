"""Small JPEGs of pictures, to be shown in a page."""

from __future__ import annotations

import io
import os
from pathlib import Path

from retrieval import media
from retrieval.errors import MediaError

QUALITY = 70  # 96 pixels a side then take 3 KB


def jpeg(path: Path, side_px: int) -> bytes | None:
    """Gives a picture as a JPEG whose longer side is at most ``side_px``, without metadata.

    Returns:
        ``None`` for what is no picture or cannot be read.
    """
    if media.modality_of(path.name) != "image":
        return None
    try:
        content = media.read(path)
        decoded = media.decode(content.data, os.fsencode(path), side_px=side_px)
    except MediaError:
        return None
    picture = decoded.parts[0].content.copy()
    picture.thumbnail((side_px, side_px))
    picture.info.clear()
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()
