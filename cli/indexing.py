"""What ``anyseek index`` does: one run for each model, and spaces that are dropped."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli import render
from cli.alone import alone
from cli.stopping import COMMITTED

if TYPE_CHECKING:
    from indexer.report import Report
    from retrieval.models import ModelSpec
    from retrieval.store import Store


def bring_up_to_date(
    target: Path,
    paths: Sequence[Path],
    names: Sequence[str],
    *,
    device: str | None,
    workers: int | None,
    batch_size: int,
) -> list[Report]:
    """Indexes files with every model that is meant, one after the other, and says what was done.

    Args:
        target: The index.
        paths: Folders and files that are there.
        names: Of models; without any, those of the index, and of a new index the default.
        device: Where they are to run; the fastest there is without it.
        workers: Threads.
        batch_size: Parts embedded at once.

    Returns:
        A report for each model, in order; after an interrupt there are no more.
    """
    from indexer.pipeline import index as run
    from indexer.scan import roots_of
    from retrieval.models import model, runs_on
    from retrieval.store import Store

    named = [model(name, device=device) for name in names]  # before anything waits or is written
    reports: list[Report] = []
    with alone(target), Store(target, write=True) as store:
        specs = list({one.space: one for one in named or _models_of(store, device)}.values())
        for spec in specs:
            where = runs_on(spec, device)
            encoder = spec.load()
            if where is not None:
                render.remark(where)
            with render.progress() as progress:
                report = run(
                    store,
                    encoder,
                    roots_of(paths),
                    workers=workers,
                    batch_size=batch_size,
                    progress=progress,
                )
            render.report(
                report,
                model=spec.name if len(specs) > 1 else None,
                named=[skipped for done in reports for skipped in done.failed],
            )
            reports.append(report)
            if report.interrupted:
                render.remark(f"interrupted; {COMMITTED}")
                break
    return reports


def _models_of(store: Store, device: str | None) -> list[ModelSpec]:
    """Finds the models of an index that are here, and says which are not; else the default."""
    from retrieval.errors import ModelError
    from retrieval.models import model
    from retrieval.spaces import held

    found = []
    for one in held(store):
        if one.reason is None:
            found.append(one.spec if device is None else model(one.space.model, device=device))
            continue
        try:
            found.append(
                model(one.space.model, device=device)
            )  # today's weights: its vectors are made anew
            render.remark(
                f"{one.space.name} was made by another {one.space.model}; its vectors are made "
                f"anew, and `anyseek index --prune {one.space.name}` drops the old ones"
            )
        except ModelError:
            render.remark(f"not brought up to date: {one.reason}")
    return found or [model(device=device)]


def prune(target: Path, names: Sequence[str], *, yes: bool) -> None:
    """Drops spaces with their vectors, derived files and concepts, if the user agrees.

    Args:
        target: The index.
        names: Of models or spaces.
        yes: Whether to do it without asking.
    """
    from retrieval.index import sweep
    from retrieval.spaces import chosen
    from retrieval.store import Store

    with Store(target) as store:  # nobody waits while a question is open
        spaces = [one.space for one in chosen(store, names)]
        summary = store.summary()
    for space in spaces:
        count = sum(n for (name, _), n in summary.vectors.items() if name == space.name)
        if not yes:
            typer.confirm(
                f"Forget {space.name} of {space.model}, with {count} vectors and its concepts?",
                abort=True,
                err=True,
            )
        with alone(target), Store(target, write=True) as store:
            store.drop_space(space)
            sweep(store)
        print(f"dropped {space.name}: {count} vectors")
