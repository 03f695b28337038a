"""Recurrent cells and a recurrent encoder, step by step over padded batches.

rnn    h' = act(W x + U h + b)                                       Elman 1990
lstm   i, f, g, o = W x + U h + b;  c' = σ(f) c + σ(i) tanh(g);  h' = σ(o) tanh(c')
                                                                     Hochreiter & Schmidhuber 1997
gru    r, z = σ(…);  n = tanh(W x + r (U h + b));  h' = (1 - z) n + z h     Cho et al. 2014

A padded position keeps the state it found, so a row's answer does not depend on its neighbours."""

from dataclasses import dataclass
from typing import Literal, Self

import torch
from torch import Tensor, nn

from ..shapes import Keep, States
from .dropout import Dropout

CellKind = Literal["rnn", "lstm", "gru"]
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
RNN_ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid}


@dataclass(frozen=True)
class Hidden:
    """h (R, C), and the LSTM's cell c (R, C)."""

    h: Tensor
    c: Tensor | None = None

    def reorder(self, rows: Tensor) -> Self:
        c = None if self.c is None else self.c.index_select(0, rows)
        return type(self)(self.h.index_select(0, rows), c)

    def where(self, keep: Tensor, old: Self) -> Self:
        """This state where keep (R) is true, the old one elsewhere."""
        k = keep[:, None]
        c = None if self.c is None or old.c is None else torch.where(k, self.c, old.c)
        return type(self)(torch.where(k, self.h, old.h), c)


class Cell(nn.Module):
    """One recurrent layer.  `enter` does the part that needs no state, for all positions in one product."""

    def __init__(self, kind: CellKind, d_in: int, d_hidden: int, activation: str = "tanh") -> None:
        super().__init__()
        n = GATES[kind] * d_hidden
        self.enter = nn.Linear(d_in, n)
        self.again = nn.Linear(d_hidden, n, bias=kind == "gru")
        for p in self.parameters():
            nn.init.uniform_(p, -(d_hidden**-0.5), d_hidden**-0.5)
        self.kind, self.d_hidden = kind, d_hidden
        self.act = RNN_ACTIVATIONS[activation]

    def start(self, rows: int, like: Tensor) -> Hidden:
        zeros = like.new_zeros(rows, self.d_hidden)
        return Hidden(zeros, zeros if self.kind == "lstm" else None)

    def forward(self, entered: Tensor, old: Hidden) -> Hidden:
        """entered = self.enter(x) (R, gates · C), old state -> new state."""
        again = self.again(old.h)
        if self.kind == "rnn":
            return Hidden(self.act(entered + again))
        if self.kind == "lstm" and old.c is not None:
            i, f, g, o = (entered + again).chunk(4, dim=-1)
            c = f.sigmoid() * old.c + i.sigmoid() * g.tanh()
            return Hidden(o.sigmoid() * c.tanh(), c)
        C = self.d_hidden
        r, z = (entered[:, : 2 * C] + again[:, : 2 * C]).sigmoid().chunk(2, dim=-1)
        n = (entered[:, 2 * C :] + r * again[:, 2 * C :]).tanh()
        return Hidden(n + z * (old.h - n))


class Recurrent(nn.Module):
    """Layers of cells read left to right, or both ways with half the width each.

    (B, S, C) -> states (B, S, C) and the last real state of each row (B, C), directions joined."""

    def __init__(
        self,
        kind: CellKind,
        d_in: int,
        d_model: int,
        n_layers: int,
        *,
        bidirectional: bool = False,
        dropout: float = 0.0,
        activation: str = "tanh",
    ) -> None:
        super().__init__()
        ways = 2 if bidirectional else 1
        width = d_model // ways
        self.layers = nn.ModuleList(
            nn.ModuleList(
                Cell(kind, d_in if n == 0 else d_model, width, activation) for _ in range(ways)
            )
            for n in range(n_layers)
        )
        self.drop = Dropout(dropout)

    def forward(self, x: States, keep: Keep) -> tuple[States, Tensor]:
        last = x[:, 0]
        layers: list[list[Cell]] = [list(layer) for layer in self.layers]  # type: ignore[call-overload]
        for n, layer in enumerate(layers):
            x = self.drop(x) if n else x
            read = [self.read(cell, x, keep, back=bool(way)) for way, cell in enumerate(layer)]
            x = torch.cat([states for states, _ in read], dim=-1)
            last = torch.cat([end for _, end in read], dim=-1)
        return x, last

    @staticmethod
    def read(cell: Cell, x: States, keep: Keep, back: bool) -> tuple[States, Tensor]:
        B, S, _ = x.shape
        entered, hidden = cell.enter(x).unbind(1), cell.start(B, x)
        columns, states = keep.unbind(1), [x] * S
        for t in reversed(range(S)) if back else range(S):
            hidden = cell(entered[t], hidden).where(columns[t], hidden)
            states[t] = hidden.h
        kept = torch.stack(states, dim=1) * keep[..., None]
        return kept, hidden.h


def in_sixteens(layer: nn.Module, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Run a layer on rows padded to a multiple of 16 and drop the padding: where the products of a step have one
    row per sentence, a matrix kernel chosen by their number would change last bits (law 2).  Not while training."""
    rows = inputs[0].shape[0]
    extra = -rows % 16
    if layer.training or not extra:
        out = layer(*inputs)
        return out if isinstance(out, tuple) else (out,)
    padded = [torch.cat([x, x[:1].expand(extra, *x.shape[1:])]) for x in inputs]
    out = layer(*padded)
    return tuple(y[:rows] for y in (out if isinstance(out, tuple) else (out,)))
