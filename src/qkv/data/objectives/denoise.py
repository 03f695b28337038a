"""Mend a damaged text: T5's span corruption and BART's text infilling with sentence permutation.

T5    source  Thank you <0> me to your party <1> week       target  <0> for inviting <1> last <2>
      (Raffel et al. 2019, figure 2 and section 3.3.4: 15 % of the tokens in spans of 3 on average)
BART  source  [MASK] . A [MASK] D [MASK] E .                target  the original
      (Lewis et al. 2020, section 2.2: 30 % of the tokens in spans of Poisson(3), each span one [MASK], an empty
      span a [MASK] put in; sentences in random order)"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import Draw, Ids, Row, Specials
from .feed import check_room, share
from .masked import cut_out
from .texts import encoded, ids_of, pieces, sentences, some


def place(kept: int, spans: int, draw: Draw) -> Ids:
    """Before which of `kept` tokens (or after the last) each span stands: different places, sorted, so spans never touch."""
    return draw.some(kept + 1, spans)


def composed(total: int, parts: int, draw: Draw) -> Ids:
    """`parts` whole numbers >= 1 of sum `total`, every such list equally likely."""
    cuts = 1 + draw.some(total - 1, parts - 1)
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)


# -- T5 -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SpanConfig:
    max_tokens: int = 128  # of the damaged source, <eos> included
    rate: float = 0.15
    mean: float = 3.0  # tokens of a span

    def __post_init__(self) -> None:
        share("rate", self.rate, 1e-3)
        share("mean", self.mean, 1.0, 1000.0)

    def counts(self, n: int) -> tuple[int, int]:
        """How many tokens of n are removed, in how many spans; of one token that one."""
        noise = min(max(1, round(self.rate * n)), max(1, n - 1))
        spans = max(1, round(noise / self.mean))
        return noise, min(spans, noise, n - noise + 1)

    def sizes(self, n: int) -> tuple[int, int]:
        """Tokens of source and target of a text of n: spans and one last sentinel, <eos> included."""
        noise, spans = self.counts(n)
        return n - noise + spans + 1, noise + spans + 2

    @property
    def room(self) -> int:
        """The longest text whose damaged source still fits."""
        n = self.max_tokens
        while self.sizes(n + 1)[0] <= self.max_tokens:
            n += 1
        while n > 1 and self.sizes(n)[0] > self.max_tokens:
            n -= 1
        return n


def corrupt(ids: Ids, draw: Draw, config: SpanConfig, sentinels: Ids) -> tuple[Ids, Ids]:
    """(source, target) without <eos>: span k becomes sentinel k in the source, and follows it in the target."""
    if not len(ids):
        return ids.copy(), sentinels[:1].copy()
    noise, spans = config.counts(len(ids))
    size = composed(noise, spans, draw)
    at = place(len(ids) - noise, spans, draw)  # among the kept tokens
    begin = at + np.cumsum(size) - size
    source, target, last = [], [], 0
    for k in range(spans):
        end = int(begin[k] + size[k])
        source += [ids[last : begin[k]], sentinels[k : k + 1]]
        target += [sentinels[k : k + 1], ids[begin[k] : end]]
        last = end
    source.append(ids[last:])
    target.append(sentinels[spans : spans + 1])
    return np.concatenate(source), np.concatenate(target)


def restore(source: Ids, target: Ids, sentinels: Ids) -> Ids:
    """The text that `corrupt` damaged: each sentinel of the source replaced by what follows it in the target."""
    marks = np.flatnonzero(np.isin(target, sentinels))
    spans = {int(target[a]): target[a + 1 : b] for a, b in zip(marks[:-1], marks[1:], strict=True)}
    parts = [spans.get(i, np.array([i], np.int64)) for i in source.tolist()]
    return np.concatenate([np.empty(0, np.int64), *parts])


class Spans:
    """Pieces of texts to corrupt; `piece[i]` = (text, first token, end)."""

    def __init__(self, config: SpanConfig, texts: Rows, specials: Specials) -> None:
        check_room(config.max_tokens, 3)
        self.config, self.texts, self.specials = config, texts, specials
        specials.need("eos")
        self.piece = cut_all(texts, config.room)
        self.sentinels = np.array(specials.sentinels, dtype=np.int64)
        longest = int((self.piece[:, 2] - self.piece[:, 1]).max())
        if (needed := config.counts(longest)[1] + 1) > len(self.sentinels):
            raise ConfigError(
                f"{longest} tokens need {needed} sentinels and the tokenizer has {len(self.sentinels)}",
                fix="add <extra_id_0> … to the vocabulary, or a smaller max_tokens",
                code="QKV-013",
            )

    @property
    def lengths(self) -> NDArray[np.int64]:
        n = (self.piece[:, 2] - self.piece[:, 1]).tolist()
        return np.array([self.config.sizes(k) for k in n], dtype=np.int64)

    def row(self, i: int, draw: Draw) -> Row:
        ids = cut_out(self.texts, *self.piece[i].tolist())
        eos = self.specials.need("eos")
        source, target = corrupt(ids, draw, self.config, self.sentinels)
        return Row(np.append(source, eos), np.append(target, eos))


def cut_all(texts: Rows, room: int, sentence: Rows | None = None) -> Ids:
    """(text, first token, end) of every piece of every text, cut between sentences where they are known."""
    made = []
    for t, n in enumerate(texts.lengths.tolist()):
        ends = [] if sentence is None else (np.flatnonzero(np.diff(sentence[t])) + 1).tolist()
        made += [(t, a, b) for a, b in pieces(n, room, ends)]
    return np.array(made, dtype=np.int64).reshape(-1, 3)


def spans(
    config: SpanConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Spans:
    """Each record's "text", in pieces as long as a damaged row allows."""
    kept, _ = _texts(records, tokenizer, report, False)
    return Spans(config, kept, specials)


def _texts(
    records: Iterable[Record], tokenizer: Encoder, report: SkipReport, cut: bool
) -> tuple[Rows, Rows]:
    """The texts' ids, and where `cut` the number of the sentence of each token."""
    kept, numbers = [], []
    for record, (text,) in encoded(records, ["text"], tokenizer, report):
        ids = ids_of(text)
        if not len(ids):
            report.drop(record.place, "no tokens", record.lines)
            continue
        kept.append(ids)
        if cut:
            numbers.append(sentences(record.values["text"], text.offsets))
    some(kept, report)
    return Rows.of(kept), Rows.of(numbers)


# -- BART -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class InfillConfig:
    max_tokens: int = 128  # of the original, its ends included
    rate: float = 0.3
    mean: float = 3.0  # of the Poisson law of span lengths
    permute: bool = True  # sentences in random order

    def __post_init__(self) -> None:
        share("rate", self.rate, 0.0, 0.5)  # more could not be placed without spans that touch
        share("mean", self.mean, 0.1, 100.0)


def infill(ids: Ids, draw: Draw, config: InfillConfig, mask: int) -> Ids:
    """`rate` of the tokens on average, in spans of Poisson(mean), each span replaced by one mask; empty spans put one in
    (as many as there is room for: the result is never longer than the text)."""
    total = min(draw.rounded(config.rate * len(ids)), (len(ids) + 1) // 2)
    size, empty = _lengths(total, config.mean, draw)
    kept = len(ids) - total
    empty = min(empty, total - len(size), kept + 1 - len(size))
    at = place(kept, len(size) + empty, draw)
    sizes = np.concatenate([size, np.zeros(empty, np.int64)])[draw.order(len(at))]
    parts, last = [], 0
    for begin, n in zip((at + np.cumsum(sizes) - sizes).tolist(), sizes.tolist(), strict=True):
        parts += [ids[last:begin], [mask]]
        last = begin + n
    return np.concatenate([*parts, ids[last:]]).astype(np.int64)


def _lengths(total: int, mean: float, draw: Draw) -> tuple[Ids, int]:
    """Poisson lengths until they sum to `total`, the last one cut: those above 0, and how many were 0."""
    size: list[int] = []
    empty = done = 0
    while done < total:
        n = min(_poisson(mean, float(draw.uniform(1)[0])), total - done)
        empty += n == 0
        done += n
        size += [n] if n else []
    return np.array(size, dtype=np.int64), empty


def _poisson(mean: float, u: float) -> int:
    """The smallest n with P(N <= n) > u."""
    n, p = 0, math.exp(-mean)
    below = p
    while u >= below and n < 1000:
        n += 1
        p *= mean / n
        below += p
    return n


def permuted(ids: Ids, sentence: Ids, draw: Draw) -> Ids:
    """The sentences of `ids` in random order."""
    if not len(ids):
        return ids.copy()
    parts = np.split(ids, np.flatnonzero(np.diff(sentence)) + 1)
    return np.concatenate([parts[k] for k in draw.order(len(parts)).tolist()])


class Infill:
    """Pieces of texts, of whole sentences where they fit, to damage and to write again."""

    def __init__(
        self, config: InfillConfig, texts: Rows, sentence: Rows, specials: Specials
    ) -> None:
        self.config, self.texts, self.sentence, self.specials = config, texts, sentence, specials
        specials.need("mask")
        specials.need("eos")
        self._ends = len(specials.ends(np.empty(0, np.int64)))
        check_room(config.max_tokens, self._ends + 1)
        self.piece = cut_all(texts, config.max_tokens - self._ends, sentence)

    @property
    def lengths(self) -> NDArray[np.int64]:
        n = self.piece[:, 2] - self.piece[:, 1] + self._ends
        return np.stack([n, n], axis=1)

    def row(self, i: int, draw: Draw) -> Row:
        span = self.piece[i].tolist()
        ids = cut_out(self.texts, *span)
        damaged = permuted(ids, cut_out(self.sentence, *span), draw) if self.config.permute else ids
        damaged = infill(damaged, draw, self.config, self.specials.need("mask"))
        return Row(self.specials.ends(damaged), self.specials.ends(ids))


def infilling(
    config: InfillConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Infill:
    """Each record's "text"; sentences end at full stops and line ends."""
    kept, numbers = _texts(records, tokenizer, report, True)
    return Infill(config, kept, numbers, specials)
