"""Tells what the files of a published model are, from their bytes; imports no library."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from retrieval.errors import ModelError
from retrieval.towers.device import cache_folder, write_whole

_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_JSON = 64 << 20  # bytes; the largest tokenizers have 35 MB
MAX_HEADER = 100 << 20  # bytes of a safetensors header; the library's own limit
_LARGE = 1 << 20  # bytes; a smaller file is read as quickly as a note of its digest
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def inside(folder: Path, name: str) -> Path:
    """Joins a name that a file of the model gives; it must stay in the model's folder.

    Raises:
        ModelError: If it would lead out of it.
    """
    parts = PurePosixPath(name).parts
    if "\\" in name or ":" in name or ".." in parts or PurePosixPath(name).is_absolute():
        raise ModelError(f"{folder} names {name!r}, which lies outside of it: it is not loaded")
    return folder.joinpath(*parts)


def read_json(path: Path) -> Any:
    """Reads a JSON file of a model.

    Raises:
        ModelError: If it is missing, too large or malformed.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ModelError(f"{path} is too large for what it should be: fetch it again")
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): fetch it again") from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({error}): fetch it again") from None


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds one object; errors as ``read_json``."""
    table = read_json(path)
    if not isinstance(table, dict):
        raise ModelError(f"{path} is damaged (it holds no object): fetch it again")
    return table


# ---- weights -----------------------------------------------------------------------------------


def pickles_allowed() -> bool:
    """Tells whether the user lets weights be read out of pickles."""
    return os.environ.get("ANYSEEK_ALLOW_PICKLE") == "1"


def refused(pickle: Path) -> ModelError:
    """Makes the error for weights that are in a pickle alone."""
    return ModelError(
        f"{pickle} is a pickle, which may run programs when it is opened: "
        "get the model as safetensors, or set ANYSEEK_ALLOW_PICKLE=1 if you trust it"
    )


def weights(folder: Path) -> tuple[Path, ...]:
    """Finds the weights in a folder, in one file or in several, and checks that they are whole.

    Returns:
        The files, sorted: safetensors, or pickles where those are allowed and nothing else is
        there.

    Raises:
        ModelError: If there are none, only pickles, or one is cut short.
    """
    single, several = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        found = [single]
    elif several.is_file():
        found = _shards(several)
    elif pickles := [folder / name for name in PICKLES if (folder / name).is_file()]:
        if not pickles_allowed():
            raise refused(pickles[0])
        return tuple(_shards(pickles[0]) if pickles[0].suffix == ".json" else pickles[:1])
    else:
        raise ModelError(f"there is no model.safetensors in {folder}: fetch it again")
    for path in found:
        tensors(path)
    return tuple(found)


def _shards(index: Path) -> list[Path]:
    table = read_object(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise ModelError(f"{index} is damaged (it has no weight_map): fetch it again")
    found = [inside(index.parent, name) for name in sorted(set(table.values()))]
    for path in found:
        if not path.is_file():
            raise ModelError(f"{path} is missing: fetch it again")
    return found


def tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """Gives names and shapes of the tensors in a safetensors file, from its header alone.

    Raises:
        ModelError: If it is not such a file, or is cut short.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError("it has no header")
            table = json.loads(file.read(length))
        table.pop("__metadata__", None)
        shapes = {name: tuple(map(int, row["shape"])) for name, row in table.items()}
        ends = [int(row["data_offsets"][1]) for row in table.values()]
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): fetch it again") from error
    except (
        LookupError,
        ArithmeticError,
        ValueError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ModelError(
            f"{path} is no safetensors file, or damaged ({error}): fetch it again"
        ) from error
    if size != (told := 8 + length + max(ends, default=0)):
        raise ModelError(
            f"{path} is cut short or damaged, with {size} bytes where its header tells {told}: "
            "fetch it again"
        )
    return shapes


def complete(folder: Path, info: Any, *, unused: Sequence[str] = ()) -> None:
    """Refuses a model of which a part was not in the files, and would be left at random.

    Args:
        folder: Of the model.
        info: What transformers tells of loading it.
        unused: Words in the names of tensors that no vector depends on.

    Raises:
        ModelError: With the first tensor that is missing or of another shape.
    """
    lacking = sorted(
        str(name)
        for key in ("missing_keys", "mismatched_keys")
        for name in info.get(key) or ()
        if not any(word in str(name) for word in unused)
    )
    if lacking:
        raise ModelError(
            f"the weights in {folder} are of another model: {lacking[0]} and "
            f"{len(lacking) - 1} more are missing or of another shape"
        )


def licence(card: Path | None) -> str:
    """Gives the licence that a model's card names in the YAML at its top; "unknown" without one."""
    with contextlib.suppress(OSError):
        if card is not None:
            with card.open("rb") as file:
                head = file.read(1 << 16).decode("utf-8", "ignore").split("\n---", 1)[0]
            found = re.search(r"^license:[ \t]*['\"]?([\w.+-]{1,40})", head, re.MULTILINE)
            if found and head.startswith("---"):
                return found[1]
    return "unknown"


# ---- identity ----------------------------------------------------------------------------------


def identity(files: Iterable[Path], *said: object, cache: Path | None = None) -> str:
    """Tells one model from another: 12 hexadecimal digits.

    Args:
        files: Whatever bears on the vectors. Their order counts, their folder does not.
        *said: What else bears on them, as JSON can write it.
        cache: Folder in which digests of large files are kept; the platform's by default.
    """
    whole = hashlib.blake2b(digest_size=6)
    for path in files:
        whole.update(f"{path.name} {digest(path, cache=cache)}\n".encode())
    whole.update(json.dumps(said, sort_keys=True).encode())
    return whole.hexdigest()


def digest(path: Path, *, cache: Path | None = None) -> str:
    """Gives the SHA-256 of a file in hexadecimal digits.

    Large files of the hub's cache bear it as their name. Others are read once; after that, size and
    time of change tell that they are the same.

    Args:
        path: The file, or a link to it.
        cache: Folder in which digests of large files are kept; the platform's by default.

    Raises:
        ModelError: If it cannot be read.
    """
    real = path.resolve()
    if real.parent.name == "blobs" and _SHA256.fullmatch(real.name):
        return real.name
    try:
        stat = real.stat()
        stamp = [str(real), stat.st_size, stat.st_mtime_ns]
        name = hashlib.blake2b(os.fsencode(real), digest_size=12).hexdigest()
        note = cache_folder(cache) / "digests" / f"{name}.json"
        if large := stat.st_size >= _LARGE:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                told = json.loads(note.read_text("utf-8"))
                if told["file"] == stamp and _SHA256.fullmatch(told["sha256"]):
                    return str(told["sha256"])
        with real.open("rb") as file:
            made = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): fetch it again") from error
    if large:
        write_whole(note, json.dumps({"file": stamp, "sha256": made}).encode())
    return made
