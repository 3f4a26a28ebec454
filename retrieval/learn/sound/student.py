"""The student: a network over spectrograms that goes the teacher's way in wider steps; its head.

The trunk is cut into stages at the teacher's bottlenecks. Each stage makes of what it is given what
the teacher's stage makes of it, so that a stage can be trained by itself (see ``distil``); inside a
stage the student is its own, wider network.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from retrieval.learn.sound.teacher import CLASSES, FEATURES, Staged, Step


class Trunk(Staged):
    """Log-mel spectrograms to features and AudioSet's classes."""

    def __init__(self, steps: Sequence[Step], hidden: int, wide: float) -> None:
        """Starts from random weights.

        Args:
            steps: The teacher's bottlenecks.
            hidden: Width between features and classes.
            wide: How much wider than the teacher a step is inside.
        """
        super().__init__()
        first = steps[0].out
        entries = [first, *(step.out for step in steps)]
        blocks = [_Block(entry, step, wide) for entry, step in zip(entries, steps, strict=False)]
        stem = _Stem(first)
        last = _conv(entries[-1], FEATURES, 1, 1, nn.Hardswish())
        self.stages = nn.Sequential(stem, *blocks, last)
        self.hidden = nn.Linear(FEATURES, hidden)
        self.out = nn.Linear(hidden, CLASSES)


class Head(nn.Module):
    """Places a sound among texts: by what it is probably called, corrected by what it is like.

    The first part is the convex combination of Norouzi et al. (2013, arXiv 1312.5650) over the
    names of AudioSet's classes: it needs no labelled sound, and places what no label named. The
    second is trained.
    """

    SOFT = 0.05
    """Added to the length of the first part, so that a sound that is like no class counts less."""

    def __init__(self, names: Tensor, hidden: int) -> None:
        """Starts as the first part alone.

        Args:
            names: ``(527, dim)`` of AudioSet's classes, their mean taken away.
            hidden: Width of the correction.
        """
        super().__init__()
        self.names: Tensor
        self.mean: Tensor
        self.spread: Tensor
        self.register_buffer("names", names)
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("spread", torch.ones(FEATURES))
        dim = names.shape[1]
        self.linear = nn.Linear(FEATURES, dim)
        self.up = nn.Linear(FEATURES, hidden)
        self.down = nn.Linear(hidden, dim)
        for layer in (self.linear, self.down):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def standardise(self, features: Tensor) -> None:
        """Remembers the mean and deviation of features ``(n, 384)``."""
        self.mean.copy_(features.mean(0))
        self.spread.copy_(features.std(0) + 1e-3)

    def called(self, logits: Tensor) -> Tensor:
        """Places sounds by their classes alone: ``(n, dim)``, a little less than unit length."""
        sums = logits.sigmoid() @ self.names
        placed: Tensor = sums / (sums.norm(dim=1, keepdim=True) + self.SOFT)
        return placed

    def standardised(self, features: Tensor) -> Tensor:
        """Gives features ``(n, 384)`` with mean 0 and deviation 1."""
        return (features - self.mean) / self.spread

    def place(self, x: Tensor, logits: Tensor) -> Tensor:
        """Gives unit rows ``(n, dim)`` for standardised features and logits."""
        correction = self.linear(x) + self.down(F.gelu(self.up(x)))
        placed: Tensor = F.normalize(self.called(logits) + correction, dim=1)
        return placed

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Gives unit rows ``(n, dim)`` for what the trunk gives."""
        return self.place(self.standardised(features), logits)


class Student(nn.Module):
    """Trunk and head: what is shipped."""

    def __init__(self, trunk: Trunk, head: Head) -> None:
        """Chains the parts."""
        super().__init__()
        self.trunk, self.head = trunk, head

    def forward(self, mel: Tensor) -> Tensor:
        """Maps ``(n, frames, 128)`` float32 log-mels to ``(n, dim)`` float32, unit rows."""
        embedding: Tensor = self.head(*self.trunk(mel))
        return embedding


class _Stem(nn.Module):
    """A first convolution that learns fast, though what it sees hardly varies from place to place.

    Neighbours in a spectrogram are alike, so a filter for edges would have to be found in
    directions a thousand times fainter than that of the mean. Nine cosine patterns, each brought to
    the same variance, are mixed instead.
    """

    def __init__(self, out: int) -> None:
        super().__init__()
        place = torch.arange(3) + 0.5
        waves = torch.cos(torch.pi / 3 * torch.arange(3)[:, None] * place)
        self.patterns = nn.Conv2d(1, 9, 3, 2, 1, bias=False)
        with torch.no_grad():
            self.patterns.weight.copy_(torch.einsum("fi,tj->ftij", waves, waves).view(9, 1, 3, 3))
        self.patterns.requires_grad_(False)
        self.even = nn.BatchNorm2d(9, affine=False)
        self.mix = _conv(9, out, 1, 1, nn.Hardswish())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mix(self.even(self.patterns(x)))
        return y


class _Block(nn.Module):
    """Widens, convolves each channel alone, weighs channels, narrows (arXiv 1905.02244).

    As the teacher's first one does not widen, neither does that of the student: it convolves each
    channel in two ways.
    """

    def __init__(self, entry: int, step: Step, wide: float) -> None:
        super().__init__()
        act = nn.Hardswish if step.swish else nn.ReLU
        inner = 2 * entry if not step.widens else max(8, round(step.inner * wide / 8) * 8)
        start = inner if step.widens else entry
        self.parts = nn.Sequential(
            _conv(entry, inner, 1, 1, act()) if step.widens else nn.Identity(),
            _conv(start, inner, step.kernel, step.stride, act(), groups=start),
            _Squeeze(inner) if step.squeeze else nn.Identity(),
            _conv(inner, step.out, 1, 1, nn.Identity()),
        )
        self.residual = step.stride == 1 and entry == step.out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.parts(x)
        return x + y if self.residual else y


class _Squeeze(nn.Module):
    """Weighs channels by what all places hold on average (arXiv 1709.01507)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, width // 4), nn.Linear(width // 4, width)

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return x * scale[:, :, None, None]


def _conv(
    entry: int, out: int, kernel: int, stride: int, act: nn.Module, groups: int = 1
) -> nn.Sequential:
    layer = nn.Conv2d(entry, out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(out), act)
