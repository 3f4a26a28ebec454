"""Heads over frozen vectors, trained by contrast; each starts as the identity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn.adapter.measures import Pairs
from retrieval.learn.adapter.training import Numbers, trained
from retrieval.learn.draws import one_of_each
from retrieval.learn.features import Report
from retrieval.learn.loop import Course, Keep, temperatures
from retrieval.learn.losses import group_nce
from retrieval.towers.adapted import Head as Arrays
from retrieval.types import Modality

START_SCALE = 20.0  # inverse temperature; it is learned, from the middle of where it ends
DECAY = 0.1  # of the maps, that is towards the identity
HIDDEN = 256  # of the branch; half of the bundled space's dimensions


class Head(nn.Module):
    """A residual map of unit rows; see ``retrieval.towers.adapted`` for what it computes."""

    def __init__(self, dim: int, *, branch: bool, start: Arrays | None = None) -> None:
        """Starts as the identity, or where another head ended.

        Args:
            dim: Length of a row.
            branch: Whether the map has a hidden layer.
            start: Arrays of a head of the same kind.
        """
        super().__init__()
        if branch:
            up = torch.empty(dim, HIDDEN)
            nn.init.normal_(up, std=math.sqrt(2.0))  # rows have length 1: as He et al. 2015
            shapes = {"up": up, "up_bias": torch.zeros(HIDDEN), "down": torch.zeros(HIDDEN, dim)}
            shapes["down_bias"] = torch.zeros(dim)
        else:
            shapes = {"linear": torch.zeros(dim, dim), "bias": torch.zeros(dim)}
        if start:
            shapes = {name: torch.tensor(start[name]) for name in shapes}
        self.maps = nn.ParameterDict({name: nn.Parameter(one) for name, one in shapes.items()})

    def forward(self, x: Tensor) -> Tensor:
        """Maps unit rows ``(n, dim)`` to unit rows."""
        maps = self.maps
        if "linear" in maps:
            y = x @ maps["linear"] + maps["bias"]
        else:
            y = F.relu(x @ maps["up"] + maps["up_bias"]) @ maps["down"] + maps["down_bias"]
        return F.normalize(x + y, dim=1)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Gives the weights as ``retrieval.towers.adapted`` takes them."""
        return {name: one.detach().numpy().copy() for name, one in self.maps.items()}


class Adapter(nn.Module):
    """A head for every kind of item, one for texts, and a temperature."""

    def __init__(
        self,
        dim: int,
        modalities: Sequence[Modality],
        *,
        branch: bool,
        start: Mapping[Modality, Arrays] | None = None,
    ) -> None:
        """Starts as the identity, or from the heads of another adapter."""
        super().__init__()
        start = start or {}
        self.heads = nn.ModuleDict(
            {
                one.value: Head(dim, branch=branch, start=start.get(one))
                for one in (*modalities, Modality.TEXT)
            }
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(START_SCALE)))

    def embed(self, modality: Modality, rows: Tensor) -> Tensor:
        """Maps unit rows of a modality."""
        mapped: Tensor = self.heads[modality.value](rows)
        return mapped

    def arrays(self) -> dict[Modality, Arrays]:
        """Gives all heads as ``retrieval.towers.adapted`` takes them."""
        made: dict[Modality, Arrays] = {}
        for name, head in self.heads.items():
            assert isinstance(head, Head)
            made[Modality(name)] = head.arrays()
        return made


def mixed(heads: Mapping[Modality, Arrays], share: float) -> dict[Modality, Arrays]:
    """Interpolates between the frozen model and learned heads (WiSE-FT, arXiv 2109.01903).

    The frozen model is a head whose last map is zero, so its weights times the share are the
    interpolated ones.

    Args:
        heads: Learned.
        share: 0 gives the frozen model, 1 the heads as they are.
    """
    last = {"linear", "bias", "down", "down_bias", "alpha"}
    return {
        modality: {
            name: np.asarray(array * share if name in last else array, np.float32)
            for name, array in head.items()
        }
        for modality, head in heads.items()
    }


def fit(
    train: Sequence[Pairs],
    numbers: Numbers,
    *,
    branch: bool,
    replay: Sequence[Pairs] = (),
    score: Callable[[Mapping[Modality, Arrays]], float] | None = None,
    start: Mapping[Modality, Arrays] | None = None,
    keep: Keep,
    report: Report,
) -> tuple[dict[Modality, Arrays], Course]:
    """Trains heads.

    Args:
        train: What to learn, a modality each.
        numbers: Of the training; a step draws as many rows of what is to be kept besides.
        branch: Whether heads are a branch of one hidden layer (CLIP-Adapter, Gao et al. 2021,
            arXiv 2110.04544), or a linear map.
        replay: What to keep; as many of it are drawn for each step.
        score: Says how good heads are on validation data; without it, all epochs are trained.
        start: Heads to start from; the identity by default.
        keep: Where to go on from after a kill.
        report: Told about progress.
    """
    torch.manual_seed(numbers.seed)
    present = [one for one in Modality if one in {p.modality for p in (*train, *replay)}]
    dim = train[0].items.shape[1]
    model = Adapter(dim, present, branch=branch, start=start)
    new, old = _Drawn(train), _Drawn(replay)

    def loss(rows: Tensor) -> Tensor:
        parts = new.draw(rows)
        if len(old):
            parts += old.draw(torch.randint(len(old), (len(rows),)), shift=new.groups)
        texts = torch.cat([part.texts for part in parts])
        items = torch.cat([model.embed(part.modality, part.items) for part in parts])
        groups = torch.cat([part.groups for part in parts])
        said = model.embed(Modality.TEXT, texts)
        return group_nce(said, items, model.log_scale.exp(), groups)

    maps = [one for head in model.heads.values() for one in head.parameters()]
    groups: list[dict[str, object]] = [
        {"params": maps, "lr": numbers.rate, "weight_decay": DECAY},
        temperatures([model.log_scale], numbers.rate),
    ]
    judged = None if score is None else lambda one: score(one.arrays())
    best, course = trained(
        model, groups, len(new), loss, numbers, score=judged, keep=keep, report=report
    )
    return best.arrays(), course


@dataclass(frozen=True, slots=True)
class _Part:
    modality: Modality
    items: Tensor
    texts: Tensor
    groups: Tensor


class _Drawn:
    """Items of several modalities under one row of numbers, each with one of its texts."""

    def __init__(self, pairs: Sequence[Pairs]) -> None:
        self._pairs = pairs
        self._first = np.cumsum([0, *(len(one.items) for one in pairs)])
        self._items = [torch.from_numpy(one.items) for one in pairs]
        self._texts = [torch.from_numpy(one.texts) for one in pairs]
        self._starts = [
            torch.from_numpy(np.searchsorted(one.owner, np.arange(len(one.items) + 1)))
            for one in pairs
        ]
        self.groups = 1 + max((int(one.groups.max()) for one in pairs), default=0)

    def __len__(self) -> int:
        return int(self._first[-1])

    def draw(self, rows: Tensor, shift: int = 0) -> list[_Part]:
        parts = []
        for number, one in enumerate(self._pairs):
            own = rows[(rows >= self._first[number]) & (rows < self._first[number + 1])]
            own = own - int(self._first[number])
            if not len(own):
                continue
            low, high = self._starts[number][own], self._starts[number][own + 1]
            chosen = one_of_each(low, high)
            groups = torch.from_numpy(one.groups)[own] + shift
            parts.append(
                _Part(one.modality, self._items[number][own], self._texts[number][chosen], groups)
            )
        return parts
