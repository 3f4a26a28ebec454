"""Plain words and where they lie in a space: what a picture, a sound or a text is near to."""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from platformdirs import user_cache_path

from retrieval.types import Tower, Vectors

HERE = Path(__file__).parent
SHIPPED = HERE / "vectors.npz"
"""The vectors in the bundled model's space; `python -m retrieval.vocabulary` writes them."""


@functools.cache
def words() -> tuple[str, ...]:
    """Lists the words: things, scenes, doings, looks, sounds and topics, sorted, in lower case.

    Some are phrases of up to five words. Pairs that mean the same to the bundled model (a cosine
    of 0.93 or more) are there once, apart from a few whose both forms are common.
    """
    return tuple((HERE / "words.txt").read_text("utf-8").split("\n")[:-1])


@functools.cache
def heard() -> frozenset[str]:
    """Gives the words that only a sound can be near to: no picture shows a dog's growling."""
    return frozenset((HERE / "heard.txt").read_text("utf-8").split("\n")[:-1])


def digest() -> str:
    """Tells one list of words from another: 16 hexadecimal digits."""
    return hashlib.blake2b("\n".join(words()).encode(), digest_size=8).hexdigest()


def vocabulary(
    space: str, tower: Tower, *, cache: Path | None = None
) -> tuple[tuple[str, ...], Vectors]:
    """Gives the words and their vectors in a space.

    The bundled model's vectors come with the package. Those of another space are embedded once,
    in some seconds, and kept in a file of the cache folder.

    Args:
        space: Name of the space.
        tower: That space's texts; read only if the vectors are not there yet.
        cache: Folder for the vectors of other spaces; the platform's cache folder by default. If
            it cannot be written, the words are embedded each time.

    Returns:
        The words, and ``(n, dim)`` float32 rows of length 1 (to within 0.0005, since they are kept
        as float16), row by row.
    """
    shipped = _shipped(space)
    if shipped is not None:
        return words(), shipped
    folder = cache or user_cache_path("anyseek", appauthor=False)
    identity = getattr(tower, "identity", space)  # of a text tower that is not the space's only one
    key = hashlib.blake2b(f"{identity}\n{digest()}".encode(), digest_size=8).hexdigest()
    path = folder / f"vocabulary-{key}.npy"
    try:
        with path.open("rb") as file:
            kept = np.load(file, allow_pickle=False)
        if kept.dtype == np.float16 and kept.ndim == 2 and len(kept) == len(words()):
            return words(), kept.astype(np.float32)
    except (OSError, ValueError, EOFError):
        pass  # none yet, or not whole: it is written anew
    vectors = embed(tower)
    _keep(path, vectors)
    return words(), vectors.astype(np.float32)


def embed(tower: Tower) -> np.typing.NDArray[np.float16]:
    """Embeds every word as it is: ``(n, dim)`` float16."""
    return tower.embed([tower.prepare(word) for word in words()]).astype(np.float16)


def ship(space: str, tower: Tower, path: Path = SHIPPED) -> None:
    """Writes the vectors that come with the package, with the space and the words they belong to.

    Args:
        space: Name of the bundled model's space.
        tower: Its texts.
        path: The file.
    """
    with path.open("wb") as file:
        np.savez(file, space=np.array(space), digest=np.array(digest()), vectors=embed(tower))


def _shipped(space: str) -> Vectors | None:
    """Reads the vectors that came with the package, if they are of this space and these words."""
    try:
        with SHIPPED.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if (str(archive["space"]), str(archive["digest"])) != (space, digest()):
                return None
            return np.asarray(archive["vectors"], np.float32)
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _keep(path: Path, vectors: np.typing.NDArray[np.float16]) -> None:
    """Writes a file so that it is there whole or not at all; gives up quietly."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                np.save(file, vectors, allow_pickle=False)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError:
        return  # a cache: without it, the words are embedded again
