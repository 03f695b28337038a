"""What a step minimises: a sum of terms, each divided by how many of its kind the whole step holds.

    loss = Σ_t (Σ over micro-batches of the term's sum) / (Σ over micro-batches of its count)          law 11

A count is known from the batch alone (`per`: real target tokens, or rows; boxes), so the first micro-batch's gradient is
right before the last one is drawn."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import InternalError
from ..models.interface import Choices, Detected, Per, Predictions, Summed, Term, Values
from ..shapes import Batch
from .boxes import detection_terms
from .losses import TokenLoss, token_loss


def term_loss(term: Term, smoothing: float = 0.0) -> TokenLoss:
    """The sum of a term, what is logged of it, and its count.  Smoothing concerns `Predictions` alone."""
    if isinstance(term, Predictions):
        return token_loss(term, smoothing)
    if isinstance(term, Summed):
        return TokenLoss(term.total, term.total.detach(), 0)
    made = square_loss(term) if isinstance(term, Values) else choice_loss(term)
    return TokenLoss(made, made.detach(), term.labels.numel())


def square_loss(v: Values) -> Tensor:
    """Σ_n (x_n - y_n)², in float32 or float64."""
    exact = torch.promote_types(v.predicted.dtype, torch.float32)
    return (v.predicted.to(exact) - v.labels.to(exact)).square().sum()


def choice_loss(c: Choices) -> Tensor:
    """Σ_n -log softmax(z_n)[y_n], in float32 or float64; a logit of -inf has probability and gradient 0."""
    exact = torch.promote_types(c.logits.dtype, torch.float32)
    with torch.autocast(c.logits.device.type, enabled=False):
        return F.cross_entropy(c.logits.to(exact), c.labels, reduction="sum")


def terms_of(made: Any) -> tuple[Term, ...]:
    """What `loss_inputs` gave, one term or several, as a tuple with one name each."""
    made = detection_terms(made) if isinstance(made, Detected) else made
    terms: tuple[Term, ...] = made if isinstance(made, tuple) else (made,)
    names = [t.name for t in terms]
    if len(set(names)) < len(names):
        raise InternalError(f"two terms of a loss are called {names}", fix="give each a name")
    return terms


class Totals:
    """How many labels a step has of each kind, from its batches alone."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self.batches = batches
        counts = [(b.target_tokens, len(b)) for b in batches]
        self.counts: dict[Per, list[int]] = {
            "token": [tokens for tokens, _ in counts],
            "row": [rows for _, rows in counts],
        }

    def of(self, term: Term, i: int) -> float:
        """The labels of a term in all batches, given it over batch i; 1 where there are none.

        Raises InternalError where the term's own count is not what its `per` says."""
        if isinstance(term, Summed):
            return sum(map(term.count, self.batches)) or 1.0
        counts = self.counts[term.per]
        return max(1, sum(counts) * _times(term, counts[i]))


def _times(term: Predictions | Values | Choices, expected: int) -> int:
    """How many labels of a term stand for one token or row (two for the ends of a span)."""
    n = term.labels.numel()
    if n == expected:
        return 1
    if not expected or n % expected or not n or term.per == "token":
        raise InternalError(
            f"the term {term.name!r} has {n} labels where the batch has {expected} {term.per}s",
            fix='per = "row" for one answer of a row, per = "token" for real target tokens',
        )
    return n // expected
