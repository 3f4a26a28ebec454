"""The words that the whole project shares: modality, part, tower, encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
"""A matrix ``(n, dim)`` of float32 whose rows have length 1."""


class Modality(StrEnum):
    """What kind of thing an item is."""

    IMAGE = "image"
    AUDIO = "audio"
    TEXT = "text"


class WordsOf(StrEnum):
    """Words that belong to items of a modality; their vectors are kept apart from all others."""

    IMAGE = "image words"
    AUDIO = "audio words"

    @property
    def modality(self) -> Modality:
        """Of the items."""
        return Modality(self.value.split()[0])


Kept: TypeAlias = Modality | WordsOf
"""What the vectors of one space are kept apart by."""


def words_of(modality: Modality) -> WordsOf | None:
    """Names the words that may belong to items of a modality; ``None`` for texts."""
    return None if modality is Modality.TEXT else WordsOf(f"{modality} words")


class Source(StrEnum):
    """Where what is known of an item comes from."""

    CONTENT = "content"
    """What is seen, heard or read in the file itself."""

    SIDECAR = "sidecar"
    """Words in a file of the same name beside it."""

    MANIFEST = "manifest"
    """Words in its row of the folder's ``items.tsv``."""

    METADATA = "metadata"
    """Words that the file carries: a title, a caption, keywords."""


@dataclass(frozen=True, slots=True)
class Words:
    """Words that belong to a picture or a sound.

    Attributes:
        source: Where they stand; not ``CONTENT``.
        text: One line, never empty.
    """

    source: Source
    text: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells a file as unchanged without reading it.

    Attributes:
        size: Bytes.
        mtime_ns: Time of the last change, nanoseconds since 1970.
    """

    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where in its item a part lies; every field is ``None`` where it has no meaning.

    Attributes:
        start_s: Start in seconds from the beginning of the item.
        end_s: End in seconds, exclusive.
        page: Page number in a paged document, counted from 1.
        line: First line of the part in its text, counted from 1.
        text: The words of a text part, as they are shown beside a hit.
    """

    start_s: float | None = None
    end_s: float | None = None
    page: int | None = None
    line: int | None = None
    text: str | None = None


WHOLE = Place()
"""The place of a part that is its whole item."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to embed: a whole picture, a window of a sound, a passage of a text.

    Attributes:
        content: What the tower of this modality takes: a ``PIL.Image.Image``, float32 samples
            ``(n,)``, or a ``str``; ``None`` where there is nothing to embed, as in silence.
        place: Where in the item it lies.
    """

    content: Any
    place: Place = WHOLE


@dataclass(frozen=True, slots=True)
class Facts:
    """What a picture's metadata say of how it was taken; ``None`` where they say nothing.

    Attributes:
        taken_at: Local time in ISO 8601 without a zone (``2024-05-31T18:04:00``).
        camera: Make and model in one line of printable text.
        lat: Degrees, north positive, -90..90; there only together with ``lon``.
        lon: Degrees, east positive, -180..180.
    """

    taken_at: str | None = None
    camera: str | None = None
    lat: float | None = None
    lon: float | None = None


NO_FACTS = Facts()


@dataclass(frozen=True, slots=True)
class Media:
    """A decoded picture or text; sounds are read as a stream instead, see ``retrieval.sounds``.

    Attributes:
        modality: What it is.
        parts: At least one part, in the order of the file.
        width: Pixels, as shown (after EXIF rotation); ``None`` for texts.
        height: Pixels, as shown.
        facts: From its metadata.
    """

    modality: Modality
    parts: tuple[Part, ...]
    width: int | None = None
    height: int | None = None
    facts: Facts = NO_FACTS


class Tower(Protocol):
    """One modality's way into one space.

    ``prepare`` and ``embed`` may be called from several threads at once.
    """

    @property
    def side_px(self) -> int | None:
        """Shorter side that a picture needs, so that decoders may scale down; ``None`` if moot."""

    @property
    def rate_hz(self) -> int | None:
        """Samples a second that sounds must have; ``None`` if moot."""

    def prepare(self, content: Any) -> Any:
        """Turns a part's content into what ``embed`` takes; on the CPU, without the weights."""

    def embed(self, batch: Sequence[Any]) -> Vectors:
        """Embeds prepared contents: ``(len(batch), dim)`` float32, unit rows, in order."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """Towers that share one space.

    Attributes:
        model: Name by which ``retrieval.models.load`` finds it.
        space: Identity of the vectors. It changes whenever weights or preprocessing change;
            vectors of two spaces are never compared.
        dim: Length of a vector.
        towers: One tower per modality that the model knows.
        plain: Whether words are to be put as they are where no prompts are asked for: the text
            tower has learned its own.
    """

    model: str
    space: str
    dim: int
    towers: Mapping[Modality, Tower]
    plain: bool = False
