"""Which of its texts stands for a picture in a step."""

from __future__ import annotations

import torch  # noqa: TID253 - this module is only imported to train
from torch import Tensor  # noqa: TID253


def one_of_each(low: Tensor, high: Tensor) -> Tensor:
    """Draws a text of each row: ``(n,)`` numbers, ``low[i]`` up to but not ``high[i]``."""
    return low + (torch.rand(len(low)) * (high - low)).long()


def some_of_each(low: Tensor, high: Tensor, count: int) -> Tensor:
    """Draws texts without repeating before all were used: ``(count, n)``, as ``one_of_each``."""
    turns = one_of_each(torch.zeros_like(low), high - low)
    return torch.stack([low + (turns + turn) % (high - low) for turn in range(count)])
