"""Which files an import reads, and into which space they go."""

from __future__ import annotations

from pathlib import Path

from retrieval.errors import ExchangeError
from retrieval.exchange import clip_retrieval, npy, parquet
from retrieval.exchange.bringing import Target
from retrieval.exchange.rows import Source
from retrieval.models import model as find


def sources(path: Path, root: Path) -> list[Source]:
    """Opens what is at a path: what ``anyseek export`` wrote, or clip-retrieval's output.

    Args:
        path: A file (``.parquet``, ``.npy``), or a folder with some of either.
        root: Where relative paths in it begin.

    Raises:
        ExchangeError: If there is nothing that can come in.
    """
    if not path.exists():
        raise ExchangeError(f"there is no file or folder at {path}")
    if path.is_dir():
        if clip_retrieval.is_layout(path):
            return clip_retrieval.sources(path, root)
        files = [one for suffix in ("parquet", "npy") for one in sorted(path.glob(f"*.{suffix}"))]
        files = [one for one in files if not one.name.startswith(".")]  # one half written
        if not files:
            raise ExchangeError(
                f"{path} holds no .parquet, no .npy and no img_emb or text_emb: nothing to import"
            )
    else:
        files = [path.with_suffix(".npy") if path.suffix == ".jsonl" else path]
    opened = []
    for file in files:
        if file.suffix not in (".parquet", ".npy"):
            raise ExchangeError(f"{file} is neither .parquet nor .npy")
        open_ = parquet.source if file.suffix == ".parquet" else npy.source
        opened.append(open_(file, root))
    return opened


def target(
    found: list[Source], *, model: str | None, space: str | None, dim: int | None
) -> tuple[Target, list[Source]]:
    """Chooses the space, and the files that are of it.

    Args:
        found: At least one.
        model: Name of the model that made the vectors.
        space: Identity of the space instead, with ``dim``, of a model that is not here.
        dim: Length of its vectors.

    Raises:
        ExchangeError: If nothing says which space it is, or the files are of others.
        ModelError: If there is no such model.
    """
    said = sorted({source.space for source in found if source.space is not None})
    if model is not None:
        spec = find(model)
        chosen = Target(spec.space, spec.name, spec.dim, spec.modalities)
    elif space is not None:
        of_it = [source for source in found if source.space == space]
        dims = {source.dim for source in of_it if source.count}
        if dim is None and len(dims) != 1:
            raise ExchangeError(f"nothing says how long the vectors of {space} are: give --dim N")
        name = next((source.model for source in of_it if source.model is not None), space)
        chosen = Target(space, name, dims.pop() if dim is None else dim)
    elif len(said) == 1 and all(source.space is not None for source in found):
        return target(found, model=None, space=said[0], dim=dim)
    else:
        reason = f"they are of several spaces ({', '.join(said)})" if said else "they do not say it"
        raise ExchangeError(
            f"which model made these vectors? {reason}: give --model NAME, or --space NAME --dim N"
        )
    of_it = [source for source in found if source.space in (None, chosen.space)]
    if not of_it:
        raise ExchangeError(
            f"{found[0].file} is of the space {', '.join(said)}, and not of {chosen.space}"
        )
    return chosen, of_it
