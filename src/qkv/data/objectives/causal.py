"""Predict the next token: documents packed into rows, or windows of one long text.

    source x_1 … x_n-1      target x_2 … x_n          p(x) = Π p(x_i | x_<i)         (Radford et al. 2018, section 3.1)

Packing (Brown et al. 2020, section 2.3) fills rows of `context` positions with several documents; unlike there they do
not see each other: `group` counts them and positions restart (Krell et al. 2021, section 3.1).  A position is a pair
(token, next token) of one document, so no loss crosses a border and none is lost where a document is cut."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigError, DataError
from ..records import Record
from ..report import SkipReport
from ..stream import Encoder, Rows
from .base import ROW, Draw, Ids, Row, Specials
from .texts import encoded, ids_of, some

if TYPE_CHECKING:
    from ...shapes import Batch

Run = tuple[int, int, int]  # document, first position, end


def check_context(context: int) -> None:
    if context < 1:
        raise ConfigError(f"context must be at least 1 (got {context})", fix="context = 256")


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """ "run": one document after the other, cut where a row is full.  "whole": only documents longer than a row are cut;
    each piece goes where it leaves the least room."""

    context: int = 256
    pack: Literal["run", "whole"] = "run"

    def __post_init__(self) -> None:
        check_context(self.context)


class Causal:
    """Packed rows; `runs[r]` says which positions of which documents stand in row r."""

    def __init__(self, config: CausalConfig, documents: Rows, specials: Specials) -> None:
        self.config, self.documents, self.specials = config, documents, specials
        positions = documents.lengths - 1
        pack = in_a_row if config.pack == "run" else best_fit
        self.runs = pack(positions.tolist(), config.context)

    @property
    def lengths(self) -> NDArray[np.int64]:
        used = [sum(b - a for _, a, b in runs) for runs in self.runs]
        return np.array([used, used], dtype=np.int64).T

    def row(self, i: int, draw: Draw) -> Row:
        parts = [self._tokens(run) for run in self.runs[i]]
        source = np.concatenate([p[:-1] for p in parts])
        group = np.repeat(np.arange(len(parts)), [len(p) - 1 for p in parts])
        target = np.concatenate([p[1:] for p in parts])
        return Row(source, target, np.ones(len(source), dtype=bool), group=group)

    def _tokens(self, run: Run) -> Ids:
        document, a, b = run
        at = int(self.documents.offsets[document])
        return self.documents.flat[at + a : at + b + 1].astype(np.int64)


def causal(
    config: CausalConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Causal:
    """Each record's "text" is a document, with <bos> and <eos> around it where there are such tokens.

    A document of which nothing can be predicted (one token, no ends) is counted as "nothing to learn"."""
    kept = []
    for record, (text,) in encoded(records, ["text"], tokenizer, report):
        ids = specials.ends(ids_of(text))
        if len(ids) < 2:
            report.drop(record.place, "nothing to learn", record.lines)
        else:
            kept.append(ids)
    some(kept, report)
    return Causal(config, Rows.of(kept), specials)


def in_a_row(positions: list[int], context: int) -> list[list[Run]]:
    """Documents one after the other; only the last row may have room left."""
    rows: list[list[Run]] = [[]]
    room = context
    for d, n in enumerate(positions):
        a = 0
        while a < n:
            if not room:
                rows.append([])
                room = context
            b = min(n, a + room)
            rows[-1].append((d, a, b))
            room -= b - a
            a = b
    return rows


def best_fit(positions: list[int], context: int) -> list[list[Run]]:
    """Pieces of at most `context`, longest first, each into the fullest row that takes it (Ding et al. 2024, section 3)."""
    cut = [
        (d, a, min(n, a + context)) for d, n in enumerate(positions) for a in range(0, n, context)
    ]
    rows: list[list[Run]] = []
    open_: list[list[int]] = [[] for _ in range(context + 1)]  # rows by the room they have left
    for run in sorted(cut, key=lambda r: (r[1] - r[2], r[0], r[1])):
        n = run[2] - run[1]
        room = next((room for room in range(n, context + 1) if open_[room]), 0)
        if room:
            row = open_[room].pop()
        else:
            row, room = len(rows), context
            rows.append([])
        rows[row].append(run)
        open_[room - n].append(row)
    return rows


# -- one long text ------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class WindowsConfig:
    context: int = 64

    def __post_init__(self) -> None:
        check_context(self.context)


class Windows:
    """One long row of ids.  Training reads random windows of it, evaluation one after the other."""

    def __init__(self, config: WindowsConfig, ids: NDArray[np.int32], specials: Specials) -> None:
        self.config, self.ids, self.specials = config, ids, specials

    @property
    def lengths(self) -> NDArray[np.int64]:
        positions, context = len(self.ids) - 1, self.config.context
        n = np.minimum(context, positions - np.arange(0, positions, context))
        return np.stack([n, n], axis=1).astype(np.int64)

    def row(self, i: int, draw: Draw) -> Row:
        """Window i of those that follow each other: every token but the first is predicted once."""
        a = i * self.config.context
        x = self.ids[a : a + self.config.context + 1].astype(np.int64)
        return Row(x[:-1], x[1:], np.ones(len(x) - 1, dtype=bool))


def windows(
    config: WindowsConfig,
    records: Iterable[Record],
    tokenizer: Encoder,
    specials: Specials,
    report: SkipReport,
) -> Windows:
    """The texts one after the other, each with its <eos> where there is such a token and more than one text."""
    parts = [ids_of(text) for _, (text,) in encoded(records, ["text"], tokenizer, report)]
    if len(parts) > 1 and specials.eos is not None:
        parts = [np.append(part, specials.eos) for part in parts]
    ids = np.concatenate([np.empty(0, np.int32), *parts]).astype(np.int32)
    if len(ids) <= config.context:
        raise DataError(
            f"a text of {len(ids)} tokens has no window of {config.context} and the token after it",
            fix="a longer text, or a smaller context",
            code="QKV-032",
        )
    return Windows(config, ids, specials)


class WindowFeed:
    """Batch number `step`: budget // context windows whose starts are drawn from (seed, step), as nanoGPT does."""

    def __init__(self, task: Windows, budget: int, seed: int) -> None:
        self.task, self.seed = task, seed
        self.rows = max(1, budget // task.config.context)
        self._at = np.arange(task.config.context + 1)

    @property
    def batches_per_epoch(self) -> int:
        """As many batches as read the text's length once."""
        return -(-len(self.task.ids) // (self.rows * self.task.config.context))

    def batch(self, step: int) -> "Batch":
        import torch

        from ...shapes import Batch

        most = len(self.task.ids) - self.task.config.context
        starts = Draw(self.seed, step, 0, ROW).below(most, self.rows)
        x = torch.from_numpy(self.task.ids[starts[:, None] + self._at].astype(np.int64))
        every = torch.ones(self.rows, self.task.config.context, dtype=torch.bool)
        source, target = x[:, :-1].contiguous(), x[:, 1:].contiguous()
        return Batch(source, every, target, every, index=torch.from_numpy(starts))


def positions_of(task: Causal) -> Iterator[tuple[int, int]]:
    """(document, position) of everything that is predicted, row by row: each once."""
    for runs in task.runs:
        for document, a, b in runs:
            yield from ((document, at) for at in range(a, b))
