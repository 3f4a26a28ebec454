"""Losses over unit vectors. All are means over rows, in nats."""

from __future__ import annotations

import torch  # noqa: TID253 - this module is only imported to train
import torch.nn.functional as F  # noqa: TID253
from torch import Tensor  # noqa: TID253


def info_nce(texts: Tensor, images: Tensor, scale: Tensor) -> Tensor:
    """Gives the symmetric contrastive loss of matched rows (Radford et al. 2021, arXiv 2103.00020).

    Args:
        texts: ``(n, dim)`` float32, unit rows; row i belongs to row i of ``images``.
        images: ``(n, dim)`` float32, unit rows.
        scale: Inverse temperature, a scalar that multiplies the cosines.
    """
    logits = scale * texts @ images.T
    truth = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def group_nce(texts: Tensor, items: Tensor, scale: Tensor, groups: Tensor) -> Tensor:
    """Gives the symmetric contrastive loss of matched rows, of which some mean the same.

    What is of one group is no negative of another row of it: it is left out of the sums. Where all
    groups differ, this is ``info_nce``.

    Args:
        texts: ``(n, dim)`` float32, unit rows; row i belongs to row i of ``items``.
        items: ``(n, dim)`` float32, unit rows.
        scale: Inverse temperature.
        groups: ``(n,)`` numbers; equal ones mean the same.
    """
    logits = scale * texts @ items.T
    alike = groups[:, None] == groups[None]
    alike.fill_diagonal_(False)
    logits = logits.masked_fill(alike, -torch.inf)
    truth = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, truth) + F.cross_entropy(logits.T, truth)) / 2


def choice(items: Tensor, names: Tensor, scale: Tensor, truth: Tensor) -> Tensor:
    """Gives the cross entropy of telling each item's name from all others.

    Args:
        items: ``(n, dim)`` float32, unit rows.
        names: ``(classes, dim)`` float32, unit rows.
        scale: Inverse temperature.
        truth: ``(n,)`` rows of ``names``.
    """
    return F.cross_entropy(scale * items @ names.T, truth)


def soft_match(texts: Tensor, images: Tensor, scale: Tensor, targets: Tensor) -> Tensor:
    """Gives the divergence from a teacher's similarity matrix, both ways (arXiv 1503.02531).

    Args:
        texts: ``(n, dim)`` float32, unit rows.
        images: ``(m, dim)`` float32, unit rows.
        scale: The student's inverse temperature.
        targets: ``(n, m)`` logits of the teacher, already over its temperature.
    """
    logits = scale * texts @ images.T
    rows = F.kl_div(logits.log_softmax(1), targets.softmax(1), reduction="batchmean")
    columns = F.kl_div(logits.T.log_softmax(1), targets.T.softmax(1), reduction="batchmean")
    return (rows + columns) / 2


def posterior_match(images: Tensor, names: Tensor, scale: Tensor, posterior: Tensor) -> Tensor:
    """Gives the divergence of a zero-shot classifier from a trained classifier's posterior.

    Args:
        images: ``(n, dim)`` float32, unit rows.
        names: ``(classes, dim)`` float32, unit rows: the classes' names as texts.
        scale: Inverse temperature.
        posterior: ``(n, classes)`` probabilities.
    """
    logits = scale * images @ names.T
    return F.kl_div(logits.log_softmax(1), posterior, reduction="batchmean")


def alignment(anchors: Tensor, translations: Tensor, scale: float = 20.0) -> Tensor:
    """Pulls translations to their English anchors and apart from other things' anchors.

    Args:
        anchors: ``(n, dim)`` float32, unit rows; no gradient flows into them.
        translations: ``(n, dim)`` float32, unit rows; row i means the same as row i of ``anchors``.
        scale: Inverse temperature of the contrast; 20 is the middle of what the towers learn.
    """
    fixed = anchors.detach()
    distance = (1 - (fixed * translations).sum(1)).mean()
    truth = torch.arange(len(fixed), device=fixed.device)
    return distance + F.cross_entropy(scale * translations @ fixed.T, truth) / 2
