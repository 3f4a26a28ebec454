"""The teacher: an AudioSet classifier whose opinions the student learns to have.

Its weights are read to be asked, never to start from and never to be shipped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from retrieval.errors import ModelError

CLASSES = 527
FEATURES = 384
LEVEL = 0.1
"""Mean power at which everything is played to the teacher.

Its classes, weighed with their names, told ten classes of ESC-50 apart in 82, 79, 77, 76 and 69 of
100 cases at 0.03, 0.3, 1, 3 and 30, and in 80 at the level of the recordings.
"""

_BLOCKS = (  # kernel, stride, hard swish; widths and squeezing are read off the weights
    (3, 1, False),
    (3, 2, False),
    (3, 1, False),
    (5, 2, False),
    (5, 1, False),
    (5, 1, False),
    (3, 2, True),
    (3, 1, True),
    (3, 1, True),
    (3, 1, True),
    (3, 1, True),
    (3, 1, True),
    (5, 2, True),
    (5, 1, True),
    (5, 1, True),
)


@dataclass(frozen=True, slots=True)
class Step:
    """The shape of a bottleneck: ``inner`` channels within, ``out`` after it.

    Attributes:
        widens: Whether a convolution of single places leads to the inner channels.
        squeeze: Whether channels are weighed by what all places hold.
        swish: Whether activations are hard swish instead of ReLU.
    """

    kernel: int
    stride: int
    inner: int
    out: int
    widens: bool
    squeeze: bool
    swish: bool


def scaled(mel: Tensor) -> Tensor:
    """Gives log-mels over their mean as networks take them: ``(n, 1, 128, frames)``.

    To the last digits ``(log(power + 1e-5) + 4.5) / 5``, as the teacher was trained, of a sound
    whose mean power is ``LEVEL``.
    """
    x = (mel + (math.log(LEVEL) + 4.5)) / 5.0
    return x.transpose(1, 2).unsqueeze(1)


class Staged(nn.Module):
    """What teacher and student do alike, once they have their parts.

    Attributes:
        stages: From scaled log-mels to a map of 384 features.
        hidden: From features towards the classes.
        out: From there to AudioSet's classes.
    """

    stages: nn.Sequential
    hidden: nn.Linear
    out: nn.Linear

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``(n, frames, 128)`` log-mels to features ``(n, 384)`` and logits ``(n, 527)``."""
        features = self.stages(scaled(mel)).mean((2, 3))
        return features, self.classes(features)

    def classes(self, features: Tensor) -> Tensor:
        """Maps features ``(n, 384)`` to logits ``(n, 527)`` of AudioSet's classes."""
        logits: Tensor = self.out(F.hardswish(self.hidden(features)))
        return logits


class Teacher(Staged):
    """MobileNetV3 of EfficientAT (Schmid et al. 2023, arXiv 2211.04772), for inference only.

    Attributes:
        steps: The shape of each bottleneck.
    """

    def __init__(self, path: Path) -> None:
        """Reads a state dict such as ``mn04_as_mAP_432.pt``.

        Raises:
            ModelError: If the file is missing or holds something else.
        """
        super().__init__()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            first = _conv(state, "features.0", 3, 2)
            blocks = [
                _Block(state, f"features.{index}.block", *shape)
                for index, shape in enumerate(_BLOCKS, 1)
            ]
            last = _conv(state, f"features.{len(_BLOCKS) + 1}", 1, 1)
            self.hidden = _linear(state, "classifier.2")
            self.out = _linear(state, "classifier.5")
        except (OSError, KeyError, RuntimeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path}: not the teacher's weights ({error})") from error
        self.eval().requires_grad_(False)
        self.steps = [block.step for block in blocks]
        self.stages = nn.Sequential(
            nn.Sequential(first, nn.Hardswish()), *blocks, nn.Sequential(last, nn.Hardswish())
        )


class _Block(nn.Module):
    def __init__(
        self, state: dict[str, Tensor], name: str, kernel: int, stride: int, swish: bool
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        index = 0
        act = nn.Hardswish if swish else nn.ReLU
        widens = state[f"{name}.0.0.weight"].shape[2] == 1
        if widens:
            parts += [_conv(state, f"{name}.0", 1, 1), act()]
            index = 1
        parts += [_conv(state, f"{name}.{index}", kernel, stride), act()]
        squeeze = f"{name}.{index + 1}.conc_se_layers.0.fc1.weight" in state
        if squeeze:
            parts.append(_Squeeze(state, f"{name}.{index + 1}.conc_se_layers.0"))
            index += 1
        parts.append(_conv(state, f"{name}.{index + 1}", 1, 1))
        self.parts = nn.Sequential(*parts)
        first = state[f"{name}.0.0.weight"]
        entry = first.shape[1] if widens else first.shape[0]
        out = state[f"{name}.{index + 1}.0.weight"].shape[0]
        self.step = Step(kernel, stride, first.shape[0], out, widens, squeeze, swish)
        self.residual = stride == 1 and entry == out

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.parts(x)
        return x + y if self.residual else y


class _Squeeze(nn.Module):
    def __init__(self, state: dict[str, Tensor], name: str) -> None:
        super().__init__()
        self.down, self.up = _linear(state, f"{name}.fc1"), _linear(state, f"{name}.fc2")

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        return x * scale[:, :, None, None]


def _conv(state: dict[str, Tensor], name: str, kernel: int, stride: int) -> nn.Conv2d:
    """Makes a convolution with its batch norm (epsilon 0.001) folded in."""
    weight = state[f"{name}.0.weight"]
    scale = state[f"{name}.1.weight"] / (state[f"{name}.1.running_var"] + 1e-3).sqrt()
    out, per_group = weight.shape[:2]
    if weight.shape[2] != kernel:
        raise ValueError(f"{name} is {weight.shape[2]} wide instead of {kernel}")
    groups = out if per_group == 1 and name != "features.0" else 1
    layer = nn.Conv2d(per_group * groups, out, kernel, stride, kernel // 2, groups=groups)
    layer.weight.data = weight * scale[:, None, None, None]
    layer.bias.data = state[f"{name}.1.bias"] - state[f"{name}.1.running_mean"] * scale  # type: ignore[union-attr]
    return layer


def _linear(state: dict[str, Tensor], name: str) -> nn.Linear:
    weight = state[f"{name}.weight"]
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.weight.data, layer.bias.data = weight, state[f"{name}.bias"]
    return layer
