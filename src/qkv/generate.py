"""`Model.generate`: texts continued by a decoder alone, or answered by an encoder-decoder, whole or as they come."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .decode.answer import SearchConfig
from .decode.engine import Engine
from .decode.reader import Reader
from .decode.rows import prompted
from .errors import ConfigError, DataError

if TYPE_CHECKING:
    from .model import Model


@dataclass(frozen=True)
class Generation:
    """What follows a prompt.  score: the sum of the log-probabilities of its tokens, <eos> included, in nats."""

    text: str  # the continuation alone, cut before a stop string
    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    score: float
    prompt: str
    finished: bool  # by <eos> or a stop string; False: the limit came first

    def to_dict(self) -> dict[str, Any]:
        return {
            "prompt": self.prompt,
            "text": self.text,
            "tokens": list(self.tokens),
            "ids": list(self.ids),
            "score": self.score,
            "finished": self.finished,
        }

    def __str__(self) -> str:
        return self.text


def settings(base: SearchConfig, **asked: Any) -> SearchConfig:
    """The model's own settings with what was asked for; None: as the model has it, but for limits and filters."""
    kept = ("repetition_penalty", "no_repeat_ngram_size")
    asked = {k: v for k, v in asked.items() if v is not None or k not in kept}
    least = base.min_new_tokens
    most = asked["max_new_tokens"]
    least = min(least, most) if isinstance(most, int) else least
    return replace(base, nbest=1, coverage=0.0, min_new_tokens=least, **asked)


def generate(
    model: "Model",
    prompts: str | Sequence[str],
    config: SearchConfig,
    stop: str | Sequence[str],
    stream: bool,
) -> Any:
    """str -> one answer, list -> list; stream: an iterator of its pieces, of a list (number, piece)."""
    if not isinstance(prompts, Iterable):
        raise DataError(
            f"prompts is {type(prompts).__name__}", fix="pass a string or a list of them"
        )
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {i} is {type(text).__name__}, not str", fix="pass strings")
    if not hasattr(model.net, "step"):
        raise ConfigError(
            f"a {model.family} reads and does not write",
            fix="load a decoder or an encoder-decoder",
            code="QKV-013",
        )
    stops = check_stop(stop)
    if not texts:
        return iter(()) if stream else []
    reader = Reader(model.tokenizer.decode, stops)
    if stream:
        made = _pieces(model, texts, config, reader)
        return (piece for _, piece in made) if isinstance(prompts, str) else made
    if prompted(model.net):
        sources = [model.ids(text) for text in texts]
        answers: list[Any] = continued(model, texts, sources, config, reader)
    else:
        answers = [a[0] for a in model.answers(texts, config, 4096, reader)]
    return answers[0] if isinstance(prompts, str) else answers


def check_stop(stop: str | Sequence[str]) -> tuple[str, ...]:
    """One stop string or several.  Raises ConfigError QKV-011, QKV-012."""
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    for s in stops:
        if not isinstance(s, str):
            raise ConfigError(
                f"stop holds {s!r}, not a text", fix='try stop=["\\n"]', code="QKV-011"
            )
        if not s:
            raise ConfigError("stop holds an empty text, which is everywhere", fix="leave it out")
    return stops


def engine(model: "Model", config: SearchConfig, reader: Reader) -> Engine:
    """An engine that never takes an id without a text."""
    return Engine(model.net, config, banned=model.nameless, reader=reader)


def continued(
    model: "Model",
    texts: list[str],
    sources: list[list[int]],
    config: SearchConfig,
    reader: Reader,
) -> list[Generation]:
    """What follows the ids of each prompt; `texts` are what they are called."""
    made = []
    found = engine(model, config, reader)(sources)
    for text, source, (best, *_) in zip(texts, sources, found, strict=True):
        answer = reader.text(source, best.ids)
        tokens = tuple(model.tokenizer.target.tokens(best.ids))
        made.append(Generation(answer, tokens, best.ids, best.score, text, best.finished))
    return made


def _pieces(
    model: "Model", texts: list[str], config: SearchConfig, reader: Reader
) -> Iterator[tuple[int, str]]:
    continues = prompted(model.net)
    # a model that answers has nothing to say to nothing; one that continues can begin
    sources = [model.ids(text) if continues or text.strip() else [] for text in texts]
    return engine(model, config, reader).pieces(sources)
