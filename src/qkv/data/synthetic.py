"""Tasks whose right answer is known: copy, reverse and sort a row of symbols."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from string import ascii_lowercase
from typing import Literal

from ..errors import ConfigError

SHARES = {"train": range(0, 80), "dev": range(80, 90), "test": range(90, 100)}  # of 100


@dataclass(frozen=True)
class Task:
    """`n` examples of one task, lengths uniform in [1, length], over an alphabet of `symbols`."""

    name: Literal["copy", "reverse", "sort"]
    n: int = 10_000
    length: int = 10
    seed: int = 0
    symbols: int = 26

    def __post_init__(self) -> None:
        for name, value, least in (
            ("n", self.n, 1),
            ("length", self.length, 1),
            ("symbols", self.symbols, 2),
        ):
            if value < least:
                raise ConfigError(f"{name} must be >= {least} (got {value})", fix=f"{name}={least}")

    @property
    def alphabet(self) -> list[str]:
        """a, b, c … or, beyond 26 symbols, w00, w01 …: text order is the order that `sort` sorts by."""
        if self.symbols <= len(ascii_lowercase):
            return list(ascii_lowercase[: self.symbols])
        width = len(str(self.symbols - 1))
        return [f"w{i:0{width}}" for i in range(self.symbols)]


def answer(name: str, row: list[str]) -> list[str]:
    return row[::-1] if name == "reverse" else sorted(row) if name == "sort" else row


def split_of(text: str) -> str:
    """train, dev or test by the text itself, so that no source of one split occurs in another."""
    share = int.from_bytes(sha256(text.encode()).digest()[:8], "big") % 100
    return next(name for name, part in SHARES.items() if share in part)


def examples(task: Task, split: str = "train") -> Iterator[tuple[str, str]]:
    """(source, target) with symbols set apart by spaces: a pure function of (task, split)."""
    rng = random.Random(f"{task.seed}:{split}:{task.length}:{task.symbols}")
    alphabet = task.alphabet
    for _ in range(task.n):
        while True:
            # a length whose few rows all belong to other splits is drawn again: at length 1 that happens
            row = _row(rng, alphabet, rng.randint(1, task.length), split)
            if row:
                break
        yield " ".join(row), " ".join(answer(task.name, row))


def _row(rng: random.Random, alphabet: list[str], length: int, split: str) -> list[str]:
    for _ in range(200):
        row = rng.choices(alphabet, k=length)
        if split_of(" ".join(row)) == split:
            return row
    return []
