"""A query put into the words of several templates: their vectors, their weights, their mean."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from retrieval.prompts import LATIN, PromptSet, language
from retrieval.types import Tower, Vectors

Weights = NDArray[np.float32]
"""A vector ``(t,)`` of float32 that is nowhere negative and adds up to 1."""

POOL = 2_000  # vectors of an index by which templates are weighed; 100 do nearly as well
TEMPERATURE = 0.005  # of the softmax; between what one large set and one small set like best

WORDS = {
    LATIN: "dog cat bird cow horse child man woman crowd car train bus boat airplane bicycle rain "
    "sea river snow wind fire forest mountain city street house kitchen food bread flower tree "
    "music guitar piano football book clock phone computer machine",
    "zh": "狗 猫 鸟 牛 马 孩子 男人 女人 人群 汽车 火车 公共汽车 船 飞机 自行车 雨 海 河 雪 "
    "风 火 森林 山 城市 街道 房子 厨房 食物 面包 花 树 音乐 吉他 钢琴 足球 书 时钟 电话 电脑 机器",
}
"""Forty plain things to be seen, heard and read about, by which templates are tried out."""


@dataclass(frozen=True, slots=True, eq=False)
class Phrased:
    """The renderings of one query, ready to be compared and to be explained.

    Attributes:
        templates: The renderings, that is what the text tower read, in the order of the set.
        vectors: ``(t, dim)`` float32, unit rows; row ``i`` belongs to ``templates[i]``.
        weights: ``(t,)`` float32, adding up to 1.
    """

    templates: tuple[str, ...]
    vectors: Vectors
    weights: Weights

    @property
    def vector(self) -> Vectors:
        """``(1, dim)`` float32: the weighted mean of the rows, brought to length 1.

        Equal weights give the ensemble of Radford et al. 2021, arXiv 2103.00020, section 3.1.4.
        """
        mean = self.weights[None] @ self.vectors
        length = max(float(np.linalg.norm(mean)), 1e-12)  # opposite vectors cancel to nothing
        return np.asarray(mean / length, np.float32)


def phrase(query: str, prompts: PromptSet, tower: Tower) -> Phrased:
    """Embeds a query through every template of a set, all weighing the same.

    Args:
        query: Put in literally.
        prompts: Whose templates; those for the query's script.
        tower: Of texts.
    """
    renderings = prompts.render(query)
    vectors = tower.embed([tower.prepare(text) for text in renderings])
    count = len(renderings)
    return Phrased(tuple(renderings), vectors, np.full(count, 1 / count, np.float32))


def contrasts(query: str, prompts: PromptSet, tower: Tower) -> Vectors:
    """Embeds plain words through the templates that a query is put through.

    Returns:
        ``(t, words, dim)`` float32, unit rows.
    """
    words = WORDS.get(language(query), WORDS[LATIN]).split()
    texts = [text for word in words for text in prompts.render(word, like=query)]
    rows = tower.embed([tower.prepare(text) for text in texts])
    return rows.reshape(len(words), -1, rows.shape[1]).swapaxes(0, 1)


def weigh(phrased: Phrased, words: Vectors, pool: Vectors) -> Phrased:
    """Weighs the templates of a query by how well they tell things apart, without any labels.

    Zero-shot prompt ensembling (ZPE, Allingham et al. 2023, arXiv 2302.06235): plain words are put
    through each template and compared with a sample of what is searched. From each word's cosines
    their mean is taken off, since some words and templates are near to everything. A template's
    score is then the mean, over the sample, of the best word's cosine, and the weights are the
    softmax of the scores. (The paper takes off the mean over the pictures of the pretraining, too,
    which changes nothing to speak of here.) Of the query itself nothing is used: by its own best
    cosines templates were weighed worse than equally.

    Args:
        phrased: Its weights are replaced.
        words: ``(t, words, dim)`` unit rows: what ``contrasts`` gives for the same templates.
        pool: ``(n, dim)``, vectors of items of the modality that is searched.

    Returns:
        The same renderings, weighed; as they were if the pool is empty.
    """
    if not len(pool):
        return phrased
    cosines = [pool @ row.T for row in words]  # each (n, words)
    gains = [(one - one.mean(axis=0)).max(axis=1).mean() for one in cosines]
    powers = np.exp((np.array(gains) - max(gains)) / TEMPERATURE)
    return replace(phrased, weights=np.asarray(powers / powers.sum(), np.float32))
