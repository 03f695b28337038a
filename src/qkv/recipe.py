"""A recipe: everything that decides a run, as one TOML file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from .config import from_dict, override, read_toml, to_dict
from .data.images.boxes import DetectConfig
from .data.images.config import ImageClassifyConfig
from .data.images.sources import ImageSource
from .data.objectives import OBJECTIVES
from .data.records import RecordSource
from .data.sources import PairSource
from .decode.answer import SearchConfig
from .errors import ConfigError, did_you_mean
from .learn.loop import TrainConfig
from .learn.optim import OptimConfig
from .learn.sums import METRICS, TOKENIZERS
from .text import TextConfig

Overrides = Mapping[str, Any] | Sequence[str]
Source = PairSource | RecordSource | ImageSource
TRANSLATE = "translate"
# objectives on pictures, and their settings
PICTURES: dict[str, type] = {"image-classify": ImageClassifyConfig, "detect": DetectConfig}
KINDS: dict[str, type] = {name: o.config for name, o in OBJECTIVES.items()} | PICTURES
# what an evaluation measures beside the loss, by objective
MEASURES = {
    "lm": ("perplexity",),
    "windows": ("perplexity",),
    "mlm": ("perplexity",),
    "spans": ("perplexity",),
    "infill": ("perplexity",),
    "chat": ("perplexity",),
    "classify": ("accuracy", "f1"),
    "regress": ("pearson", "spearman"),
    "tag": ("f1", "precision", "recall"),
    "answer": ("exact", "f1"),
    "contrast": ("recall@1",),
    "image-classify": ("accuracy", "f1"),
    "detect": ("map", "map50", "map75", "miscount"),
}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The sources are pairs for translation, pictures for objectives on pictures, records for every other objective."""

    train: Any  # Source
    dev: Any = None  # None: every example whose hash falls into `holdout` is kept apart
    holdout: float = 0.02
    max_tokens: int = 256  # translation: longer sides are skipped, and counted; 0: no limit

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1:
            raise ConfigError(
                f"data.holdout must be in (0, 1) (got {self.holdout})", fix="try data.holdout=0.02"
            )
        if self.max_tokens < 0:
            raise ConfigError(
                f"data.max_tokens must not be negative (got {self.max_tokens})",
                fix="data.max_tokens = 0: no limit",
            )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What an evaluation during training costs: the dev loss always, translations of some sentences."""

    sentences: int = 200  # dev sentences translated for BLEU and chrF; 0: none
    metrics: tuple[str, ...] = ("bleu", "chrf")
    tokenize: str = "13a"
    lowercase: bool = False

    def __post_init__(self) -> None:
        if self.sentences < 0:
            raise ConfigError(
                f"eval.sentences must not be negative (got {self.sentences})",
                fix="eval.sentences = 0: translate none",
            )
        for name, given, known in (
            ("metrics", self.metrics, METRICS),
            ("tokenize", (self.tokenize,), TOKENIZERS),
        ):
            for word in given:
                if word not in known:
                    raise ConfigError(
                        f"eval.{name}: {word!r} is unknown", fix=did_you_mean(word, known)
                    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str = "run"
    seed: int = 1
    start: str = (
        ""  # `from` in TOML: a model or run folder whose weights and tokenizer to go on from
    )
    data: DataConfig
    objective: dict[str, Any] = field(default_factory=dict)  # kind, and the settings of that kind
    text: TextConfig = field(default_factory=TextConfig)
    model: dict[str, Any] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    decode: SearchConfig = field(default_factory=SearchConfig)
    track: tuple[Literal["tensorboard", "mlflow"], ...] = ()

    def __post_init__(self) -> None:
        plain = self.name.replace("-", "").replace("_", "").replace(".", "")
        if not plain.isalnum() or self.name.startswith(".") or len(self.name) > 100:
            raise ConfigError(
                f"name {self.name!r} cannot name a folder",
                fix="letters, digits, - _ . (at most 100)",
            )
        known = ("dev/loss", *(f"dev/{m}" for m in self.measures))
        if self.train.metric not in known:
            raise ConfigError(
                f"train.metric {self.train.metric!r} is not measured",
                fix=f"one of {', '.join(known)}; eval.metrics and eval.sentences say which",
                code="QKV-013",
            )
        if not 0 <= self.seed < 2**20:
            raise ConfigError(f"seed must be in [0, 2**20) (got {self.seed})", fix="try seed=1")

    @classmethod
    def read(cls, source: str | Path | Mapping[str, Any], overrides: Overrides = ()) -> "Recipe":
        """From a TOML file or nested values, with overrides.  Raises ConfigError or MissingError."""
        place: object = "recipe"
        if not isinstance(source, Mapping):
            place, source = source, read_toml(source)
        values = override(dict(source), overrides)
        if "from" in values:
            values["start"] = values.pop("from")
        kind = _kind(values, place)
        if isinstance(values.get("data"), Mapping):
            values["data"] = _sources(values["data"], kind, place)
        if kind != TRANSLATE and isinstance(values.get("train", {}), Mapping):
            values["train"] = {"smoothing": 0.0, **values.get("train", {})}
        recipe = from_dict(cls, values, place=place)
        recipe.objective_config(place)
        if not recipe.start:
            # a mistake is found before data is read; what the data will decide is made up
            recipe.model_config({"vocab_size": 8, "labels": ("0", "1")}, place)
        return recipe

    @property
    def teacher(self) -> str:
        """The model whose answers the objective learns from; empty where it names none."""
        return str(self.objective.get("teacher", ""))

    @property
    def objective_kind(self) -> str:
        kind: str = self.objective.get("kind", TRANSLATE)
        return kind

    @property
    def measures(self) -> tuple[str, ...]:
        if self.objective_kind == TRANSLATE:
            return ("perplexity", *(self.eval.metrics if self.eval.sentences else ()))
        return MEASURES.get(self.objective_kind, ())

    def objective_config(self, place: object = "") -> Any:
        """The settings of the objective; None for translation, which has none of its own."""
        settings = {k: v for k, v in self.objective.items() if k != "kind"}
        if self.objective_kind == TRANSLATE:
            if settings:
                raise ConfigError(
                    f"objective {TRANSLATE!r} has no setting {next(iter(settings))!r}",
                    place=place,
                    fix=f"remove it, or choose a kind: {', '.join(KINDS)}",
                    code="QKV-010",
                )
            return None
        return from_dict(KINDS[self.objective_kind], settings, place=place, at="objective.")

    def model_config(self, given: Mapping[str, Any], place: object = "") -> Any:
        """The family's configuration; `given` is what the data decides, as far as the family asks for it."""
        from .models import CONFIGS, configure

        family = CONFIGS.get(self.model.get("family", "transformer"))
        asked = {f.name for f in fields(family)} if family else {"vocab_size"}
        decided = {
            k: v
            for k, v in given.items()
            if k in asked and (k not in self.model or k == "vocab_size")
        }
        if not has_head(family, decided.get("head")):
            del decided["head"]  # what is built then lacks it, and that is told
        return configure({**self.model, **decided}, place=place)

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = to_dict(self)
        start = values.pop("start")
        return ({"from": start} if start else {}) | values

    def rooted(self, root: Path) -> "Recipe":
        """Paths of the corpus made absolute from `root`, so that a run's copy of its recipe works anywhere."""

        def full(path: str) -> str:
            return path if not path or path.startswith("builtin:") else str((root / path).resolve())

        def move(source: Source) -> Source:
            if isinstance(source, RecordSource):
                return replace(source, path=full(source.path))
            if isinstance(source, ImageSource):
                return replace(
                    source,
                    path=full(source.path),
                    labels=full(source.labels),
                    images=full(source.images),
                )
            return replace(
                source,
                path=full(source.path),
                source_path=full(source.source_path),
                target_path=full(source.target_path),
            )

        dev = None if self.data.dev is None else move(self.data.dev)
        data = replace(self.data, train=move(self.data.train), dev=dev)
        objective = dict(self.objective)
        if self.teacher:
            objective["teacher"] = _model(self.teacher, full)
        return replace(self, data=data, start=_model(self.start, full), objective=objective)


def has_head(family: Any, head: str | None) -> bool:
    """Is this one of the heads that a family's configuration names?  True where it names none."""
    hint = get_type_hints(family).get("head") if head and family else None
    return get_origin(hint) is not Literal or head in get_args(hint)


def _kind(values: Mapping[str, Any], place: object) -> str:
    """The objective's name.  Raises ConfigError with the nearest known one."""
    objective = values.get("objective", {})
    kind = objective.get("kind", TRANSLATE) if isinstance(objective, Mapping) else TRANSLATE
    if kind != TRANSLATE and kind not in KINDS:
        raise ConfigError(
            f"objective.kind = {kind!r} is unknown",
            place=place,
            fix=did_you_mean(str(kind), [TRANSLATE, *KINDS]),
        )
    return str(kind)


def _sources(data: Mapping[str, Any], kind: str, place: object) -> dict[str, Any]:
    """[data] with its sources read: pairs for translation, pictures or records for the other objectives."""
    source: type[Source] = PairSource if kind == TRANSLATE else RecordSource
    source = ImageSource if kind in PICTURES else source
    for name in ("train", "dev"):
        value = data.get(name)
        if isinstance(value, str | bytes | bool | int | float | list | tuple):
            raise ConfigError(
                f"data.{name} must be a table (got {value!r})",
                place=place,
                fix=f'data.{name} = {{ path = "train.tsv" }}',
                code="QKV-011",
            )
    return {
        name: from_dict(source, value, place=place, at=f"data.{name}.")
        if name in ("train", "dev") and isinstance(value, Mapping)
        else value
        for name, value in data.items()
    }


def _model(start: str, full: Callable[[str], str]) -> str:
    """A path made absolute; the name of a published model stays a name."""
    return full(start) if start and Path(start).exists() else start
