"""The one loop: against AdamW written out, against the recipe written out, and after a kill."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from retrieval.learn import loop  # noqa: E402
from retrieval.learn.draws import one_of_each, some_of_each  # noqa: E402
from retrieval.learn.features import Report  # noqa: E402
from retrieval.learn.losses import info_nce  # noqa: E402
from retrieval.learn.recipe import Heads, Losses  # noqa: E402
from retrieval.learn.train import Corpus, Head, Towers, rooted, train_heads  # noqa: E402
from tests.retrieval.test_learn import corpus  # noqa: E402

CONTRAST = Losses(0.0, 0.0, 0.0, 0.0, 1.0, 0.9)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # so small, two would only wait for each other
    yield
    torch.set_num_threads(before)


def quiet(stage: str, done: int, total: int) -> None:
    """Says nothing."""


class Line(nn.Module):
    """Three weights and a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([0.5, -0.25, 1.0]))
        self.log_scale = nn.Parameter(torch.tensor(0.1))


def test_the_loop_is_adamw_with_a_warm_start_a_cosine_and_an_average() -> None:
    """Loshchilov and Hutter 2019, arXiv 1711.05101, by hand in float64, step by step."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(10, 3)), rng.normal(size=10)
    model = Line()
    groups: list[dict[str, object]] = [
        {"params": [model.w], "lr": 0.02, "weight_decay": 0.3},
        loop.temperatures([model.log_scale], 0.02),
    ]
    seen: list[list[int]] = []

    def loss(rows: Tensor) -> Tensor:
        seen.append(rows.tolist())
        of, to = torch.tensor(x).float()[rows], torch.tensor(y).float()[rows]
        value: Tensor = ((model.log_scale.exp() * of @ model.w - to) ** 2).mean()
        return value

    torch.manual_seed(0)
    pace = loop.Pace(epochs=4, batch=4, average=0.6, warm=3)
    average, course = loop.run(model, groups, 10, loss, pace, report=quiet, stage="a test")

    assert len(seen) == 8  # of ten rows, eight an epoch
    assert all(rows == sorted(set(rows)) for rows in seen)
    assert all(not set(one) & set(other) for one, other in zip(seen[::2], seen[1::2], strict=True))
    p, kept = np.array([0.5, -0.25, 1.0, 0.1]), np.array([0.5, -0.25, 1.0, 0.1])
    rate, decay = np.array([0.02] * 3 + [0.1]), np.array([0.3] * 3 + [0.0])
    first, second = np.zeros(4), np.zeros(4)
    losses = []
    for step, rows in enumerate(seen):
        scale, own = math.exp(p[3]), x[rows]
        off = scale * own @ p[:3] - y[rows]
        losses.append((off**2).mean())
        gradient = np.append(2 * scale * own.T @ off, 2 * scale * (off * (own @ p[:3])).sum()) / 4
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        cosine = 0.02 + 0.98 / 2 * (1 + math.cos(math.pi * step / 8))
        now = rate * min(1, (step + 1) / 3) * cosine
        p = p * (1 - now * decay)
        bias = (1 - 0.9 ** (step + 1), math.sqrt(1 - 0.999 ** (step + 1)))
        p = p - now * (first / bias[0]) / (np.sqrt(second) / bias[1] + 1e-8)
        share = min(0.6, (2 + step) / (11 + step))
        kept = share * kept + (1 - share) * p
    given = torch.cat([average.w, average.log_scale[None]]).detach().numpy()
    np.testing.assert_allclose(given, kept, atol=1e-5)
    live = torch.cat([model.w, model.log_scale[None]]).detach().numpy()
    np.testing.assert_allclose(live, p, atol=1e-5)
    np.testing.assert_allclose(course.losses, np.reshape(losses, (4, 2)).mean(1), rtol=1e-5)


def test_drawn_texts_are_the_row_s_own_and_come_round() -> None:
    """One of each, and as many as there are before one comes again."""
    low = torch.tensor([0, 3, 4]).repeat(50)
    high = torch.tensor([3, 4, 9]).repeat(50)
    torch.manual_seed(0)
    one = one_of_each(low, high)
    assert ((low <= one) & (one < high)).all()
    assert set(one[::3].tolist()) == {0, 1, 2}
    some = some_of_each(low, high, 5)
    assert ((low <= some) & (some < high)).all()
    assert all(len(set(column.tolist())) == 5 for column in some.T[2::3])
    assert all(set(column[:3].tolist()) == {0, 1, 2} for column in some.T[::3])


# ---- the recipe of the bundled model, which is a configuration of the loop -----------------------


def heads(data: Corpus, *, report: Report = quiet, work: Path | None = None) -> Towers:
    """Trains two small heads from seed 3."""
    torch.manual_seed(3)
    settings = Heads(6, 8, 3e-3, 0.1, 0.3, hidden=16)
    return train_heads(data, 8, settings, CONTRAST, report=report, stage="heads", work=work)


def test_the_recipe_s_heads_are_what_a_plain_loop_makes_of_them() -> None:
    """All of it written out, from the same seed: the same weights."""
    data = corpus(32)
    given = heads(data)

    torch.manual_seed(3)
    towers = Towers(Head(1280, 8, 16, 0.3), Head(32, 8, 16, 0.3))
    average = copy.deepcopy(towers)
    maps = [*towers.image.parameters(), *towers.text.parameters()]
    scales = [towers.log_scale, towers.log_name_scale]
    optimizer = torch.optim.AdamW(
        [
            {"params": maps, "lr": 3e-3, "weight_decay": 0.1},
            {"params": scales, "lr": 1.5e-2, "weight_decay": 0.0},
        ]
    )
    step = 0
    for _ in range(6):
        order = torch.randperm(32)
        for start in range(0, 32, 8):
            rows = order[start : start + 8].sort().values
            torch.randint(1, (8,))  # of one view, this is the one
            with torch.autocast("cpu", torch.bfloat16):
                seen = towers.image(rooted(data.pooled[0, rows]))
                turn = (torch.rand(8) * 2).long()  # after dropout has drawn
                said = [data.captions[2 * rows + (turn + n) % 2] for n in range(5)]
                texts = towers.text(torch.cat(said)).view(5, 8, 8)
                scale = towers.log_scale.exp()
            losses = [info_nce(one, seen, scale) for one in texts]
            optimizer.zero_grad()
            torch.stack(losses).mean().backward()
            share = min(1, (step + 1) / 30) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / 24)))
            for group, rate in zip(optimizer.param_groups, (3e-3, 1.5e-2), strict=True):
                group["lr"] = rate * share
            optimizer.step()
            step += 1
            with torch.no_grad():
                keep = min(0.9, (1 + step) / (10 + step))
                for kept, live in zip(average.parameters(), towers.parameters(), strict=True):
                    kept.mul_(keep).add_((1 - keep) * live)
    for name, one in average.state_dict().items():
        torch.testing.assert_close(given.state_dict()[name], one, atol=1e-5, rtol=1e-4)


def test_a_killed_training_of_the_recipe_goes_on_to_the_same_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same weights, and the same chance for what comes after; other data begin anew."""
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    data = corpus(32)
    whole = heads(data).state_dict()
    after = torch.rand(3)

    class Stop(BaseException):
        pass

    def stop(stage: str, done: int, total: int) -> None:
        if done == 15:  # in the fourth epoch of four steps each
            raise Stop

    with pytest.raises(Stop):
        heads(data, report=stop, work=tmp_path)
    steps: list[int] = []
    for expected in ([*range(13, 25)], []):
        steps.clear()
        parts = heads(data, report=lambda stage, done, total: steps.append(done), work=tmp_path)
        assert steps == expected  # and nothing is left to do the next time
        assert torch.equal(torch.rand(3), after)
        for name, one in parts.state_dict().items():
            assert torch.equal(one, whole[name])
    heads(corpus(40), report=lambda stage, done, total: steps.append(done), work=tmp_path)
    assert steps[0] == 1
