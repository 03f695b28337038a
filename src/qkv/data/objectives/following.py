"""Does B follow A?  BERT's next sentence prediction (Devlin et al. 2019, section 3.1, task 2 and appendix A.2).

    [CLS] A [SEP] B [SEP]     label 0: B is what follows A;  1: B comes from another document

A and B are runs of whole sentences.  Every sentence is in the A of exactly one example; an example's B, its label and
its masks are drawn anew in each epoch, so the number of examples is the same in all of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import Draw, Ids, Row, Specials
from .feed import check_room, share
from .masked import MaskConfig, cut_out, mask_tokens
from .texts import encoded, ids_of, sentences, some, words

PLAN = 17  # purpose of random numbers
FOLLOWS, RANDOM = 0, 1


@dataclass(frozen=True, kw_only=True)
class FollowingConfig:
    max_tokens: int = 128
    short: float = 0.1  # of the examples aim at fewer tokens, drawn uniformly from 2 up
    mask: MaskConfig | None = field(default_factory=MaskConfig)  # None: no masked tokens beside it
    seed: int = 0  # of where sentences part into A's

    def __post_init__(self) -> None:
        share("short", self.short)


class Following:
    """Examples (document, first sentence, end, tokens aimed at); `starts` has each document's sentences and its end."""

    def __init__(
        self,
        config: FollowingConfig,
        documents: Rows,
        starts: list[Ids],
        word: Rows | None,
        specials: Specials,
    ) -> None:
        check_room(config.max_tokens, specials.two.extra + 2)
        if config.mask is not None:
            specials.need("mask")
        self.config, self.documents, self.starts = config, documents, starts
        self.word, self.specials = word, specials
        self.room = config.max_tokens - specials.two.extra
        made = [part for d in range(len(starts)) for part in self._halves(d)]
        self.parts = np.array(made, dtype=np.int64).reshape(-1, 4)
        last = np.array([len(s) - 1 for s in starts])[self.parts[:, 0]]
        self._can = self.parts[:, 2] < last  # is there anything after A
        self._p = min(1.0, 0.5 / max(self._can.mean(), 1e-9))  # so that half of all B's follow

    def _halves(self, d: int) -> list[tuple[int, int, int, int]]:
        """A document's parts; one whose sentences would all be a single A is parted in its middle, so that one follows."""
        parts, starts = list(self._parts(d)), self.starts[d]
        n = len(starts) - 1
        if len(parts) > 1 or n < 2:
            return parts
        middle = int(np.searchsorted(starts, (starts[-1] + 1) // 2))
        middle = min(max(middle, 1), n - 1)
        aim = parts[0][3]
        return [(d, 0, middle, aim), (d, middle, n, aim)]

    def _parts(self, d: int) -> Iterable[tuple[int, int, int, int]]:
        """A document's sentences as A's: each takes sentences until it has half of what its example aims at."""
        starts, draw = self.starts[d], Draw(self.config.seed, 0, d, PLAN)
        first, n = 0, len(starts) - 1
        while first < n:
            aim = self.room
            if draw.chance(self.config.short):
                aim = 2 + draw.one(self.room - 1)
            end = int(np.searchsorted(starts, starts[first] + (aim + 1) // 2))
            end = min(max(end, first + 1), n)
            yield d, first, end, aim
            first = end

    @property
    def lengths(self) -> NDArray[np.int64]:
        """B is drawn, so all that is known is the most."""
        n = np.full(len(self.parts), self.config.max_tokens, dtype=np.int64)
        return np.stack([n, n], axis=1)

    def row(self, i: int, draw: Draw) -> Row:
        d, first, end, aim = self.parts[i].tolist()
        follows = bool(self._can[i]) and draw.chance(self._p)
        other, begin = (d, end) if follows else self._elsewhere(d, draw)
        a = (d, int(self.starts[d][first]), int(self.starts[d][end]))
        b = self._run(other, begin, max(1, aim - (a[2] - a[1])))
        a, b = self._trimmed(a, b, draw)
        source, segment, at = self.specials.two(self._ids(a), self._ids(b))
        label = FOLLOWS if follows else RANDOM
        if self.config.mask is None:
            return Row(source, segment=segment, label=label)
        word = None if self.word is None else self._words(a, b)
        made, chosen = mask_tokens(source, draw, self.config.mask, self.specials, word)
        return Row(made, source, chosen, segment, label=label)

    def _elsewhere(self, d: int, draw: Draw) -> tuple[int, int]:
        """A sentence of another document."""
        other = draw.one(len(self.starts) - 1)
        other += other >= d
        return other, draw.one(len(self.starts[other]) - 1)

    def _run(self, d: int, begin: int, aim: int) -> tuple[int, int, int]:
        """Sentences from `begin` on until there are `aim` tokens."""
        starts = self.starts[d]
        end = int(np.searchsorted(starts, starts[begin] + aim))
        return d, int(starts[begin]), int(starts[min(max(end, begin + 1), len(starts) - 1)])

    def _trimmed(
        self, a: tuple[int, int, int], b: tuple[int, int, int], draw: Draw
    ) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """The longer one loses tokens, each from its front or its end with equal chance, until both fit."""
        la, lb = a[2] - a[1], b[2] - b[1]
        over = max(0, la + lb - self.room)
        keep_a = min(la, max(self.room - lb, (self.room + 1) // 2))
        keep_b = min(lb, self.room - keep_a)
        front = draw.uniform(over) < 0.5
        cut_a = int(front[: la - keep_a].sum())
        cut_b = int(front[la - keep_a :].sum())
        return (
            (a[0], a[1] + cut_a, a[1] + cut_a + keep_a),
            (b[0], b[1] + cut_b, b[1] + cut_b + keep_b),
        )

    def _ids(self, span: tuple[int, int, int]) -> Ids:
        return cut_out(self.documents, *span)

    def _words(self, a: tuple[int, int, int], b: tuple[int, int, int]) -> Ids:
        """Numbers of words in the frame; special tokens have none of them."""
        if self.word is None:
            return np.empty(0, np.int64)
        first, second = cut_out(self.word, *a), cut_out(self.word, *b)
        second = second + (first.max(initial=0) + 1 - second.min(initial=0))
        # a special id stands for itself in the frame, and is never chosen: any number will do
        numbers, _, _ = self.specials.two(first, second)
        return numbers


def following(
    config: FollowingConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Following:
    """Each record's "text" is a document; sentences end at full stops and line ends.

    Raises DataError QKV-032 for fewer than two documents: there would be no other one to draw from; and where each is one
    sentence: nothing would follow."""
    kept, starts, numbers = [], [], []
    whole = config.mask is not None and config.mask.whole_words
    for record, (text,) in encoded(records, ["text"], tokenizer, report):
        ids = ids_of(text)
        if not len(ids):
            report.drop(record.place, "no tokens", record.lines)
            continue
        kept.append(ids)
        number = sentences(record.values["text"], text.offsets)
        starts.append(np.append(np.searchsorted(number, np.arange(number[-1] + 1)), len(ids)))
        if whole:
            numbers.append(words(record.values["text"], text.offsets))
    some(kept, report)
    if len(kept) < 2:
        raise DataError(
            "one document has no other to draw a false next sentence from",
            fix="set documents apart by empty lines",
            code="QKV-032",
        )
    if all(len(s) == 2 for s in starts):
        raise DataError(
            f"each of {len(kept)} documents is one sentence, which none follows",
            fix='give documents of several sentences, or objective.kind = "mlm"',
            code="QKV-032",
        )
    word = Rows.of(numbers) if whole else None
    return Following(config, Rows.of(kept), starts, word, specials)
