"""Finds published models in the hub library's own cache, and fetches them into it.

The cache has ``models--ORG--NAME`` with ``refs/main``, ``snapshots/COMMIT/FILE`` as links, and
``blobs``. Finding imports no library: a cold search does it.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval.errors import ModelError, ModelMissingError
from retrieval.towers.checkpoint import pickles_allowed
from retrieval.towers.described import Progress

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)
PLAIN_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)


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
    if not HUB_NAME.fullmatch(source):
        raise ModelError(
            f"{source} is neither a folder nor a name on the hub: "
            f"say {family}:ORG/NAME or {family}:FOLDER"
        )
    if snapshot := _snapshot(source):
        return snapshot
    raise missing(f"{family}:{source}")


def cached(repository: str, *files: str) -> Path | None:
    """Finds the first of some files of a repository in the hub's cache.

    Raises:
        ModelError: If no hub could have a repository of that name.
    """
    if not (HUB_NAME.fullmatch(repository) or PLAIN_NAME.fullmatch(repository)):
        raise ModelError(f"{repository!r} is no name on a hub: it should be like ORG/NAME")
    snapshot = _snapshot(repository)
    there = (snapshot / name for name in files) if snapshot else iter(())
    return next((path for path in there if path.is_file()), None)


def _snapshot(repository: str) -> Path | None:
    """Finds the folder of a repository's files, as they were when it was last pulled."""
    kept = hub_cache() / f"models--{repository.replace('/', '--')}"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        commit = (kept / "refs" / "main").read_text("ascii").strip()
        snapshot = kept / "snapshots" / commit
        if re.fullmatch(r"[0-9a-f]+", commit) and snapshot.is_dir():
            return snapshot
    return None


def hub_cache() -> Path:
    """Gives the folder of the hub library's cache, by that library's own variables."""
    cache = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if cache:
        return Path(cache).expanduser()
    if home := os.environ.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "huggingface" / "hub"


def missing(name: str) -> ModelMissingError:
    """Makes the error for a model that is not here."""
    return ModelMissingError(f"{name} is not on this machine: `anyseek models pull {name}`")


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
    if not HUB_NAME.fullmatch(source):
        raise ModelError(f"{source} is not a name on the hub: say ORG/NAME")
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise ModelError("pulling needs one more library: pip install 'anyseek[text]'") from None
    try:
        snapshot_download(
            source,
            allow_patterns=list(patterns),
            ignore_patterns=None if pickles_allowed() else ["*.bin", "*.pt", "*.pth", "*.pkl"],
            tqdm_class=bar(progress),
        )
    except Exception as error:  # of the network's libraries, which have no common base class
        said = " ".join(str(error).split())[:200]
        raise ModelError(f"{source} could not be pulled ({said}): try again later") from error


def bar(progress: Progress) -> Any:
    """Gives a class of bars for the hub's library that draw nothing and tell ``progress`` of bytes.

    Of several bars of one download, the one that is furthest is told.
    """
    from tqdm import tqdm  # the hub's own class would switch itself off where there is no terminal

    most = [0, 0]
    lock = threading.Lock()  # several files are fetched at once

    class Told(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            options.pop("name", None)
            super().__init__(*arguments, **options | {"disable": True})
            self.n, self.total = options.get("initial") or 0, options.get("total")
            self._of_bytes = options.get("unit") == "B"

        def update(self, n: float | None = 1) -> None:
            with lock:
                self.n += n or 0
                if self._of_bytes:  # another bar counts files
                    most[:] = max(most[0], int(self.n)), max(most[1], int(self.total or 0))
                    progress(most[0], most[1])

    return Told
