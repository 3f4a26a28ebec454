"""``anyseek learn``: train towers of your own, or the bundled ones again."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from retrieval.errors import ModelError

app = typer.Typer(help="Train picture, text and audio towers.", no_args_is_help=True)

REPORT_EVERY_S = 10.0
EXIT_INTERRUPTED = 130  # what a shell gives for Ctrl-C


class Method(StrEnum):
    """What an adapter learns; see ``retrieval.learn.adapter``."""

    LINEAR = "linear"
    MLP = "mlp"
    CACHE = "cache"
    CONTEXT = "context"


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


@app.command()
def adapter(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the adapter.")],
    captions: Annotated[
        Path | None,
        typer.Option(help="Tab-separated: image (or sound), caption, optionally split."),
    ] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Folder of folders of examples, named as they are asked.")
    ] = None,
    files: Annotated[
        Path | None,
        typer.Option(help="Folder of the files named in captions; the captions' own by default."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model whose towers stay frozen; the default one.")
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Adapter to start from, instead of the model.")
    ] = None,
    keep: Annotated[
        Path | None, typer.Option(help="Captions of what must be found as well as before.")
    ] = None,
    keep_files: Annotated[
        Path | None, typer.Option("--keep-files", help="Folder of the files named in --keep.")
    ] = None,
    margin: Annotated[
        float, typer.Option(min=0, help="Points of R@10 that --keep may lose at most.")
    ] = 2.0,
    name: Annotated[
        str | None, typer.Option(help="What the adapter is called; as its folder by default.")
    ] = None,
    method: Annotated[Method, typer.Option(help="What is learned.")] = Method.LINEAR,
    context: Annotated[int, typer.Option(min=1, help="Vectors that --method context learns.")] = 4,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many; by default what the number of files asks for."),
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=2, help="Files of a step; 256, or 32 of contexts.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0, help="Learning rate; the best of three by default.")
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for vectors and checkpoints, reused if there; OUT/work."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of torch.")] = 2,
) -> None:
    """Learn light parts over the frozen towers of a model, from your own files."""
    try:
        import torch

        from retrieval.learn.adapter.adapter import learn
        from retrieval.learn.adapter.request import Request
    except ImportError as error:
        raise ModelError(f"{error.name} is missing: pip install 'anyseek[train]'") from error

    if (captions is None) == (classes is None):
        raise typer.BadParameter("give either --captions or --classes")
    torch.set_num_threads(threads)
    request = Request(
        out=out,
        work=work or out / "work",
        captions=captions,
        classes=classes,
        files=files,
        model=model,
        start=start,
        keep=keep,
        keep_files=keep_files,
        margin=margin,
        name=name,
        method=method.value,
        context=context,
        seed=seed,
        epochs=epochs,
        batch=batch,
        rate=rate,
        command=shlex.join(["anyseek", *sys.argv[1:]]),
    )
    try:
        card = learn(request, _reporter())
    except KeyboardInterrupt:
        typer.echo("interrupted: run the same command to go on", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    _tell(card)


def _tell(card: dict[str, Any]) -> None:
    """Says what was learned, a line for each thing that was measured."""
    files = card["data"]["train"]
    if not card["share"] or card.get("training", {}).get("epoch") == 0:
        kept = "what it started from" if card["share"] else "the base"
        typer.echo(f"{card['space']}: nothing better than {kept} was found in {files} files")
    else:
        typer.echo(f"{card['space']}: {files} files learned, share {card['share']}")
    for what, title in (("dev", "validation"), ("keep", "kept")):
        figures = card.get(what)
        if figures is None or not figures["after"]["queries"]:
            continue
        name = "accuracy" if "accuracy" in figures["after"] else "r10"
        one, other = figures["before"][name], figures["after"][name]
        label = {"accuracy": "accuracy", "r10": "R@10"}[name]
        base = figures["base"][name]
        typer.echo(f"{title}: {label} {one} -> {other} % (base {base} %)")


def _reporter() -> Callable[[str, int, int], None]:
    """Makes a function that tells standard error now and then what is being done."""
    from rich.console import Console

    err = Console(stderr=True)
    began_s = time.monotonic()
    last_s, last_stage = 0.0, ""

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last_s, last_stage
        now_s = time.monotonic()
        part = stage.partition(", ")[0]  # what follows differs from step to step
        if part != last_stage or now_s - last_s > REPORT_EVERY_S:
            err.print(f"{now_s - began_s:6.0f} s  {stage}: {done} of {total}", highlight=False)
            last_s, last_stage = now_s, part

    return report
