"""``anyseek models``: which there are, and how to get them."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.prompts import Listing

app = typer.Typer(help="List the models, and fetch their weights.", invoke_without_command=True)


@app.callback()
def show(
    context: typer.Context,
    format: Annotated[
        Listing, typer.Option("--format", help="A table, or a JSON object per line.")
    ] = Listing.TABLE,
) -> None:
    """List the models: what each embeds, what it costs, and whether it is here."""
    if context.invoked_subcommand is None:
        from cli import render
        from retrieval.models import models

        render.models(models(), as_json=format is Listing.JSON)


@app.command()
def pull(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="A model, as `anyseek index --model` takes it.", show_default=False
        ),
    ],
) -> None:
    """Fetch a model's weights, so that it can be used without a network."""
    from cli import render
    from retrieval import models
    from retrieval.errors import ModelMissingError

    found = models.named(name)
    try:
        here = models.model(name)
    except ModelMissingError:
        if found.offer is not None:
            cost = f"about {render.size(found.offer.download_bytes)}, {found.offer.licence}"
        else:
            cost = "size and licence as its authors say"
        render.remark(f"fetching {found.name} ({cost})")
        with render.fetching() as progress:
            models.pull(found, progress)
        here = models.model(name)
        said = "fetched"
    else:
        said = "is here already"
    where = models.place(found)
    print(f"{here.name} {said}: {render.size(here.size_bytes)}{f' in {where}' if where else ''}")
