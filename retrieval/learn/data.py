"""Captioned pictures: the list of captions, the pixels, and random views of them."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from retrieval import media
from retrieval.errors import MediaError
from retrieval.towers.bundled import prepare_image

SIDE_PX = 224
"""Side of the square that the image tower sees; pictures are squashed into it."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Captioned:
    """One picture with what people said of it.

    Attributes:
        image: File name inside the folder of pictures.
        captions: At least one caption.
    """

    image: str
    captions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a captions file; ``split`` is empty where the file does not say."""

    image: str
    caption: str
    split: str


def read_rows(path: Path) -> list[Row]:
    """Reads a tab-separated file with the columns ``image``, ``caption`` and optionally ``split``.

    Raises:
        MediaError: If the file cannot be read, is not UTF-8 or lacks a column.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            missing = {"image", "caption"} - set(reader.fieldnames or ())
            if missing:
                raise MediaError(f"{path}: no column named {' or '.join(sorted(missing))}")
            return [
                Row(row["image"] or "", (row["caption"] or "").strip(), row.get("split") or "")
                for row in reader
            ]
    except UnicodeDecodeError as error:
        raise MediaError(
            f"{path}: cannot read the captions, since they are not UTF-8 (byte "
            f"{error.start}): save the file as UTF-8"
        ) from error
    except (OSError, csv.Error) as error:
        raise MediaError(f"{path}: cannot read the captions ({error})") from error


def read_captions(path: Path) -> dict[str, list[Captioned]]:
    """Reads a file of captions, see ``read_rows``, picture by picture.

    Returns:
        The pictures of each split, in the order of the file; without the column ``split``, one in
        ten pictures goes to ``dev`` and the rest to ``train``.

    Raises:
        MediaError: If the file cannot be read or lacks a column.
    """
    splits: dict[str, str] = {}
    captions: dict[str, list[str]] = {}
    for row in read_rows(path):
        if row.image not in splits:
            splits[row.image] = row.split or ("train", "dev")[len(splits) % 10 == 9]
        captions.setdefault(row.image, []).append(row.caption)
    pictures: dict[str, list[Captioned]] = {}
    for name, split in splits.items():
        pictures.setdefault(split, []).append(Captioned(name, tuple(captions[name])))
    return pictures


def read_picture(path: Path) -> Pixels:
    """Decodes one picture and squashes it: ``(224, 224, 3)`` uint8, RGB, transparent on white.

    Raises:
        MediaError: If it cannot be decoded.
    """
    try:
        picture = media.decode(media.read(path).data, path.name, side_px=SIDE_PX).parts[0].content
    except MediaError as error:
        raise MediaError(f"{path}: {error}") from error
    return prepare_image(picture, SIDE_PX)


def read_pictures(folder: Path, names: Sequence[str], *, threads: int = 2) -> Pixels:
    """Decodes many pictures: ``(n, 224, 224, 3)`` uint8 RGB in order, 150 kB each in memory."""
    pixels = np.empty((len(names), SIDE_PX, SIDE_PX, 3), np.uint8)

    def read(index: int) -> None:
        pixels[index] = read_picture(folder / names[index])

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(len(names))))
    return pixels


def random_view(pixels: Pixels, generator: np.random.Generator) -> Pixels:
    """Gives a random view of a squashed picture, same shape and type.

    A crop of 40-100 % of the area with an aspect of 3:4 to 4:3, mirrored half the time, with
    brightness, contrast and colour changed by up to 35 % more than half the time. Three in ten are
    first reduced to 28-111 pixels, so that the tower also understands small and blurry pictures.
    """
    image = Image.fromarray(pixels)
    area = generator.uniform(0.4, 1.0)
    aspect = math.exp(generator.uniform(-0.29, 0.29))
    width = min(SIDE_PX, round(SIDE_PX * math.sqrt(area * aspect)))
    height = min(SIDE_PX, round(SIDE_PX * math.sqrt(area / aspect)))
    left = int(generator.integers(0, SIDE_PX + 1 - width))
    top = int(generator.integers(0, SIDE_PX + 1 - height))
    box = (left, top, left + width, top + height)
    coarse = generator.random() < 0.3
    side_px = int(generator.integers(28, 112)) if coarse else SIDE_PX
    image = image.resize((side_px, side_px), Image.Resampling.BILINEAR, box=box)
    if coarse:
        smooth = generator.random() < 0.5
        filters = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
        image = image.resize((SIDE_PX, SIDE_PX), filters[smooth])
    if generator.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if generator.random() < 0.6:
        for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = change(image).enhance(generator.uniform(0.65, 1.35))
    return np.asarray(image)
