"""A picture as a model of open_clip wants it, pixel for pixel, without torch.

``open_clip.transform.image_transform`` cuts, resizes and normalises with torchvision, whose import
alone takes seconds. Here Pillow does the same; the normalisation is left to the network, so that a
prepared picture is a quarter of the size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from retrieval.errors import ModelError

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_SIDE = 4096  # pixels; models see 224 to 512
OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """How a picture becomes the network's input.

    Attributes:
        height: Pixels.
        width: Pixels.
        mean: Of each channel, of values 0 to 1; taken off.
        std: Of each channel; divided by.
        interpolation: ``bicubic`` or ``bilinear``.
        resize_mode: ``shortest`` fits the shorter side and crops, ``longest`` fits the longer one
            and pads, ``squash`` fits both.
        fill: Grey value 0 to 255 of what ``longest`` pads with.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill: int = 0

    @property
    def side_px(self) -> int:
        """Shorter side of a picture from which on nothing is enlarged."""
        return max(self.height, self.width)


def read(config: Mapping[str, Any], size: Any) -> Preprocess:
    """Reads what open_clip calls a ``preprocess_cfg``; what is missing is as for OpenAI's models.

    Args:
        config: With ``mean``, ``std``, ``interpolation``, ``resize_mode``, ``fill_color``.
        size: Side of the network's input, or height and width.

    Raises:
        ModelError: If a value makes no sense.
    """
    try:
        height, width = (size, size) if isinstance(size, int) else (int(side) for side in size)
        how = Preprocess(
            height=height,
            width=width,
            mean=_three(config.get("mean"), OPENAI_MEAN),
            std=_three(config.get("std"), OPENAI_STD),
            # open_clip takes "random" for bicubic outside of training
            interpolation="bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
            resize_mode=config.get("resize_mode") or "shortest",
            fill=int(config.get("fill_color") or 0),
        )
    except (TypeError, ValueError) as error:
        raise ModelError(f"the model's preprocessing makes no sense: {error}") from error
    known = config.get("interpolation") in (None, "", "bicubic", "bilinear", "random")
    if not known or how.resize_mode not in ("shortest", "longest", "squash"):
        raise ModelError(f"the model's preprocessing is not known to anyseek: {dict(config)}")
    sides = 0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE
    if not sides or min(how.std) <= 0 or not 0 <= how.fill <= 255:
        raise ModelError(f"the model's preprocessing makes no sense: {how}")
    return how


def _three(value: Any, default: tuple[float, float, float]) -> tuple[float, float, float]:
    if value is None or (isinstance(value, list | tuple) and not value):
        return default
    red, green, blue = [value] * 3 if isinstance(value, int | float) else value
    three = (float(red), float(green), float(blue))
    if not all(math.isfinite(one) for one in three):
        raise ValueError(f"{three} is not finite")
    return three


def prepare(image: Image, how: Preprocess) -> NDArray[np.uint8]:
    """Gives the pixels that the network sees: ``(height, width, 3)`` uint8.

    The same as open_clip's own transform gives before it scales to 0..1 and normalises.

    Args:
        image: RGB.
        how: Of the model.
    """
    from PIL.Image import Resampling

    bilinear = how.interpolation == "bilinear"
    width, height = image.size
    if how.resize_mode == "squash":
        size = (how.width, how.height)
    elif how.resize_mode == "shortest" and how.height == how.width:
        # torchvision cuts the longer side to whole pixels, where open_clip's own code rounds
        shorter = min(width, height)
        size = (int(how.width * width / shorter), int(how.width * height / shorter))
    else:
        ratios = (width / how.width, height / how.height)
        longest = how.resize_mode == "longest"
        ratio = max(ratios) if longest else min(ratios)
        size = (max(1, round(width / ratio)), max(1, round(height / ratio)))
        bilinear = bilinear and longest  # open_clip forgets the wish for shapes that are no square
    if size != image.size:
        image = image.resize(size, Resampling.BILINEAR if bilinear else Resampling.BICUBIC)
    fill = how.fill if how.resize_mode == "longest" else 0
    return np.asarray(_cut(image, how.width, how.height, fill), np.uint8)


def _cut(image: Image, width: int, height: int, fill: int) -> Image:
    """Crops around the middle, or pads where a side is too short."""
    if image.size == (width, height):
        return image
    larger = (max(image.width, width), max(image.height, height))
    if larger != image.size:
        from PIL import Image as pillow

        page = pillow.new("RGB", larger, (fill,) * 3)
        page.paste(image, ((larger[0] - image.width) // 2, (larger[1] - image.height) // 2))
        image = page
    left = round((image.width - width) / 2.0)
    upper = round((image.height - height) / 2.0)
    return image.crop((left, upper, left + width, upper + height))
