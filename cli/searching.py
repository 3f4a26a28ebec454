"""``anyseek search`` and ``anyseek similar``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import prompts
from cli.options import (
    AddOption,
    AfterOption,
    BeforeOption,
    CameraOption,
    CountOption,
    ExactOption,
    ExplainDirOption,
    ExplainOption,
    ExtOption,
    Format,
    FormatOption,
    FuseOption,
    Fusing,
    In,
    IndexOption,
    LikeOption,
    MaxDurationOption,
    MinDurationOption,
    MinWidthOption,
    ModelsOption,
    NearOption,
    NegativesOption,
    NotOption,
    NullOption,
    RelevanceOption,
    SaveOption,
    Sort,
    SortOption,
    SourceOption,
    TagOption,
    UnderOption,
    UnlikeOption,
    Ways,
    filters_from,
    fuse_from,
    in_order,
    index_path,
)
from retrieval.errors import QueryError
from retrieval.prompts import AUTO
from retrieval.types import Modality

if TYPE_CHECKING:
    from cli.explain import Note
    from retrieval.asking import Manner
    from retrieval.query import Query
    from retrieval.search import Hit, Wanted
    from retrieval.spaces import Spaces


def search(
    query: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERY...",
            help="What to look for: words, ./files and <concepts>, joined by + - AND OR, as in "
            '"2:golden retriever" + ./pool.jpg - "people".',
            show_default=False,
        ),
    ],
    k: CountOption = 10,
    kind: Annotated[
        In,
        typer.Option("--in", help="What to search; `each` gives every kind a ranking of its own."),
    ] = In.ALL,
    add: AddOption = None,
    exclude: NotOption = None,
    negatives: NegativesOption = Ways.SUBTRACT,
    like: LikeOption = None,
    unlike: UnlikeOption = None,
    fuse: FuseOption = Fusing.ANY,
    source: SourceOption = None,
    save: SaveOption = None,
    under: UnderOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    camera: CameraOption = None,
    near: NearOption = None,
    min_width: MinWidthOption = None,
    min_duration: MinDurationOption = None,
    max_duration: MaxDurationOption = None,
    ext: ExtOption = None,
    tag: TagOption = None,
    sort: SortOption = Sort.RELEVANCE,
    format: FormatOption = Format.TABLE,
    min_relevance: RelevanceOption = 0.0,
    null: NullOption = False,
    prompt: prompts.NameOption = AUTO,
    template: prompts.TemplateOption = None,
    prompt_file: prompts.FileOption = None,
    weigh: prompts.WeighOption = False,
    cache: prompts.CacheOption = True,
    explain: ExplainOption = False,
    explain_dir: ExplainDirOption = None,
    model: ModelsOption = None,
    exact: ExactOption = False,
    index: IndexOption = None,
) -> None:
    """Find files by words, in any of sixteen languages, by examples, and by both."""
    from retrieval.query import Kind, parse, terms_of, with_options

    asked = with_options(parse(query), add or (), exclude or ())
    chosen = prompts.asked(prompt, template or (), prompt_file)
    kept = prompts.cache_folder() if cache else None
    words = [term.value for term in terms_of(asked) if term.kind is Kind.WORDS]
    if words and not model:
        prompts.preload(words, _modalities(kind), chosen, kept)
    from cli import recent, render
    from retrieval.asking import Manner
    from retrieval.scoring import Negatives
    from retrieval.search import Wanted
    from retrieval.spaces import Spaces
    from retrieval.store import Store

    path = index_path(index)
    wanted = Wanted(
        k,
        _modalities(kind),
        filters_from(
            under, after, before, camera, near, min_width, min_duration, max_duration, ext, tag
        ),
        min_relevance,
        each=kind is In.EACH,
    )
    manner = Manner(
        chosen,
        weigh,
        Negatives(negatives.value),
        _paths(recent.picked(path, like or ())),
        _paths(recent.picked(path, unlike or ())),
        fuse_from(fuse, source),
    )
    if save is not None:
        if not manner.liked:
            raise QueryError("--save makes a concept of what --like names; give some hits with it")
        from cli.concept import check_new

        check_new(save, index)  # before the numbers of hits mean others
    with Store(path) as store:
        searcher = Spaces(store, model or (), cache=kept, exact=exact)
        hits = _answer(searcher, asked, wanted, manner, sort, format, null, explain, explain_dir)
    if save is not None:
        from cli.concept import learned

        render.remark(learned(save, manner.liked, manner.unliked, index=index))
    _remember(path, hits)


def similar(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A picture, a sound or a text.", show_default=False),
    ],
    k: CountOption = 10,
    kind: Annotated[
        In | None,
        typer.Option(
            "--in",
            help="What to search; the file's own kind by default.",
            show_default=False,
        ),
    ] = None,
    under: UnderOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    camera: CameraOption = None,
    near: NearOption = None,
    min_width: MinWidthOption = None,
    min_duration: MinDurationOption = None,
    max_duration: MaxDurationOption = None,
    ext: ExtOption = None,
    tag: TagOption = None,
    sort: SortOption = Sort.RELEVANCE,
    format: FormatOption = Format.TABLE,
    min_relevance: RelevanceOption = 0.0,
    null: NullOption = False,
    explain: ExplainOption = False,
    explain_dir: ExplainDirOption = None,
    model: ModelsOption = None,
    exact: ExactOption = False,
    index: IndexOption = None,
) -> None:
    """Find files like FILE, which need not be indexed; FILE itself is left out."""
    from retrieval.asking import USUAL
    from retrieval.search import Wanted
    from retrieval.spaces import Spaces
    from retrieval.store import Store

    kinds = tuple(Modality) if kind in (In.ALL, In.EACH) else _modalities(kind or In.ALL)
    path = index_path(index)
    wanted = Wanted(
        k,
        kinds,
        filters_from(
            under, after, before, camera, near, min_width, min_duration, max_duration, ext, tag
        ),
        min_relevance,
        each=kind is In.EACH,
    )
    with Store(path) as store:
        searcher = Spaces(store, model or (), exact=exact)
        wanted = searcher.wanted_like(file, wanted)
        asked = searcher.like(file)
        hits = _answer(searcher, asked, wanted, USUAL, sort, format, null, explain, explain_dir)
    _remember(path, hits)


def _answer(
    searcher: Spaces,
    asked: Query,
    wanted: Wanted,
    manner: Manner,
    sort: Sort,
    format: Format,
    null: bool,
    explain: bool,
    explain_dir: Path | None,
) -> Sequence[Hit]:
    """Searches, and writes what was found."""
    from cli import render

    answer = searcher.answer(asked, wanted, manner)
    hits = in_order(answer.hits, sort, each=wanted.each)
    notes: list[Note] = []
    if explain or explain_dir:
        from cli.explain import notes as explained

        notes = explained(searcher, hits, asked, manner, folder=explain_dir)
    remarks = [*searcher.remarks, *([answer.remark] if answer.remark else [])]
    render.hits(hits, format, remarks, null=null, notes=notes, confident=answer.confident)
    return hits


def _remember(index: Path, hits: Sequence[Hit]) -> None:
    """Notes hits for ``--like``; of a search without any, those before still mean something."""
    from cli import recent

    if hits:
        recent.remember(index, [hit.path for hit in hits])


def _modalities(kind: In) -> tuple[Modality, ...]:
    return () if kind in (In.ALL, In.EACH) else (Modality(kind.value),)


def _paths(found: Sequence[bytes]) -> tuple[Path, ...]:
    return tuple(Path(os.fsdecode(path)) for path in found)
