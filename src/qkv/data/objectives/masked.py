"""Guess hidden tokens: BERT's masked language model (Devlin et al. 2019, section 3.1, task 1 and appendix A.1).

    15 % of the tokens are chosen: 80 % of them become [MASK], 10 % a random token, 10 % stay; the loss is on the chosen.

The choice is new in every epoch (Liu et al. 2019, section 4.1)."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import Chosen, Draw, Ids, Row, Specials
from .feed import check_room, share
from .texts import encoded, ids_of, pieces, some, words


@dataclass(frozen=True, kw_only=True)
class MaskConfig:
    rate: float = 0.15
    masked: float = 0.8  # of the chosen
    random: float = 0.1  # of the chosen; the rest stays as it is
    whole_words: bool = False  # a word is chosen with all its pieces

    def __post_init__(self) -> None:
        share("rate", self.rate)
        share("masked", self.masked)
        share("random", self.random)
        if self.masked + self.random > 1 + 1e-9:
            raise ConfigError(
                f"masked + random = {self.masked + self.random:g} is more than all",
                fix="masked = 0.8, random = 0.1",
                code="QKV-013",
            )


@dataclass(frozen=True, kw_only=True)
class MaskedConfig:
    max_tokens: int = (
        128  # of a row, special tokens included; longer texts are cut into several rows
    )
    mask: MaskConfig = field(default_factory=MaskConfig)


def mask_tokens(
    ids: Ids, draw: Draw, config: MaskConfig, specials: Specials, word: Ids | None = None
) -> tuple[Ids, Chosen]:
    """(the ids with some replaced, which were chosen).  word: the number of the word each id belongs to.

    Special ids are never chosen and never drawn; at least one token is chosen where any can be.  On average `rate` of
    them are; whole words are taken in random order while they fit, as BERT's own code does."""
    may = np.flatnonzero(~specials.special(ids))
    chosen = np.zeros(len(ids), dtype=bool)
    if not len(may):
        return ids.copy(), chosen
    count = max(1, draw.rounded(config.rate * len(may)))
    if config.whole_words and word is not None:
        may = _whole(may, word, draw, count)
    else:
        may = may[draw.some(len(may), count)]
    chosen[may] = True
    fate = draw.uniform(len(may))
    made = ids.copy()
    made[may[fate < config.masked]] = specials.need("mask")
    drawn = may[(fate >= config.masked) & (fate < config.masked + config.random)]
    if len(drawn):
        made[drawn] = specials.ordinary[draw.below(len(specials.ordinary), len(drawn))]
    return made, chosen


def _whole(may: Ids, word: Ids, draw: Draw, count: int) -> Ids:
    """Places of words in random order, as many as fit into `count`; the first one always."""
    _, first, size = np.unique(word[may], return_index=True, return_counts=True)
    taken: list[int] = []
    for w in draw.order(len(first)).tolist():
        if not taken or len(taken) + size[w] <= count:
            taken += may[first[w] : first[w] + size[w]].tolist()
        if len(taken) >= count:
            break
    return np.sort(np.array(taken, dtype=np.int64))


class Masked:
    """Pieces of texts, each in its frame; `piece[i]` = (text, first token, end)."""

    def __init__(
        self, config: MaskedConfig, texts: Rows, word: Rows | None, specials: Specials
    ) -> None:
        check_room(config.max_tokens, specials.one.extra + 1)
        specials.need("mask")
        self.config, self.texts, self.word, self.specials = config, texts, word, specials
        room = config.max_tokens - specials.one.extra
        cut = ((t, a, b) for t, n in enumerate(texts.lengths.tolist()) for a, b in pieces(n, room))
        self.piece = np.array(list(cut), dtype=np.int64).reshape(-1, 3)

    @property
    def lengths(self) -> NDArray[np.int64]:
        n = self.piece[:, 2] - self.piece[:, 1] + self.specials.one.extra
        return np.stack([n, n], axis=1)

    def row(self, i: int, draw: Draw) -> Row:
        text, a, b = self.piece[i].tolist()
        ids = cut_out(self.texts, text, a, b)
        word = None if self.word is None else cut_out(self.word, text, a, b)
        made, chosen = mask_tokens(ids, draw, self.config.mask, self.specials, word)
        source, segment, at = self.specials.one(made)
        target, counts = source.copy(), np.zeros(len(source), dtype=bool)
        target[at : at + len(ids)] = ids
        counts[at : at + len(ids)] = chosen
        return Row(source, target, counts, segment=segment)


def cut_out(rows: Rows, i: int, a: int, b: int) -> Ids:
    at = int(rows.offsets[i])
    return rows.flat[at + a : at + b].astype(np.int64)


def masked(
    config: MaskedConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Masked:
    """Each record's "text" is one row, or several where it is long; texts without a token are counted."""
    kept, numbers = [], []
    for record, (text,) in encoded(records, ["text"], tokenizer, report):
        ids = ids_of(text)
        if not len(ids):
            report.drop(record.place, "no tokens", record.lines)
            continue
        kept.append(ids)
        if config.mask.whole_words:
            numbers.append(words(record.values["text"], text.offsets))
    some(kept, report)
    return Masked(config, Rows.of(kept), Rows.of(numbers) if numbers else None, specials)
