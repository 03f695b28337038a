"""The house: which way imports point, what no module may do, and the names we promised."""

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import qkv
from qkv.cli.table import COMMON, VERBS

SRC = Path(qkv.__file__).parent
MODULES = {
    ".".join(p.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__"): p
    for p in sorted(SRC.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}


# ---- imports point one way

BASE = {"errors", "shapes", "config", "messages"}
STORE = {f"weights.{m}" for m in ("store", "files", "manifest", "place", "disk")}
COMMON_GROUND = BASE | STORE | {"weights", "__init__"}
FREE = ("model", "detect", "generate", "checkpoints", "read", "readings", "recipe", "run", "jobs", "chat", "dry_run", "runs", "score", "doctor", "pictures", "inside", "specimens", "gaze", "gaps") + (
    "cli", "serve", "rag", "__init__", "__main__",
)  # fmt: skip  # may use anything
# package -> what of qkv it may use, itself and the common ground aside (DESIGN section 2)
MAY_USE: dict[str, tuple[str, ...]] = {
    "parts": (),
    "text": (),
    "data": ("text",),
    "models": ("parts", "weights.table"),
    "weights": (),
    "learn": ("models.interface", "parts"),
    "decode": ("models.interface", "parts"),
    "look": ("models.interface", "parts"),
}


def imports(name: str) -> list[tuple[int, str]]:
    """(line, module of qkv) of every import anywhere in a module: in functions too, and for typing too."""
    package = name.split(".") if MODULES[name].name == "__init__.py" else name.split(".")[:-1]
    package = [p for p in package if p != "__init__"]
    found = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            targets = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                stem = [
                    "qkv",
                    *package[: len(package) - node.level + 1],
                    *(node.module or "").split("."),
                ]
            else:
                stem = (node.module or "").split(".")
            base = ".".join(s for s in stem if s)
            # `from .models import build` names a module or something in one: take the longest that is a module
            targets = [
                f"{base}.{a.name}" if f"{base}.{a.name}".removeprefix("qkv.") in MODULES else base
                for a in node.names
            ]
        else:
            continue
        for target in targets:
            if target == "qkv" or target.startswith("qkv."):
                found.append((node.lineno, target.removeprefix("qkv").lstrip(".") or "__init__"))
    return found


def allowed(name: str, target: str) -> bool:
    top = name.split(".")[0]
    if top in FREE:
        return True
    if name in COMMON_GROUND:
        return target in COMMON_GROUND
    if target in COMMON_GROUND and target != "__init__":
        return True
    ours = (top, *MAY_USE.get(top, ()))
    return any(target == o or target.startswith(o + ".") for o in ours)


def test_the_import_reader_sees_imports() -> None:
    assert "config" in {target for _, target in imports("recipe")}
    assert "models" in {target for _, target in imports("recipe")}  # inside a function
    assert "model" in {target for _, target in imports("__init__")}  # for typing only
    assert not allowed("parts.attention", "models.rnn")
    assert not allowed("errors", "messages.x")
    assert not allowed("text.train", "data.sources")
    assert allowed("data.stream", "text.tokenizer")


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    wrong = [
        f"line {line}: {target}" for line, target in imports(name) if not allowed(name, target)
    ]
    assert not wrong, f"{name} may not import {wrong}"


def test_every_package_has_a_rule() -> None:
    tops = {name.split(".")[0] for name in MODULES}
    assert tops <= set(MAY_USE) | set(FREE) | BASE


# ---- what no module may do

FORBIDDEN_MODULES = {"pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle", "yaml"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {"splitlines", "MultiheadAttention"}
FORBIDDEN_CALLS = {"torch.load", "torch.save", "os.system", "np.load", "numpy.load"}
WRITES = {
    "write_text",
    "write_bytes",
    "rename",
    "replace",
    "unlink",
    "rmtree",
    "move",
    "makedirs",
    "rmdir",
}
WRITERS = {"os", "shutil", "Path", "pathlib"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def banned(name: str) -> list[str]:
    found = []
    for node in ast.walk(TREES[name]):
        said = ""
        if isinstance(node, ast.Assert):
            said = "assert"
        elif isinstance(node, ast.Import):
            said = next(
                (a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN_MODULES), ""
            )
        elif isinstance(node, ast.ImportFrom) and not node.level:
            said = (
                node.module or "" if (node.module or "").split(".")[0] in FORBIDDEN_MODULES else ""
            )
        elif isinstance(node, ast.Attribute):
            # finfo(dtype).min as a mask leaks padding: law 4
            lowest = node.attr == "min" and isinstance(node.value, ast.Call)
            if lowest and dotted(node.value.func).endswith("finfo"):  # type: ignore[attr-defined]
                said = "finfo(…).min"
            elif node.attr in FORBIDDEN_ATTRIBUTES or dotted(node) in FORBIDDEN_CALLS:
                said = node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            said = node.func.id if node.func.id in FORBIDDEN_NAMES else ""
        if said:
            found.append(f"line {node.lineno}: {said}")
    return found


def writes(name: str) -> list[str]:
    """Where a module writes to disk by itself."""
    found = []
    for node in ast.walk(TREES[name]):
        if not isinstance(node, ast.Call):
            continue
        called = dotted(node.func)
        if called in ("open", "io.open", "os.open", "gzip.open") or called.endswith(".open"):
            mode = node.args[1] if len(node.args) > 1 else None
            mode = next((k.value for k in node.keywords if k.arg == "mode"), mode)
            if (
                isinstance(mode, ast.Constant)
                and isinstance(mode.value, str)
                and set(mode.value) & set("wax+")
            ):
                found.append(f"line {node.lineno}: {called}(…, {mode.value!r})")
        last = called.rpartition(".")[2]
        if last in ("write_text", "write_bytes") or (
            last in WRITES and called.split(".")[0] in WRITERS
        ):
            found.append(f"line {node.lineno}: {called}")
    return found


@pytest.mark.parametrize("name", MODULES)
def test_nothing_that_runs_code_loses_data_or_leaks_padding(name):
    assert not banned(name)


@pytest.mark.parametrize("name", [n for n in MODULES if not n.startswith("weights")])
def test_every_durable_write_goes_through_the_store(name):
    assert not writes(name)


def test_the_search_for_banned_things_finds_them() -> None:
    code = "import pickle\nassert 1\nx.splitlines()\neval('1')\ntorch.finfo(t).min\ntorch.load(p)\nopen(p, 'w')\nPath(p).write_text(s)"
    TREES["planted"] = ast.parse(code)
    try:
        assert len(banned("planted")) == 6
        assert len(writes("planted")) == 2
    finally:
        del TREES["planted"]


FAMILIES = (
    "transformer gpt gpt2 llama bert t5 bart marian vit detr longformer bigbird performer roberta"
).split()


@pytest.mark.parametrize("name", [n for n in MODULES if n.startswith("parts")])
def test_parts_name_no_family(name):
    """Names and strings of the code; a docstring or comment may cite a paper."""
    tree = TREES[name]
    prose = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    words: set[str] = set()
    for node in ast.walk(tree):
        for field in ("id", "attr", "arg", "name", "module"):
            words.add(str(getattr(node, field, "") or "").lower())
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            words.add(node.value.lower())
    named = {w for w in words for f in FAMILIES if f in w.replace("-", "_").split("_")}
    assert not named


# ---- promises

SURFACE = ["Model", "Run", "Translation", "evaluate", "load", "record", "train"]
SIGNATURES = {  # DESIGN section 4.1: names, order and defaults; more may follow, by name only
    "load": "source, device='auto', dtype=None",
    "record": "model, layers=None, heads=None",
    "Model.logits": "self, ids=None, keep=None, target=None, pixels=None, marked=None",
    "Model.translate": "self, texts, beam=1, nbest=1, max_new_tokens=None, batch_tokens=4096",
    "Model.generate": "self, prompts, max_new_tokens=128, beam=1, temperature=0.0, top_k=None, top_p=None, stop=(), seed=0,"
    " stream=False",
    "Model.save": "self, folder",
}


def test_the_public_names_are_frozen() -> None:
    assert sorted(qkv.__all__) == SURFACE
    for name in SURFACE:
        assert getattr(qkv, name).__module__.startswith("qkv.")
    with pytest.raises(AttributeError):
        qkv.nothing_of_this_name  # noqa: B018


@pytest.mark.parametrize("name", SIGNATURES)
def test_the_public_signatures_are_frozen(name):
    thing = qkv
    for part in name.split("."):
        thing = getattr(thing, part)
    got = [
        p.name if p.default is p.empty else f"{p.name}={p.default!r}"
        for p in inspect.signature(thing).parameters.values()  # type: ignore[arg-type]
    ]
    assert ", ".join(got).startswith(SIGNATURES[name])


OPTIONS = {
    "demo": "--again",
    "init": "name -o",
    "train": "recipe settings --dry-run --new --root",
    "eval": "run file reference --plot --metrics --source --target --tokenize --lowercase --beam --batch-tokens",
    "runs": "words --root",
    "translate": "text --model --beam --nbest --max-new-tokens --batch-tokens",
    "generate": "text --model --whole --max-new-tokens --beam --temperature --top-k --top-p --seed --repetition-penalty"
    " --stop --examples",
    "chat": "text --model --max-new-tokens --temperature --top-k --top-p --seed --repetition-penalty",
    "summarize": "text --model --whole --max-new-tokens --beam --batch-tokens",
    "fill": "text --model --n",
    "classify": "text --model --whole --window --stride",
    "detect": "pictures --model --threshold -o",
    "tag": "text --model --on",
    "answer": "text --model --context",
    "embed": "text --model --whole --pooling --normalize",
    "look": "text --model -o --beam",
    "doctor": "--model",
    "fetch": "name --to --mirror --accept",
}


def test_the_command_line_is_frozen() -> None:
    assert {v.name: " ".join(o.name for o in v.opts) for v in VERBS} == OPTIONS
    assert [o.name for o in COMMON] == ["--json", "--lang", "--debug", "--help"]


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_is_instant_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, resource\nfrom qkv import cli\ncli.main(['--help']); cli.main(['train', '--help'])\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(used.ru_utime + used.ru_stime)\n"
        "print(sorted({'torch', 'numpy', 'rich', 'matplotlib', 'tokenizers'} & set(sys.modules)))"
    )
    *_, seconds, heavy = python(code).strip().split("\n")
    assert heavy == "[]"
    assert (
        float(seconds) < 0.3
    )  # processor time, so that a busy machine does not fail; 0.05 measured


def test_the_core_needs_four_packages_only() -> None:
    """DESIGN section 8: parts, models, learn and decode import torch, numpy, safetensors, tokenizers, and no more."""
    code = """
import sys
ours = ("rich", "sacrebleu", "sentencepiece", "matplotlib", "tensorboard", "mlflow", "pandas", "transformers")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ours:
            raise ModuleNotFoundError(f"{name} is not for the core", name=name)
sys.meta_path.insert(0, Refuse())
import pkgutil, importlib, qkv
for top in ("parts", "models", "learn", "decode", "data"):
    package = importlib.import_module(f"qkv.{top}")
    for m in pkgutil.walk_packages(package.__path__, f"qkv.{top}."):
        importlib.import_module(m.name)
"""
    python(code)
