"""Texts that mean the same come near each other: contrastive pairs with in-batch negatives (Gao et al. 2021, section 2.1).

    source  the first texts         target  the second texts         a_i belongs to b_i and to no other b_j

`label` numbers what rows say: rows of equal number are no negatives of each other."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..formats import plain
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import Draw, Ids, Row, Specials
from .feed import check_room
from .texts import encoded, ids_of, some


@dataclass(frozen=True, kw_only=True)
class ContrastConfig:
    max_tokens: int = 64  # of each text; longer ones are cut at the end


class Contrast:
    """Texts in groups: `groups[g]` are the texts that mean the same, `example[i]` = (group, place in it) of row i."""

    def __init__(
        self,
        config: ContrastConfig,
        texts: Rows,
        groups: list[list[int]],
        paired: bool,
        specials: Specials,
    ) -> None:
        self.config, self.texts, self.groups, self.specials = config, texts, groups, specials
        made = [
            (g, k) for g, group in enumerate(groups) for k in range(1 if paired else len(group))
        ]
        self.example = np.array(made, dtype=np.int64).reshape(-1, 2)
        self.same = _named(texts, groups)

    @property
    def lengths(self) -> NDArray[np.int64]:
        n = self.texts.lengths + self.specials.one.extra
        own = [n[self.groups[g][k]] for g, k in self.example.tolist()]
        other = [max(n[t] for t in self.groups[g]) for g, _ in self.example.tolist()]
        return np.array([own, other], dtype=np.int64).T

    def row(self, i: int, draw: Draw) -> Row:
        """The text with another of its group, drawn where there are several."""
        g, k = self.example[i].tolist()
        group = self.groups[g]
        other = draw.one(len(group) - 1)
        other += other >= k
        return Row(self._framed(group[k]), self._framed(group[other]), label=self.same[g])

    def _framed(self, text: int) -> Ids:
        return self.specials.one(np.array(self.texts[text], dtype=np.int64))[0]


def _named(texts: Rows, groups: list[list[int]]) -> list[int]:
    """A number for each group; groups that share a text have the same."""
    owner: dict[tuple[int, ...], int] = {}
    made = list(range(len(groups)))

    def root(g: int) -> int:
        while made[g] != g:
            g = made[g]
        return g

    for g, group in enumerate(groups):
        for t in group:
            known = root(owner.setdefault(tuple(texts[t]), g))
            made[max(known, root(g))] = min(known, root(g))
    return [root(g) for g in range(len(groups))]


def contrast(
    config: ContrastConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Contrast:
    """Records with "text" and "pair", or with "text" and "group".  A text alone in its group is counted."""
    check_room(config.max_tokens, specials.one.extra + 1)
    kept = list(records)
    paired = bool(kept) and "pair" in kept[0].values
    room = config.max_tokens - specials.one.extra
    texts: list[Ids] = []
    groups: dict[str, list[int]] = {}
    of: list[tuple[str, Record]] = []
    for record, made in encoded(kept, ["text", "pair"] if paired else ["text"], tokenizer, report):
        if not all(len(e.ids) for e in made):
            report.drop(record.place, "no tokens", record.lines)
            continue
        report.shortened += any(len(e.ids) > room for e in made)
        name = record.place if paired else plain(record.values.get("group"))
        groups.setdefault(name, []).extend(range(len(texts), len(texts) + len(made)))
        texts += [ids_of(e)[:room] for e in made]
        of.append((name, record))
    for name, record in of:
        if len(groups[name]) < 2:
            report.drop(record.place, "alone in its group", record.lines)
    several = [group for group in groups.values() if len(group) > 1]
    some(several, report)
    return Contrast(config, Rows.of(texts), several, paired, specials)
