"""Files of published models: where the hub's cache has them, whether they are whole, what they are.

The hub's cache has the layout of ``huggingface_hub``: ``models--ORG--NAME`` with ``refs/main``,
``snapshots/COMMIT/FILE`` as links, and ``blobs`` that are named by the digest of their content.
Nothing here imports a library.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError, ModelMissingError
from retrieval.towers.device import cache_folder, write_whole

MAX_JSON = 64 << 20  # bytes; the largest tokenizers have 35 MB
MAX_HEADER = 100 << 20  # bytes of a safetensors header; the library's own limit
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
PLAIN_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)


def hub_cache() -> Path:
    """Gives the folder of the hub's cache, by the rules of ``huggingface_hub``."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.environ[name]).expanduser()
    home = (
        os.environ.get("HF_HOME") or os.environ.get("XDG_CACHE_HOME", "~/.cache") + "/huggingface"
    )
    return Path(home).expanduser() / "hub"


def cached(repository: str, *files: str) -> Path | None:
    """Finds the first of some files of a repository in the hub's cache."""
    if not (HUB_NAME.fullmatch(repository) or PLAIN_NAME.fullmatch(repository)):
        raise ModelError(f"{repository!r} is no name on a hub: it should be like ORG/NAME")
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / "main").read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not re.fullmatch(r"\w+", commit, re.ASCII):
        return None
    for name in files:
        if (path := folder / "snapshots" / commit / name).is_file():
            return path
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object from a JSON file.

    Raises:
        ModelError: If it is none, or too large to be one.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ModelError(f"{path} is too large for a description")
        found = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelMissingError(f"{path} cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds no description of a model")
    return found


def header(weights: Path) -> dict[str, tuple[int, ...]]:
    """Gives the shape of each tensor of a safetensors file, and checks that the file is whole.

    Raises:
        ModelError: If it is damaged or cut short.
    """
    try:
        with weights.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(MAX_HEADER, size - 8):
                raise ValueError("it has no header")
            table = json.loads(file.read(length))
        table.pop("__metadata__", None)
        shapes = {name: tuple(map(int, row["shape"])) for name, row in table.items()}
        end = max(int(row["data_offsets"][1]) for row in table.values())
    except OSError as error:
        raise ModelError(f"{weights} cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise ModelError(f"{weights} is no safetensors file, or damaged ({error})") from error
    if size != 8 + length + end:
        raise ModelError(
            f"{weights} has {size} bytes where its header tells {8 + length + end}: fetch it again"
        )
    return shapes


def digest(path: Path, *, cache: Path | None = None) -> str:
    """Gives the SHA-256 of a file in hexadecimal digits.

    Large files of the hub's cache bear it as their name. Others are read once; after that, size and
    time of change tell that they are the same.
    """
    real = path.resolve()
    if real.parent.name == "blobs" and re.fullmatch(r"[0-9a-f]{64}", real.name):
        return real.name
    try:
        stat = real.stat()
        stamp = [str(real), stat.st_size, stat.st_mtime_ns]
        name = hashlib.blake2b(os.fsencode(real), digest_size=12).hexdigest()
        known = cache_folder(cache) / "digests" / f"{name}.json"
        with suppress(OSError, ValueError, TypeError, KeyError):
            told = json.loads(known.read_text("utf-8"))
            if told["file"] == stamp and re.fullmatch(r"[0-9a-f]{64}", told["sha256"]):
                return str(told["sha256"])
        with real.open("rb") as file:
            made = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror})") from error
    if stat.st_size >= 1 << 20:  # what is small is read as quickly as its note would be
        write_whole(known, json.dumps({"file": stamp, "sha256": made}).encode())
    return made
