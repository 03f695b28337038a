"""recipe -> run: data, tokenizer, net, the loop, and a folder that holds all of it."""

import json
import os
import platform
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .checkpoints import find, load
from .config import read_json, to_toml
from .data.sources import PairSource
from .data.watch import check_unchanged, fingerprint, fingerprints
from .decode.rows import prompted
from .errors import ConfigError, DataError, MissingError, QkvError
from .jobs import Job, prepare
from .learn.checkpoint import RunFolder, saved_step
from .learn.loop import Event, Header, Listen, Note, Step, Trainer, Validate
from .learn.speed import mixed
from .learn.track import Status, Tracker, plots, read_metrics
from .messages import t
from .model import Model
from .models import FAMILIES, build, configure, describe, family_of
from .models.interface import adopt, state_of
from .recipe import Overrides, Recipe, has_head
from .text import load_tokenizer
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


# -- training ------------------------------------------------------------------------------------------


def train(
    recipe: str | Path | Mapping[str, Any],
    overrides: Overrides = (),
    *,
    listen: Listen = lambda event: None,
    root: str | Path = "runs",
    new: bool = False,
    device: str = "cpu",
) -> Run:
    """Train by a recipe; an unfinished run of the same recipe goes on where it stopped (unless `new`).

    device: where to train; "auto": on an accelerator where there is one.

    A run folder in place of a recipe goes on too, and `train.steps` may be raised: a finished run then learns more.
    Raises ConfigError, DataError, MissingError; BusyError while another process trains there; DivergedError;
    Preempted or Interrupted after saving when a signal asks to stop."""
    made, folder = asked(recipe, overrides, Path(root), new)
    fresh, folder = folder is None, folder or store.fresh_folder(Path(root), made.name)
    with store.lock(folder), signals() as stop:
        try:
            _keep_recipe(made, folder)
            _train(made, folder, listen, stop, placed(device))
        except BaseException as e:
            with suppress(Exception):
                if fresh and not (folder / "data.json").is_file():
                    store.remove_folder(folder)  # the data could not be used: no run began
                else:
                    _ended(folder, e, made.train.steps)
            raise
    return Run(folder)


def _ended(folder: Path, error: BaseException, steps: int) -> None:
    """The state of a run that an error stopped."""
    old = Status.read(folder)
    state = "preempted" if getattr(error, "exit_code", 1) in (75, 130) else "failed"
    step = max(old.step if old else 0, saved_step(folder) or 0)
    Status(state=state, step=step, of=steps).write(folder)  # type: ignore[arg-type]


def asked(
    recipe: str | Path | Mapping[str, Any], overrides: Overrides, root: Path, new: bool
) -> tuple[Recipe, Path | None]:
    """What is to be trained, and the folder of the run that goes on; None: a new one."""
    folder = None if isinstance(recipe, Mapping) else Path(recipe)
    if folder is None or not (folder / "config.toml").is_file():
        made = Recipe.read(recipe, overrides).rooted(Path.cwd())
        return made, None if new else _goes_on(unfinished(made, root))
    made = Recipe.read(folder / "config.toml", overrides).rooted(Path.cwd())
    return made, None if new else _goes_on(longer(folder, made))


def _goes_on(folder: Path | None) -> Path | None:
    """The folder itself.  Raises MissingError for a slimmed run: it would begin anew, over its own model."""
    status = Status.read(folder) if folder else None
    ended = status is not None and status.step > 0 and status.state in ("done", "preempted")
    if folder and ended and not (folder / "resume").is_dir():
        raise MissingError(
            "what this run would go on from is gone (`qkv runs slim` deletes it)",
            place=folder,
            fix=f"begin another from its weights: --new from={folder}",
        )
    return folder


def longer(folder: Path, recipe: Recipe) -> Path:
    """The folder, where its run may go on by this recipe.  Raises ConfigError where more than `train.steps` was changed."""
    own = Recipe.read(folder / "config.toml")
    steps = recipe.train.steps
    if recipe != replace(own, train=replace(own.train, steps=steps)):
        raise ConfigError(
            "a run goes on by its own recipe, only train.steps may grow",
            place=folder,
            fix="--new begins another run with these settings",
            code="QKV-013",
        )
    if steps < own.train.steps:
        raise ConfigError(
            f"train.steps = {steps:,}, the run was made for {own.train.steps:,}",
            place=folder,
            fix="give a larger number, or --new",
            code="QKV-013",
        )
    return folder


def _keep_recipe(recipe: Recipe, folder: Path) -> None:
    """A run that goes on for longer than it was made for says so in its config.toml."""
    path, text = folder / "config.toml", to_toml(recipe.to_dict())
    if path.is_file() and path.read_text("utf-8") != text:
        store.write_file(path, text.encode())


def unfinished(recipe: Recipe, root: Path) -> Path | None:
    """The newest run of this very recipe that has not come to its end."""
    for folder in sorted(root.glob(f"{recipe.name}-*"), key=_number, reverse=True):
        if not _same(folder / "config.toml", recipe):
            continue
        status = Status.read(folder)
        return None if status is not None and status.state == "done" else folder
    return None


def _same(config: Path, recipe: Recipe) -> bool:
    """Whether this file holds this recipe; settings that came with a later version of ours count as their defaults."""
    try:
        return config.is_file() and Recipe.read(config) == recipe
    except QkvError:
        return False


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


def placed(device: str) -> torch.device:
    """Raises ConfigError QKV-012 for a device that is not here."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if (
        device.partition(":")[0] not in ("cpu", "cuda")
        or device != "cpu"
        and not torch.cuda.is_available()
    ):
        raise ConfigError(f"device = {device!r} is not here", fix='device = "auto" or "cpu"')
    return torch.device(device)


def _train(
    recipe: Recipe,
    folder: Path,
    listen: Listen,
    stop: Callable[[], str | None],
    device: torch.device,
) -> None:
    if not (folder / "config.toml").is_file():
        # the recipe last: with it the folder is a run that goes on, and by then it is whole
        store.write_file(folder / "env.json", _json(environment()))
        store.write_file(folder / "config.toml", to_toml(recipe.to_dict()).encode())
    job, start = _data(recipe, folder)
    net, config, fresh = fresh_net(job, start)
    model = Model(
        net,
        job.tokenizer,
        config,
        recipe.decode,
        template=job.template,
        processor=job.processor,
        habits=job.habits,
    )
    net.to(device)
    listen(Header(_header(folder, job, model)))
    keeper = RunFolder(folder, recipe.train, lambda w, m: model.files(w, card(recipe, model, m)))
    log = Tracker(folder, recipe.track)
    if fresh:
        new = ", ".join(sorted({name.rpartition(".")[0] for name in fresh}))
        listen(
            Note(t(f"new, not in {recipe.start}: {new}", f"{recipe.start}에 없어 새로 시작: {new}"))
        )
    if job.leak:
        seen = (
            f"{job.leak} dev examples also occur in train",
            f"dev의 {job.leak}개가 train에도 있습니다",
        )
        listen(Note(t(*seen)))
    for remark in job.remarks(config):
        listen(Note(remark))
    trainer = Trainer(
        net=net,
        stream=job.stream(),
        config=recipe.train,
        optim=recipe.optim,
        seed=recipe.seed,
        keeper=keeper,
        log=log,
        validate=_validation(job, model, folder),
        listen=_status(folder, listen),
        stop=stop,
        device=device,
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
    # JSON has no NaN and no infinity
    return {k: v if np.isfinite(v) else repr(v) for k, v in best.items()}


def _data(recipe: Recipe, folder: Path) -> tuple[Job, Model | None]:
    """The data of this run; checked against its fingerprint when a run goes on."""
    sources = [s for s in (recipe.data.train, recipe.data.dev) if s is not None]
    known = folder / "data.json"
    start = load(recipe.start, device="cpu") if recipe.start else None
    if known.is_file():
        check_unchanged(read_json(known)["files"])
        there = (folder / "tokenizer").is_dir()
        job = prepare(recipe, load_tokenizer(folder / "tokenizer") if there else None, start)
    else:
        job = prepare(recipe, start.tokenizer if start and start.has_tokenizer else None, start)
        if job.tokenizer is not None:
            store.write_folder(folder / "tokenizer", job.tokenizer.files())
        reports = (job.report, job.dev_report)
        skipped = "".join(f"{line}\n" for r in reports for line in r.lines())
        store.write_file(folder / "skipped.jsonl", skipped.encode())
        files = fingerprints(sources)
        if recipe.teacher:
            teacher = str(find(recipe.teacher))
            files[teacher] = fingerprint(teacher)
        report = {
            "files": files,
            "report": job.report.to_dict(),
            "dev_report": job.dev_report.to_dict(),
            "leak": job.leak,
        }
        store.write_file(known, _json(report))
    return job, start


def fresh_net(job: Job, start: Model | None) -> tuple[Any, Any, list[str]]:
    """(net, configuration, tensors that `from` had not): fresh weights by the recipe's seed, or those of `from`.

    With `from`, [model] and the objective may change what is on top of its weights: the head, its labels, dropout.
    Raises WeightsError where they change the sizes of what is taken, DataError QKV-037 where a row is too long."""
    recipe = job.recipe
    own_labels(job)
    if start is None:
        config = recipe.model_config(job.settings)
    else:
        given = {k: v for k, v in recipe.model.items() if k not in ("family", "size")}
        known = describe(start.config)
        same_build(recipe, known)
        head = {k: v for k, v in job.settings.items() if k in ("head", "labels", "problem")}
        if not has_head(type(start.config), head.get("head")):
            del head["head"]
        config = configure({**known, **{k: v for k, v in head.items() if k in known}, **given})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = build(config)
    suits(net, config, job)
    fits(net, job)
    if start is None:
        return net, config, []
    from .models.pictures import placed_anew

    begun = state_of(start.net) | placed_anew(net, start.net)
    return net, config, adopt(net, begun, place=recipe.start)


def same_build(recipe: Recipe, known: Mapping[str, Any]) -> None:
    """Raises ConfigError QKV-013 where [model] asks for another family or size than `from` is of."""
    family, size = known["family"], recipe.model.get("size")
    asked = recipe.model.get("family", family)
    if asked != family:
        raise ConfigError(
            f"model.family = {asked!r}, and from = {recipe.start!r} is a {family}",
            place="recipe",
            fix="leave model.family out, or from",
            code="QKV-013",
        )
    sizes = FAMILIES[family].SIZES
    if size is not None and size not in sizes:
        configure({"family": family, "size": size})  # which says so
    for key, value in sizes.get(size, {}).items():
        counts = key.startswith(("d_", "n_")) or key.endswith("layers")
        if counts and key not in recipe.model and known.get(key) != value:
            raise ConfigError(
                f"model.size = {size!r} has {key} = {value}, and from = {recipe.start!r} has {known.get(key)}",
                place="recipe",
                fix="leave model.size out, or from",
                code="QKV-013",
            )


def own_labels(job: Job) -> None:
    """Raises ConfigError QKV-013 where [model] names labels that are not the data's classes in their order."""
    given, found = job.recipe.model.get("labels"), job.settings.get("labels")
    if given is None or found is None or tuple(given) == tuple(found):
        return
    listed = ", ".join(map(repr, found[:5])) + (", …" if len(found) > 5 else "")
    raise ConfigError(
        f"model.labels = {given!r}, and the classes of the data are {listed}",
        place="recipe",
        fix="leave model.labels out; objective.classes says which there are and in what order",
        code="QKV-013",
    )


def suits(net: torch.nn.Module, config: Any, job: Job) -> None:
    """Raises ConfigError QKV-013 where the net has not the head that the objective trains, or does not write as it asks."""
    from .jobs.texts import HEADS, WRITES

    kind, family = job.recipe.objective_kind, family_of(config)
    head = getattr(getattr(net, "head", None), "kind", None)
    continues, fitting = WRITES.get(kind, (False, "bert"))
    lacks = ""
    if HEADS.get(kind, head) != head:
        lacks = (
            f"a head {HEADS[kind]!r}; this {family} has {'none' if head is None else repr(head)}"
        )
    elif kind in WRITES and not (hasattr(net, "step") and prompted(net) == continues):
        lacks = f"{'a decoder alone' if continues else 'an encoder-decoder'}; a {family} is none"
    if lacks:
        raise ConfigError(
            f"objective.kind = {kind!r} needs {lacks}",
            place=job.recipe.start or "recipe",
            fix=f'model.family = "{fitting}", and no model.head',
            code="QKV-013",
        )


def fits(net: torch.nn.Module, job: Job) -> None:
    """Raises DataError QKV-037 where the longest row has more tokens than there are learned positions."""
    most = getattr(net, "max_positions", None)
    if most is not None and job.longest > most:
        raise DataError(
            f"the longest row has {job.longest:,} tokens, the model {most:,} positions",
            place=getattr(job.recipe.data.train, "path", ""),
            fix="cut or leave out what is longer (max_tokens, context), in dev as well; or more model.max_positions",
            code="QKV-037",
        )


def _validation(job: Job, model: Model, folder: Path) -> Validate:
    """The job's measures; what it wrote goes to samples.jsonl, without those of a killed run's future."""
    measured, path = job.validation(model), folder / "samples.jsonl"

    def validate(net: torch.nn.Module, step: int) -> dict[str, float]:
        metrics = measured(net, step)
        if job.samples():
            there = read_metrics(path, numbers=False) if path.is_file() else []
            kept = [r for r in there if r["step"] < step]
            kept += [{"step": step, **row} for row in job.samples()]
            lines = [json.dumps(r, ensure_ascii=False, sort_keys=True) + "\n" for r in kept]
            store.write_file(path, "".join(lines).encode())
        return metrics

    return validate


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


def _header(folder: Path, job: Job, model: Model) -> list[tuple[str, str]]:
    recipe, r = job.recipe, job.report
    n, (train, dev) = sum(p.numel() for p in model.net.parameters()), job.sizes
    pairs = isinstance(recipe.data.train, PairSource)
    what, ko = ("pairs", "쌍") if pairs else ("examples", "개")
    rows, unit = recipe.train.batch_tokens, ""
    if model.has_pictures:
        what, ko = "pictures", "장"
        rows, unit = recipe.train.batch_rows, t(" pictures", "장")
    out, of = r.read - r.used, r.read
    lines = f"{out:,} of {of:,} {'entries' if model.has_pictures else 'lines'} skipped"
    ko_lines = f"{of:,}줄 중 {out:,}줄 건너뜀"
    if apart := job.dev_report.read - job.dev_report.used:
        lines += f", and {apart:,} of {job.dev_report.read:,} of dev"
        ko_lines += f", 개발은 {job.dev_report.read:,}줄 중 {apart:,}줄"
    return [
        (t("run", "실행"), str(folder)),
        (
            t("data", "데이터"),
            t(
                f"{train:,} {what} train, {dev:,} dev; {lines}",
                f"학습 {train:,}{ko}, 개발 {dev:,}{ko}; {ko_lines}",
            ),
        ),
        _reads(job),
        (t("model", "모델"), f"{model.family}, {n / 1e6:.2f} M"),
        (
            t("machine", "장치"),
            f"{model.device}, {_precision(recipe, model)}, {torch.get_num_threads()} threads",
        ),
        (
            t("steps", "스텝"),
            f"{recipe.train.steps:,} × {rows * recipe.train.accumulate:,}{unit}",
        ),
    ]


def _reads(job: Job) -> tuple[str, str]:
    """What stands before the net: the tokenizer, or what a picture looks like."""
    if job.tokenizer is not None:
        return t("text", "토크나이저"), f"{job.tokenizer.kind}, {job.tokenizer.vocab_size:,}"
    size, n = job.settings.get("image_size"), job.settings.get("channels")
    height, width = size if isinstance(size, tuple) else (size, size)
    told = f"{height} × {width}, " if size else ""
    return t("pictures", "그림"), told + t(f"{n} channels", f"{n}채널")


def _precision(recipe: Recipe, model: Model) -> str:
    return "bf16" if mixed(recipe.train.precision, model.device) else "fp32"


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
    verb = "detect" if hasattr(model.net, "found") else "classify"
    asked = f'model.{verb}("picture.png")' if model.has_pictures else 'model.translate("…")'
    return (
        f"# {recipe.name}\n\nA {model.family} of {n / 1e6:.2f} M parameters, trained with qkv "
        f"(seed {recipe.seed}).\n\n| measure | value |\n|---|---|\n{rows}\n\n"
        f'```python\nimport qkv\nmodel = qkv.load("path/to/this/folder")\nprint({asked})\n```\n'
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
