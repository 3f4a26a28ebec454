"""What an adapter learns from: files with captions, or folders of files that are classes."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from retrieval import media
from retrieval.errors import MediaError
from retrieval.learn.data import read_rows
from retrieval.types import Modality

TRAIN, DEV = "train", "dev"
DEV_SHARE = 0.15  # of what comes without a split
MIN_FILES = 16  # captioned ones; with fewer, one lucky caption would decide
SHOWN = 3  # names in a message


@dataclass(frozen=True, slots=True)
class Thing:
    """One file with what is said of it.

    Attributes:
        path: The file.
        modality: A picture or a sound.
        texts: At least one: captions, or the name of its class.
        split: ``train`` or ``dev``; another one is neither learned from nor measured.
    """

    path: Path
    modality: Modality
    texts: tuple[str, ...]
    split: str


@dataclass(frozen=True, slots=True)
class Material:
    """All that there is to learn from.

    Attributes:
        things: In the order of the file, or by class and name.
        classes: Names, in order; empty for captions.
        source: The file or folder.
        divided: Whether the split was given, and must stay as it is.
    """

    things: tuple[Thing, ...]
    classes: tuple[str, ...]
    source: Path
    divided: bool


def read_captioned(path: Path, folder: Path | None = None) -> Material:
    """Reads a file of captions, see ``retrieval.learn.data.read_rows``; sounds count as pictures.

    Args:
        path: Tab-separated.
        folder: That the names are relative to; the file's own by default.

    Raises:
        MediaError: If the file cannot be read, or names a file that is not there, lies outside
            the folder, or is no picture or sound.
    """
    folder = folder or path.parent
    rows = read_rows(path)
    texts: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for number, row in enumerate(rows, 2):
        inside = PurePosixPath(row.image)
        if not row.image or inside.is_absolute() or ".." in inside.parts or "\0" in row.image:
            raise MediaError(f"{path}, line {number}: {row.image!r} names no file in {folder}")
        if splits.setdefault(row.image, row.split) != row.split:
            raise MediaError(f"{path}, line {number}: {row.image} is in two splits")
        of = texts.setdefault(row.image, [])
        if row.caption and row.caption not in of:
            of.append(row.caption)
    silent = [name for name, said in texts.items() if not said]
    if silent:
        raise MediaError(f"{path}: {_some(silent)} without a caption")
    missing = [name for name in texts if not (folder / name).is_file()]
    if missing:
        raise MediaError(f"{path} names {_some(missing)} not in {folder}; is --files right?")
    things = tuple(
        Thing(folder / name, _kind(folder / name), tuple(said), splits[name])
        for name, said in texts.items()
    )
    if len(things) < MIN_FILES:
        raise MediaError(
            f"{path}: {len(things)} captioned files are too few to learn from: "
            f"give at least {MIN_FILES}"
        )
    divided = any(splits.values())
    if divided and not all(splits.values()):
        raise MediaError(f"{path}: some files have a split and some have none: give all or none")
    return Material(things, (), path, divided)


def read_classes(folder: Path) -> Material:
    """Reads a folder whose folders are classes of pictures or sounds, named as they would be asked.

    Raises:
        MediaError: If there are fewer than two classes, or one has no pictures or sounds.
    """
    try:
        folders = sorted(one for one in folder.iterdir() if one.is_dir() and one.name[0] != ".")
    except OSError as error:
        raise MediaError(f"{folder}: cannot be opened ({error.strerror})") from error
    if len(folders) < 2:
        raise MediaError(
            f"{folder} has {len(folders)} folder{'' if len(folders) == 1 else 's'}: at least two "
            "classes are needed, each a folder of examples"
        )
    things = []
    for one in folders:
        name = " ".join(one.name.replace("_", " ").replace("-", " ").split()) or one.name
        files = [path for path in sorted(one.iterdir()) if _is_example(path)]
        if not files:
            raise MediaError(f"the class {one} is empty: put a picture or a sound into it")
        things += [Thing(path, _kind(path), (name,), "") for path in files]
    names = tuple(dict.fromkeys(thing.texts[0] for thing in things))
    if len(names) < len(folders):
        raise MediaError(f"{folder}: two classes are called the same")
    return Material(tuple(things), names, folder, divided=False)


def divide(
    material: Material, digests: Mapping[Path, bytes], *, seed: int, without: int = 2
) -> Material:
    """Splits what comes without a split, so that nothing is measured on what was learned.

    Files of the same content, and captioned files that share a caption, stay together. Of a class,
    15 % of its contents and at least one are for measuring if it has more than ``without``.

    Args:
        material: Left as it is if it is divided, but for files whose content is in ``train`` too.
        digests: Of every file's content.
        seed: Of the draw.
        without: Contents up to which a class is all learned from.
    """
    generator = random.Random(seed)
    things = material.things
    groups = _groups(things, digests, by_text=not material.classes and not material.divided)
    if material.divided:
        trained = {g for g, thing in zip(groups, things, strict=True) if thing.split == TRAIN}
        split = [
            TRAIN if g in trained and thing.split == DEV else thing.split
            for g, thing in zip(groups, things, strict=True)
        ]
    else:
        dev: set[int] = set()
        for name in material.classes or (None,):
            own = sorted(
                {
                    g
                    for g, thing in zip(groups, things, strict=True)
                    if name is None or thing.texts[0] == name
                }
            )
            if name is not None and len(own) <= without:
                continue
            dev.update(generator.sample(own, max(1, round(DEV_SHARE * len(own)))))
        split = [DEV if g in dev else TRAIN for g in groups]
    divided = (replace(t, split=s) for t, s in zip(things, split, strict=True))
    return replace(material, things=tuple(divided))


def groups_of(material: Material, digests: Mapping[Path, bytes]) -> list[int]:
    """Numbers things so that answers to each other's texts have one number.

    They are of one class, or have the same content or a caption in common.
    """
    if material.classes:
        return [material.classes.index(thing.texts[0]) for thing in material.things]
    return _groups(material.things, digests, by_text=True)


def _groups(things: Sequence[Thing], digests: Mapping[Path, bytes], *, by_text: bool) -> list[int]:
    """Numbers things so that those that must stay together have one number."""
    parent = list(range(len(things)))

    def root(one: int) -> int:
        while parent[one] != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    first: dict[object, int] = {}
    for number, thing in enumerate(things):
        keys: list[object] = [digests[thing.path]]
        if by_text:
            keys += [text.casefold() for text in thing.texts]
        for key in keys:
            parent[root(number)] = root(first.setdefault(key, number))
    return [root(number) for number in range(len(things))]


def _is_example(path: Path) -> bool:
    kind = media.modality_of(path.name)
    return kind in (Modality.IMAGE, Modality.AUDIO) and path.is_file() and path.name[0] != "."


def _kind(path: Path) -> Modality:
    kind = media.modality_of(path.name)
    if kind is None or kind is Modality.TEXT:
        raise MediaError(f"{path} is neither a picture nor a sound")
    return kind


def _some(names: Sequence[str]) -> str:
    """Names the first of some files: "3 files (a, b, c)", to be followed by what they are."""
    more = ", ..." if len(names) > SHOWN else ""
    count = f"{len(names)} file{'' if len(names) == 1 else 's'}"
    return f"{count} ({', '.join(names[:SHOWN])}{more})"
