"""recipe -> run: data, tokenizer, net, the loop, and a folder that holds all of it."""

import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .checkpoints import load
from .config import read_json, to_toml
from .data.report import Pair, SkipReport
from .data.sources import read_pairs
from .data.stream import Corpus, Stream, encode, sampler
from .data.watch import check_unchanged, fingerprints, overlap
from .decode.answer import SearchConfig
from .errors import DataError, TokenizerError
from .learn import measure
from .learn.checkpoint import RunFolder
from .learn.loop import Event, Header, Listen, Note, Step, Trainer
from .learn.speed import has_bf16
from .learn.track import Status, Tracker, plots, read_metrics
from .messages import t
from .model import Model
from .models import build
from .models.interface import set_state, state_of
from .recipe import Overrides, Recipe
from .score import corpus_nll
from .text import AnyTokenizer, load_tokenizer
from .text import train as train_tokenizer
from .weights import store


@dataclass(frozen=True)
class Run:
    """A training that is over."""

    folder: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return read_metrics(self.folder / "metrics.jsonl")

    def best(self) -> Model:
        return load(self.folder / "best")

    def to_dict(self) -> dict[str, Any]:
        best = read_json(self.folder / "best.json")
        return {"run": str(self.folder), "best": best}


# -- data ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """What a run learns from: encoded pairs, the tokenizer, and what was skipped."""

    train: Corpus
    dev: Corpus
    tokenizer: AnyTokenizer
    report: SkipReport
    dev_report: SkipReport
    leak: int  # pairs of dev that also occur in train


def prepare(recipe: Recipe, tokenizer: AnyTokenizer | None = None) -> Data:
    """Read, split, learn the tokenizer where there is none, encode."""
    report, dev_report = SkipReport(), SkipReport()
    pairs = list(read_pairs(recipe.data.train, report))
    if recipe.data.dev is None:
        dev = [p for p in pairs if held_out(p, recipe.data.holdout)]
        pairs = [p for p in pairs if not held_out(p, recipe.data.holdout)]
        if not dev or not pairs:
            raise DataError(
                f"{len(pairs) + len(dev)} pairs are too few to hold {recipe.data.holdout:.0%} apart",
                place=recipe.data.train.path,
                fix="give [data.dev], or a larger data.holdout",
                code="QKV-032",
            )
    else:
        dev = list(read_pairs(recipe.data.dev, dev_report))
    if tokenizer is None:
        tokenizer = train_tokenizer((s for p in pairs for s in (p.source, p.target)), recipe.text)
    leak = overlap(pairs, dev)
    most = recipe.data.max_tokens
    train = encode(pairs, tokenizer, tokenizer, report, max_tokens=most)
    kept = dev_report if recipe.data.dev else report  # held-out pairs were read with the others
    made = encode(dev, tokenizer, tokenizer, kept)
    return Data(train, made, tokenizer, report, dev_report, leak)


def held_out(pair: Pair, share: float) -> bool:
    """A pair's side of the split depends on its source alone, so that no sentence is on both sides."""
    digest = blake2b(pair.source.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


# -- training ------------------------------------------------------------------------------------------


def train(
    recipe: str | Path | Mapping[str, Any],
    overrides: Overrides = (),
    *,
    listen: Listen = lambda event: None,
    root: str | Path = "runs",
    new: bool = False,
) -> Run:
    """Train by a recipe; an unfinished run of the same recipe goes on where it stopped (unless `new`).

    Raises ConfigError, DataError, MissingError; BusyError while another process trains there; DivergedError;
    Preempted or Interrupted after saving when a signal asks to stop."""
    made = Recipe.read(recipe, overrides).rooted(Path.cwd())
    folder = unfinished(made, Path(root)) if not new else None
    folder = folder or store.fresh_folder(Path(root), made.name)
    with store.lock(folder), signals() as stop:
        try:
            _train(made, folder, listen, stop)
        except BaseException as e:
            state = "preempted" if getattr(e, "exit_code", 1) in (75, 130) else "failed"
            with suppress(Exception):
                old = Status.read(folder)
                Status(state=state, step=old.step if old else 0, of=made.train.steps).write(folder)  # type: ignore[arg-type]
            raise
    return Run(folder)


def unfinished(recipe: Recipe, root: Path) -> Path | None:
    """The newest run of this very recipe that has not come to its end."""
    text = to_toml(recipe.to_dict())
    for folder in sorted(root.glob(f"{recipe.name}-*"), key=_number, reverse=True):
        config = folder / "config.toml"
        if not config.is_file() or config.read_text("utf-8") != text:
            continue
        status = Status.read(folder)
        return None if status is not None and status.state == "done" else folder
    return None


def _number(folder: Path) -> int:
    tail = folder.name.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1


@contextmanager
def signals() -> Iterator[Callable[[], str | None]]:
    """SIGINT and SIGTERM are noted and heeded at the next step; a second one acts at once."""
    asked: list[str] = []

    def note(number: int, _: Any) -> None:
        if asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked.append(signal.Signals(number).name)

    old = {}
    with suppress(ValueError):  # not in the main thread: whoever runs the thread handles signals
        old = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: asked[0] if asked else None
    finally:
        for s, handler in old.items():
            signal.signal(s, handler)


def _train(recipe: Recipe, folder: Path, listen: Listen, stop: Callable[[], str | None]) -> None:
    if not (folder / "config.toml").is_file():
        # the recipe last: with it the folder is a run that goes on, and by then it is whole
        store.write_file(folder / "env.json", _json(environment()))
        store.write_file(folder / "config.toml", to_toml(recipe.to_dict()).encode())
    data, start = _data(recipe, folder)
    net, config = fresh_net(recipe, data.tokenizer, start)
    model = Model(net, data.tokenizer, config, recipe.decode)
    listen(Header(_header(recipe, folder, data, model)))
    keeper = RunFolder(folder, recipe.train, lambda w, m: model.files(w, card(recipe, model, m)))
    log = Tracker(folder, recipe.track)
    if data.leak:
        listen(
            Note(
                t(
                    f"{data.leak} dev pairs also occur in train",
                    f"dev의 {data.leak}쌍이 train에도 있습니다",
                )
            )
        )
    trainer = Trainer(
        net=net,
        stream=stream(recipe, data),
        config=recipe.train,
        optim=recipe.optim,
        seed=recipe.seed,
        keeper=keeper,
        log=log,
        validate=Validation(recipe, data, model, folder),
        listen=_status(folder, listen),
        stop=stop,
    )
    position = trainer.fit()
    log.close()
    from .look.plots import curve_png

    plots(folder, lambda series, *, title, ylabel: curve_png(series, title=title, y=ylabel))
    store.write_file(folder / "best.json", _json(_best(folder, recipe)))
    of = recipe.train.steps
    Status(state="done", step=position.step, of=of, best=position.best).write(folder)


def _best(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """The metrics of the best evaluation."""
    key, low = recipe.train.metric, recipe.train.low_is_best
    best: dict[str, Any] = {}
    for record in read_metrics(folder / "metrics.jsonl"):
        record = {k.removeprefix("average/"): v for k, v in record.items()}
        value = record.get(key)
        if not isinstance(value, float) or not np.isfinite(value):
            continue
        if not best or (value < best[key] if low else value > best[key]):
            best = record
    return best


def _data(recipe: Recipe, folder: Path) -> tuple[Data, Model | None]:
    """The data of this run; checked against its fingerprint when a run goes on."""
    sources = [s for s in (recipe.data.train, recipe.data.dev) if s is not None]
    known = folder / "data.json"
    start = load(recipe.start, device="cpu") if recipe.start else None
    if known.is_file():
        check_unchanged(read_json(known)["files"])
        data = prepare(recipe, load_tokenizer(folder / "tokenizer"))
    else:
        data = prepare(recipe, start.tokenizer if start else None)
        store.write_folder(folder / "tokenizer", data.tokenizer.files())
        reports = (data.report, data.dev_report)
        skipped = "".join(f"{line}\n" for r in reports for line in r.lines())
        store.write_file(folder / "skipped.jsonl", skipped.encode())
        report = {
            "files": fingerprints(sources),
            "report": data.report.to_dict(),
            "dev_report": data.dev_report.to_dict(),
            "leak": data.leak,
        }
        store.write_file(known, _json(report))
    return data, start


def fresh_net(recipe: Recipe, tokenizer: AnyTokenizer, start: Model | None) -> tuple[Any, Any]:
    """The net a run begins with: fresh weights by the recipe's seed, or those of `from`."""
    config = start.config if start else recipe.model_config(tokenizer.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = build(config)
    if start:
        set_state(net, state_of(start.net))
    return net, config


def ends_texts(tokenizer: AnyTokenizer) -> int:
    """The id that ends a text.  Raises TokenizerError where there is none."""
    if tokenizer.eos_id is None:
        raise TokenizerError(
            "this tokenizer has no end-of-text token",
            fix="name one as eos_token in tokenizer_config.json",
        )
    return tokenizer.eos_id


def stream(recipe: Recipe, data: Data) -> Stream:
    alpha = recipe.text.sample_alpha
    tokenizer = data.tokenizer
    return Stream(
        data.train,
        recipe.train.batch_tokens,
        recipe.seed,
        pad_id=tokenizer.pad_id or 0,  # padding is masked: any id will do
        eos_id=ends_texts(tokenizer),
        resample=sampler(tokenizer, tokenizer, alpha) if alpha else None,
    )


class Validation:
    """What an evaluation measures: loss and perplexity on all of dev, BLEU and chrF on some sentences."""

    def __init__(self, recipe: Recipe, data: Data, model: Model, folder: Path) -> None:
        self.recipe, self.data, self.model, self.folder = recipe, data, model, folder

    def __call__(self, net: torch.nn.Module, step: int) -> dict[str, float]:
        nll, tokens = corpus_nll(net, self.data.dev, self.model.tokenizer)
        metrics = {"dev/loss": nll / tokens, "dev/perplexity": measure.perplexity(nll, tokens)}
        n = min(self.recipe.eval.sentences, len(self.data.dev))
        if n:
            pairs = self.data.dev.pairs[:n]
            refs = [p.target for p in pairs]
            # greedy and short: what a glance during training costs; `qkv eval` searches properly
            how = SearchConfig(max_new_tokens=2 * self.recipe.data.max_tokens)
            texts = [p.source for p in pairs]
            hyps = [a[0].text for a in self.model.answers(texts, how, 4096)]
            how_scored = self.recipe.eval
            scores = measure.translation_scores(
                hyps, refs, how_scored.metrics, how_scored.tokenize, how_scored.lowercase
            )
            metrics |= {f"dev/{name}": float(s.value) for name, s in scores.items()}
            self.samples(step, pairs, hyps)
        return metrics

    def samples(self, step: int, pairs: Sequence[Pair], hyps: Sequence[str]) -> None:
        """samples.jsonl: five sentences at every evaluation; those of a killed run's future are dropped."""
        path = self.folder / "samples.jsonl"
        kept = [r for r in read_metrics(path) if r["step"] < step] if path.is_file() else []
        for p, h in list(zip(pairs, hyps, strict=True))[:5]:
            kept.append({"step": step, "source": p.source, "reference": p.target, "text": h})
        lines = [json.dumps(r, ensure_ascii=False, sort_keys=True) + "\n" for r in kept]
        store.write_file(path, "".join(lines).encode())


def _status(folder: Path, listen: Listen) -> Listen:
    """Keep status.json current, at most every two seconds."""
    last = [0.0]

    def hear(event: Event) -> None:
        if isinstance(event, Step) and time.monotonic() - last[0] > 2:
            last[0] = time.monotonic()
            Status(state="running", step=event.step, of=event.steps, eta=event.eta).write(folder)
        listen(event)

    return hear


# -- what is said about a run ------------------------------------------------------------------------------


def _header(recipe: Recipe, folder: Path, data: Data, model: Model) -> list[tuple[str, str]]:
    n = sum(p.numel() for p in model.net.parameters())
    r = data.report
    tok = data.tokenizer
    return [
        (t("run", "실행"), str(folder)),
        (
            t("data", "데이터"),
            t(
                f"{len(data.train):,} pairs train, {len(data.dev):,} dev; {r.read - r.used:,} of {r.read:,} lines skipped",
                f"학습 {len(data.train):,}쌍, 개발 {len(data.dev):,}쌍; {r.read:,}줄 중 {r.read - r.used:,}줄 건너뜀",
            ),
        ),
        (t("text", "토크나이저"), f"{tok.kind}, {tok.vocab_size:,}"),
        (t("model", "모델"), f"{model.family}, {n / 1e6:.2f} M"),
        (
            t("machine", "장치"),
            f"{model.device}, {_precision(recipe, model)}, {torch.get_num_threads()} threads",
        ),
        (
            t("steps", "스텝"),
            f"{recipe.train.steps:,} × {recipe.train.batch_tokens * recipe.train.accumulate:,}",
        ),
    ]


def _precision(recipe: Recipe, model: Model) -> str:
    auto = "bf16" if has_bf16(model.device) else "fp32"
    return auto if recipe.train.precision == "auto" else recipe.train.precision


def environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


def card(recipe: Recipe, model: Model, metrics: Mapping[str, float]) -> str:
    """The README.md of a model folder."""
    n = sum(p.numel() for p in model.net.parameters())
    rows = "\n".join(f"| {k} | {v:.4g} |" for k, v in sorted(metrics.items()))
    return (
        f"# {recipe.name}\n\nA {model.family} of {n / 1e6:.2f} M parameters, trained with qkv "
        f"(seed {recipe.seed}).\n\n| measure | value |\n|---|---|\n{rows}\n\n"
        f'```python\nimport qkv\nmodel = qkv.load("path/to/this/folder")\nprint(model.translate("…"))\n```\n'
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
