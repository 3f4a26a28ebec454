"""What goes into and comes out of the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from retrieval.types import (
    NO_FACTS,
    Facts,
    Fingerprint,
    Modality,
    Place,
    Source,
    Vectors,
    Words,
)


@dataclass(frozen=True, slots=True)
class Known:
    """An item as the scanner compares it with the folder.

    Attributes:
        id: Item id.
        path: Absolute path, as the bytes that the file system has.
        fingerprint: As it was when its vectors were made.
        complete: Whether it has vectors in the space asked about.
        read: Whether its metadata were read as this anyseek reads them.
        beside: Digest of what stood beside it, see ``retrieval.beside``.
    """

    id: int
    path: bytes
    fingerprint: Fingerprint
    complete: bool
    read: bool = True
    beside: bytes = b""


@dataclass(frozen=True, slots=True)
class Captions:
    """The words that belong to an item.

    Attributes:
        words: In the order in which they are kept.
        vectors: ``(len(words), dim)`` float32, unit rows.
        beside: Digest of what stands beside the file.
    """

    words: tuple[Words, ...]
    vectors: Vectors
    beside: bytes = b""


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """A file with everything learned from it, ready to be stored.

    Attributes:
        path: Absolute path, as the bytes that the file system has.
        fingerprint: Of the very bytes that were embedded.
        content_hash: 16 bytes, BLAKE2b of the content.
        modality: Of the item and its parts.
        places: One per part, in order.
        vectors: ``(len(places), dim)`` float32, unit rows; row ``i`` belongs to ``places[i]``.
        width: Pixels, as shown.
        height: Pixels, as shown.
        duration_s: Seconds, for what has a length in time.
        facts: From its metadata.
        captions: Words that belong to it; ``None`` leaves those that are there.
    """

    path: bytes
    fingerprint: Fingerprint
    content_hash: bytes
    modality: Modality
    places: tuple[Place, ...]
    vectors: Vectors
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    facts: Facts = NO_FACTS
    captions: Captions | None = None


@dataclass(frozen=True, slots=True)
class Relocation:
    """A path whose content an item already has.

    Attributes:
        item_id: The item that has it.
        path: Where the content is (too).
        fingerprint: Of the file at ``path``.
        facts: From its metadata, if they were read again.
        captions: Words that belong to it at this path; ``None`` leaves those that are there.
    """

    item_id: int
    path: bytes
    fingerprint: Fingerprint
    facts: Facts | None = None
    captions: Captions | None = None


@dataclass(slots=True)
class Batch:
    """One transaction's worth of changes; ``Store.write`` applies it whole or not at all.

    Attributes:
        records: New or changed items with their vectors.
        moves: Items whose file was renamed: the old path is gone.
        copies: Items whose content is also found elsewhere: the old path stays.
        touched: Items whose file has the same content at a new time.
        removed: Ids of items whose file is gone.
    """

    records: list[ItemRecord] = field(default_factory=list)
    moves: list[Relocation] = field(default_factory=list)
    copies: list[Relocation] = field(default_factory=list)
    touched: list[Relocation] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        """Counts the items that change."""
        return (
            len(self.records)
            + len(self.moves)
            + len(self.copies)
            + len(self.touched)
            + len(self.removed)
        )


@dataclass(frozen=True, slots=True)
class Twin:
    """An item that has a given content."""

    id: int
    path: bytes
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class Space:
    """A space that the index holds vectors of.

    Attributes:
        id: Row id.
        name: Identity of the space, as the encoder declares it.
        model: Name of the model that made it.
        dim: Length of a vector.
    """

    id: int
    name: str
    model: str
    dim: int


@dataclass(frozen=True, slots=True)
class Details:
    """What is known of an item besides its content.

    Attributes:
        date: When it was taken, else last changed, by the clock on the wall; ``None`` if a time
            of change is none that a calendar has.
        facts: From its metadata.
        width: Pixels, as shown.
        height: Pixels, as shown.
        duration_s: Seconds, for what has a length in time.
    """

    date: datetime | None = None
    facts: Facts = NO_FACTS
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


NO_DETAILS = Details()


@dataclass(frozen=True, slots=True)
class Sourced:
    """A vector of an item, with where what it stands for comes from.

    Attributes:
        vector_id: Row id.
        source: Of the part.
        text: Of words that belong to the item; ``None`` for its content.
        row: ``(dim,)`` float16, as it is stored.
    """

    vector_id: int
    source: Source
    text: str | None
    row: NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Found:
    """A vector with what a person wants to know of it."""

    vector_id: int
    item_id: int
    path: bytes
    modality: Modality
    place: Place
    details: Details = NO_DETAILS


@dataclass(frozen=True, slots=True)
class Extent:
    """Between what the items of an index lie; ``None`` where none has such a thing.

    Attributes:
        oldest: Earliest moment of an item, as in ``Details.date``.
        newest: Latest.
        cameras: Names, ascending.
        placed: How many items say where they were taken.
        width: Of the widest picture, pixels.
        shortest_s: Of sounds, seconds.
        longest_s: Of sounds, seconds.
        tags: Names, ascending.
    """

    oldest: datetime | None
    newest: datetime | None
    cameras: tuple[str, ...]
    placed: int
    width: int | None
    shortest_s: float | None
    longest_s: float | None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seal:
    """A derived file that stands for the vectors of one space and modality in a range of ids.

    Attributes:
        file: Name within the index's folder of derived files.
        first_id: Smallest vector id in the range.
        last_id: Largest vector id in the range.
        count: Vectors in the file.
        kind: How it finds them, see ``retrieval.ladder``.
        bytes: Size of the file, where it does not follow from the count.
    """

    file: str
    first_id: int
    last_id: int
    count: int
    kind: str = "exact"
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts for ``anyseek status``; the keys of the mappings are modalities.

    ``vectors`` and ``embedded``, which counts the items that have some, are by space, too.
    """

    items: dict[Modality, int]
    parts: dict[Modality, int]
    vectors: dict[tuple[str, Modality], int]
    spaces: tuple[Space, ...]
    generation: int
    last_indexed_s: int | None
    embedded: dict[tuple[str, Modality], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Concept:
    """A direction that a person taught the index by examples.

    Attributes:
        name: As ``retrieval.query.concept_name`` gives it.
        vector: ``(dim,)`` float32 of length 1.
        positives: Absolute paths of the examples, as they were then.
        negatives: Absolute paths of what was not meant.
        created_s: Seconds since 1970.
    """

    name: str
    vector: Vectors
    positives: tuple[bytes, ...]
    negatives: tuple[bytes, ...]
    created_s: int


@dataclass(frozen=True, slots=True)
class Tag:
    """A word for what an item is.

    Attributes:
        name: As people say it.
        probability: That it is right, 0..1; ``None`` where nobody reckons.
    """

    name: str
    probability: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """An item with all that is known of its file.

    Attributes:
        id: Item id.
        path: Absolute path, as the bytes that the file system has.
        fingerprint: As it was when its vectors were made.
        content_hash: 16 bytes, BLAKE2b of the content.
        width: Pixels, as shown.
        height: Pixels, as shown.
        duration_s: Seconds, for what has a length in time.
        taken_at: Local time in ISO 8601 without a zone.
    """

    id: int
    path: bytes
    fingerprint: Fingerprint
    content_hash: bytes
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None
    taken_at: str | None = None
