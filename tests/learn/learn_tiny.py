"""A tiny net, a stream and a run in memory: 3,000 parameters, a few milliseconds a step."""

import json
from dataclasses import dataclass, field, replace

import torch

from qkv.data.report import Pair
from qkv.data.stream import Corpus, Rows, Stream
from qkv.learn.checkpoint import RunFolder
from qkv.learn.loop import TrainConfig, Trainer
from qkv.learn.losses import token_loss
from qkv.learn.optim import OptimConfig
from qkv.learn.track import Tracker
from qkv.models import build, configure
from qkv.models.interface import state_of
from qkv.weights.files import tensor_bytes

TINY = {
    "family": "transformer",
    "d_model": 8,
    "n_heads": 2,
    "d_ff": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "dropout": 0.2,
}


def tiny_net(seed=0, **settings):
    torch.manual_seed(seed)
    return build(configure({**TINY, "vocab_size": 13, **settings}))


def corpus(n=24):
    """Copies of rows of 1 … 6 tokens."""
    rows = [[4 + (i * 5 + j * j) % 9 for j in range(1 + i % 6)] for i in range(n)]
    pairs = [Pair(str(r), str(r), f"memory:{i}") for i, r in enumerate(rows)]
    return Corpus(Rows.of(rows), Rows.of(rows), pairs)


def bits(tensors):
    """What is compared byte by byte."""
    return tensor_bytes(tensors)


@dataclass
class Memory:
    """A keeper and a log that live in memory, with the snapshots' order of events."""

    saved: tuple | None = None
    models: dict = field(default_factory=dict)
    snapshots: list = field(default_factory=list)
    lines: list = field(default_factory=list)
    events: list = field(default_factory=list)

    def restore(self):
        return self.saved

    def save(self, position, weights, moments):
        self.saved = (
            position,
            {k: v.clone() for k, v in weights.items()},
            {k: v.clone() for k, v in moments.items()},
        )

    def snapshot(self, step, weights, metrics):
        self.snapshots.append((step, {k: v.clone() for k, v in weights.items()}))

    def model(self, name, weights, metrics):
        self.models[name] = (dict(metrics), bits(weights))

    def average(self, n):
        return None

    def log(self, step, values):
        self.lines.append((step, dict(values)))

    def log_timing(self, step, values):
        pass

    def size(self):
        return len(self.lines)

    def rewind(self, size):
        del self.lines[size:]

    def logged(self, key):
        return {step: values[key] for step, values in self.lines if key in values}


@torch.no_grad()
def dev_loss(net, step):
    """What a validation measures here: the loss of the corpus' first batch, in eval mode."""
    if net.training:
        raise RuntimeError("validated in training mode")
    made = token_loss(net.loss_inputs(Stream(corpus(), 64, 99).batch(0)))
    return {"dev/loss": float(made.nll) / made.tokens}


def trainer(keeper=None, net=None, log=None, **settings):
    """Settings of Trainer, TrainConfig and OptimConfig side by side."""
    mine = {k: settings.pop(k) for k in ("stop", "validate", "listen", "stream") if k in settings}
    seed = settings.pop("seed", 1)
    optim = {k: settings.pop(k) for k in list(settings) if k in OptimConfig.__dataclass_fields__}
    keeper = Memory() if keeper is None else keeper
    base = TrainConfig(
        steps=8, batch_tokens=64, eval_every=4, save_every=3, log_every=1, precision="fp32"
    )
    return Trainer(
        net=tiny_net() if net is None else net,
        stream=mine.pop("stream", None) or Stream(corpus(), 64, seed),
        config=replace(base, **settings),
        optim=OptimConfig(**({"lr": 0.01, "warmup": 3} | optim)),
        seed=seed,
        keeper=keeper,
        log=keeper if log is None else log,
        validate=mine.pop("validate", dev_loss),
        **mine,
    )


def on_disk(folder, net=None, **settings):
    """A trainer whose run is a folder, as `qkv train` makes it."""
    made = trainer(Memory(), net, **settings)
    made.keeper = RunFolder(folder, made.config, _files)
    made.log = Tracker(folder)
    return made


def _files(weights, metrics):
    return {
        "model.safetensors": bits(weights),
        "metrics.json": json.dumps(metrics, sort_keys=True).encode(),
    }


def content(folder):
    """Every file of a folder by its path, but the clock's, and resume/: a stop saves once more than the plan."""
    files = {str(p.relative_to(folder)): p for p in sorted(folder.rglob("*")) if p.is_file()}
    without = ("timing.jsonl", "resume/")
    return {n: p.read_bytes() for n, p in files.items() if not n.startswith(without)}


def everything(t):
    """Weights, moments and average of a trainer, as bytes."""
    moments = {
        f"{i}/{k}": v
        for i, p in enumerate(t.trained)
        for k, v in t.optimizer.state.get(p, {}).items()
    }
    shadow = {f"ema/{i}": s for i, s in enumerate(t.shadow)}
    return bits({k: v.clone() for k, v in (state_of(t.net) | moments | shadow).items()})
