"""The index as SQLite keeps it: items, their parts, the parts' vectors."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, TextClause, and_, func, insert, not_, select, text
from sqlalchemy.sql import Select

from retrieval.errors import IndexMissingError, StorageError
from retrieval.filters import Filters
from retrieval.store import checking, concepts, exchanging, listing, selecting, tags
from retrieval.store.engine import named_failures, open_engine
from retrieval.store.records import (
    Batch,
    Concept,
    Details,
    Entry,
    Extent,
    Found,
    Known,
    Seal,
    Sourced,
    Space,
    Summary,
    Tag,
    Twin,
)
from retrieval.store.schema import (
    FACTS_VERSION,
    MIGRATIONS,
    WORDS_FROM,
    items,
    meta,
    migrate,
    parts,
    removed,
    seals,
    version,
)
from retrieval.store.schema import spaces as spaces_table
from retrieval.store.schema import vectors as vectors_table
from retrieval.store.writing import apply, drop
from retrieval.types import (
    Encoder,
    Facts,
    Fingerprint,
    Kept,
    Modality,
    Place,
    Source,
    WordsOf,
)

LARGEST_ID = 2**63 - 1
PAGE_ROWS = 10_000  # rows read at a time while a folder is compared: a few MB
RUN = 8  # neighbours in a sample: files that lie together are often alike
MAX_VARIABLES = 10_000  # SQLite takes 32,766 values in one statement


class Store:
    """The one place that reads and writes an index file.

    Use it as a context manager, from one thread at a time. Reading commands open it with
    ``write=False``: they cannot change it, and see it as it was at their first read.
    """

    def __init__(self, path: Path, *, write: bool = False) -> None:
        """Opens an index.

        Args:
            path: The SQLite file.
            write: Whether it may be changed; then it is created where it is missing and brought
                to today's schema.

        Raises:
            IndexMissingError: If there is nothing at ``path`` and ``write`` is false.
            NotAnIndexError: If something else is there.
            NewerIndexError: If a newer anyseek wrote it.
            StorageError: If the disk does not let us.
        """
        self.path = path
        if path.is_dir():
            raise StorageError(f"{path} is a folder; --index takes the path of a file")
        if write:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise StorageError(
                    f"cannot make the folder of {path}: {error.strerror}; "
                    "choose another place with --index"
                ) from error
        elif not path.exists():
            raise IndexMissingError(
                f"there is no index at {path} yet; make one with `anyseek index FOLDER`"
            )
        with named_failures(path):
            self._engine = open_engine(path, write=write)
            self._snapshot = None if write else self._engine.connect()
            try:
                if self._snapshot is None:
                    with self._engine.connect() as connection:
                        migrate(connection)
                elif version(self._snapshot) < len(MIGRATIONS):
                    raise IndexMissingError(
                        f"{path} holds no index that this anyseek can read yet; "
                        "run `anyseek index FOLDER` to make it ready"
                    )
            except BaseException:
                self._engine.dispose()
                raise

    def __enter__(self) -> Store:
        """Gives the store itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Closes the file."""
        self.close()

    def close(self) -> None:
        """Closes the file; what was committed stays."""
        if self._snapshot is not None:
            self._snapshot.close()
        self._engine.dispose()

    # ---- reading -------------------------------------------------------------------------

    def _rows(self, statement: Select[Any] | TextClause) -> Sequence[Any]:
        with named_failures(self.path):
            if self._snapshot is not None:
                return self._snapshot.execute(statement).all()
            with self._engine.begin() as connection:
                return connection.execute(statement).all()

    def _run(self, statement: str, values: Mapping[str, Any]) -> Sequence[Any]:
        return self._rows(text(statement).bindparams(**values))

    def generation(self) -> int:
        """Counts the writes since the index was made."""
        (row,) = self._rows(select(meta.c.value).where(meta.c.key == "generation"))
        return int(row[0])

    def spaces(self) -> tuple[Space, ...]:
        """Lists the spaces in the order in which they were added; the first is the default."""
        return tuple(
            Space(*row)
            for row in self._rows(
                select(
                    spaces_table.c.id,
                    spaces_table.c.name,
                    spaces_table.c.model,
                    spaces_table.c.dim,
                ).order_by(spaces_table.c.id)
            )
        )

    def known(self, root: bytes, space: Space, *, words: bool = True) -> Iterator[Known]:
        """Lists the items at or under a path, in bytewise order of their paths.

        Rows are read in pages, so memory stays flat and the index may be written meanwhile.

        Args:
            root: Absolute path without a trailing slash.
            space: The one that ``Known.complete`` speaks of.
            words: Whether the words that belong to an item must have vectors, too.
        """
        complete = and_(_embedded(space), not_(_wordless(space))) if words else _embedded(space)
        columns = (
            items.c.id,
            items.c.path,
            items.c.size,
            items.c.mtime_ns,
            complete,
            items.c.facts_version == FACTS_VERSION,
            items.c.beside,
        )
        for row in self._rows(select(*columns).where(items.c.path == root)):
            yield _known(row)
        last, end = selecting.span(root)
        while True:
            page = self._rows(
                select(*columns)
                .where(items.c.path > last, items.c.path < end)
                .order_by(items.c.path)
                .limit(PAGE_ROWS)
            )
            yield from map(_known, page)
            if len(page) < PAGE_ROWS:
                return
            last = page[-1][1]

    def sizes(self) -> NDArray[np.int64]:
        """Lists the distinct file sizes of all items, ascending."""
        rows = self._rows(select(items.c.size).distinct().order_by(items.c.size))
        return np.fromiter((row[0] for row in rows), np.int64, len(rows))

    def twins(self, content_hash: bytes, space: Space) -> list[Twin]:
        """Lists the items with this content that have vectors in the space, oldest first."""
        return [
            Twin(row[0], row[1], Fingerprint(row[2], row[3]))
            for row in self._rows(
                select(items.c.id, items.c.path, items.c.size, items.c.mtime_ns)
                .where(items.c.content_hash == content_hash, _embedded(space))
                .order_by(items.c.id)
            )
        ]

    def modalities(self, space: Space) -> tuple[Modality, ...]:
        """Lists the modalities that have vectors in a space."""
        return tuple(
            modality
            for modality in Modality
            if self._rows(
                select(vectors_table.c.id).where(_kind(vectors_table, space, modality)).limit(1)
            )
        )

    def vectors(
        self,
        space: Space,
        modality: Kept,
        *,
        first: int = 1,
        last: int = LARGEST_ID,
        limit: int = -1,
    ) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Gives vector ids and vectors, ascending by id.

        Args:
            space: Whose vectors.
            modality: Of the parts.
            first: Only ids from here.
            last: Only ids up to here.
            limit: At most so many; all by default.

        Returns:
            Ids ``(n,)`` and vectors ``(n, dim)`` as they are stored.
        """
        rows = self._rows(
            select(vectors_table.c.id, vectors_table.c.vector)
            .where(_kind(vectors_table, space, modality), vectors_table.c.id.between(first, last))
            .order_by(vectors_table.c.id)
            .limit(limit)
        )
        ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        joined = b"".join(row[1] for row in rows)
        return ids, np.frombuffer(joined, "<f2").reshape(len(rows), space.dim)

    def count_vectors(self, space: Space, modality: Kept, *, first: int = 1) -> int:
        """Counts the vectors of a space and modality from an id on."""
        (row,) = self._rows(
            select(func.count()).where(
                _kind(vectors_table, space, modality), vectors_table.c.id >= first
            )
        )
        return int(row[0])

    def sample(self, space: Space, modality: Kept, count: int) -> NDArray[np.float16]:
        """Gives at most ``count`` vectors ``(n, dim)`` from all over the index, always the same.

        Short runs of neighbours from evenly spread places: each costs one seek in the file, where
        counting off every n-th row would read the whole list of a million.
        """
        kind = _kind(vectors_table, space, modality)
        ((low,),) = self._rows(select(func.min(vectors_table.c.id)).where(kind))
        ((high,),) = self._rows(select(func.max(vectors_table.c.id)).where(kind))
        if low is None or high - low < count:
            return self.vectors(space, modality)[1]
        edges = np.linspace(low, high + 1, -(-count // RUN) + 1).astype(np.int64).tolist()
        found = [
            row[0]
            for start, end in itertools.pairwise(edges)
            for row in self._rows(
                select(vectors_table.c.vector)
                .where(kind, vectors_table.c.id >= start, vectors_table.c.id < end)
                .order_by(vectors_table.c.id)
                .limit(RUN)
            )
        ][:count]
        if 2 * len(found) < count:  # ids lie in heaps, or other kinds lie between
            rows = self._rows(select(vectors_table.c.id).where(kind).order_by(vectors_table.c.id))
            every = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            if len(every) > len(found):
                step = max(1, -(-len(every) // count))
                return self.vectors_of(every[::step], space)
        return np.frombuffer(b"".join(found), "<f2").reshape(len(found), space.dim)

    def vectors_of(self, vector_ids: NDArray[np.int64], space: Space) -> NDArray[np.float16]:
        """Gives vectors ``(n, dim)`` by their ids, in the order asked; all must be in the space."""
        found: dict[int, bytes] = {}
        wanted = vector_ids.tolist()
        for start in range(0, len(wanted), MAX_VARIABLES):
            some = wanted[start : start + MAX_VARIABLES]
            found.update(
                (row[0], row[1])
                for row in self._rows(
                    select(vectors_table.c.id, vectors_table.c.vector).where(
                        vectors_table.c.id.in_(some)
                    )
                )
            )
        joined = b"".join(found[vector_id] for vector_id in wanted)
        return np.frombuffer(joined, "<f2").reshape(len(wanted), space.dim)

    def concepts(self, space: Space) -> list[Concept]:
        """Lists the concepts of a space by name."""
        return [concepts.concept_of(row) for row in self._rows(concepts.selection(space))]

    def seals(
        self, space: Space, modality: Kept, *, kinds: Sequence[str] = ("exact",)
    ) -> list[Seal]:
        """Lists the derived files that stand for the older vectors, ascending.

        Those of one kind do not overlap.
        """
        columns = (seals.c[field.name] for field in dataclasses.fields(Seal))
        rows = self._rows(
            select(*columns)
            .where(_kind(seals, space, modality), seals.c.kind.in_(kinds))
            .order_by(seals.c.first_id, seals.c.file)
        )
        return [Seal(*row) for row in rows]

    def seal_files(self) -> set[str]:
        """Names every derived file that is in use."""
        return {row[0] for row in self._rows(select(seals.c.file))}

    def removed(self, space: Space, modality: Kept) -> NDArray[np.int64]:
        """Lists the ids that sealed files hold and the index no longer has, ascending."""
        rows = self._rows(
            select(removed.c.vector_id)
            .where(_kind(removed, space, modality))
            .order_by(removed.c.vector_id)
        )
        return np.fromiter((row[0] for row in rows), np.int64, len(rows))

    def vector_ids(
        self, space: Space, modality: Kept, filters: Filters, *, without: bool = False
    ) -> NDArray[np.int64]:
        """Lists the vectors of the items that pass a filter, ascending.

        Args:
            space: Whose vectors.
            modality: Of the items, or the words that belong to them.
            filters: What they must be.
            without: Lists the vectors of all other items instead.
        """
        words = isinstance(modality, WordsOf)
        return selecting.vector_ids(
            self._run,
            space.id,
            str(modality.modality if isinstance(modality, WordsOf) else modality),
            filters,
            without=without,
            words=words,
        )

    def share(self, modality: Modality, filters: Filters) -> float:
        """Estimates which part of a modality's items passes a filter, 0..1; in about 2 ms."""
        return selecting.share(self._run, str(modality), filters)

    def count(self, modalities: Sequence[Modality], filters: Filters) -> int:
        """Counts the items of some modalities that pass a filter."""
        return selecting.count(self._run, tuple(map(str, modalities)), filters)

    def extent(self, modalities: Sequence[Modality]) -> Extent:
        """Tells between what the items of some modalities lie, for people."""
        return selecting.extent(self._run, tuple(map(str, modalities)))

    def found(self, vector_ids: Sequence[int]) -> dict[int, Found]:
        """Looks up vectors; ids that are not in the index are left out."""
        result: dict[int, Found] = {}
        for start in range(0, len(vector_ids), MAX_VARIABLES):
            rows = self._rows(
                select(
                    vectors_table.c.id,
                    items.c.id,
                    items.c.path,
                    items.c.modality,
                    parts.c.start_s,
                    parts.c.end_s,
                    parts.c.page,
                    parts.c.line,
                    parts.c.text,
                    items.c.mtime_ns,
                    items.c.taken_at,
                    items.c.camera,
                    items.c.lat,
                    items.c.lon,
                    items.c.width,
                    items.c.height,
                    items.c.duration_s,
                )
                .join(parts, vectors_table.c.part_id == parts.c.id)
                .join(items, parts.c.item_id == items.c.id)
                .where(vectors_table.c.id.in_(vector_ids[start : start + MAX_VARIABLES]))
            )
            for row in rows:
                facts = Facts(*row[10:14])
                details = Details(selecting.date_of(facts.taken_at, row[9]), facts, *row[14:])
                place = Place(*row[4:9])
                result[row[0]] = Found(row[0], row[1], row[2], Modality(row[3]), place, details)
        return result

    def item(self, path: bytes) -> tuple[int, Fingerprint, Modality] | None:
        """Looks up an item by its path."""
        rows = self._rows(
            select(items.c.id, items.c.size, items.c.mtime_ns, items.c.modality).where(
                items.c.path == path
            )
        )
        if not rows:
            return None
        return rows[0][0], Fingerprint(rows[0][1], rows[0][2]), Modality(rows[0][3])

    def owners(self, vector_ids: NDArray[np.int64]) -> list[int]:
        """Gives the items that vectors belong to, each once."""
        wanted = vector_ids.tolist()
        found: set[int] = set()
        for start in range(0, len(wanted), MAX_VARIABLES):
            rows = self._rows(
                select(parts.c.item_id)
                .join(vectors_table, vectors_table.c.part_id == parts.c.id)
                .where(vectors_table.c.id.in_(wanted[start : start + MAX_VARIABLES]))
                .distinct()
            )
            found.update(row[0] for row in rows)
        return sorted(found)

    def has_words(self, space: Space, kind: WordsOf) -> bool:
        """Tells whether any item of a modality has words that belong to it, in a space."""
        kept = select(vectors_table.c.id).where(_kind(vectors_table, space, kind))
        return bool(self._rows(kept.limit(1)))

    def sourced(self, item_ids: Sequence[int], space: Space) -> dict[int, list[Sourced]]:
        """Gives all vectors of some items, by item, in the order of their parts."""
        result: dict[int, list[Sourced]] = {}
        for start in range(0, len(item_ids), MAX_VARIABLES):
            rows = self._rows(
                select(
                    parts.c.item_id,
                    vectors_table.c.id,
                    parts.c.source,
                    parts.c.text,
                    vectors_table.c.vector,
                )
                .join(vectors_table, vectors_table.c.part_id == parts.c.id)
                .where(
                    parts.c.item_id.in_(item_ids[start : start + MAX_VARIABLES]),
                    vectors_table.c.space_id == space.id,
                )
                .order_by(parts.c.item_id, parts.c.ordinal)
            )
            for item_id, vector_id, source, words, vector in rows:
                text = words if source != Source.CONTENT else None
                row = np.frombuffer(vector, "<f2")
                result.setdefault(item_id, []).append(Sourced(vector_id, Source(source), text, row))
        return result

    def item_vectors(self, item_id: int, space: Space) -> NDArray[np.float16]:
        """Gives the vectors of an item's content, ``(parts, dim)``, in the order of its parts."""
        rows = self._rows(
            select(vectors_table.c.vector)
            .join(parts, vectors_table.c.part_id == parts.c.id)
            .where(
                parts.c.item_id == item_id,
                parts.c.ordinal < WORDS_FROM,
                vectors_table.c.space_id == space.id,
            )
            .order_by(parts.c.ordinal)
        )
        joined = b"".join(row[0] for row in rows)
        return np.frombuffer(joined, "<f2").reshape(len(rows), space.dim)

    def item_places(self, item_id: int, space: Space) -> list[Place]:
        """Says where an item's parts lie, row by row as ``item_vectors`` gives them."""
        rows = self._rows(
            select(parts.c.start_s, parts.c.end_s, parts.c.page, parts.c.line, parts.c.text)
            .join(vectors_table, vectors_table.c.part_id == parts.c.id)
            .where(
                parts.c.item_id == item_id,
                parts.c.ordinal < WORDS_FROM,
                vectors_table.c.space_id == space.id,
            )
            .order_by(parts.c.ordinal)
        )
        return [Place(*row) for row in rows]

    def entries(self, modality: Modality, filters: Filters) -> list[Entry]:
        """Lists the items of a modality that pass a filter, by id."""
        return listing.entries(self._run, modality, filters)

    def means(
        self, item_ids: Sequence[int], space: Space
    ) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """Gives one vector ``(n, dim)`` for each item that has some, by ascending id.

        Args:
            item_ids: Ascending.
            space: Whose vectors; the mean of the parts', at length 1.
        """
        return listing.means(self._run, item_ids, space.id, space.dim)

    def tag_counts(self) -> dict[str, int]:
        """Counts the items of every tag, by name."""
        return {row[0]: row[1] for row in self._rows(tags.counts())}

    def tags_of(self, item_id: int) -> list[tuple[Tag, str]]:
        """Lists an item's tags by name, each with its source."""
        return [(Tag(row[0], row[2]), row[1]) for row in self._rows(tags.of_item(item_id))]

    def summary(self) -> Summary:
        """Counts everything, for people."""
        by_modality = self._rows(
            select(items.c.modality, func.count(), func.max(items.c.indexed_at_s)).group_by(
                items.c.modality
            )
        )
        part_counts = self._rows(
            select(items.c.modality, func.count())
            .join(parts, parts.c.item_id == items.c.id)
            .where(parts.c.ordinal < WORDS_FROM)
            .group_by(items.c.modality)
        )
        vector_counts = self._rows(
            select(spaces_table.c.name, vectors_table.c.modality, func.count())
            .join(spaces_table, vectors_table.c.space_id == spaces_table.c.id)
            .where(vectors_table.c.modality.in_(list(map(str, Modality))))
            .group_by(spaces_table.c.name, vectors_table.c.modality)
        )
        embedded = self._rows(
            select(
                spaces_table.c.name,
                vectors_table.c.modality,
                func.count(parts.c.item_id.distinct()),
            )
            .join(spaces_table, vectors_table.c.space_id == spaces_table.c.id)
            .join(parts, vectors_table.c.part_id == parts.c.id)
            .where(vectors_table.c.modality.in_(list(map(str, Modality))))
            .group_by(spaces_table.c.name, vectors_table.c.modality)
        )
        return Summary(
            items={Modality(row[0]): row[1] for row in by_modality},
            parts={Modality(row[0]): row[1] for row in part_counts},
            vectors={(row[0], Modality(row[1])): row[2] for row in vector_counts},
            spaces=self.spaces(),
            generation=self.generation(),
            last_indexed_s=max((row[2] for row in by_modality), default=None),
            embedded={(row[0], Modality(row[1])): row[2] for row in embedded},
        )

    def page(
        self, space: Space, after: tuple[int, int], limit: int
    ) -> tuple[list[exchanging.PartRow], NDArray[np.float16], tuple[int, int]]:
        """Reads the next parts with their vectors, item by item; see ``exchanging.page``."""
        return exchanging.page(self._run, space, after, limit)

    def present(
        self, paths: Sequence[bytes], space: Space | None
    ) -> dict[bytes, exchanging.Present]:
        """Looks up what the index has at some paths; see ``exchanging.present``."""
        return exchanging.present(self._rows, paths, space)

    def kind_ids(self, space: Space, modality: Kept, first: int, last: int) -> NDArray[np.int64]:
        """Lists the ids of a space's and modality's vectors in a range, ascending."""
        rows = self._rows(
            select(vectors_table.c.id)
            .where(_kind(vectors_table, space, modality), vectors_table.c.id.between(first, last))
            .order_by(vectors_table.c.id)
        )
        return np.fromiter((row[0] for row in rows), np.int64, len(rows))

    def faults(self) -> checking.Faults:
        """Looks for what is broken in the file itself; see ``checking.faults``."""
        return checking.faults(self._run)

    # ---- writing -------------------------------------------------------------------------

    def mend(self, found: checking.Faults) -> None:
        """Commits the removal of what is broken; see ``checking.mend``."""
        with named_failures(self.path), self._engine.begin() as connection:
            checking.mend(connection, found)

    def unseal(self, space: Space, modality: Kept) -> None:
        """Lets go of all derived files of a kind, so that they are made anew."""
        with named_failures(self.path), self._engine.begin() as connection:
            for table in (seals, removed):
                connection.execute(table.delete().where(_kind(table, space, modality)))

    def add_space(self, encoder: Encoder) -> Space:
        """Gives the row of an encoder's space, making it where the index does not have it."""
        known = {space.name: space for space in self.spaces()}
        if encoder.space not in known:
            with named_failures(self.path), self._engine.begin() as connection:
                connection.execute(
                    insert(spaces_table)
                    .prefix_with("OR IGNORE")  # another writer may be first
                    .values(name=encoder.space, model=encoder.model, dim=encoder.dim)
                )
            known = {space.name: space for space in self.spaces()}
        return known[encoder.space]

    def write(self, batch: Batch, space: Space) -> None:
        """Commits changes: replaced rows out, new rows with their vectors in, all or nothing.

        This is the only commit of index data. A fingerprint is stored only together with the
        vectors of the content that it was taken from, so after a crash the next scan finds again
        exactly what was lost.
        """
        if not batch:
            return
        with named_failures(self.path), self._engine.begin() as connection:
            apply(connection, batch, space)

    def drop_space(self, space: Space) -> None:
        """Forgets a space with its vectors and concepts, and items that no other space has.

        Raises:
            StorageError: If it is the only one: an index without any could not be searched.
        """
        if len(self.spaces()) == 1:
            raise StorageError(
                f"{space.name} is the only space of {self.path}; delete the file to forget all"
            )
        with named_failures(self.path), self._engine.begin() as connection:
            drop(connection, space)

    def put_concept(self, concept: Concept, space: Space) -> None:
        """Commits a concept, in place of one of the same name."""
        with named_failures(self.path), self._engine.begin() as connection:
            concepts.put(connection, concept, space)

    def remove_concept(self, name: str, space: Space) -> None:
        """Forgets a concept, if it is there."""
        with named_failures(self.path), self._engine.begin() as connection:
            concepts.remove(connection, name, space)

    def put_tags(self, source: str, given: Mapping[int, Sequence[Tag]]) -> int:
        """Commits tags by item id, in place of what this source said of those items before.

        Returns:
            How many were stored; items that are not there any more get none.
        """
        with named_failures(self.path), self._engine.begin() as connection:
            return tags.put(connection, source, given)

    def remove_tag(self, name: str) -> int:
        """Takes a tag from all items; gives how many had it."""
        with named_failures(self.path), self._engine.begin() as connection:
            return tags.remove(connection, name)

    def set_seal(self, space: Space, modality: Kept, seal: Seal, replaced: Sequence[Seal]) -> None:
        """Makes a finished derived file the one that readers use for its range of ids.

        Args:
            space: Whose vectors it holds.
            modality: Of the parts.
            seal: The new file.
            replaced: Those whose ranges it covers.
        """
        with named_failures(self.path), self._engine.begin() as connection:
            connection.execute(seals.delete().where(seals.c.file.in_([s.file for s in replaced])))
            connection.execute(
                insert(seals).values(
                    space_id=space.id, modality=str(modality), **dataclasses.asdict(seal)
                )
            )
            if seal.kind == "exact":  # the others lie over exact ones, which may still need them
                connection.execute(
                    removed.delete().where(
                        _kind(removed, space, modality),
                        removed.c.vector_id.between(seal.first_id, seal.last_id),
                    )
                )

    def drop_seals(self, dropped: Sequence[Seal]) -> None:
        """Forgets derived files; readers that know them already may go on with them."""
        with named_failures(self.path), self._engine.begin() as connection:
            connection.execute(seals.delete().where(seals.c.file.in_([s.file for s in dropped])))


def _kind(table: Any, space: Space, modality: Kept) -> ColumnElement[bool]:
    return and_(table.c.space_id == space.id, table.c.modality == str(modality))


def _embedded(space: Space) -> ColumnElement[bool]:
    return (
        select(vectors_table.c.id)
        .join(parts, vectors_table.c.part_id == parts.c.id)
        .where(
            parts.c.item_id == items.c.id,
            parts.c.ordinal < WORDS_FROM,
            vectors_table.c.space_id == space.id,
        )
        .correlate(items)
        .exists()
    )


def _wordless(space: Space) -> ColumnElement[bool]:
    """Tells whether some words that belong to an item have no vector in a space."""
    embedded = (
        select(vectors_table.c.id)
        .where(vectors_table.c.part_id == parts.c.id, vectors_table.c.space_id == space.id)
        .correlate(parts)
        .exists()
    )
    return (
        select(parts.c.id)
        .where(parts.c.item_id == items.c.id, parts.c.ordinal >= WORDS_FROM, not_(embedded))
        .correlate(items)
        .exists()
    )


def _known(row: Any) -> Known:
    item_id, path, size, mtime_ns, complete, read, beside = row
    return Known(item_id, path, Fingerprint(size, mtime_ns), bool(complete), bool(read), beside)
