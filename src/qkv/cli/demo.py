"""`qkv demo`: the whole story in three minutes — train, score, translate, look."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages import t
from .make import next_commands, recipes
from .out import bold, emit, result, say, table
from .parse import Args

if TYPE_CHECKING:
    from ..model import Model
    from ..run import Run

TEXT = "커피 한잔 어때?"
OUT = Path("demo")
TESTS = {"test": "builtin:phrases/test", "hand": "builtin:phrases/hand"}


def demo(args: Args) -> None:
    """Train recipes/demo.toml, or take the finished run of the same recipe; then use it and draw."""
    import tomllib

    recipe = tomllib.loads(recipes()["demo"])
    run = None if args.again else finished(recipe, Path("runs"))
    if run is not None:
        say(
            t(
                f"{run.folder} is trained already (--again trains anew)",
                f"{run.folder}은(는) 이미 학습되어 있습니다 (다시 학습: --again)",
            )
        )
    else:
        run = _train(recipe, args)
    model = run.best()
    scores = {name: _score(model, path) for name, path in TESTS.items()}
    translation = model.translate(TEXT, beam=model.decode.beam)
    from .see import translated

    pictures = [OUT / "attention.html", OUT / "attention.png"]
    translated(model, translation).write(pictures)
    if args.json:
        best = run.to_dict()
        emit(
            {
                **best,
                "scores": scores,
                "translation": translation,
                "files": list(map(str, pictures)),
            }
        )
        return
    _show(scores, translation.text, pictures)
    next_commands(run.folder, TEXT, TESTS["test"])


def finished(recipe: dict[str, Any], root: Path) -> "Run | None":
    """The newest run of this very recipe that came to its end."""
    from ..config import to_toml
    from ..learn.track import Status
    from ..recipe import Recipe
    from ..run import Run

    made = Recipe.read(recipe).rooted(Path.cwd())
    text = to_toml(made.to_dict()).encode()
    for config in sorted(root.glob(f"{made.name}-*/config.toml"), key=lambda p: -p.stat().st_mtime):
        status = Status.read(config.parent)
        whole = (config.parent / "best").is_dir() and status is not None and status.state == "done"
        if whole and config.read_bytes() == text:
            return Run(config.parent)
    return None


def _train(recipe: dict[str, Any], args: Args) -> "Run":
    from ..run import train
    from .live import Live

    say(
        t(
            "A small Transformer learns Korean → English on built-in phrases; about 3 minutes on 2 cores.\n",
            "작은 트랜스포머가 내장 문장으로 한국어 → 영어 번역을 배웁니다. 코어 2개로 3분쯤 걸립니다.\n",
        )
    )
    say(
        t(
            "reading the phrases, learning to cut words …",
            "문장을 읽고 단어 나누는 법을 배우는 중 …",
        )
    )
    with Live(json=args.json) as live:
        return train(recipe, listen=live, new=args.again)


def _score(model: "Model", path: str) -> dict[str, Any]:
    from ..score import evaluate

    say(t(f"scoring {path} …", f"{path} 채점하는 중 …"))
    found = evaluate(model, path, ("bleu", "chrf"))
    keep = ("sentences", "scores", "perplexity")
    return {k: found[k] for k in keep}


def _show(scores: dict[str, dict[str, Any]], text: str, pictures: list[Path]) -> None:
    names = {
        "test": t("held-out phrases", "처음 보는 문장"),
        "hand": t("written by hand", "손으로 쓴 문장"),
    }
    rows = [["", "BLEU", "chrF", t("sentences", "문장 수")]]
    for name, found in scores.items():
        s = found["scores"]
        bleu, chrf = s["bleu"]["value"], s["chrf"]["value"]
        rows.append([names[name], f"{bleu:.1f}", f"{chrf:.1f}", f"{found['sentences']:,}"])
    result("")
    for line in table(rows, right=(1, 2, 3)):
        result(line)
    result(f"\n{TEXT}  →  {bold(text)}\n")
    result(t("where it looked:  ", "어디를 보았나:  ") + "  ".join(map(str, pictures)))
