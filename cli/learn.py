"""``anyseek learn``: train towers of your own, or the bundled ones again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from retrieval.errors import ModelError

app = typer.Typer(help="Train picture and text towers.", no_args_is_help=True)

REPORT_EVERY_S = 10.0


@app.callback()
def _group() -> None:
    """Train picture and text towers (needs the extra ``train``)."""


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
    from rich.console import Console

    try:
        import torch

        from retrieval.learn.bundled import Source, learn
    except ImportError as error:
        raise ModelError(f"{error.name} is missing: pip install 'anyseek[train]'") from error
    from retrieval.learn.recipe import read_recipe

    torch.set_num_threads(threads)
    err = Console(stderr=True)
    began_s = time.monotonic()
    last_s, last_stage = 0.0, ""

    def report(stage: str, done: int, total: int) -> None:
        nonlocal last_s, last_stage
        now_s = time.monotonic()
        if stage != last_stage or now_s - last_s > REPORT_EVERY_S:
            err.print(f"{now_s - began_s:6.0f} s  {stage}: {done} of {total}", highlight=False)
            last_s, last_stage = now_s, stage

    card = learn(
        Source(captions, images, annotations),
        out,
        read_recipe(recipe),
        name=name,
        seed=seed,
        work=work or out / "work",
        report=report,
    )
    dev = card["dev"]
    typer.echo(f"{card['space']}: R@1 {dev['r1']} R@5 {dev['r5']} R@10 {dev['r10']} % on dev")
