"""Rows of concepts: what a person taught the index. They depend on no item."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sqlalchemy import Connection, insert, select
from sqlalchemy.sql import Select

from retrieval.store.records import Concept, Space
from retrieval.store.schema import concepts

SEPARATOR = b"\0"  # the one byte that no path has


def selection(space: Space) -> Select[Any]:
    """Asks for the concepts of a space, by name."""
    return (
        select(
            concepts.c.name,
            concepts.c.vector,
            concepts.c.positives,
            concepts.c.negatives,
            concepts.c.created_s,
        )
        .where(concepts.c.space_id == space.id)
        .order_by(concepts.c.name)
    )


def concept_of(row: Sequence[Any]) -> Concept:
    """Reads a row of ``selection``."""
    vector = np.frombuffer(row[1], "<f4").astype(np.float32)
    return Concept(row[0], vector, _paths(row[2]), _paths(row[3]), row[4])


def put(connection: Connection, concept: Concept, space: Space) -> None:
    """Stores a concept in place of one that has its name."""
    remove(connection, concept.name, space)
    connection.execute(
        insert(concepts).values(
            name=concept.name,
            space_id=space.id,
            vector=concept.vector.astype("<f4").tobytes(),
            positives=SEPARATOR.join(concept.positives),
            negatives=SEPARATOR.join(concept.negatives),
            created_s=concept.created_s,
        )
    )


def remove(connection: Connection, name: str, space: Space) -> None:
    """Forgets a concept, if it is there."""
    connection.execute(
        concepts.delete().where(concepts.c.name == name, concepts.c.space_id == space.id)
    )


def _paths(joined: bytes) -> tuple[bytes, ...]:
    return tuple(joined.split(SEPARATOR)) if joined else ()
