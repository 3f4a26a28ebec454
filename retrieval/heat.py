"""Where in a picture a match is: a map of heat, and a PNG of it over the picture.

The map needs nothing of a tower but ``prepare`` and ``embed``: parts of the picture are shown to
it one by one, and each place gets the mean cosine of the parts that it was in. A part is shown
alone, enlarged, as if it were a picture, and in its place, through a window in a sheet of the
mean colour: the first finds small things, the second keeps what a thing's surroundings tell. The
windows are the sliding patch of Zeiler and Fergus 2014 (arXiv 1311.2901) turned inside out, and a
regular relative of the random masks of RISE (Petsiuk et al. 2018, arXiv 1806.07421).
"""

from __future__ import annotations

import os
import re
import secrets
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from retrieval.errors import MediaError, QueryError
from retrieval.types import Tower

Heat = NDArray[np.float32]

CROPS = 5
"""Crops along each side, each shown alone and enlarged; they lie within the picture."""
CROP = 3 / 7  # of each side
WINDOWS = 5
"""Windows along each side, through which a sheet of the mean colour is seen; those at the rim
reach beyond it."""
WINDOW = 0.5  # of each side
BEYOND = WINDOW / 2 - 1 / (2 * WINDOWS)  # so that their middles share the picture evenly
PASSES = CROPS**2 + WINDOWS**2
CELLS = 56  # of the map along each side
BATCH = 8  # pictures embedded at once
SIDE_PX = 224  # shorter side of what is shown to a tower that does not say what it needs
LONGEST_PX = 1024  # of the PNG
MARK = "anyseek"  # what our PNGs name as their software
MAX_NAME = 60  # characters of a file's name that go into the PNG's
STILL = 1e-4  # cosines that differ less than this tell no place from another

RAMP = np.array(
    [(18, 14, 66), (98, 26, 122), (196, 58, 84), (246, 144, 44), (255, 250, 190)], np.float32
)
"""Colours from cold to hot, evenly spaced. Each is lighter than the one before, so that they are
told apart without seeing colours too."""
VEIL = 0.55  # of the colours over the grey picture


def heat_map(picture: Image.Image, tower: Tower, query: NDArray[np.floating]) -> Heat:
    """Tells where in a picture a query is answered.

    Args:
        picture: RGB, as it is shown; its sides need not be equal.
        tower: Of pictures.
        query: ``(dim,)``, unit length.

    Returns:
        ``(CELLS, CELLS)`` float32 over the whole picture, rows from the top: 0 where the query is
        answered least, 1 where most; zeros if it makes no difference what is seen.
    """
    scale = (tower.side_px or SIDE_PX) / min(picture.size)
    if scale < 1:
        size = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((next(size), next(size)), Image.Resampling.BICUBIC)
    crops, windows = list(_boxes(CROPS, CROP, 0.0)), list(_boxes(WINDOWS, WINDOW, BEYOND))
    mean = np.asarray(picture, np.float32).mean(axis=(0, 1)).round().astype(int).tolist()
    sheet = Image.new("RGB", picture.size, tuple(mean))
    seen = [tower.prepare(picture.crop(_pixels(box, picture))) for box in crops]
    for box in windows:
        shown = sheet.copy()
        place = _pixels(box, picture)
        shown.paste(picture.crop(place), place[:2])
        seen.append(tower.prepare(shown))
    vectors = [tower.embed(seen[start : start + BATCH]) for start in range(0, len(seen), BATCH)]
    scores = np.concatenate(vectors) @ query.astype(np.float32)
    heat = _spread(crops, scores[: len(crops)]) + _spread(windows, scores[len(crops) :])
    low, high = float(heat.min()), float(heat.max())
    if high - low < STILL:
        return np.zeros((CELLS, CELLS), np.float32)
    return np.asarray((heat - low) / (high - low), np.float32)


Box = tuple[float, float, float, float]
"""Left, top, right and bottom, as shares of the picture's sides."""


def _boxes(count: int, side: float, beyond: float) -> Iterator[Box]:
    """Gives evenly spaced squares, row by row; the outermost reach so far beyond the rim."""
    starts = np.linspace(-beyond, 1 - side + beyond, count).tolist()
    for top in starts:
        for left in starts:
            yield left, top, left + side, top + side


def _pixels(box: Box, picture: Image.Image) -> tuple[int, int, int, int]:
    """Gives the pixels of a box that lie in the picture, at least one each way."""
    width, height = picture.size
    left, top, right, bottom = (min(max(edge, 0.0), 1.0) for edge in box)
    x, y = min(int(left * width), width - 1), min(int(top * height), height - 1)
    return x, y, max(x + 1, round(right * width)), max(y + 1, round(bottom * height))


def _spread(boxes: Sequence[Box], scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Gives each cell the mean score of the boxes that hold it, those about it counting most.

    A box's weight falls from 1 in its middle to 0 at its edges, as a squared cosine each way: a
    box says most about what fills its middle, and the map has no steps.
    """
    middles = (np.arange(CELLS) + 0.5) / CELLS
    total, weight = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for (left, top, right, bottom), score in zip(boxes, scores.tolist(), strict=True):
        across = _bump((middles - left) / (right - left))
        down = _bump((middles - top) / (bottom - top))
        own = down[:, None] * across
        total += own * score
        weight += own
    return total / weight


def _bump(place: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = (place > 0) & (place < 1)
    return np.where(inside, np.sin(np.pi * place) ** 2, 0.0)


def drawn(picture: Image.Image, heat: Heat) -> Image.Image:
    """Draws a map over its picture: RGB, in the picture's own proportions.

    Args:
        picture: RGB, as it is shown; what is longer than ``LONGEST_PX`` is made smaller.
        heat: ``(rows, columns)`` over the whole picture, 0..1.
    """
    small = picture.copy()
    small.thumbnail((LONGEST_PX, LONGEST_PX))
    smooth = Image.fromarray(heat.astype(np.float32)).resize(small.size, Image.Resampling.BILINEAR)
    colours = Image.fromarray(coloured(np.asarray(smooth, np.float32)))
    return Image.blend(small.convert("L").convert("RGB"), colours, VEIL)


def coloured(heat: Heat) -> NDArray[np.uint8]:
    """Gives the colours of heat 0..1: shape ``(..., 3)`` uint8, from cold to hot along ``RAMP``."""
    place = np.clip(heat, 0.0, 1.0) * (len(RAMP) - 1)
    channels = [np.interp(place, np.arange(len(RAMP)), RAMP[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def file_name(rank: int, path: bytes, *, digits: int = 2) -> str:
    """Makes the name of a hit's PNG: ``01-dog-at-sea.png`` for ``Dog at sea!.jpg`` at rank 1.

    Letters and digits of any script stay, in lower case; all else becomes single hyphens.
    """
    stem = os.path.splitext(os.path.basename(os.fsdecode(path)))[0]  # noqa: PTH119, PTH122 (bytes)
    plain = unicodedata.normalize("NFC", stem).lower()
    name = re.sub(r"[\W_]+", "-", plain)[:MAX_NAME].strip("-")
    return f"{rank:0{digits}}-{name or 'picture'}.png"


def save(image: Image.Image, path: Path) -> None:
    """Writes a drawing as PNG, whole or not at all, in place of an older one of ours.

    Args:
        image: What ``drawn`` gives.
        path: Its folder is made where it is missing.

    Raises:
        QueryError: If something stands there that is not ours, or the disk does not let us.
    """
    if os.path.lexists(path) and not _ours(path):
        raise QueryError(
            f"{path} is there already and not a heat map of anyseek; choose another --explain-dir"
        )
    note = PngImagePlugin.PngInfo()
    note.add_text("Software", MARK)
    temporary = path.with_name(f".{path.stem[:40]}-{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            image.save(temporary, "PNG", pnginfo=note)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise QueryError(
            f"cannot write {path}: {error.strerror or error}; choose another --explain-dir"
        ) from error


def _ours(path: Path) -> bool:
    """Tells our own PNGs by their mark, without decoding them; links are nobody's."""
    if path.is_symlink() or not path.is_file():
        return False
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return image.info.get("Software") == MARK
    except (OSError, SyntaxError, ValueError):
        return False


def read(path: bytes, side_px: int | None) -> Image.Image:
    """Reads a picture for a map and its drawing: RGB, turned as its EXIF data says.

    Args:
        path: The file.
        side_px: What the tower needs.

    Raises:
        MediaError: With the reason, if the file is gone or cannot be used.
    """
    from retrieval import media

    if media.modality_of(path) != "image":
        raise MediaError("is not a picture")
    content = media.read(path)
    # half of what is drawn at most, since a decoder keeps twice what it is asked for
    side = max(side_px or SIDE_PX, LONGEST_PX // 2)
    picture: Image.Image = media.decode(content.data, path, side_px=side).parts[0].content
    return picture
