"""Several spaces of one index, asked as one.

Cosines of two spaces do not compare, but relevances do: each is the chance that a hit is right. So
every space is searched by a ``Searcher`` of its own, and their hits are merged by relevance. An
item that several spaces find is shown once, with the best of its relevances. Fusing ranks instead
would put first what a space has nothing better than, and would leave no number that means
anything; the best relevance keeps both, and the first hits stay exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrieval import models
from retrieval.asking import USUAL, Manner
from retrieval.errors import ModelError, QueryError
from retrieval.models import ModelSpec
from retrieval.query import Blend, Kind, Query, Term, terms_of
from retrieval.search import (
    Answer,
    Hit,
    Searcher,
    Wanted,
    check_prompt,
    no_space,
    order,
    usable_space,
)
from retrieval.store import Space, Store
from retrieval.types import Modality

KINDS = {Modality.IMAGE: "pictures", Modality.AUDIO: "sounds", Modality.TEXT: "texts"}


@dataclass(frozen=True, slots=True)
class Held:
    """A space of an index with the model that made it.

    Attributes:
        space: In the store.
        spec: Its model, or a stand-in where that cannot be loaded.
        reason: Why it cannot, and what to do; ``None`` where it can.
    """

    space: Space
    spec: ModelSpec
    reason: str | None


def held(store: Store) -> list[Held]:
    """Lists the spaces of an index in the order in which they were added."""
    return [_held(space) for space in store.spaces()]


def _held(space: Space) -> Held:
    own = models.model()
    if own.space == space.name:
        return Held(space, own, None)
    try:
        spec = models.model(space.model)
    except ModelError as error:
        reason = f"{space.model}, which made {space.name}, cannot be used: {error}"
    else:
        if spec.space == space.name:
            return Held(space, spec, None)
        reason = (
            f"{space.model} is no longer the model that made {space.name}; "
            "`anyseek index FOLDER` adds its vectors of today"
        )
    compared = f"{reason} (indexed files can still be compared, with `anyseek similar`)"
    return Held(space, models.absent(space.model, space.name, space.dim, compared), reason)


def chosen(store: Store, names: Sequence[str]) -> list[Held]:
    """Finds the spaces that were named, each once, in the order named.

    Args:
        store: An index.
        names: Of models, as ``--model`` takes them, or of spaces, as ``anyseek status`` shows them.

    Raises:
        ModelError: If there is no such model.
        QueryError: If the index has nothing of it.
    """
    found: dict[int, Held] = {}
    spaces = store.spaces()
    for name in names:
        one = next((_held(space) for space in spaces if space.name == name), None)
        one = one or _of_model(name, spaces)
        if one is None:
            raise QueryError(
                f"the index has nothing of {name}; add it with "
                f"`anyseek index --model {name} FOLDER`"
            )
        found[one.space.id] = one
    return list(found.values())


def _of_model(name: str, spaces: Sequence[Space]) -> Held | None:
    """Finds the space of a model: today's, else the newest that one of its name made."""
    try:
        wanted = models.named(name).name
    except ModelError:
        wanted = name  # a folder that is gone, or a model that another anyseek knew
        if all(space.model != name for space in spaces):
            raise
    with contextlib.suppress(ModelError):
        spec = models.model(name)
        for space in spaces:
            if space.name == spec.space:  # perhaps made by a model that shares it
                return Held(space, spec, None)
    made = [space for space in spaces if space.model == wanted]
    return _held(made[-1]) if made else None


def space_for(
    store: Store, name: str | None, *, kinds: Sequence[Modality] = ()
) -> tuple[ModelSpec, Space]:
    """Chooses a space whose model can be loaded.

    Args:
        store: An index.
        name: A model's; without it, the oldest space whose model knows some kinds of files, and
            without one that knows them all, the oldest.
        kinds: Of files.

    Raises:
        IndexMissingError: If the index has no space yet.
        ModelError: If the model is unknown, or cannot be loaded.
        QueryError: If the index has nothing of it.
    """
    if name is not None:
        (one,) = chosen(store, [name])
        if one.reason is not None:
            raise ModelError(one.reason)
        return one.spec, one.space
    first = usable_space(store)
    if all(kind in first[0].modalities for kind in kinds):
        return first
    for one in held(store):
        if one.reason is None and all(kind in one.spec.modalities for kind in kinds):
            return one.spec, one.space
    return first


def space_of_concept(store: Store, concept: str, name: str | None) -> Space:
    """Finds the space that has a concept: that of a model that is named, else any.

    The default space comes first, and is given where none has it.
    """
    if name is not None:
        return chosen(store, [name])[0].space
    _, first = usable_space(store)
    usable = [one.space for one in held(store) if one.reason is None and one.space != first]
    for space in (first, *usable):
        if any(one.name == concept for one in store.concepts(space)):
            return space
    return first


@dataclass(frozen=True, slots=True)
class _Route:
    """A searcher with what it is asked for.

    Attributes:
        searcher: Of a space.
        held: The space with its model.
        modalities: That it searches.
    """

    searcher: Searcher
    held: Held
    modalities: tuple[Modality, ...]


class Spaces:
    """Answers queries from one index, in one or several of its spaces."""

    def __init__(
        self,
        store: Store,
        names: Sequence[str] = (),
        *,
        cache: Path | None = None,
        exact: bool = False,
    ) -> None:
        """Chooses spaces; no model is loaded before a query needs it.

        Args:
            store: An index, opened for reading.
            names: Models whose spaces are searched. Without any, the oldest space whose model is
                here, and others for the modalities that it does not hold, each by the oldest.
            cache: See ``Searcher``.
            exact: See ``Searcher``.

        Raises:
            IndexMissingError: If nothing has been indexed yet.
            ModelError: If a name means no model.
            QueryError: If the index has nothing of a model that is named.
        """
        self.store = store
        self._exact = exact
        self.remarks: list[str] = []  # of the last answer
        self._carried: set[tuple[str, str]] = set()  # spaces, and examples that were lent to them
        if not store.spaces():
            no_space(store)
        self._routes: list[_Route] = []
        if names:
            for one in chosen(store, names):
                self._add(one, store.modalities(one.space), cache)
        else:
            every = held(store)
            every.sort(key=lambda one: one.reason is not None)  # stable: the oldest first
            missing = list(Modality)
            for one in every:
                found = [kind for kind in store.modalities(one.space) if kind in missing]
                if found or not self._routes:
                    self._add(one, found, cache)
                    missing = [kind for kind in missing if kind not in found]

    def _add(self, one: Held, modalities: Sequence[Modality], cache: Path | None) -> None:
        searcher = Searcher(self.store, spec=one.spec, cache=cache, exact=self._exact)
        self._routes.append(_Route(searcher, one, tuple(modalities)))

    def like(self, path: Path) -> Blend:
        """Gives the query for items like a file."""
        return Blend((Term(Kind.FILE, str(path)),))

    def wanted_like(self, path: Path, wanted: Wanted) -> Wanted:
        """Takes a file's own modality where none is wanted in particular."""
        kind = _kind(path)
        for route in self._routes:
            if kind in route.searcher.encoder.towers:
                return route.searcher.wanted_like(path, wanted)
        return self._routes[0].searcher.wanted_like(path, wanted)

    def answer(self, query: Query, wanted: Wanted, manner: Manner = USUAL) -> Answer:
        """Finds the items that answer a query, in every space that can be asked.

        Args:
            query: See ``retrieval.query.parse``.
            wanted: Which hits.
            manner: How the query is put. What a space has no tower for is left out of its feedback,
                and prompt sets are for the modalities that they name.

        Raises:
            QueryError: As ``Searcher.answer`` does, if no space can be asked.
            ModelError: If the models that the query needs cannot be loaded.
        """
        check_prompt(manner.prompt, wanted)
        self.remarks = []
        for route in self._routes:
            if not wanted.modalities or {*wanted.modalities} & {*route.modalities}:
                for term in terms_of(query):
                    if term.kind is Kind.FILE:
                        self._carry(route, term)
        asked: list[tuple[_Route, Wanted]] = []
        refused: list[tuple[_Route, Wanted, str]] = []
        if len(self._routes) == 1:
            return self._ask(self._routes[0], query, wanted, manner)
        for route in self._routes:
            kinds = tuple(
                kind
                for kind in route.modalities
                if not wanted.modalities or kind in wanted.modalities
            )
            if kinds:
                narrowed = replace(wanted, modalities=kinds)
                reason = _refusal(route, query, manner, self._carried)
                if reason is None:
                    asked.append((route, narrowed))
                else:
                    refused.append((route, narrowed, reason))
        if not asked and not refused:  # nothing of that kind is in the index
            return self._ask(self._routes[0], query, wanted, manner)
        if not asked:
            route, narrowed, _ = refused[0]
            return self._ask(route, query, narrowed, manner)  # which says what is wrong
        answers = [self._ask(route, query, one, manner) for route, one in asked]
        shown = {kind for _, one in asked for kind in one.modalities}
        for _, one, reason in refused:
            kinds = tuple(kind for kind in one.modalities if kind not in shown)
            if kinds:
                names = " and ".join(KINDS[kind] for kind in kinds)
                self.remarks.append(f"{names} were not searched: {reason}")
        return Answer(
            _merged([answer.hits for answer in answers], wanted),
            any(answer.confident for answer in answers),
            any(answer.meant for answer in answers),
        )

    def _carry(self, route: _Route, term: Term) -> None:
        """Carries an example that a space has no tower for over words that it shares with another.

        A picture so finds sounds, in an index with pictures in one space and sounds in another; see
        ``retrieval.bridge``. Where there is no such space, the search says what is missing.
        """
        here = route.searcher.encoder
        path = Path(term.value)
        kind = _kind(path)
        reads = route.held.reason is None and Modality.TEXT in here.towers
        if kind is None or kind in here.towers or not reads:
            return
        if (route.held.space.name, term.value) in self._carried:
            return
        for one in held(self.store):
            knows = {kind, Modality.TEXT} <= set(one.spec.modalities)
            if one.reason is not None or not knows or one.space == route.held.space:
                continue
            from retrieval.bridge import Shore, crossing
            from retrieval.examples import Example, own_path
            from retrieval.vocabulary.nearest import mean_of

            own = own_path(self.store, path)
            if not path.exists() and self.store.item(own) is None:
                return
            other = Searcher(self.store, spec=one.spec)
            crossed = crossing(
                other.vector_of(term),
                Shore(
                    one.space.name,
                    other.encoder.towers[Modality.TEXT],
                    mean_of(kind, self.store, one.space),
                ),
                Shore(route.held.space.name, here.towers[Modality.TEXT]),
            )
            # words stand for it there, and so it is judged as words are
            lent = Example(own, Modality.TEXT, crossed.vector[None])
            route.searcher.asker.lend(term.value, lent)
            self._carried.add((route.held.space.name, term.value))
            words = ", ".join(crossed.words)
            self.remarks.append(f"{term.value} is looked for in {route.held.spec.name} as: {words}")
            return

    def of(self, hit: Hit, manner: Manner) -> tuple[Searcher, Manner]:
        """Gives the searcher that found a hit, and how it was asked."""
        (route,) = [one for one in self._routes if one.held.space.name == hit.space]
        return route.searcher, _put(route, manner)

    def _ask(self, route: _Route, query: Query, wanted: Wanted, manner: Manner) -> Answer:
        put = _put(route, manner)
        if put.prompt and wanted.modalities and not {*wanted.modalities} & {*put.prompt.modalities}:
            put = replace(put, prompt=None)
        answer = route.searcher.answer(query, wanted, put)
        self.remarks.extend(one for one in route.searcher.remarks if one not in self.remarks)
        return answer


def _merged(lists: Sequence[Sequence[Hit]], wanted: Wanted) -> tuple[Hit, ...]:
    """Merges rankings; an item keeps the best of its hits."""
    found: dict[bytes, Hit] = {}
    for hit in sorted((hit for hits in lists for hit in hits), key=order):
        found.setdefault(hit.path, hit)
    if not wanted.each:
        return tuple(found.values())[: wanted.k]
    return tuple(
        hit
        for kind in Modality
        for hit in [hit for hit in found.values() if hit.modality is kind][: wanted.k]
    )


def _refusal(
    route: _Route, query: Query, manner: Manner, carried: Collection[tuple[str, str]]
) -> str | None:
    """Says why a space cannot be asked a query; ``None`` if it can."""
    towers = route.searcher.encoder.towers
    for term in terms_of(query):
        if term.kind is Kind.WORDS and Modality.TEXT not in towers:
            return f"{route.held.spec.name} cannot read words"
        if term.kind is Kind.WORDS and route.held.reason is not None:
            return route.held.reason
        if term.kind is Kind.FILE:
            kind = _kind(Path(term.value))
            if (
                kind is not None
                and kind not in towers
                and (route.held.space.name, term.value) not in carried
            ):
                return f"{route.held.spec.name} knows no {KINDS[kind]}, and {term.value} is one"
        if term.kind is not Kind.WORDS:
            try:
                route.searcher.vector_of(term)
            except (QueryError, ModelError) as error:
                return str(error)
    return None


def _put(route: _Route, manner: Manner) -> Manner:
    """Leaves out of the feedback what a space has no tower for."""
    towers = route.searcher.encoder.towers

    def kept(paths: Sequence[Path]) -> tuple[Path, ...]:
        return tuple(path for path in paths if (kind := _kind(path)) is None or kind in towers)

    if not manner.liked and not manner.unliked:
        return manner
    return replace(manner, liked=kept(manner.liked), unliked=kept(manner.unliked))


def _kind(path: Path) -> Modality | None:
    """Tells from its name what a file is; a search in words needs no decoder."""
    from retrieval.media import modality_of

    return modality_of(str(path))
