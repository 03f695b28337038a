"""A recipe: everything that decides a run, as one TOML file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from .config import from_dict, override, read_toml, to_dict
from .data.sources import PairSource
from .decode.answer import SearchConfig
from .errors import ConfigError
from .learn.loop import TrainConfig
from .learn.optim import OptimConfig
from .text import TextConfig

Overrides = Mapping[str, Any] | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    train: PairSource
    dev: PairSource | None = None  # None: every pair whose hash falls into `holdout` is kept apart
    holdout: float = 0.02
    max_tokens: int = 256  # longer sides are skipped, and counted

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 1:
            raise ConfigError(
                f"data.holdout must be in (0, 1) (got {self.holdout})", fix="try data.holdout=0.02"
            )


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What an evaluation during training costs: the dev loss always, translations of some sentences."""

    sentences: int = 200  # dev sentences translated for BLEU and chrF; 0: none
    metrics: tuple[str, ...] = ("bleu", "chrf")
    tokenize: str = "13a"
    lowercase: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    name: str = "run"
    seed: int = 1
    start: str = (
        ""  # `from` in TOML: a model or run folder whose weights and tokenizer to go on from
    )
    data: DataConfig
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
        measured = self.eval.metrics if self.eval.sentences else ()
        known = ("dev/loss", "dev/perplexity", *(f"dev/{m}" for m in measured))
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
        recipe = from_dict(cls, values, place=place)
        if not recipe.start:
            recipe.model_config(8, place)  # a wrong model setting is found before any data is read
        return recipe

    def model_config(self, vocab_size: int, place: object = "") -> Any:
        from .models import configure

        return configure({**self.model, "vocab_size": vocab_size}, place=place)

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = to_dict(self)
        start = values.pop("start")
        return ({"from": start} if start else {}) | values

    def rooted(self, root: Path) -> "Recipe":
        """Paths of the corpus made absolute from `root`, so that a run's copy of its recipe works anywhere."""

        def full(path: str) -> str:
            return path if not path or path.startswith("builtin:") else str((root / path).resolve())

        def move(source: PairSource) -> PairSource:
            return replace(
                source,
                path=full(source.path),
                source_path=full(source.source_path),
                target_path=full(source.target_path),
            )

        dev = None if self.data.dev is None else move(self.data.dev)
        data = replace(self.data, train=move(self.data.train), dev=dev)
        return replace(self, data=data, start=full(self.start))
