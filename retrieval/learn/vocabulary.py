"""Texts without pictures: names of ImageNet's classes, names of things in 16 languages."""

from __future__ import annotations

import json
import re
from pathlib import Path

from retrieval.errors import MediaError

NAME_TEMPLATES = (
    "{}",
    "a photo of a {}.",
    "a picture of a {}",
    "a {} in the picture",
    "a close-up of a {}",
    "a small photo of a {}",
    "there is a {}",
    "a {} outdoors",
)
"""How a class is called while training; one is drawn for each class at each step."""

LANGUAGES = tuple("en ar zh zh-Hant fr de it ja ko nl pl pt es th tr ru".split())
"""The sentence encoder's languages, English first, as the Unicode CLDR writes them."""

_NO_THING = re.compile(
    "sign|button|o.clock|hand|symbol|input|letter|arrow|square|circle|playing|box|tone|component"
)


def class_names() -> list[tuple[str, ...]]:
    """Gives the names of ImageNet's 1,000 classes in the classifier's order, commonest first."""
    text = Path(__file__).with_name("imagenet.txt").read_text(encoding="utf-8")
    return [tuple(line.split(", ")) for line in text.splitlines()]


def parallel_names(annotations: Path) -> list[tuple[str, ...]]:
    """Reads what emoji are called, in every language of ``LANGUAGES``.

    Args:
        annotations: The folder ``annotations`` of the npm package ``cldr-annotations-full``
            (Unicode License v3).

    Returns:
        One tuple a thing, in the order of ``LANGUAGES``; abstract signs are left out.

    Raises:
        MediaError: If a language is missing or unreadable.
    """
    tables: list[dict[str, str]] = []
    for language in LANGUAGES:
        path = annotations / language / "annotations.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            entries = content["annotations"]["annotations"]
            tables.append({key: one["tts"][0] for key, one in entries.items() if "tts" in one})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MediaError(f"{path}: cannot read the names ({error})") from error
    english, *others = tables
    return [
        (name, *(other[key] for other in others))
        for key, name in english.items()
        if len(key.rstrip("\ufe0f")) == 1
        and ord(key[0]) > 0x2100
        and all(key in other for other in others)
        and not _NO_THING.search(name)
    ]
