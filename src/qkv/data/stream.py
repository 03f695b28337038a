"""Pairs -> ids held compactly -> Batch number `step`."""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .batches import MIX, Index, Order
from .report import Pair, SkipReport, counted

if TYPE_CHECKING:
    from ..shapes import Batch

CHUNK = 4096  # pairs per call of the tokenizer
Resample = Callable[[Pair, random.Random], tuple[list[int], list[int]]]


class Encoder(Protocol):
    """What a tokenizer must answer here."""

    def encode_batch(self, texts: Sequence[str], /) -> Sequence[Any]: ...
    def sample(self, text: str, rng: random.Random, alpha: float, /) -> list[int]: ...


@dataclass(frozen=True)
class Rows:
    """Rows of ids in one flat array: row i is flat[offsets[i]:offsets[i + 1]].  4 bytes per token."""

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | NDArray[Any]]) -> "Rows":
        parts = [np.asarray(row, dtype=np.int32) for row in rows]
        ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        return cls(np.concatenate([np.empty(0, np.int32), *parts]), ends)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> list[int]:
        row: list[int] = self.flat[self.offsets[i] : self.offsets[i + 1]].tolist()
        return row

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Corpus:
    """Encoded pairs.  `pairs` keeps the texts, for sub-word sampling, sample tables and error messages."""

    source: Rows
    target: Rows
    pairs: list[Pair]
    max_tokens: int = 0

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N, 2): source and target tokens, each with its <eos>."""
        return np.stack([self.source.lengths, self.target.lengths], axis=1) + 1


def encode(
    pairs: Iterable[Pair],
    source: Encoder,
    target: Encoder,
    report: SkipReport,
    *,
    max_tokens: int = 0,
) -> Corpus:
    """Encode both sides.  A side of more than max_tokens (<eos> included), or of none, drops its pair into the report.

    Raises DataError QKV-032 where nothing is left, QKV-033 where the tokenizer fails on more than 0.1 % of pairs."""
    stream, kept, rows, failed = iter(pairs), [], ([], []), []  # type: ignore[var-annotated]
    while chunk := list(islice(stream, CHUNK)):
        for pair, a, b in _encode(chunk, source, target):
            reason = _reason(a, b, max_tokens)
            if not reason:
                kept.append(pair)
                rows[0].append(a)
                rows[1].append(b)
                continue
            report.drop(pair.place, reason)
            if reason == "not encodable":
                failed.append(pair.place)
    total = len(kept) + len(failed)
    if len(failed) > max(1, total // 1000):
        seen = f"the tokenizer failed on {len(failed):,} of {total:,} pairs"
        raise DataError(seen, place=failed[0], fix="look at that line")
    if not kept:
        raise DataError(
            f"no usable line after encoding ({counted(report.skipped) or 'nothing was read'})",
            fix=f"raise max_tokens (now {max_tokens})" if max_tokens else "check the corpus",
            code="QKV-032",
        )
    return Corpus(Rows.of(rows[0]), Rows.of(rows[1]), kept, max_tokens)


def _encode(
    chunk: list[Pair], source: Encoder, target: Encoder
) -> list[tuple[Pair, NDArray[np.int32] | None, NDArray[np.int32] | None]]:
    try:
        a = source.encode_batch([pair.source for pair in chunk])
        b = target.encode_batch([pair.target for pair in chunk])
    except Exception:  # a poisoned record must not end a run: find it by itself
        if len(chunk) == 1:
            return [(chunk[0], None, None)]
        return [made for pair in chunk for made in _encode([pair], source, target)]
    ids = [[np.asarray(e.ids, dtype=np.int32) for e in side] for side in (a, b)]
    return list(zip(chunk, *ids, strict=True))


def _reason(a: NDArray[np.int32] | None, b: NDArray[np.int32] | None, max_tokens: int) -> str:
    if a is None or b is None:
        return "not encodable"
    if not len(a) or not len(b):
        return "no tokens"
    return "too many tokens" if max_tokens and max(len(a), len(b)) + 1 > max_tokens else ""


def collate(
    index: Index,
    source: Rows,
    target: Rows | None = None,
    *,
    pad_id: int,
    eos_id: int,
    multiple: int = 1,
    source_eos: bool = True,
) -> "Batch":
    """The examples `index` as one Batch: source (B, S), target (B, T), both ending in <eos>, right-padded to a multiple.

    Training and translation must agree on `source_eos`; both go through here."""
    import torch

    from ..shapes import Batch

    ids, keep = _padded(source, index, pad_id, eos_id if source_eos else None, multiple)
    batch = Batch(
        torch.from_numpy(ids), torch.from_numpy(keep), index=torch.from_numpy(index.copy())
    )
    if target is None:
        return batch
    ids, keep = _padded(target, index, pad_id, eos_id, multiple)
    return replace(batch, target=torch.from_numpy(ids), target_keep=torch.from_numpy(keep))


def _padded(
    rows: Rows, index: Index, pad_id: int, eos_id: int | None, multiple: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    start = rows.offsets[index]
    length = rows.offsets[index + 1] - start + (eos_id is not None)
    longest = max(1, int(length.max(initial=1)))
    at = np.arange(-(-longest // multiple) * multiple)
    keep = at < length[:, None]  # (B, S)
    if not len(rows.flat):
        ids = np.full(keep.shape, pad_id, dtype=np.int64)
    else:
        # places beyond a row read some other row's ids and are overwritten below
        ids = rows.flat.take(start[:, None] + at, mode="clip").astype(np.int64)
        ids[~keep] = pad_id
    if eos_id is not None:
        ids[np.arange(len(index)), length - 1] = eos_id
    return ids, keep


class Stream:
    """Batch number `step` of endless training: a pure function of (corpus, budget, seed, step).

    `resample` encodes a pair anew each epoch (sub-word regularisation), with a generator keyed by (seed, epoch, example).
    Batches are planned with the plain lengths, so a sampled batch may pass the budget a little; a sampled side that
    passes the corpus' max_tokens is not used: the plain ids stand."""

    def __init__(
        self,
        corpus: Corpus,
        budget: int,
        seed: int,
        *,
        pad_id: int = 0,
        eos_id: int = 2,
        multiple: int = 1,
        mix: int = MIX,
        source_eos: bool = True,
        resample: Resample | None = None,
    ) -> None:
        self.corpus, self.seed, self.resample = corpus, seed, resample
        self.order = Order(corpus.lengths, budget, seed, multiple=multiple, mix=mix)
        self._ends = {
            "pad_id": pad_id,
            "eos_id": eos_id,
            "multiple": multiple,
            "source_eos": source_eos,
        }

    @property
    def batches_per_epoch(self) -> int:
        return self.order.batches_per_epoch

    def batch(self, step: int) -> "Batch":
        """Step counts micro-batches from 0."""
        import torch

        epoch, index = self.order.batch(step)
        if self.resample is None:
            return collate(index, self.corpus.source, self.corpus.target, **self._ends)  # type: ignore[arg-type]
        rows = [self._sampled(epoch, int(i)) for i in index]
        a, b = Rows.of(r[0] for r in rows), Rows.of(r[1] for r in rows)
        batch = collate(np.arange(len(index)), a, b, **self._ends)  # type: ignore[arg-type]
        return replace(batch, index=torch.from_numpy(index.copy()))

    def _sampled(self, epoch: int, i: int) -> tuple[list[int], list[int]]:
        rng = random.Random(f"{self.seed}:{epoch}:{i}")
        a, b = self.resample(self.corpus.pairs[i], rng)  # type: ignore[misc]
        most = self.corpus.max_tokens or max(len(a), len(b)) + 1
        a = a if 0 < len(a) < most else self.corpus.source[i]
        return a, b if 0 < len(b) < most else self.corpus.target[i]


def sampler(source: Encoder, target: Encoder, alpha: float) -> Resample:
    """Sub-word sampling of both sides (Kudo 2018; BPE-dropout, Provilkov et al. 2020), for `Stream`."""

    def resample(pair: Pair, rng: random.Random) -> tuple[list[int], list[int]]:
        return source.sample(pair.source, rng, alpha), target.sample(pair.target, rng, alpha)

    return resample
