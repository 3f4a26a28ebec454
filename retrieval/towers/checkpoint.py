"""Finds the files of a published model, tells what they are from their bytes, and fetches them.

A source is a folder, or ``ORG/NAME`` on the Hugging Face hub, whose copy is looked for in the hub
library's own cache. Finding and telling import no library: a cold search does both.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from retrieval.errors import ModelError, ModelMissingError
from retrieval.towers.described import Progress
from retrieval.towers.device import cache_folder, write_whole

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_JSON = 64 << 20  # bytes; the largest tokenizers, of 250,000 pieces, have 17 MB
MAX_HEADER = 100 << 20  # bytes of a safetensors header; the library's own limit
_BLOCK = 1 << 20
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


def find(source: str, family: str) -> Path:
    """Gives the folder that holds a model.

    Args:
        source: A folder, or ``ORG/NAME`` on the hub.
        family: What stands before the colon in ``--model``, for the error.

    Raises:
        ModelMissingError: If it is a name on the hub that was never pulled.
        ModelError: If it is neither a folder nor a name.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder.resolve()
    if not HUB_NAME.fullmatch(source) or ".." in source:
        raise ModelError(
            f"{source} is neither a folder nor a name on the hub: "
            f"say {family}:ORG/NAME or {family}:FOLDER"
        )
    kept = hub_cache() / f"models--{source.replace('/', '--')}"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        revision = (kept / "refs" / "main").read_text("ascii").strip()
        snapshot = kept / "snapshots" / revision
        if re.fullmatch(r"[0-9a-f]+", revision) and snapshot.is_dir():
            return snapshot
    raise missing(f"{family}:{source}")


def missing(name: str) -> ModelMissingError:
    """Makes the error for a model that is not here."""
    return ModelMissingError(f"{name} is not on this machine: anyseek models pull {name}")


def hub_cache() -> Path:
    """Gives the folder of the hub library's cache, by that library's own variables."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


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
            raise ModelError(f"{path} is too large for what it should be: pull the model again")
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): pull the model again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is damaged ({error}): pull the model again") from None


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds one object; errors as ``read_json``."""
    table = read_json(path)
    if not isinstance(table, dict):
        raise ModelError(f"{path} is damaged (it holds no object): pull the model again")
    return table


# ---- weights -----------------------------------------------------------------------------------


def pickles_allowed() -> bool:
    """Tells whether the user lets weights be read out of pickles."""
    return os.environ.get("ANYSEEK_ALLOW_PICKLE") == "1"


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
            raise ModelError(
                f"{pickles[0]} is a pickle, which could run any code: take a model with "
                "safetensors, or set ANYSEEK_ALLOW_PICKLE=1 if you trust it"
            )
        return tuple(_shards(pickles[0]) if pickles[0].suffix == ".json" else pickles[:1])
    else:
        raise ModelError(f"there is no model.safetensors in {folder}: pull the model again")
    for path in found:
        tensors(path)
    return tuple(found)


def _shards(index: Path) -> list[Path]:
    table = read_object(index).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise ModelError(f"{index} is damaged (it has no weight_map): pull the model again")
    found = [inside(index.parent, name) for name in sorted(set(table.values()))]
    for path in found:
        if not path.is_file():
            raise ModelError(f"{path} is missing: pull the model again")
    return found


def tensors(path: Path) -> dict[str, tuple[int, ...]]:
    """Gives names and shapes of the tensors in a safetensors file, from its header alone.

    Raises:
        ModelError: If it is not such a file, or is cut short.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(MAX_HEADER, size):
                raise ValueError("no header")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        ends = [entry["data_offsets"][1] for entry in header.values()]
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): pull the model again"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, struct.error) as error:
        raise ModelError(
            f"{path} is not a safetensors file ({error}): pull the model again"
        ) from None
    if size != 8 + length + max(ends, default=0):
        raise ModelError(f"{path} is cut short or damaged: pull the model again")
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


def licence(folder: Path) -> str:
    """Gives the licence that a model's card names at its top; "unknown" without one."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with (folder / "README.md").open(encoding="utf-8") as file:
            head = file.read(1 << 16)
        found = re.match(r"---\n(?:.*\n)*?license:[ ]*['\"]?([\w.-]+)['\"]?[ ]*\n", head)
        if found:
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
    """Gives the digest of a file's content, without reading it where that was done before.

    The hub's cache names large files by their SHA-256. Others are read once for BLAKE2b, which is
    kept under the file's path, size and time.

    Raises:
        ModelError: If it cannot be read.
    """
    real = path.resolve()
    if real.parent.name == "blobs" and _SHA256.fullmatch(real.name):
        return f"sha256:{real.name}"
    try:
        stamp = real.stat()
        folder = cache_folder(cache) / "digests"
        key = f"{real}\n{stamp.st_size}\n{stamp.st_mtime_ns}".encode("utf-8", "surrogateescape")
        note = folder / hashlib.blake2b(key, digest_size=16).hexdigest()
        large = stamp.st_size > _BLOCK  # a smaller one is read as quickly as the note
        if large:
            with contextlib.suppress(OSError, UnicodeDecodeError):
                kept = note.read_text("ascii")
                if re.fullmatch(r"blake2b:[0-9a-f]{64}", kept):
                    return kept
        content = hashlib.blake2b(digest_size=32)
        with real.open("rb") as file:
            while block := file.read(_BLOCK):
                content.update(block)
    except OSError as error:
        raise ModelError(
            f"{path} cannot be read ({error.strerror}): pull the model again"
        ) from None
    found = f"blake2b:{content.hexdigest()}"
    if large:
        write_whole(note, found.encode())
    return found


# ---- fetching ----------------------------------------------------------------------------------


def pull(source: str, patterns: Sequence[str], progress: Progress) -> None:
    """Fetches a model into the hub library's cache.

    Args:
        source: ``ORG/NAME``.
        patterns: Which files, as shells write them; pickles are never among them unless allowed.
        progress: Told bytes done and in all.

    Raises:
        ModelError: If it is no name, the library is missing, or the hub does not give it.
    """
    if not HUB_NAME.fullmatch(source) or ".." in source:
        raise ModelError(f"{source} is not a name on the hub: say ORG/NAME")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined,unused-ignore]
    except ImportError:
        raise ModelError("pulling needs one more library: pip install 'anyseek[text]'") from None
    import io

    most = [0, 0]

    class Told(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
        """A bar that nobody sees: it tells ``progress`` of bytes, and nothing of files."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.update(file=io.StringIO(), disable=False)  # disabled, it would count nothing
            super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call,unused-ignore]

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if self.unit == "B":
                most[:] = max(most[0], int(self.n)), max(most[1], int(self.total or 0))
                progress(most[0], most[1])
            return shown

    try:
        snapshot_download(
            source,
            allow_patterns=list(patterns),
            ignore_patterns=None if pickles_allowed() else ["*.bin", "*.pt", "*.pth", "*.pkl"],
            tqdm_class=Told,
        )
    except (OSError, ValueError) as error:  # the library's errors of network, rights and names
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{source} could not be pulled ({said}): try again later") from None
