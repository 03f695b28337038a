"""What a training would be, from a few real steps and without writing anything."""

import resource
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .checkpoints import load
from .jobs import prepare
from .learn.loop import Trainer, tokens_of
from .recipe import Overrides, Recipe
from .run import fresh_net


@dataclass(frozen=True)
class DryRun:
    """What a training would be, from one real step."""

    parameters: int
    report: dict[str, Any]
    train_pairs: int
    dev_pairs: int
    padding: float
    step_seconds: float
    tokens_per_second: float
    estimated_seconds: float
    memory_bytes: int
    vocab_size: int  # 0: no tokenizer
    unit: str = "tokens"  # what tokens_per_second counts

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Nowhere:
    """A keeper and a log that keep nothing."""

    def restore(self) -> None:
        return None

    def size(self) -> int:
        return 0

    def _ignore(self, *_: Any) -> None:
        return None

    save = snapshot = model = average = log = log_timing = rewind = _ignore


def dry_run(recipe: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> DryRun:
    """Read the data, build the model, time a few steps; nothing is written."""
    made = Recipe.read(recipe, overrides)
    start = load(made.start, device="cpu") if made.start else None
    job = prepare(made, start.tokenizer if start and start.has_tokenizer else None, start)
    net, _, _ = fresh_net(job, start)
    stream: Any = job.stream()
    nowhere: Any = _Nowhere()
    trainer = Trainer(
        net=net,
        stream=stream,
        config=made.train,
        optim=made.optim,
        seed=made.seed,
        keeper=nowhere,
        log=nowhere,
        validate=lambda net, step: {},
    )
    times, tokens, seen = [], 0, []
    for step in range(1, 5):
        began = time.perf_counter()
        batches = trainer.micro_batches(step)
        loss, _ = trainer.gradients(step, batches)
        trainer.optimizer.zero_grad(set_to_none=True)
        times.append(time.perf_counter() - began)
        tokens = sum(map(tokens_of, batches))
        keeps = [k for b in batches for k in (b.keep, b.target_keep, b.pixel_keep)]
        seen += [k for k in keeps if k is not None and k.numel()]
    seconds = sorted(times[1:])[1]
    train, dev = job.sizes
    return DryRun(
        parameters=sum(p.numel() for p in net.parameters()),
        report=job.report.to_dict(),
        train_pairs=train,
        dev_pairs=dev,
        padding=sum(int((~k).sum()) for k in seen) / max(1, sum(k.numel() for k in seen)),
        step_seconds=seconds,
        tokens_per_second=tokens / seconds,
        estimated_seconds=seconds * made.train.steps,
        memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        vocab_size=0 if job.tokenizer is None else job.tokenizer.vocab_size,
        unit="tokens" if job.processor is None else "pictures",
    )
