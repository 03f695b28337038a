"""Verbs that make things: init, train, runs."""

import shlex
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingError, UsageError, did_you_mean
from ..messages import t
from .out import bold, emit, here, one_line, result, say, size, table
from .parse import Args

if TYPE_CHECKING:
    from ..run import Run


# ---- init


def recipes() -> dict[str, str]:
    """The recipes in the package: name -> text, with comments in the current language where there are some."""
    texts = {
        f.name.removesuffix(".toml"): f.read_text(encoding="utf-8")
        for f in (files("qkv") / "recipes").iterdir()
        if f.name.endswith(".toml")
    }
    names = sorted(name for name in texts if not name.endswith(".ko"))
    return {name: t(texts[name], texts.get(f"{name}.ko", texts[name])) for name in names}


def init(args: Args) -> None:
    """Print a recipe, or list them.  Raises MissingError for an unknown name, UsageError to keep an existing file."""
    known = recipes()
    if args.name is None and args.o is not None:
        fix = "name one: qkv init ko-en -o my.toml; `qkv init` lists them"
        raise UsageError("which recipe is to be written?", place="qkv init", fix=fix)
    if args.name is None:
        rows = [(name, _about(text)) for name, text in known.items()]
        if args.json:
            emit([{"name": name, "about": about} for name, about in rows])
            return
        for line in table(rows):
            result(line)
        say(t("\nnext:  qkv init ko-en > my.toml", "\n다음:  qkv init ko-en > my.toml"))
        return
    name = args.name.removesuffix(".toml")
    if name not in known:
        raise MissingError(f"no recipe {name!r}", place="qkv init", fix=did_you_mean(name, known))
    text = known[name]
    if args.o is not None:
        _write_new(Path(args.o), text)
    if args.json:
        import tomllib

        emit(tomllib.loads(text))
    elif args.o is None:
        result(text.rstrip("\n"))


def _about(text: str) -> str:
    """A recipe says what it is in its first comment."""
    return text.split("\n", 1)[0].lstrip("# ").strip()


def _write_new(path: Path, text: str) -> None:
    from ..weights import store

    if path.exists():
        raise UsageError("there is a file already", place=path, fix="choose another name")
    store.write_file(path, text.encode())
    say(t(f"wrote {path}; next:  qkv train {path}", f"{path} 저장. 다음:  qkv train {path}"))


# ---- train


def train(args: Args) -> None:
    """Train, or show what a training would be.  Raises what `qkv.train` raises."""
    given = Path(args.recipe)
    recipe, root = _recipe(given, args.root)
    say(t("reading the recipe and the data …", "설정과 데이터를 읽는 중 …"))
    if args.dry_run:
        from ..dry_run import dry_run
        from .plan import show_plan

        plan = dry_run(recipe, args.settings)
        emit(plan) if args.json else show_plan(plan)
        return
    if not args.new and not args.settings and _is_done(given):
        from ..run import Run

        say(
            t(
                "this run is finished; train.steps=… goes on with it, --new trains it anew",
                "끝난 실행입니다. 이어서 학습하려면 train.steps=…, 다시 학습하려면 --new",
            )
        )
        run = Run(given)
        emit(run) if args.json else show_run(run)
        return
    from ..run import train as run_training
    from .live import Live

    source = given if given.is_dir() else recipe
    if not args.new:
        _say_resume(source, args.settings, root)
    with Live(json=args.json) as live:
        run = run_training(source, args.settings, listen=live, root=root, new=args.new)
    emit(run) if args.json else show_run(run)


def _recipe(path: Path, root: str) -> tuple[Path, Path]:
    """The TOML file and the folder of runs; a run folder stands for its own config.toml, beside its siblings."""
    if (path / "config.toml").is_file():
        return path / "config.toml", path.parent
    if path.is_dir():
        raise MissingError(
            "a folder without config.toml", place=path, fix="give a recipe or a run", code="QKV-020"
        )
    name = path.name.removesuffix(".toml")
    if not path.exists() and name in recipes():
        fix = f"write it first: qkv init {name} > {name}.toml"
        raise MissingError(f"no file {path}", fix=fix)
    if not path.exists():
        near = [p.name for p in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        guess = did_you_mean(path.name, near) if near else ""
        fix = guess if guess.startswith("did") else f"start from one: qkv init ko-en > {name}.toml"
        raise MissingError(f"no file {path}", fix=fix)
    return path, Path(root)


def _say_resume(recipe: Path, settings: list[str], root: Path) -> None:
    from ..learn.checkpoint import saved_step
    from ..learn.track import Status
    from ..run import asked

    made, folder = asked(recipe, settings, root, new=False)
    status = Status.read(folder) if folder else None
    if folder and status:
        at = f"{saved_step(folder) or 0:,}/{made.train.steps:,}"
        say(
            t(
                f"going on with {folder} at step {at} (--new begins another)",
                f"{folder}을(를) 스텝 {at}에서 이어 합니다 (새로 시작: --new)",
            )
        )


def _is_done(folder: Path) -> bool:
    """A run folder, not a recipe, that has come to its end."""
    from ..learn.track import Status

    status = Status.read(folder) if folder.is_dir() else None
    return status is not None and status.state == "done"


def show_run(run: "Run") -> None:
    """Where a run is, how good it is, and the next commands to type."""
    best = run.to_dict()["best"]
    values = "  ".join(
        f"{k.removeprefix('dev/')} {v:.4g}"
        for k, v in best.items()
        if k.startswith("dev/") and isinstance(v, (int, float))
    )
    for line in table(
        [
            (t("run", "실행"), here(str(run.folder))),
            (t("best", "최고"), f"{t('step', '스텝')} {best.get('step', '–')}  {values}"),
        ]
    ):
        result(line)
    next_commands(run.folder, sample_text(run.folder))


def next_commands(folder: Path, text: str, test: str = "test.tsv") -> None:
    """What a person would type now, ready to paste."""
    where = shlex.quote(here(str(folder)))
    from ..recipe import PICTURES

    kind, form = _objective(folder)
    verb = NEXT.get(kind, "translate")
    if kind in NEXT and form:
        test = f"test{form}"
    if kind in PICTURES:
        test, text = "pictures/test", text if text != "…" else "picture.png"
    elif verb == "fill":
        gap = "<extra_id_0>" if kind == "spans" else _mask(folder)
        text = f"{text} {gap} {text}" if text == "…" else f"{text} {gap}"
    more = " --context @page.txt" if verb == "answer" else ""
    looked = (
        [f"qkv look --model {where} {shlex.quote(text)} -o attention.html"]
        if verb == "translate"
        else []
    )
    result("\n" + bold(t("next", "다음")))
    for command in (
        f"qkv {verb} --model {where} {shlex.quote(text)}{more}",
        *looked,
        f"qkv eval {where} {test}",
    ):
        result(f"  {command}")


# what a model is for, by the objective of its run
NEXT = {
    "lm": "generate",
    "windows": "generate",
    "spans": "fill",
    "infill": "fill",
    "chat": "chat",
    "mlm": "fill",
    "nsp": "fill",
    "classify": "classify",
    "regress": "classify",
    "tag": "tag",
    "answer": "answer",
    "contrast": "embed",
    "image-classify": "classify",
    "detect": "detect",
}


def _mask(folder: Path) -> str:
    """What a gap is called by the run's tokenizer: <mask> or [MASK]."""
    from ..errors import QkvError
    from ..text import load_tokenizer

    try:
        tokenizer = load_tokenizer(folder / "best")
    except QkvError:
        return "<mask>"
    return "<mask>" if tokenizer.mask_id is None else tokenizer.tokens([tokenizer.mask_id])[0]


def _objective(folder: Path) -> tuple[str, str]:
    """The kind of a run's objective, and the ending of the file it learned from (".jsonl"): a test file is of that form."""
    from ..config import read_toml

    path = folder / "config.toml"
    recipe = read_toml(path) if path.is_file() else {}
    learned = str(recipe.get("data", {}).get("train", {}).get("path", ""))
    return str(recipe.get("objective", {}).get("kind")), Path(learned.removesuffix(".gz")).suffix


def sample_text(folder: Path) -> str:
    """A sentence of the development set, for the commands we propose."""
    from ..config import parse_json

    try:
        first = (folder / "samples.jsonl").read_bytes().split(b"\n", 1)[0]
        text = str(parse_json(first.decode())["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return "…"
    return one_line(text, 80)


# ---- runs


STATES = {
    "running": "학습 중",
    "done": "끝남",
    "failed": "실패",
    "preempted": "멈춤",
    "unknown": "모름",
}


def runs(args: Args) -> None:
    """List the runs, or slim some.  Raises MissingError for a folder that is no run, BusyError while it trains."""
    if args.words:
        action, *folders = args.words
        if action != "slim":
            raise UsageError(
                f"unknown action {action!r}", place="qkv runs", fix=did_you_mean(action, ["slim"])
            )
        _slim(folders, args.json)
        return
    from ..runs import runs as all_runs

    found = all_runs(args.root)
    if args.json:
        emit(found)
        return
    if not found:
        say(
            t(
                f"no runs in {args.root}; start one: qkv demo",
                f"{args.root}에 실행이 없습니다. 시작: qkv demo",
            )
        )
        return
    head = [
        t("run", "실행"),
        t("state", "상태"),
        t("step", "스텝"),
        t("best", "최고"),
        t("size", "크기"),
    ]
    rows: list[list[str]] = [head]
    for r in found:
        best = "–" if r.best is None else f"{r.metric.removeprefix('dev/')} {r.best:.4g}"
        state = t(r.state, STATES.get(r.state, r.state))
        rows.append([one_line(str(r.folder)), state, f"{r.step:,}/{r.of:,}", best, size(r.bytes)])
    for line in table(rows, right=(2, 4)):
        result(line)


def _slim(folders: list[str], json: bool) -> None:
    from ..runs import slim

    if not folders:
        raise UsageError("RUN is missing", place="qkv runs slim", fix="qkv runs slim RUN …")
    freed: list[dict[str, Any]] = []
    for folder in folders:
        freed.append({"run": folder, "freed": slim(folder)})
        say(
            t(
                f"{folder}: {size(freed[-1]['freed'])} freed",
                f"{folder}: {size(freed[-1]['freed'])} 비움",
            )
        )
    if json:
        emit(freed)
