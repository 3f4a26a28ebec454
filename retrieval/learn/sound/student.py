"""The student: a plain residual network over spectrograms, and its head into the space."""

from __future__ import annotations

import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn.train import Head

CENTRE, SPREAD = -4.0, 4.0
"""Mean and deviation of log-mels, roughly: the network sees numbers around zero."""


class Trunk(nn.Module):
    """Log-mel spectrograms to pooled features.

    Dense convolutions: on processors of today they train several times faster than depthwise ones
    of the same quality. Frequencies are averaged; over time, mean and maximum are added, so that
    both what lasts and what happens once is heard (Kong et al. 2020, arXiv 1912.10211).
    """

    def __init__(self, widths: tuple[int, int, int, int, int]) -> None:
        """Makes a stem, three stages with one residual block each, and a last widening.

        Args:
            widths: Channels of the stem, of the stages and of the features.
        """
        super().__init__()
        stem, one, two, three, features = widths
        self.layers = nn.Sequential(
            _conv(1, stem, (7, 5), (4, 2)),
            _conv(stem, one, (3, 3), (2, 2)),
            _Residual(one),
            _conv(one, two, (3, 3), (2, 2)),
            _Residual(two),
            _conv(two, three, (3, 3), (2, 2)),
            _Residual(three),
            _conv(three, features, (1, 1), (1, 1)),
        )
        self.width = features

    def forward(self, mel: Tensor) -> Tensor:
        """Maps ``(n, frames, 64)`` float32 log-mels to ``(n, width)``, not negative."""
        x = ((mel - CENTRE) / SPREAD).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        x = self.layers(x).mean(3)
        pooled: Tensor = x.mean(2) + x.amax(2)
        return pooled


class Student(nn.Module):
    """The trunk, the head that is shipped, and two readings that only training needs."""

    def __init__(
        self, widths: tuple[int, int, int, int, int], dim: int, hidden: int, dropout: float
    ) -> None:
        """Starts from random weights.

        Args:
            widths: See ``Trunk``.
            dim: Of the space.
            hidden: Of the head's residual branch.
            dropout: Of pooled features before the head.
        """
        super().__init__()
        self.trunk = Trunk(widths)
        width = self.trunk.width
        self.scale = nn.BatchNorm1d(width)
        self.head = Head(width, dim, hidden, dropout)
        self.as_teacher = nn.Linear(width, 384)
        self.classes = nn.Linear(width, 527)

    def forward(self, mel: Tensor) -> Tensor:
        """Maps ``(n, frames, 64)`` float32 log-mels to ``(n, dim)`` float32, unit rows."""
        embedding: Tensor = self.head(self.pooled(mel))
        return embedding

    def pooled(self, mel: Tensor) -> Tensor:
        """Gives the features that the head reads: ``(n, width)``, standardised."""
        pooled: Tensor = self.scale(self.trunk(mel))
        return pooled

    def hidden_weights(self) -> list[Tensor]:
        """Gives convolutions but the first and the maps to embeddings and features."""
        maps = (self.head.linear, self.head.up, self.head.down, self.as_teacher)
        inner: list[Tensor] = [
            one for one in self.trunk.parameters() if one.ndim == 4 and one.shape[1] > 1
        ]
        return inner + [one.weight for one in maps]

    def everything(self, mel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gives embeddings, what the teacher's features may be, and AudioSet logits."""
        pooled = self.pooled(mel)
        dropped = F.dropout(pooled, self.head.dropout.p, self.training)
        return self.head(pooled), self.as_teacher(dropped), self.classes(dropped)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.one = _conv(width, width, (3, 3), (1, 1))
        self.two = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm.weight)  # starts as the identity (Goyal et al. 2017)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.norm(self.two(self.one(x))))


def _conv(entry: int, out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Sequential:
    margin = (kernel[0] // 2, kernel[1] // 2)
    layer = nn.Conv2d(entry, out, kernel, stride, margin, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), nn.ReLU(inplace=True))
