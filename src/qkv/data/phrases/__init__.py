"""The built-in Korean-English phrase corpus: a grammar that writes everyday sentences, split by combination.

pairs("train" | "dev" | "test" | "hand") -> [(Korean, English)].  Deterministic, made on first use, needs no torch.
The same Korean never has two translations; no sentence of dev, test or hand, on either side, occurs in train.
"""

from collections import Counter
from functools import cache
from typing import Literal, get_args

from qkv.errors import ConfigError, DataError, did_you_mean

Split = Literal["train", "dev", "test", "hand"]
Pair = tuple[str, str]
HELD_OUT = 0.045  # of the combinations, for each of dev and test

CATEGORIES = (
    "greetings", "suggestions", "requests", "shopping", "statements", "past", "future", "negation",
    "questions", "wishes", "duties", "ability", "reasons", "places", "transport", "weather",
    "feelings", "likes", "descriptions", "family", "time",
)  # fmt: skip


def pairs(split: str) -> list[Pair]:
    """The (Korean, English) pairs of a split, in an order that never changes.  Raises ConfigError."""
    if split not in get_args(Split):
        raise ConfigError(
            f"unknown split {split!r}", fix=did_you_mean(split, get_args(Split)), code="QKV-012"
        )
    if split == "hand":
        from .hand import PAIRS

        return list(PAIRS)
    return [(ko, en) for where, _, ko, en in _corpus() if where == split]


def count() -> dict[str, int]:
    """Generated pairs by category, largest first."""
    return dict(Counter(category for _, category, _, _ in _corpus()).most_common())


@cache
def _corpus() -> tuple[tuple[str, str, str, str], ...]:
    """(split, category, Korean, English) of every pair, in an order shuffled by hash."""
    from .frame import fraction

    groups = _groups()
    where = _assign(groups)
    rows = [
        (where[en], category, ko, en)
        for en, (_, category, koreans) in groups.items()
        for ko in koreans
    ]
    return tuple(sorted(rows, key=lambda row: fraction("order", row[2])))


def _groups() -> dict[str, tuple[str, str, list[str]]]:
    """English -> (combination key, category, its Korean sentences).

    Frames that meet in one English sentence share its group, so a split never parts them.
    Raises DataError if a Korean sentence would have two translations."""
    from . import life, linked, people, states, talk, where  # noqa: F401 - importing a module registers its frames
    from .frame import FRAMES
    from .hand import PAIRS

    ours = {side for pair in PAIRS for side in pair}
    groups: dict[str, tuple[str, str, list[str]]] = {}
    english_of: dict[str, str] = {}
    for frame in sorted(
        FRAMES, key=lambda f: f.name
    ):  # by name: the order of imports must not matter
        for key, koreans, english in frame.combinations():
            if english in ours or ours.intersection(koreans):
                continue
            group = groups.setdefault(english, (key, frame.category, []))
            for ko in koreans:
                if english_of.setdefault(ko, english) != english:
                    raise DataError(
                        f"{ko!r} means {english_of[ko]!r} and {english!r}",
                        place=frame.name,
                        fix="make the frames differ in Korean",
                    )
                if ko not in group[2]:
                    group[2].append(ko)
    return groups


def _assign(groups: dict[str, tuple[str, str, list[str]]]) -> dict[str, str]:
    """English -> split, by hash of the combination; held-out ones with a word train lacks go to train."""
    from .frame import fraction

    where = {}
    for english, (key, _, _) in groups.items():
        f = fraction("split", key)
        where[english] = "dev" if f < HELD_OUT else "test" if f < 2 * HELD_OUT else "train"

    def words(english: str) -> set[str]:
        return {word for text in (english, *groups[english][2]) for word in text.split()}

    seen = {word for english, split in where.items() if split == "train" for word in words(english)}
    for english, split in where.items():
        if split != "train" and not words(english) <= seen:
            where[english] = "train"
            seen |= words(english)
    return where
