"""Lists of token ids in, answers in the same order out: sorting, batching, limits, and forced scoring.

Sentences are sorted by length and put into batches of at most `batch_tokens` padded tokens; by law 2 this changes
the time, never an answer."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch

from ..errors import ConfigError, DataError, QkvError
from ..models.interface import Steps
from ..shapes import Batch, Logits, pad
from .answer import Hypothesis, SearchConfig
from .reader import Reader
from .rows import ROWS, pad_sources, prompted, round_up, source_rows
from .search import search, steps

Rows = list[list[int]]
Collate = Callable[[Rows], Batch]
# an empty source is not worth asking a model about: its answer is <eos>, for sure
NOTHING = Hypothesis((), 0.0, True, (0.0,))


class Scores(Steps, Protocol):
    """What forced scoring asks of a model beyond search."""

    def logits(self, batch: Batch) -> Logits: ...


@dataclass(frozen=True)
class Forced:
    """log P of a given target: its tokens' log-probabilities, <eos> last, and their sum in float64."""

    score: float
    token_scores: tuple[float, ...]


@torch.inference_mode()
def force(net: Scores, batch: Batch) -> list[Forced]:
    """log P(target | source) of every row of a batch that has targets, from one teacher-forced pass.

    Raises DataError without targets, QkvError (QKV-075) where a log-probability is NaN."""
    if batch.target is None or batch.target_keep is None:
        raise DataError("forced scoring needs targets", fix="give a target for every source")
    if not len(batch):
        return []
    logits = net.logits(pad_sources(batch, source_rows(net)))
    made = []
    for b, length in enumerate(
        batch.target_keep.sum(1).tolist()
    ):  # row by row: one (T, V) copy, not (B, T, V)
        logp = torch.log_softmax(logits[b, :length].float(), -1)
        scores = logp.gather(1, batch.target[b, :length, None])[:, 0].tolist()
        if any(s != s for s in scores):
            index = b if batch.index is None else int(batch.index[b])
            raise QkvError(
                "the logits of a given target are not finite",
                place=f"source {index}",
                fix="check the checkpoint (qkv doctor), or score in float32",
                code="QKV-075",
            )
        made.append(Forced(list(accumulate(scores, initial=0.0))[-1], tuple(scores)))
    return made


class Engine:
    """Answers lists of source ids.  `max_source`: the longest source the net can hold (None: its positions)."""

    def __init__(
        self,
        net: Any,
        config: SearchConfig | None = None,
        *,
        collate: Collate | None = None,
        batch_tokens: int = 4096,
        max_source: int | None = None,
        banned: tuple[int, ...] = (),
        reader: Reader | None = None,
    ) -> None:
        self.net, self.config = net, config or SearchConfig()
        self.collate = collate or self._collate
        self.batch_tokens, self.banned, self.reader = batch_tokens, banned, reader
        self.max_source = net.max_positions if max_source is None else max_source
        if prompted(net) and net.max_positions is not None:
            self.max_source = min(self.max_source, net.max_positions - 1)  # room for an answer

    def __call__(self, sources: Sequence[Sequence[int]]) -> list[list[Hypothesis]]:
        """The n-best answers of every source, in the order of the request."""
        answers: list[list[Hypothesis]] = [[] for _ in sources]
        for i, answer in self.stream(sources):
            answers[i] = answer
        return answers

    def stream(self, sources: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[Hypothesis]]]:
        """(number of the source, its answers) as batches are done, the longest sources first.

        Raises DataError (QKV-037) before anything is computed where a source is too long."""
        sources = self._begun(sources)
        self._check(sources, "source", self.max_source)
        for i, source in enumerate(sources):
            if not len(source):
                yield i, [NOTHING] * (self.config.nbest if self.config.sampling else 1)
        sizes = [len(source) for source in sources]
        for group in plan(sizes, self.batch_tokens):
            batch = self._batch(sources, group)
            how: Any = {"banned": self.banned, "reader": self.reader}
            yield from zip(group, search(self.net, batch, self.config, **how), strict=True)

    def tokens(self, sources: Sequence[Sequence[int]]) -> Iterator[tuple[int, int, float]]:
        """(number of the source, token, its log-probability) as they come: one greedy or sampled answer each.

        The sources go on side by side, in one batch.  <eos> is not told.  Raises ConfigError QKV-013 for a beam."""
        if self.config.beam > 1 or self.config.nbest > 1 or self.config.coverage > 0:
            raise ConfigError(
                f"beam {self.config.beam}, nbest {self.config.nbest}: the best answer is known at the end only",
                fix="beam=1 to read along, or wait for the whole answer",
                code="QKV-013",
            )
        sources = self._begun(sources)
        self._check(sources, "source", self.max_source)
        group = [i for i, source in enumerate(sources) if len(source)]
        if not group:
            return
        batch = self._batch(sources, group)
        how: Any = {"banned": self.banned, "reader": self.reader}
        for taken in steps(self.net, batch, self.config, **how):
            for a, token, score, ended in zip(
                taken.answers, taken.tokens, taken.scores, taken.ended, strict=True
            ):
                if not ended:
                    yield group[a], int(token), float(score)

    def pieces(self, sources: Sequence[Sequence[int]]) -> Iterator[tuple[int, str]]:
        """(number of the source, text) as it comes: never half a character, nor a part of a stop string.

        The pieces of an answer joined are its text.  Raises ConfigError QKV-015 without a reader."""
        if self.reader is None:
            raise ConfigError("text needs a reader", fix="give Engine a reader", code="QKV-015")
        own = prompted(self.net)
        words = [self.reader.start(source if own else ()) for source in self._begun(sources)]
        for i, token, _ in self.tokens(sources):
            if piece := words[i].add(token):
                yield i, piece
        for i, word in enumerate(words):
            if piece := word.close():
                yield i, piece

    def _begun(self, sources: Sequence[Sequence[int]]) -> Sequence[Sequence[int]]:
        """Where the net continues its source, an empty one begins with the start token.

        Raises DataError QKV-032 where the net has none."""
        if not prompted(self.net) or all(len(source) for source in sources):
            return sources
        if self.net.start_id < 0:
            raise DataError(
                "nothing to continue, and the model has no token to begin with",
                place=f"prompt {[len(source) for source in sources].index(0)}",
                fix="give a prompt",
                code="QKV-032",
            )
        return [source if len(source) else [self.net.start_id] for source in sources]

    def force(
        self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[Forced]:
        """log P of each target (ids without <eos>) given its source, in the order of the request.

        Raises DataError where counts differ, a source is empty, or a side is too long."""
        if len(sources) != len(targets):
            raise DataError(
                f"{len(sources)} sources but {len(targets)} targets", fix="give one target each"
            )
        self._check(sources, "source", self.max_source)
        for i, source in enumerate(sources):
            if not len(source):
                raise DataError(
                    "nothing to read",
                    place=f"source {i}",
                    fix="leave this pair out",
                    code="QKV-032",
                )
        ended = [[*target, self.net.eos_id] for target in targets]
        self._check(ended, "target", self.net.max_positions)
        answers = [Forced(0.0, ()) for _ in sources]
        sizes = [max(len(s), len(t)) for s, t in zip(sources, ended, strict=True)]
        for group in plan(sizes, self.batch_tokens):
            batch = self._batch(sources, group)
            target, keep = _padded(
                [ended[i] for i in group], self.net.pad_id, self.net.max_positions
            )
            device = batch.source.device
            full = Batch(batch.source, batch.keep, target.to(device), keep.to(device), batch.index)
            for i, answer in zip(group, force(self.net, full), strict=True):
                answers[i] = answer
        return answers

    def _batch(self, sources: Sequence[Sequence[int]], group: list[int]) -> Batch:
        made = self.collate([list(sources[i]) for i in group])
        index = torch.tensor(group, device=made.source.device)
        return Batch(made.source, made.keep, made.target, made.target_keep, index)

    def _collate(self, rows: Rows) -> Batch:
        source, keep = _padded(rows, self.net.pad_id, self.max_source)
        weight = (
            next(iter(self.net.parameters()), None) if hasattr(self.net, "parameters") else None
        )
        return Batch(source, keep) if weight is None else Batch(source, keep).to(weight.device)

    def _check(self, rows: Sequence[Sequence[int]], side: str, most: int | None) -> None:
        own = prompted(self.net) and side == "source"
        V = getattr(self.net, "vocab_size", None)
        for i, row in enumerate(rows):
            place = f"{'prompt' if own else side} {i}"
            if most is not None and len(row) > most:
                raise DataError(
                    f"{len(row)} tokens, but the model holds {most}"
                    + (" and a token of the answer" if own else ""),
                    place=place,
                    fix="shorten it" if own else "split it into sentences",
                    code="QKV-037",
                )
            if V is not None and len(row) and not (0 <= min(row) and max(row) < V):
                raise DataError(
                    f"ids {min(row)} … {max(row)}, but the model's vocabulary has {V}",
                    place=place,
                    fix="encode the text with the model's own tokenizer",
                    code="QKV-041",
                )


def plan(sizes: list[int], batch_tokens: int) -> list[list[int]]:
    """Batches of the rows that are not empty: the longest first, each of <= batch_tokens padded tokens.

    A row longer than that stands alone."""
    order = sorted((i for i, size in enumerate(sizes) if size), key=lambda i: (-sizes[i], i))
    made: list[list[int]] = []
    for i in order:
        width = round_up(sizes[made[-1][0]]) if made else 0
        if made and (len(made[-1]) + 1) * width <= batch_tokens:
            made[-1].append(i)
        else:
            made.append([i])
    return made


def _padded(rows: Rows, pad_id: int, most: int | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded to a multiple of 16, but never beyond what the model holds."""
    ids, keep = pad(rows, pad_id, ROWS)
    longest = max(len(row) for row in rows)
    width = ids.shape[1] if most is None else max(longest, min(ids.shape[1], most))
    return ids[:, :width].contiguous(), keep[:, :width].contiguous()
