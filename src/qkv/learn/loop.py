"""The only training loop.  Pre-training, fine-tuning and LoRA differ in data, objective and what requires a gradient.

Step k (from 1) draws batches k·a … k·a+a-1 of the stream, drops out with noise keyed (seed, k, micro-batch) and moves with
the rate of the updates applied so far: nothing random is remembered, so a resumed run is the uninterrupted one, bit for bit."""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from ..errors import ConfigError, DivergedError, Interrupted, OutOfMemoryError, Preempted
from ..models.interface import set_state, state_of
from ..parts.dropout import noise
from ..parts.favor import redraw, redrawn
from ..shapes import Batch
from .optim import OptimConfig, adamw, gradient_norm, learning_rate, set_rate
from .speed import keep_freed_memory, mixed
from .terms import Totals, term_loss, terms_of

Weights = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int = 2000
    batch_tokens: int = 4096  # padded tokens of the longer side, of one micro-batch
    batch_rows: int = 64  # … of pictures: how many
    accumulate: int = 1  # micro-batches per step
    smoothing: float = 0.1  # label smoothing
    forcing: float = 1.0  # the share of target tokens fed from the data (teacher forcing)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: bool = False
    ema: float = 0.0  # decay of an exponential moving average of the weights; 0: none
    average: int = 0  # the last n snapshots are averaged into the final model; 0: none
    eval_every: int = 200  # also when snapshots are taken and `last` is written
    save_every: int = 200  # how much work a kill may cost
    log_every: int = 20
    patience: int = 0  # stop after so many evaluations without a better one; 0: never
    keep_best: int = 1
    metric: str = (
        "dev/loss"  # what "best" means; dev/loss, dev/perplexity, dev/ter: low; others: high
    )

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_tokens",
            "batch_rows",
            "accumulate",
            "eval_every",
            "save_every",
            "log_every",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"train.{name} must be at least 1 (got {getattr(self, name)})",
                    fix=f"try train.{name}=100",
                )
        for name in ("smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"train.{name} must be in [0, 1) (got {getattr(self, name)})",
                    fix=f"try train.{name}=0.1",
                )
        if not 0 <= self.forcing <= 1:
            raise ConfigError(
                f"train.forcing must be in [0, 1] (got {self.forcing})", fix="try train.forcing=1"
            )
        if min(self.average, self.patience) < 0 or self.keep_best < 1:
            raise ConfigError(
                "train.average and train.patience must be >= 0, train.keep_best >= 1",
                fix="try train.average=0",
            )

    @property
    def low_is_best(self) -> bool:
        low = ("dev/loss", "dev/perplexity", "dev/ter", "dev/miscount")
        return self.metric in low or self.metric.startswith("dev/loss/")


@dataclass(frozen=True)
class Position:
    """Where a run stands; with the weights and moments it is everything a resume needs."""

    step: int = 0
    applied: int = (
        0  # updates made: the learning rate counts these, so a skipped step costs nothing
    )
    skipped: int = 0  # steps whose loss or gradient was not finite
    in_a_row: int = 0
    best: float | None = None
    since_best: int = 0  # evaluations without a better one
    metrics_bytes: int = 0


@dataclass(frozen=True)
class Step:
    """What a log line shows.  loss and nll: nats per target token, or whatever the terms measure; eta: seconds."""

    step: int
    steps: int
    loss: float
    nll: float
    lr: float
    grad_norm: float
    tokens: int
    tokens_per_second: float
    eta: float
    unit: Literal["tokens", "pictures"] = "tokens"  # what `tokens` counts


@dataclass(frozen=True)
class Header:
    lines: list[tuple[str, str]]


@dataclass(frozen=True)
class Evaluated:
    step: int
    metrics: dict[str, float]
    best: bool


@dataclass(frozen=True)
class Note:
    text: str


@dataclass(frozen=True)
class Finished:
    position: Position
    seconds: float
    stopped_early: bool = False


Event = Header | Step | Evaluated | Note | Finished
Listen = Callable[[Event], None]


class Stream(Protocol):
    def batch(self, step: int) -> Batch: ...


class Keeper(Protocol):
    """Where a run's weights go; `learn.checkpoint.RunFolder` on disk, nothing in a test."""

    def restore(self) -> tuple[Position, Weights, Weights] | None: ...
    def save(self, position: Position, weights: Weights, moments: Weights) -> None: ...
    def snapshot(self, step: int, weights: Weights, metrics: dict[str, float]) -> None: ...
    def model(self, name: str, weights: Weights, metrics: dict[str, float]) -> None: ...
    def average(self, n: int) -> Weights | None: ...


class Log(Protocol):
    def log(self, step: int, values: dict[str, Any]) -> None: ...
    def log_timing(self, step: int, values: dict[str, Any]) -> None: ...
    def size(self) -> int: ...
    def rewind(self, size: int) -> None: ...


Validate = Callable[[nn.Module, int], dict[str, float]]


def tokens_of(batch: Batch) -> int:
    """What speed counts: target tokens, or those of the source where each row has one answer, or pictures."""
    if batch.pixels is not None:
        return len(batch)
    return int(batch.keep.sum()) if batch.target_keep is None else batch.target_tokens


@dataclass
class Trainer:
    """net + stream + settings -> weights.  `fit` is the loop; the rest is what one step is made of."""

    net: nn.Module
    stream: Stream
    config: TrainConfig
    optim: OptimConfig
    seed: int
    keeper: Keeper
    log: Log
    validate: Validate
    listen: Listen = lambda event: None
    stop: Callable[[], str | None] = lambda: None  # names the signal that asks to stop, if any
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        keep_freed_memory()
        self.redrawn = redrawn(self.net)
        if self.config.average > 1 and self.redrawn:
            raise ConfigError(
                f"train.average = {self.config.average} over features that are redrawn: a mean of draws is no draw",
                fix="train.average=0, or model.redraw=0",
                code="QKV-013",
            )
        self.net.to(self.device).train()
        self.bf16 = mixed(self.config.precision, self.device)
        self.optimizer = adamw(self.net, self.optim)
        self.names = [n for n, p in self.net.named_parameters() if p.requires_grad]
        self.trained: list[Tensor] = [p for p in self.net.parameters() if p.requires_grad]
        self.shadow = [p.detach().clone() for p in self.trained] if self.config.ema else []
        self.loss_inputs: Callable[..., Any] = self.net.loss_inputs  # type: ignore[assignment]
        if self.config.compile:
            self.loss_inputs = torch.compile(self.loss_inputs, dynamic=True)

    # -- one step ---------------------------------------------------------------------------------

    def micro_batches(self, step: int) -> list[Batch]:
        a = self.config.accumulate
        return [self.stream.batch((step - 1) * a + i).to(self.device) for i in range(a)]

    def gradients(
        self, step: int, batches: list[Batch], parts: Weights | None = None
    ) -> tuple[Tensor, Tensor]:
        """Accumulate the gradient of each term's sum over its global count (law 11).

        Returns the loss and its plain part; where there are several terms, `parts` receives that of each by name."""
        loss, nll = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        if self.redrawn:
            redraw(self.net, self.seed, step)
        totals = Totals(batches)
        for i, batch in enumerate(batches):
            rng = torch.Generator().manual_seed((self.seed << 40) ^ (step << 8) ^ i)
            with noise(self.seed, step, i), self.precision():
                terms = terms_of(self.loss_inputs(batch, forcing=self.config.forcing, rng=rng))
                made = [term_loss(term, self.config.smoothing) for term in terms]
            counts = [totals.of(term, i) for term in terms]
            shares = [m.smoothed / n for m, n in zip(made, counts, strict=True)]
            functools.reduce(torch.add, shares).backward()  # type: ignore[no-untyped-call]
            for term, m, n, share in zip(terms, made, counts, shares, strict=True):
                loss, nll = loss + share.detach(), nll + m.nll / n
                if parts is not None and len(terms) > 1:
                    parts[term.name] = parts.get(term.name, torch.zeros_like(nll)) + m.nll / n
        return loss, nll

    def precision(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def update(self, position: Position, loss: float) -> tuple[Position, float, float]:
        """Apply one update, or skip it where a number is not finite: then no weight changes (law 10)."""
        norm = float(gradient_norm(self.trained))
        lr = learning_rate(self.optim, position.applied + 1, self.config.steps)
        if math.isfinite(loss) and math.isfinite(norm):
            if self.optim.clip and norm > self.optim.clip:
                grads = [p.grad for p in self.trained if p.grad is not None]
                torch._foreach_mul_(grads, self.optim.clip / norm)
            set_rate(self.optimizer, lr, self.optim.relative)
            self.optimizer.step()
            if self.shadow:
                with torch.no_grad():
                    kept = ema_decay(self.config.ema, position.applied + 1)
                    torch._foreach_lerp_(self.shadow, self.trained, 1 - kept)
            position = replace(position, applied=position.applied + 1, in_a_row=0)
        else:
            position = replace(
                position, skipped=position.skipped + 1, in_a_row=position.in_a_row + 1
            )
        self.optimizer.zero_grad(set_to_none=True)
        return position, norm, lr

    def check_health(self, position: Position, loss: float) -> None:
        """Five bad steps in a row, or one in a hundred of many, is divergence and not bad luck."""
        bad = position.in_a_row >= 5 or (
            position.skipped > 10 and position.skipped > position.step / 100
        )
        if bad:
            raise DivergedError(
                f"{position.skipped} steps with a loss or gradient that is not finite, last at step {position.step} (loss {loss})",
                fix=f"lower the rate (optim.lr={self.optim.lr / 3:.2g}), lengthen optim.warmup, or train.precision=fp32",
            )

    # -- the loop ---------------------------------------------------------------------------------

    def fit(self) -> Position:
        """Train to config.steps, resuming where the keeper stands.  Raises DivergedError, Preempted, Interrupted."""
        began, position = time.monotonic(), self.resume()
        clock, seen, early = time.monotonic(), 0, self.out_of_patience(position)
        first = position.step
        while position.step < self.config.steps and not early:
            step = position.step + 1
            batches = self.micro_batches(step)
            parts: Weights = {}  # of the loss, where there are several
            pictures = batches[0].pixels is not None
            with out_of_memory(self.config, pictures):
                loss_t, nll_t = self.gradients(step, batches, parts)
            loss, nll = float(loss_t), float(nll_t)
            position, norm, lr = self.update(replace(position, step=step), loss)
            tokens = sum(map(tokens_of, batches))
            seen += tokens
            if step % self.config.log_every == 0 or not math.isfinite(loss + norm):
                now = time.monotonic()
                rate = seen / max(now - clock, 1e-9)
                eta = (now - began) / (step - first) * (self.config.steps - step)
                clock, seen = now, 0
                unit: Literal["tokens", "pictures"] = "pictures" if pictures else "tokens"
                of = self.config.steps
                self.listen(Step(step, of, loss, nll, lr, norm, tokens, rate, eta, unit))
                values = {"loss": loss, "nll": nll, "lr": lr, "grad_norm": norm, "tokens": tokens}
                values |= {f"nll/{name}": float(part) for name, part in parts.items()}
                self.log.log(step, {f"train/{k}": v for k, v in values.items()})
                self.log.log_timing(step, {"tokens_per_second": rate})
            self.check_health(position, loss)
            if step % self.config.eval_every == 0 or step == self.config.steps:
                pause = time.monotonic()
                position = self.evaluate(position)
                early = self.out_of_patience(position)
                clock += time.monotonic() - pause
            if step % self.config.save_every == 0 or step == self.config.steps or early:
                position = self.save(position)  # the end as well: a run may learn on from there
            self.heed(position)
        if self.config.average > 1 and (weights := self.keeper.average(self.config.average)):
            position = self.finish_average(position, weights)
        self.listen(Finished(position, time.monotonic() - began, early))
        return position

    def out_of_patience(self, position: Position) -> bool:
        """A pure function of the position: a run that was killed after stopping early stays stopped."""
        return 0 < self.config.patience <= position.since_best

    def heed(self, position: Position) -> None:
        """Save and leave when a signal asks for it."""
        name = self.stop()
        if name is None:
            return
        self.save(position)
        kind = Interrupted if name == "SIGINT" else Preempted
        raise kind(
            f"{name} at step {position.step} of {self.config.steps}; everything is saved",
            fix="run the same command again to go on",
        )

    def weights(self) -> Weights:
        """What is evaluated and kept: the moving average where there is one, else the weights."""
        state = state_of(self.net)
        return state | dict(zip(self.names, self.shadow, strict=True)) if self.shadow else state

    @contextlib.contextmanager
    def wearing(self, weights: Weights) -> Iterator[None]:
        """The net with other weights, for the duration; and in eval mode."""
        own = {k: v.clone() for k, v in state_of(self.net).items()} if weights else {}
        self.net.eval()
        try:
            if weights:
                set_state(self.net, weights)
            yield
        finally:
            if own:
                set_state(self.net, own)
            self.net.train()

    def evaluate(self, position: Position) -> Position:
        step, weights = position.step, self.weights()
        with self.wearing(weights if self.shadow else {}):
            metrics = self.validate(self.net, step)
        better = self.beats(metrics, position)
        self.log.log(step, metrics)
        self.keeper.snapshot(step, weights, metrics)
        self.keeper.model("last", weights, metrics)
        if better:
            self.keeper.model("best", weights, metrics)
        self.listen(Evaluated(step, metrics, better))
        if better:
            return replace(position, best=metrics[self.config.metric], since_best=0)
        return replace(position, since_best=position.since_best + 1)

    def beats(self, metrics: dict[str, float], position: Position) -> bool:
        """Finite, and strictly better than the best so far."""
        value, sign = metrics[self.config.metric], -1 if self.config.low_is_best else 1
        return math.isfinite(value) and (
            position.best is None or sign * value > sign * position.best
        )

    def finish_average(self, position: Position, weights: Weights) -> Position:
        """The mean of the last snapshots becomes `average`, and `best` where it is better."""
        with self.wearing(weights):
            metrics = self.validate(self.net, position.step)
        better = self.beats(metrics, position)
        named = {f"average/{k}": v for k, v in metrics.items()}
        self.log.log(position.step, named)
        self.keeper.model("average", weights, metrics)
        if better:
            self.keeper.model("best", weights, metrics)
            position = replace(position, best=metrics[self.config.metric])
        self.listen(Evaluated(position.step, named, better))
        return position

    # -- saving and resuming ----------------------------------------------------------------------

    def save(self, position: Position) -> Position:
        position = replace(position, metrics_bytes=self.log.size())
        moments: Weights = {}
        for name, p in zip(self.names, self.trained, strict=True):
            kept = self.optimizer.state.get(p, {})
            moments |= {f"{key}/{name}": value for key, value in kept.items()}
        moments |= {
            f"ema/{n}": s for n, s in zip(self.names, self.shadow, strict=bool(self.shadow))
        }
        self.keeper.save(position, state_of(self.net), moments)
        return position

    def resume(self) -> Position:
        kept = self.keeper.restore()
        if kept is None:
            self.log.rewind(0)
            return Position()
        position, state, moments = kept
        set_state(self.net, state)
        for i, (name, p) in enumerate(zip(self.names, self.trained, strict=True)):
            keys = ("step", "exp_avg", "exp_avg_sq")
            if f"step/{name}" in moments:
                self.optimizer.state[p] = {k: moments[f"{k}/{name}"].to(p.device) for k in keys}
            if self.shadow:
                self.shadow[i].copy_(moments[f"ema/{name}"])
        self.log.rewind(position.metrics_bytes)
        return position


def ema_decay(decay: float, n: int) -> float:
    """What a moving average keeps at its n-th update: min(decay, n / (9 + n)), so that it soon forgets where it began.

    With the full decay of 0.999 an eighth of it would still be random numbers after 2,000 steps."""
    return min(decay, n / (9 + n))


@contextlib.contextmanager
def out_of_memory(config: TrainConfig, pictures: bool = False) -> Iterator[None]:
    """Turn the allocator's complaint into one line with a smaller setting."""
    name, least = ("batch_rows", 1) if pictures else ("batch_tokens", 256)
    rows: int = getattr(config, name)
    try:
        yield
    except (MemoryError, RuntimeError) as e:
        if isinstance(e, RuntimeError) and "memory" not in str(e).lower():
            raise
        half = max(least, rows // 2)
        raise OutOfMemoryError(
            f"a step of {rows} {'pictures' if pictures else 'tokens'} does not fit into memory",
            fix=f"try train.{name}={half} train.accumulate={2 * config.accumulate}",
        ) from None
