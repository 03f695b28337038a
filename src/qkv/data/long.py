"""Long texts whose right answer is known, in the manner of the Long Range Arena (Tay et al. 2021).

listops   nested lists of digits, and what they come to (Nangia & Bowman 2018; Tay et al. 2021, section 2.2.1)

    list = ( "[MAX" | "[MIN" | "[MED" | "[SM" ) item item+ "]"
    item = digit | list

    MAX, MIN: the largest, the smallest.  MED: the middle one in order, of an even number the mean of the two in the middle,
    rounded down.  SM: the sum, of which the last digit.
    Each item is a list with probability ¼, a digit otherwise, and always a digit inside `depth` lists; a list has 2 … `args`
    items, uniformly; only texts of `least` … `length` tokens are kept.  Published: depth and args 10, 500 … 2,000 tokens.

match     do two documents mark the same letter?  Each is `least` … `length` letters, one of them after a "*"; the label is
          "same" or "different", each in half of the examples."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Literal

from ..errors import ConfigError
from .synthetic import split_of

OPERATORS: dict[str, Callable[[list[int]], int]] = {
    "[MAX": max,
    "[MIN": min,
    "[MED": lambda x: (sorted(x)[(len(x) - 1) // 2] + sorted(x)[len(x) // 2]) // 2,
    "[SM": lambda x: sum(x) % 10,
}
NAMES, END, DIGITS, MARK = tuple(OPERATORS), "]", "0123456789", "*"
NESTED = 0.25
TRIES = 20_000  # texts too short or too long in a row before a setting is called impossible


@dataclass(frozen=True)
class LongTask:
    """`n` examples of `least` … `length` tokens; depth and args are of listops."""

    name: Literal["listops", "match"]
    n: int = 10_000
    length: int = 2000
    least: int = 0  # 0: a quarter of length
    depth: int = 10
    args: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        smallest = 4 if self.name == "listops" else 1  # [MAX 1 2 ]
        for name, value, low in (
            ("n", self.n, 1),
            ("length", self.length, smallest),
            ("depth", self.depth, 1),
            ("args", self.args, 2),
        ):
            if value < low:
                raise ConfigError(f"{name} must be >= {low} (got {value})", fix=f"{name}={low}")
        if not 0 <= self.least <= self.length:
            raise ConfigError(
                f"least must be from 0 to length (got {self.least}, {self.length})",
                fix=f"least={self.length // 4}",
            )

    @property
    def shortest(self) -> int:
        return max(self.least or self.length // 4, 4 if self.name == "listops" else 1)


def examples(task: LongTask, split: str = "train") -> Iterator[tuple[str, ...]]:
    """(text, label) of listops, (text, pair, label) of match: a pure function of (task, split)."""
    rng = random.Random(f"{replace(task, n=1)}:{split}")  # more examples begin with the same ones
    make = _listops if task.name == "listops" else _match
    for _ in range(task.n):
        yield make(task, rng, split)


# -- nested lists -----------------------------------------------------------------------------------------


def _listops(task: LongTask, rng: random.Random, split: str) -> tuple[str, str]:
    """Its digits are drawn again, one at a time, until the text falls to this split."""
    tokens = _tree(task, rng)
    places = [i for i, token in enumerate(tokens) if token in DIGITS]
    while split_of(" ".join(tokens)) != split:
        tokens[rng.choice(places)] = rng.choice(DIGITS)
    return " ".join(tokens), str(value(tokens))


def _tree(task: LongTask, rng: random.Random) -> list[str]:
    for _ in range(TRIES):
        tokens: list[str] = []
        if _grow(task, rng, tokens, 1) and len(tokens) >= task.shortest:
            return tokens
    raise ConfigError(
        f"no list of {task.shortest} … {task.length} tokens in {TRIES:,} with depth {task.depth} and args {task.args}",
        fix="more depth and args for longer lists, a smaller least for shorter ones",
    )


def _grow(task: LongTask, rng: random.Random, tokens: list[str], depth: int) -> bool:
    """Write one list; False as soon as it is too long."""
    tokens.append(NAMES[int(rng.random() * len(NAMES))])
    for _ in range(2 + int(rng.random() * (task.args - 1))):
        if depth < task.depth and rng.random() < NESTED:
            if not _grow(task, rng, tokens, depth + 1):
                return False
        else:
            tokens.append(DIGITS[int(rng.random() * 10)])
        if len(tokens) >= task.length:
            return False
    tokens.append(END)
    return True


def value(tokens: list[str]) -> int:
    """What a list comes to, read from left to right."""
    open_: list[tuple[str, list[int]]] = []
    for token in tokens:
        if token in OPERATORS:
            open_.append((token, []))
            continue
        made = int(token) if token != END else _close(open_)
        if not open_:
            return made
        open_[-1][1].append(made)
    raise ValueError("a list that does not end")


def _close(open_: list[tuple[str, list[int]]]) -> int:
    name, items = open_.pop()
    return OPERATORS[name](items)


# -- two documents ----------------------------------------------------------------------------------------


def _match(task: LongTask, rng: random.Random, split: str) -> tuple[str, str, str]:
    while True:
        same = rng.random() < 0.5
        a, b = rng.sample(ascii_lowercase, 2)
        texts = [_marked(task, rng, mark) for mark in (a, a if same else b)]
        if split_of("\n".join(texts)) == split:
            return texts[0], texts[1], "same" if same else "different"


def _marked(task: LongTask, rng: random.Random, mark: str) -> str:
    row = rng.choices(ascii_lowercase, k=rng.randint(task.shortest, task.length))
    at = rng.randrange(len(row))
    row[at] = f"{MARK} {mark}"
    return " ".join(row)
