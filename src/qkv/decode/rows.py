"""What greedy, beam and sampling share: rows in sixteens, log-probabilities, the best k without luck in ties.

R rows of a step · V vocabulary · B sources.  Nothing here reduces across rows: a row's numbers are its own."""

from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ConfigError, DataError, QkvError
from ..models.interface import Steps
from ..shapes import Batch
from .answer import SearchConfig
from .processors import Past
from .reader import Reader, Words

# matrix products agree bitwise from 16 rows up; below 12 the kernel changes (DESIGN law 2), but for those of parts.product
ROWS = 16
BLOCK = 64
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


def round_up(n: int, multiple: int = ROWS) -> int:
    return -(-n // multiple) * multiple


def source_rows(net: Any) -> int:
    """How many sources a net's encoder wants at once: 16, unless it declares `source_rows` (1: it never minds)."""
    return int(getattr(net, "source_rows", ROWS))


def pad_sources(batch: Batch, multiple: int) -> Batch:
    """The batch with its last row repeated up to a multiple of rows."""
    B = len(batch)
    if B % multiple == 0:
        return batch
    rows = torch.arange(round_up(B, multiple), device=batch.source.device).clamp(max=B - 1)
    held = {f.name: getattr(batch, f.name) for f in fields(batch)}
    more: dict[str, Any] = {n: t[rows] for n, t in held.items() if t is not None}
    return replace(batch, **more)


def filled(n: int, least: int) -> int:
    """How many rows a step of n has: a multiple of 16, or 1, 2, 4, 8 where a net takes so few (`step_rows`)."""
    return round_up(n) if n > 8 else max(1 << (n - 1).bit_length(), least)


def padded(rows: Ints, least: int, device: torch.device) -> Tensor:
    """rows, the last repeated up to `filled`."""
    more = filled(len(rows), least) - len(rows)
    full = np.concatenate((rows, np.full(more, rows[-1]))) if more else rows
    return torch.from_numpy(np.ascontiguousarray(full)).to(device)


@dataclass(frozen=True)
class Task:
    """One batch to decode: the net, the settings, and each source's own limit."""

    net: Steps
    batch: Batch
    config: SearchConfig
    limits: Ints  # (B): tokens each source may get, <eos> included
    banned: tuple[int, ...]
    reader: Reader | None = None  # where stop strings end answers
    # the log-probabilities of a step, used again by the next: fresh pages would cost as much as the softmax
    scratch: list[Tensor] = field(default_factory=list, compare=False, repr=False)

    @property
    def least(self) -> int:
        """The fewest rows of a step: 16, unless the net declares `step_rows`."""
        return int(getattr(self.net, "step_rows", ROWS))

    def padded(self, rows: Ints) -> Tensor:
        """rows, the last repeated as often as a step needs."""
        return padded(rows, self.least, self.device)

    @property
    def device(self) -> torch.device:
        return self.batch.source.device

    def begin(self, owner: Ints) -> tuple[Tensor, Any]:
        """Encode, and give row r the source owner[r].  Returns the start ids (R) and the state."""
        batch = pad_sources(self.batch, source_rows(self.net))
        state, rows = self.net.start(batch), self.padded(owner)
        B = len(self.batch)
        # rows beyond the real ones only fill up: whatever sources stand there will do
        same = len(rows) == len(batch) and len(owner) == B and bool((owner == np.arange(B)).all())
        if not same:
            state = state.reorder(rows)
        if prompted(self.net):
            return self.net.first(batch)[rows], state  # type: ignore[attr-defined]
        return torch.full_like(rows, self.net.start_id), state

    @cached_property
    def ends(self) -> tuple[int, ...]:
        """The ids that end an answer."""
        net: Any = self.net
        every = (net.eos_id, *getattr(net, "more_eos", ()), *self.config.eos_ids)
        return tuple(sorted({i for i in every if i >= 0}))

    def is_end(self, token: Ints) -> Flags:
        one = len(self.ends) == 1  # several times as fast
        found: Flags = token == self.ends[0] if one else np.isin(token, self.ends)
        return found

    @cached_property
    def prompts(self) -> list[list[int]]:
        """What each answer continues: its prompt, or the start token."""
        if not prompted(self.net):
            return [[self.net.start_id]] * len(self.batch)
        rows, keep = self.batch.source.tolist(), self.batch.keep.sum(1).tolist()
        return [row[:n] for row, n in zip(rows, keep, strict=True)]

    def past(self, owner: Ints) -> Past:
        """What row r, an answer to source owner[r], has been fed."""
        made = Past(self.config, [], self.ends)
        made.rows = [self.prompts[b] for b in owner.tolist()] if made.asked else []
        return made

    def words(self, owner: Ints) -> list[Words]:
        """The text of row r, an answer to source owner[r], where stop strings are looked for."""
        if self.reader is None:
            return []
        own = prompted(self.net)
        return [self.reader.start(self.prompts[b] if own else ()) for b in owner.tolist()]

    def log_probs(self, logits: Tensor, alive: Flags, owner: Ints, length: int) -> Tensor:
        """log softmax of the first rows of logits (R, V), float32, with what may not come at -inf.

        A live row where nothing is possible becomes all -inf.  Raises QkvError (QKV-075) on NaN or +inf."""
        x = logits[: len(alive)].float()
        if not self.scratch or len(self.scratch[0]) < len(x):
            self.scratch[:] = [torch.empty_like(x)]
        logp = torch.log_softmax(x, -1, out=self.scratch[0][: len(x)])
        # NaN, +inf, or no finite number anywhere: each makes the whole row NaN, so one column tells
        if bad := logp[:, 0].isnan().tolist():
            if any(bad):
                self._refuse(logits, np.array(bad), alive, owner, length)
                logp[torch.tensor(bad, device=logp.device)] = -torch.inf
        if len(self.banned) > 4:
            logp[:, list(self.banned)] = -torch.inf
        for i in self.banned if len(self.banned) <= 4 else ():  # a few: column by column is faster
            logp[:, i] = -torch.inf
        for i in self.ends if length < self.config.min_new_tokens else ():
            if i < logp.shape[1]:  # publishers name ends that their models cannot say
                logp[:, i] = -torch.inf
        return logp

    def _refuse(self, logits: Tensor, bad: Flags, alive: Flags, owner: Ints, length: int) -> None:
        for row in np.flatnonzero(bad & alive):
            seen = logits[row]
            if bool((seen.isnan() | (seen == torch.inf)).any()):
                b = int(owner[row])
                index = b if self.batch.index is None else int(self.batch.index[b])
                raise QkvError(
                    f"the logits of target position {length} hold NaN or +inf (row {row})",
                    place=f"source {index}",
                    fix="check the checkpoint (qkv doctor), or decode in float32",
                    code="QKV-075",
                )


def prompted(net: Any) -> bool:
    """Does the net continue its source (a decoder alone), rather than answer it?"""
    return bool(getattr(net, "prompted", False))


def limits(net: Steps, batch: Batch, config: SearchConfig) -> Ints:
    """Tokens each source may get, <eos> included: max_new_tokens, or 2 x its real length + 10; (B).

    A prompt and its answer share the net's positions, so there the answer gets what is left.  A source's limit never
    depends on its neighbours.  Raises ConfigError where the model cannot hold it, DataError QKV-037 for a full prompt."""
    most, asked = net.max_positions, config.max_new_tokens
    lengths: Ints = batch.keep.sum(1).cpu().numpy().astype(np.int64)
    wanted = 2 * lengths + 10 if asked is None else np.full(len(batch), asked, dtype=np.int64)
    if most is None:
        return wanted
    if prompted(net):
        if (full := np.flatnonzero(lengths >= most)).size:
            index = int(full[0]) if batch.index is None else int(batch.index[full[0]])
            raise DataError(
                f"a prompt of {int(lengths[full[0]])} tokens leaves no room in {most} positions",
                place=f"source {index}",
                fix=f"shorten it to {most - 1} tokens at most",
                code="QKV-037",
            )
        return np.minimum(wanted, most - lengths)
    if asked is not None and asked > most:
        raise ConfigError(
            f"max_new_tokens {asked} is beyond the {most} positions of the model",
            fix=f"try max_new_tokens={most}",
        )
    return np.minimum(wanted, most)


def banned_ids(net: Steps, extra: tuple[int, ...]) -> tuple[int, ...]:
    """What the net bans, and what the caller does.  A net that says nothing bans padding and the start token, but for
    one that is <eos> too (BART starts with it)."""
    own = getattr(net, "banned", None)
    given = {net.pad_id, net.start_id} - {net.eos_id} if own is None else set(own)
    return tuple(sorted(given | (set(extra) - {net.eos_id})))


def top(logp: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row (R, V) -> values (R, k), ids (R, k): best first, equal ones by lowest id.

    torch.topk leaves the order of equal values open, so rows that hold a tie are ranked again."""
    V = logp.shape[1]
    k = min(k, V)
    if 2 * k >= V > BLOCK:
        made = torch.sort(logp, dim=-1, descending=True, stable=True)
        return made.values[:, :k], made.indices[:, :k]
    values, ids = _best(logp, min(k + 1, V))  # one more: a tie across the border counts too
    tied = ((values[:, 1:] == values[:, :-1]) & (values[:, 1:] > -torch.inf)).any(1)
    values, ids = values[:, :k], ids[:, :k]
    if bool(tied.any()):
        rows = tied.nonzero()[:, 0]
        values, ids = values.clone(), ids.clone()
        values[rows], ids[rows] = _ranked(logp[rows], values[rows, -1], k)
    return values, ids


def _best(logp: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """torch.topk, two to six times as fast where V is large: the k best stand in the k blocks of best maxima."""
    R, V = logp.shape
    n = V // BLOCK
    if n < 4 * k or n < 16:
        values, ids = logp.topk(k)
        return values, ids
    maxima = logp[:, : n * BLOCK].view(R, n, BLOCK).amax(-1)  # (R, n)
    block = maxima.topk(k, sorted=False).indices
    within = torch.arange(BLOCK, device=logp.device)
    ids = (block[:, :, None] * BLOCK + within).flatten(1)  # (R, k, BLOCK) -> (R, k * BLOCK)
    rest = torch.arange(n * BLOCK, V, device=logp.device).expand(R, -1)
    ids = torch.cat((ids, rest), 1)
    values, place = logp.gather(1, ids).topk(k)
    return values, ids.gather(1, place)


def _ranked(logp: Tensor, least: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`top` of rows with ties: all that reach the k-th value, by value and then id."""
    row, col = (logp >= least[:, None]).nonzero(as_tuple=True)
    value = logp[row, col]
    order = np.lexsort((col.cpu().numpy(), -value.cpu().numpy(), row.cpu().numpy()))
    place = torch.from_numpy(order).to(logp.device)
    first = torch.searchsorted(row, torch.arange(len(logp), device=logp.device))
    chosen = place[first[:, None] + torch.arange(k, device=logp.device)]
    return value[chosen], col[chosen]
