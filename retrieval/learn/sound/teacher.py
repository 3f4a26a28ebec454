"""The teacher: an AudioSet classifier whose opinions the student learns to have.

Its weights are read to be asked, never to start from and never to be shipped.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from numpy.typing import NDArray
from torch import Tensor, nn  # noqa: TID253

from retrieval.errors import ModelError

RATE_HZ = 32_000
HOP = 320  # 10 ms, as the student's
MELS = 128
CLASSES = 527
FEATURES = 384
LOG_FLOOR = 1e-5  # added to the power before the logarithm

_WINDOW, _FFT, _TOP_HZ = 800, 1024, 15_000.0
_PRE_EMPHASIS = 0.97

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


class Teacher(nn.Module):
    """MobileNetV3 of EfficientAT (Schmid et al. 2023, arXiv 2211.04772), for inference only."""

    def __init__(self, path: Path) -> None:
        """Reads a state dict such as ``mn04_as_mAP_432.pt``.

        Raises:
            ModelError: If the file is missing or holds something else.
        """
        super().__init__()
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.first = _conv(state, "features.0", 3, 2)
            self.blocks = nn.ModuleList(
                _Block(state, f"features.{index}.block", *shape)
                for index, shape in enumerate(_BLOCKS, 1)
            )
            self.last = _conv(state, f"features.{len(_BLOCKS) + 1}", 1, 1)
            self.hidden = _linear(state, "classifier.2")
            self.out = _linear(state, "classifier.5")
        except (OSError, KeyError, RuntimeError, ValueError, AttributeError) as error:
            raise ModelError(f"{path}: not the teacher's weights ({error})") from error
        self.eval().requires_grad_(False)

    def forward(self, power: Tensor) -> tuple[Tensor, Tensor]:
        """Maps mel powers ``(n, frames, 128)`` to features ``(n, 384)``, logits ``(n, 527)``."""
        x = ((power + LOG_FLOOR).log() + 4.5) / 5.0
        x = F.hardswish(self.first(x.transpose(1, 2).unsqueeze(1)))
        for block in self.blocks:
            x = block(x)
        features = F.hardswish(self.last(x)).mean((2, 3))
        return features, self.out(F.hardswish(self.hidden(features)))


class _Block(nn.Module):
    def __init__(
        self, state: dict[str, Tensor], name: str, kernel: int, stride: int, swish: bool
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        index = 0
        act = nn.Hardswish if swish else nn.ReLU
        if state[f"{name}.0.0.weight"].shape[2] == 1:  # widens first
            parts += [_conv(state, f"{name}.0", 1, 1), act()]
            index = 1
        parts += [_conv(state, f"{name}.{index}", kernel, stride), act()]
        if f"{name}.{index + 1}.conc_se_layers.0.fc1.weight" in state:
            parts.append(_Squeeze(state, f"{name}.{index + 1}.conc_se_layers.0"))
            index += 1
        parts.append(_conv(state, f"{name}.{index + 1}", 1, 1))
        self.parts = nn.Sequential(*parts)
        first = state[f"{name}.0.0.weight"]
        entry = first.shape[1] if first.shape[2] == 1 else first.shape[0]
        self.residual = stride == 1 and entry == state[f"{name}.{index + 1}.0.weight"].shape[0]

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


def teacher_power(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gives what the teacher hears: mel powers ``(1 + (n - 1) // 320, 128)`` float32.

    Pre-emphasis, a Hann window of 25 ms, an FFT of 1,024 and bands that are triangles on Kaldi's
    mel axis from 0 to 15 kHz, as the teacher was trained with.

    Args:
        samples: ``(n,)`` float32, mono at 32 kHz, at least 1,024.
    """
    x = torch.from_numpy(samples[1:] - np.float32(_PRE_EMPHASIS) * samples[:-1])
    window = torch.hann_window(_WINDOW, periodic=False)
    spectrum = torch.stft(x, _FFT, HOP, _WINDOW, window, center=True, return_complex=True)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray((_kaldi_bands() @ power).T.contiguous().numpy(), np.float32)


def _kaldi_bands() -> Tensor:
    def mel(hz: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.asarray(1127.0 * np.log(1.0 + np.asarray(hz) / 700.0))

    bins = mel(np.arange(_FFT // 2 + 1) * RATE_HZ / _FFT)
    corners = np.linspace(0.0, float(mel(_TOP_HZ)), MELS + 2)
    low, centre, high = (corners[start : MELS + start, None] for start in range(3))
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    bands = np.maximum(0.0, np.minimum(rising, falling))
    bands[:, -1] = 0.0  # Kaldi leaves the last bin out
    return torch.from_numpy(bands.astype(np.float32))
