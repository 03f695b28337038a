"""What training and decoding may ask of a model.  Search, measurement and the page know nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WeightsError
from ..parts.heads import mean_state
from ..shapes import Batch, Keep, Logits, States


@dataclass(frozen=True)
class Memory:
    """An encoded source: one state per token, who is real, and one vector for the whole sentence."""

    states: States  # (B, S, C)
    keep: Keep  # (B, S)
    summary: Tensor  # (B, C): an RNN's last state; the mean of a Transformer's states

    @property
    def mean(self) -> Tensor:
        """(B, C): the mean of the real states; zeros where there is none."""
        return mean_state(self.states, self.keep)


Per = Literal["token", "row"]  # what N counts: the batch's real target tokens, or its rows


@dataclass(frozen=True)
class Predictions:
    """Everything a token loss needs, before the largest product of the step is computed.

    logits (N, V) = states @ weight.T + bias, over the N real target tokens of the batch only, or, with per = "row",
    over its rows (a class of each text, whether one sentence follows another)."""

    states: Tensor  # (N, C)
    weight: Tensor  # (V, C)
    bias: Tensor | None  # (V)
    labels: Tensor  # (N) int64
    per: Per = "token"
    name: str = "token"


@dataclass(frozen=True)
class Values:
    """Numbers to be near: Σ (predicted - label)²; one of each row (similarity of two texts, a rating)."""

    predicted: Tensor  # (N)
    labels: Tensor  # (N) float
    per: Per = "row"
    name: str = "value"


@dataclass(frozen=True)
class Choices:
    """One of K given logits is right; -inf marks what cannot be chosen.  Several per row may stand one after another:
    N is a whole multiple of the batch's rows."""

    logits: Tensor  # (N, K)
    labels: Tensor  # (N) int64
    per: Per = "row"
    name: str = "choice"

    @classmethod
    def spans(cls, first: Tensor, last: Tensor, keep: Keep, label: Tensor) -> Self:
        """The ends of an answer, Devlin et al. 2019, section 4.2: scores (B, S) of being its first and last token.

        keep (B, S): where an answer may begin or end; label (B, 2).  The loss is the mean over all 2B choices."""
        logits = torch.cat([first, last]).masked_fill(~torch.cat([keep, keep]), -torch.inf)
        return cls(logits, label.T.reshape(-1), name="span")

    @classmethod
    def pairs(
        cls, a: Tensor, b: Tensor, temperature: float = 0.05, same: Tensor | None = None
    ) -> Self:
        """In-batch negatives: cos(a_i, b_j) / temperature, b_i is right (Gao et al. 2021, equation 1).

        a, b (B, C).  same (B): rows with equal numbers say the same thing and are no negatives of each other."""
        logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature  # (B, B)
        if same is not None:
            equal = same[:, None] == same
            equal.fill_diagonal_(False)
            logits = logits.masked_fill(equal, -torch.inf)
        return cls(logits, torch.arange(len(a), device=a.device), name="pair")


@dataclass(frozen=True, kw_only=True)
class BoxWeights:
    """How a box is matched with a query, and what its losses weigh (Carion et al. 2020, section 3.1)."""

    match_class: float = 1.0
    match_box: float = 5.0
    match_giou: float = 2.0
    box: float = 5.0
    giou: float = 2.0
    nothing: float = 0.1  # of a query without a box, in the loss of classes


@dataclass(frozen=True)
class Detected:
    """What N queries say of B pictures after each of L layers, and what is there; `learn.boxes` makes its terms."""

    logits: Tensor  # (L, B, N, K + 1), the last class: nothing
    boxes: Tensor  # (L, B, N, 4): centre x, y, width, height in 0 … 1
    labels: Tensor  # (B, M) int64, -1 where there is none
    truth: Tensor  # (B, M, 4)
    weights: BoxWeights


@dataclass(frozen=True)
class Summed:
    """A sum that is made already, and how much of what it is divided by a batch has: known from the batch alone."""

    total: Tensor
    count: Callable[[Batch], float]
    name: str


Term = Predictions | Values | Choices | Summed


def chosen(x: Tensor, keep: Keep) -> Tensor:
    """x[keep], (B, T, …) -> (N, …); without the search for indices where all are kept."""
    if not torch.compiler.is_compiling() and bool(keep.all()):
        return x.flatten(0, 1)
    return x[keep]


class State(Protocol):
    """What a model remembers between two steps of decoding.  An argument and a result, never an attribute."""

    def reorder(self, rows: Tensor) -> Self:
        """The state whose row r is this state's row rows[r].  rows (R') int64; repeats are allowed."""
        ...


class Steps(Protocol):
    """What search asks of a model; RNN, Transformer and a test's fake all answer."""

    start_id: int
    eos_id: int
    pad_id: int
    max_positions: int | None  # longest target the model can hold; None: no limit

    def start(self, batch: Batch) -> Any:
        """Encode the sources and return the state before the first token, one row per source."""
        ...

    def step(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Feed one token per row: ids (R) -> logits (R, V) of the next token, and the state after it."""
        ...


class Seq2Seq(Steps, Protocol):
    """A model that reads a source and writes a target."""

    def encode(self, batch: Batch) -> Memory: ...

    def logits(self, batch: Batch) -> Logits:
        """Teacher-forced logits (B, T, V) of every target position, padding included."""
        ...

    def loss_inputs(
        self, batch: Batch, *, forcing: float = 1.0, rng: Any | None = None
    ) -> Predictions:
        """The N real target tokens as states and labels.  forcing: the share of target tokens that are
        fed from the data; the rest are the model's own guesses (Bengio et al. 2015)."""
        ...


def state_of(net: nn.Module) -> dict[str, Tensor]:
    """Every parameter and stored buffer once, under its first name: shared matrices are not repeated."""
    kept = {n: p.detach() for n, p in net.named_parameters()}
    stored = net.state_dict()
    return kept | {n: b for n, b in net.named_buffers() if n in stored}


def set_state(net: nn.Module, tensors: Mapping[str, Tensor], *, place: object = "") -> None:
    """The inverse of `state_of`, in place.  Raises WeightsError where names or shapes differ."""
    own = state_of(net)
    if missing := sorted(own.keys() ^ tensors.keys()):
        raise WeightsError(
            f"{len(missing)} tensors missing or unexpected, first: {missing[0]}",
            place=place,
            fix="is this a checkpoint of the same model?",
            code="QKV-051",
        )
    for name, tensor in own.items():  # all of them before the first is changed
        if tensor.shape != tensors[name].shape:
            raise WeightsError(
                f"{name} is {tuple(tensors[name].shape)}, the model needs {tuple(tensor.shape)}",
                place=place,
                fix="is this a checkpoint of the same model?",
                code="QKV-052",
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])


HEADS = ("head.", "pooler.", "queries.")  # what a net of another task may lack or bring along


def of_a_task(name: str) -> bool:
    """Is it a head's, or a table that is drawn and not learned?"""
    return name.startswith(HEADS) or name.endswith(".favor.features")


def adopt(net: nn.Module, tensors: Mapping[str, Tensor], *, place: object = "") -> list[str]:
    """Fine-tuning: take over all that the net shares with a checkpoint of another task, in place.

    Returns the names of the tensors that stay as they were made: those of a head the checkpoint does not have, or has
    for another number of labels, and random features of another number.  Raises WeightsError where anything else is missing, left over or of another shape."""
    own = state_of(net)
    fresh = [
        name
        for name, tensor in own.items()
        if of_a_task(name) and (name not in tensors or tensors[name].shape != tensor.shape)
    ]
    left = {name for name in tensors if name not in own and of_a_task(name)}
    taken = {name: t for name, t in tensors.items() if name not in left}
    set_state(net, taken | {name: own[name] for name in fresh}, place=place)
    return fresh
