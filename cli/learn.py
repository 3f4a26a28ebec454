"""``anyseek learn``: train towers of your own, or the bundled ones again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from retrieval.errors import ModelError

app = typer.Typer(help="Train picture, text and audio towers.", no_args_is_help=True)

REPORT_EVERY_S = 10.0


@app.callback()
def _group() -> None:
    """Train picture, text and audio towers (needs the extra ``train``)."""


@app.command()
def bundled(
    captions: Annotated[
        Path, typer.Option(help="Tab-separated: image, caption, optionally split (train, dev).")
    ],
    images: Annotated[Path, typer.Option(help="Folder of the pictures named there.")],
    out: Annotated[Path, typer.Option(help="Folder for image.onnx, text.npz and model.toml.")],
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder `annotations` of the npm package cldr-annotations-full."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the model is called.")] = "anyseek-1",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    recipe: Annotated[
        Path | None, typer.Option(help="Another recipe.toml; the bundled one by default.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for features, reused if there; OUT/work by default.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch; results depend on it.")] = 2,
) -> None:
    """Train towers like the bundled ones on captioned pictures."""
    try:
        import torch

        from retrieval.learn.bundled import Source, learn
    except ImportError as error:
        raise ModelError(f"{error.name} is missing: pip install 'anyseek[train]'") from error
    from retrieval.learn.recipe import read_recipe

    torch.set_num_threads(threads)
    card = learn(
        Source(captions, images, annotations),
        out,
        read_recipe(recipe),
        name=name,
        seed=seed,
        work=work or out / "work",
        report=_reporter(),
    )
    dev = card["dev"]
    typer.echo(f"{card['space']}: R@1 {dev['r1']} R@5 {dev['r5']} R@10 {dev['r10']} % on dev")


@app.command()
def sound(
    esc50: Annotated[Path, typer.Option(help="Folder with esc50.csv (tab-separated) and audio/.")],
    teachers: Annotated[
        Path, typer.Option(help="Folder with mn04_as_mAP_432.pt and audioset_class_labels.csv.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for audio.onnx and its figures.")],
    extra: Annotated[
        Path | None, typer.Option(help="Folder with files.tsv (path, package) and other sounds.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="Model whose space is joined; the bundled one by default.")
    ] = None,
    leave_fold: Annotated[
        int, typer.Option(min=0, max=5, help="Do not hear this fold of ESC-50, and test on it.")
    ] = 0,
    leave_classes: Annotated[
        bool, typer.Option("--leave-classes", help="Do not hear every fifth class of ESC-50.")
    ] = False,
    folds: Annotated[
        Path | None,
        typer.Option(help="Folder with fold1 to fold4, made before: writes a whole model."),
    ] = None,
    captions: Annotated[
        Path | None, typer.Option(help="As of `learn bundled`; with --folds.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures named there; with --folds.")
    ] = None,
    name: Annotated[str, typer.Option(help="What the model is called.")] = "anyseek-1",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    recipe: Annotated[
        Path | None, typer.Option(help="Another recipe_sound.toml; the bundled one by default.")
    ] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for what trainings share; OUT/work by default.")
    ] = None,
    threads: Annotated[int, typer.Option(help="Threads of torch; results depend on it.")] = 1,
) -> None:
    """Train an audio tower into the space of a finished picture and text model."""
    try:
        import torch

        from retrieval.learn.sound.bundled import Source, learn
        from retrieval.learn.sound.card import write_model
    except ImportError as error:
        raise ModelError(f"{error.name} is missing: pip install 'anyseek[train]'") from error
    from retrieval.learn.sound.recipe import read_recipe
    from retrieval.towers.bundled import WEIGHTS

    if (folds is None) != (captions is None) or (folds is None) != (images is None):
        raise typer.BadParameter("--folds, --captions and --images belong together")
    torch.set_num_threads(threads)
    source = Source(esc50, teachers, extra, model or WEIGHTS)
    report = _reporter()
    path = learn(
        source,
        out,
        read_recipe(recipe),
        leave_fold=leave_fold,
        leave_kinds=leave_classes,
        seed=seed,
        work=work or out / "work",
        report=report,
    )
    if folds is not None and captions is not None and images is not None:
        card = write_model(
            out, source, folds, captions=captions, images=images, name=name, report=report
        )
        typer.echo(f"{card['space']}: written to {out}")
    else:
        typer.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def _reporter() -> Callable[[str, int, int], None]:
    """Makes a function that tells standard error now and then what is being done."""
    from rich.console import Console

    err = Console(stderr=True)
    began_s = time.monotonic()
    last_s, last_stage = 0.0, ""

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last_s, last_stage
        now_s = time.monotonic()
        if stage != last_stage or now_s - last_s > REPORT_EVERY_S:
            err.print(f"{now_s - began_s:6.0f} s  {stage}: {done} of {total}", highlight=False)
            last_s, last_stage = now_s, stage

    return report
