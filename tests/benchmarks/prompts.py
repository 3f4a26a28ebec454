"""Whether templates help, by what is searched and how the query is put; prints JSON.

    python tests/benchmarks/prompts.py --data DIR --work DIR [--pairs DIR] [--stamps DIR]

``--data`` holds ``flickr8k/captions.tsv`` and ``flickr8k/images/`` (splits ``dev`` and ``train``),
and ``esc50/esc50.csv`` and ``esc50/audio/``; ``--pairs`` is the folder that ``tri_modal.py``
writes, ``--stamps`` the folder ``/usr/share/tuxpaint/stamps`` of Debian's
``tuxpaint-stamps-default``. Vectors of media and renderings are kept in ``--work`` and taken up
again.

Searched are the pictures of Flickr8k ``dev``, its captions as texts, the clips of ESC-50, and the
sounds of the pairs, one of a kind. The model was trained on ESC-50, which flatters whatever is
found there by its class's name; it was not trained on the sounds of the pairs, nor on the stamps.

Where
    ``image``, ``text`` and ``audio``: the pictures, captions and clips. ``image, noun_stamps``: 278
    photographic stamps by their 257 names, see ``quality.py``. ``audio, noun_pairs``: 102 sounds.
    ``image train``: the pictures of ``train``, on which constants were chosen.

Queries
    ``noun``: 64 words; a picture is relevant if two or more of its five captions hold the word or
    its plural, a caption if its picture is. ``phrase``: colour, size or age and one of the words
    ("black dog"), where at least three pictures have the two side by side in two captions; judged
    like nouns. ``noun_zh``: the 64 words in Chinese. ``sentence``: every caption; its own picture
    is relevant, or the four other captions of it (itself left out). Of sounds, ``noun`` and
    ``noun_zh`` are names of classes, ``sentence`` one sentence for each class as people caption
    sounds.

Measures
    ``map``: mean average precision in %, the mean over relevant items of the precision at their
    place. ``r1``, ``r10``: queries in % with a relevant item among the first or first ten.
    ``gain``: ``map`` less that of the bare query, and ``error``: the standard error of that mean
    difference over queries; a gain below twice its error is none.

Ways
    ``plain`` and the names of sets are the bundled ones; ``photo_en`` puts Chinese queries into the
    English templates; ``every`` is all sets of the modality together but ``name``; ``weighed``
    after a name means ``retrieval.phrasing.weigh`` with the searched items as its pool. How often
    ``name`` repeats, up to how many words a query is a name, and the temperature of ``weigh`` were
    chosen on the split ``train``: see ``repeats`` and ``temperatures``.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import media, phrasing, prompts, sounds
from retrieval.learn.data import read_captions, read_picture
from retrieval.learn.sound.clips import read_esc50
from retrieval.models import model
from retrieval.phrasing import Phrased
from retrieval.prompts import PromptSet
from retrieval.types import Encoder, Modality, Vectors
from tests.benchmarks.quality import embedded, stamps

Relevant = NDArray[np.bool_]

NOUNS = dict(
    pair.split(":")
    for pair in (
        "dog:狗 man:男人 woman:女人 boy:男孩 girl:女孩 child:孩子 baby:婴儿 water:水 snow:雪 "
        "grass:草地 beach:海滩 ball:球 bike:自行车 street:街道 field:田野 ocean:海洋 "
        "pool:游泳池 mountain:山 rock:岩石 lake:湖 sand:沙子 building:建筑物 park:公园 "
        "hill:山丘 hat:帽子 jacket:夹克 shirt:衬衫 skateboard:滑板 ramp:坡道 tennis:网球 "
        "soccer:足球 crowd:人群 tree:树 boat:船 frisbee:飞盘 bench:长椅 wall:墙 woods:树林 "
        "dress:连衣裙 playground:操场 car:汽车 camera:照相机 sunglasses:太阳镜 fence:栅栏 "
        "couch:沙发 table:桌子 fountain:喷泉 rope:绳子 motorcycle:摩托车 flower:花 wave:海浪 "
        "football:橄榄球 basketball:篮球 baseball:棒球 guitar:吉他 fire:火 window:窗户 "
        "bus:公共汽车 bird:鸟 helmet:头盔 stick:棍子 road:道路 surfer:冲浪者 skier:滑雪者"
    ).split()
)
"""What captions of everyday photographs name most, with the Chinese."""

PLURALS = {"man": "men", "woman": "women", "child": "children", "baby": "babies"}
QUALITIES = "black white brown red blue yellow green pink orange young little large small".split()
SEARCHED_LEAST = 3  # pictures that a phrase must have

SOUNDS = {
    "airplane": ("飞机", "an airplane flies by overhead"),
    "breathing": ("呼吸", "a person breathes heavily in and out"),
    "brushing teeth": ("刷牙", "someone brushes their teeth"),
    "can opening": ("开罐", "a can is opened with a hiss"),
    "car horn": ("汽车喇叭", "a car honks its horn on the street"),
    "cat": ("猫", "a cat meows several times"),
    "chainsaw": ("电锯", "a chainsaw revs and cuts wood"),
    "chirping birds": ("鸟鸣", "birds are chirping in the trees"),
    "church bells": ("教堂钟声", "church bells ring in the distance"),
    "clapping": ("鼓掌", "an audience claps and applauds"),
    "clock alarm": ("闹钟", "an alarm clock beeps again and again"),
    "clock tick": ("时钟滴答", "a clock ticks steadily in a quiet room"),
    "coughing": ("咳嗽", "a man coughs a few times"),
    "cow": ("牛", "a cow moos in a field"),
    "crackling fire": ("火堆噼啪", "a fire crackles and pops"),
    "crickets": ("蟋蟀", "crickets chirp at night"),
    "crow": ("乌鸦", "a crow caws loudly"),
    "crying baby": ("婴儿哭声", "a baby cries and screams"),
    "dog": ("狗", "a dog barks repeatedly"),
    "door wood creaks": ("木门吱呀", "a wooden door creaks as it opens slowly"),
    "door wood knock": ("敲木门", "someone knocks on a wooden door"),
    "drinking sipping": ("喝水", "a person sips and swallows a drink"),
    "engine": ("发动机", "an engine idles and then speeds up"),
    "fireworks": ("烟花", "fireworks explode with loud bangs"),
    "footsteps": ("脚步声", "a person walks with heavy footsteps"),
    "frog": ("青蛙", "a frog croaks in a pond"),
    "glass breaking": ("玻璃破碎", "a glass falls down and shatters"),
    "hand saw": ("手锯", "someone saws wood by hand"),
    "helicopter": ("直升机", "a helicopter hovers with spinning blades"),
    "hen": ("母鸡", "a hen clucks in the yard"),
    "insects": ("昆虫", "insects buzz around"),
    "keyboard typing": ("键盘打字", "someone types fast on a keyboard"),
    "laughing": ("笑声", "people laugh out loud together"),
    "mouse click": ("鼠标点击", "a computer mouse is clicked several times"),
    "pig": ("猪", "a pig grunts and oinks"),
    "pouring water": ("倒水", "water is poured into a glass"),
    "rain": ("雨", "rain falls heavily on the ground"),
    "rooster": ("公鸡", "a rooster crows in the morning"),
    "sea waves": ("海浪", "waves roll onto the shore"),
    "sheep": ("绵羊", "a sheep bleats"),
    "siren": ("警笛", "a siren wails as an ambulance passes"),
    "sneezing": ("打喷嚏", "a woman sneezes loudly"),
    "snoring": ("打鼾", "a man snores in his sleep"),
    "thunderstorm": ("雷暴", "thunder rumbles during a storm"),
    "toilet flush": ("冲马桶", "a toilet is flushed"),
    "train": ("火车", "a train passes by on the tracks"),
    "vacuum cleaner": ("吸尘器", "a vacuum cleaner hums in the room"),
    "washing machine": ("洗衣机", "a washing machine spins the laundry"),
    "water drops": ("水滴", "drops of water drip slowly"),
    "wind": ("风", "strong wind blows"),
}
"""The classes of ESC-50 in Chinese and as sentences."""


@dataclass(frozen=True, slots=True)
class Task:
    """Queries of one shape, and what answers them.

    Attributes:
        queries: In words.
        items: ``(n, dim)`` unit rows.
        relevant: ``(len(queries), n)``.
        own: Place of the item that a query is itself, which does not count; -1 for none.
    """

    queries: Sequence[str]
    items: Vectors
    relevant: Relevant
    own: NDArray[np.int64]


class Renderings:
    """Vectors of texts, each computed once and kept on disk."""

    def __init__(self, encoder: Encoder, folder: Path) -> None:
        self._tower = encoder.towers[Modality.TEXT]
        self._folder = folder

    def __call__(self, texts: Sequence[str]) -> Vectors:
        """Embeds texts, in order."""
        name = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()

        def embed() -> Vectors:
            return np.concatenate(
                [
                    self._tower.embed(
                        [self._tower.prepare(text) for text in texts[start : start + 500]]
                    )
                    for start in range(0, len(texts), 500)
                ]
            )

        return kept(self._folder / f"texts-{name}.npy", embed)


def kept(path: Path, make: Callable[[], Vectors]) -> Vectors:
    """Gives an array from a file, which is made where it is missing."""
    if not path.exists():
        np.save(path, make())
    return np.asarray(np.load(path), np.float32)


# ---- measuring -----------------------------------------------------------------------------------


def precisions(vectors: Vectors, task: Task) -> NDArray[np.float64]:
    """Average precision of each query, and whether its first and first ten hold an answer: (q, 3).

    Items that tie with a relevant one come before it.
    """
    result = np.empty((len(vectors), 3))
    for row, (vector, relevant, own) in enumerate(
        zip(vectors, task.relevant, task.own.tolist(), strict=True)
    ):
        cosines = task.items @ vector
        if own >= 0:
            cosines[own] = -2
        order = np.lexsort((relevant, -cosines))
        places = np.flatnonzero(relevant[order])
        result[row, 0] = np.mean(np.arange(1, len(places) + 1) / (places + 1))
        result[row, 1:] = places[0] < 1, places[0] < 10
    return result


def phrased(task: Task, used: PromptSet, embed: Renderings) -> list[Phrased]:
    """Puts all queries of a task through a set, template by template."""
    renderings = [used.render(query) for query in task.queries]
    columns = [embed(texts) for texts in zip(*renderings, strict=True)]
    count = len(columns)
    return [
        Phrased(tuple(texts), np.stack(rows), np.full(count, 1 / count, np.float32))
        for texts, *rows in zip(renderings, *columns, strict=True)
    ]


def measured(task: Task, ways: Mapping[str, PromptSet], embed: Renderings) -> dict[str, Any]:
    """Measures a task each way, the ones with several templates weighed too."""
    report: dict[str, Any] = {"queries": len(task.queries)}
    plain = precisions(embed(list(task.queries)), task)
    report["plain"] = figures(plain, plain)
    for name, used in ways.items():
        queries = phrased(task, used, embed)
        report[name] = figures(precisions(rows(queries), task), plain)
        if len(queries[0].templates) > 1:
            weights = weighed(task, used, embed)
            queries = [replace(one, weights=weights) for one in queries]
            report[f"{name} weighed"] = figures(precisions(rows(queries), task), plain)
    return report


def weighed(task: Task, used: PromptSet, embed: Renderings) -> phrasing.Weights:
    """The weights of a set's templates, which are the same for all queries of a language."""
    query = task.queries[0]
    words = phrasing.WORDS[prompts.language(query)].split()
    columns = zip(*(used.render(word, like=query) for word in words), strict=True)
    vectors = np.stack([embed(list(texts)) for texts in columns])
    equal = Phrased(("",), vectors[:1, 0], np.ones(1, np.float32))
    return phrasing.weigh(
        equal, vectors, task.items[:: max(1, len(task.items) // phrasing.POOL)]
    ).weights


def rows(queries: Sequence[Phrased]) -> Vectors:
    """The vectors of queries, ``(q, dim)``."""
    return np.concatenate([one.vector for one in queries])


def figures(found: NDArray[np.float64], plain: NDArray[np.float64]) -> dict[str, float]:
    """Rounds what ``precisions`` gave."""
    mean, first, ten = (100 * found).mean(axis=0).tolist()
    figures = {"map": round(mean, 1), "r1": round(first, 1), "r10": round(ten, 1)}
    if found is not plain:
        gain = 100 * (found - plain)[:, 0]
        figures["gain"] = round(float(gain.mean()), 2)
        figures["error"] = round(float(gain.std(ddof=1) / np.sqrt(len(gain))), 2)
    return figures


# ---- tasks ---------------------------------------------------------------------------------------


def named(captions: Sequence[Sequence[str]], query: str) -> Relevant:
    """Tells which pictures have a word or phrase in two captions or more: ``(pictures,)``."""
    start, _, noun = query.rpartition(" ")
    plural = PLURALS.get(noun, noun + ("es" if noun.endswith(("s", "ch")) else "s"))
    pattern = re.compile(rf"\b{start} ?(?:{noun}|{plural})\b", re.IGNORECASE)
    return np.array([sum(bool(pattern.search(one)) for one in five) >= 2 for five in captions])


def picture_tasks(captions: Sequence[Sequence[str]], images: Vectors) -> dict[str, Task]:
    """Nouns, phrases and sentences over pictures."""
    pairs = (f"{quality} {noun}" for quality in QUALITIES for noun in NOUNS)
    phrases = [pair for pair in pairs if named(captions, pair).sum() >= SEARCHED_LEAST]
    nouns = np.stack([named(captions, noun) for noun in NOUNS])
    five = len(captions[0])
    owner = np.repeat(np.arange(len(captions)), five)
    return {
        "noun": task(list(NOUNS), images, nouns),
        "noun_zh": task(list(NOUNS.values()), images, nouns),
        "phrase": task(phrases, images, np.stack([named(captions, one) for one in phrases])),
        "sentence": task(
            [caption for one in captions for caption in one],
            images,
            owner[:, None] == np.arange(len(captions)),
        ),
    }


def text_tasks(pictures: Mapping[str, Task], texts: Vectors) -> dict[str, Task]:
    """The same over captions."""
    five = len(texts) // len(pictures["noun"].items)
    tasks = {
        name: task(one.queries, texts, np.repeat(one.relevant, five, axis=1))
        for name, one in pictures.items()
    }
    own = np.arange(len(texts))
    sentence = tasks["sentence"]
    sentence.relevant[own, own] = False
    tasks["sentence"] = Task(sentence.queries, texts, sentence.relevant, own)
    return tasks


def sound_tasks(kinds: Sequence[str], clips: Vectors) -> dict[str, Task]:
    """Names and sentences over the clips of ESC-50."""
    relevant = np.stack([np.array(kinds) == name for name in SOUNDS])
    return {
        "noun": task(list(SOUNDS), clips, relevant),
        "noun_zh": task([chinese for chinese, _ in SOUNDS.values()], clips, relevant),
        "sentence": task([sentence for _, sentence in SOUNDS.values()], clips, relevant),
    }


def part(whole: Task, count: int) -> Task:
    """The same task with ``count`` of its queries, spread evenly."""
    step = len(whole.queries) // count
    chosen = slice(0, step * count, step)
    return Task(whole.queries[chosen], whole.items, whole.relevant[chosen], whole.own[chosen])


def task(queries: Sequence[str], items: Vectors, relevant: Relevant) -> Task:
    """Makes a task in which no query is an item."""
    return Task(queries, items, relevant, np.full(len(queries), -1))


# ---- the program ---------------------------------------------------------------------------------


def ways_of(target: Modality) -> dict[str, PromptSet]:
    """The bundled sets for a modality that are of use to everyone, and all of them together."""
    sets = prompts.bundled()
    used = {
        Modality.IMAGE: ("name", "photo", "scene", "people"),
        Modality.AUDIO: ("name", "sound"),
        Modality.TEXT: ("name", "passage"),
    }[target]
    ways = {name: sets[name] for name in used}
    if target is Modality.IMAGE:
        ways["photo_en"] = PromptSet("photo_en", "", sets["photo"].templates)
    fitting = [one for name, one in sets.items() if target in one.modalities and name != "name"]
    templates = (text for one in fitting for text in one.templates)
    ways["every"] = PromptSet("every", "", tuple(dict.fromkeys(templates)))
    return ways


def repeats(task: Task, embed: Renderings) -> dict[str, Any]:
    """A task with every query said once, twice, three times."""
    ways = {str(count): PromptSet("name", "", ("{query}",), repeat=count) for count in range(2, 4)}
    return measured(task, ways, embed)


def temperatures(task: Task, embed: Renderings) -> list[dict[str, Any]]:
    """Mean average precision through the set ``photo`` and through all, by temperature."""
    found = []
    before = phrasing.TEMPERATURE
    ways = ways_of(Modality.IMAGE)
    for name, temperature in itertools.product(("photo", "every"), (0.002, 0.005, 0.01, 0.02, 1)):
        phrasing.TEMPERATURE = temperature
        weights = weighed(task, ways[name], embed)
        queries = [replace(one, weights=weights) for one in phrased(task, ways[name], embed)]
        mean = round(100 * float(precisions(rows(queries), task)[:, 0].mean()), 2)
        found.append({"set": name, "temperature": temperature, "map": mean})
    phrasing.TEMPERATURE = before
    return found


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--stamps", type=Path)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)

    encoder = model().load()
    embed = Renderings(encoder, options.work)
    folder = options.data / "flickr8k"
    splits = read_captions(folder / "captions.tsv")

    def pictures(split: str) -> Vectors:
        tower = encoder.towers[Modality.IMAGE]
        return np.concatenate(
            [tower.embed([read_picture(folder / "images" / one.image)]) for one in splits[split]]
        )

    images = kept(options.work / "dev_images.npy", lambda: pictures("dev"))
    captions = [one.captions for one in splits["dev"]]
    over_pictures = picture_tasks(captions, images)
    texts = embed(list(over_pictures["sentence"].queries))

    clips = read_esc50(options.data / "esc50")
    heard = kept(
        options.work / "esc50.npy", lambda: listened([clip.path for clip in clips], encoder)
    )
    tasks = {
        Modality.IMAGE: over_pictures,
        Modality.TEXT: text_tasks(over_pictures, texts),
        Modality.AUDIO: sound_tasks([clip.kind.replace("_", " ") for clip in clips], heard),
    }
    if options.pairs:
        with (options.pairs / "pairs.tsv").open(encoding="utf-8", newline="") as file:
            pairs = list(csv.DictReader(file, delimiter="\t"))
        paths = [options.pairs / pair["sound"] for pair in pairs]
        items = kept(options.work / "pairs.npy", lambda: listened(paths, encoder))
        names = [pair["name"] for pair in pairs]
        tasks[Modality.AUDIO]["noun_pairs"] = task(names, items, np.eye(len(names), dtype=bool))

    if options.stamps:
        paths, nouns, _, _ = stamps(options.stamps)
        items = kept(
            options.work / "stamps.npy",
            lambda: embedded(
                encoder.towers[Modality.IMAGE], [read_picture(path) for path in paths]
            ),
        )
        names = sorted(set(nouns))
        relevant = np.array(nouns) == np.array(names)[:, None]
        tasks[Modality.IMAGE]["noun_stamps"] = task(names, items, relevant)

    report: dict[str, Any] = {"space": encoder.space}
    for target, shapes in tasks.items():
        ways = ways_of(target)
        for shape, one in shapes.items():
            some = dict(ways)
            if shape != "noun_zh":
                some.pop("photo_en", None)
            if shape == "sentence" and len(one.queries) > 1_000:  # minutes for each template
                some = dict(itertools.islice(some.items(), 2))
            report[f"{target}, {shape}"] = measured(one, some, embed)
    train = [one.captions for one in splits["train"]]
    over_train = picture_tasks(
        train, kept(options.work / "train_images.npy", lambda: pictures("train"))
    )
    report["image train, repeats"] = {
        shape: repeats(over_train[shape], embed) for shape in ("noun", "phrase")
    } | {"sentence": repeats(part(over_train["sentence"], 1_000), embed)}
    report["image train, temperatures"] = temperatures(over_train["noun"], embed)
    print(json.dumps(report, indent=2, ensure_ascii=False))


def listened(paths: Sequence[Path], encoder: Encoder) -> Vectors:
    """Embeds sounds, each as the mean of its windows, as an example is."""
    tower = encoder.towers[Modality.AUDIO]
    assert tower.rate_hz is not None
    rows = []
    for path in paths:
        assert media.modality_of(path.name) is Modality.AUDIO
        mean = sounds.embed(sounds.windows(path, tower.rate_hz), tower).vectors.mean(axis=0)
        rows.append(mean / np.linalg.norm(mean))
    return np.asarray(rows, np.float32)


if __name__ == "__main__":
    main()
