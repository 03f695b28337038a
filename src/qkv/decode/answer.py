"""What a search is asked and what it answers: SearchConfig, Hypothesis, and the score they are ranked by."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import ConfigError

WIDEST = 4096  # beam, and answers of one source: each is a row of every step


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How to decode.  beam 1 and temperature 0: greedy.  temperature > 0: sampling, then nbest is the number
    of samples.  Raises ConfigError on a value out of range and on settings that contradict each other."""

    beam: int = 1
    nbest: int = 1
    max_new_tokens: int | None = None  # counts <eos>; None: 2 x the source's real length + 10
    min_new_tokens: int = 0  # tokens before <eos> may come
    alpha: float = 1.0  # strength of the length penalty; 0: off
    # gnmt: ((5 + length) / 6) ** alpha, finished answers before those the limit cut;
    # length: length ** alpha, both ranked together, as transformers does
    penalty: Literal["gnmt", "length"] = "gnmt"
    # True: a source is done when `beam` answers are finished.  "never": when no better one can come.  False: when the best
    # live one, at its present length, is worse than `beam` finished ones (a guess; the default of transformers)
    early_stopping: bool | Literal["never"] = True
    coverage: float = 0.0  # beta of Wu et al. 2016 eq. 14; 0: off
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0
    repetition_penalty: float = 1.0  # > 1: what was said already is less likely; 1: off
    no_repeat_ngram_size: int = 0  # so many tokens never come twice in this order; 0: off
    bad_words: tuple[tuple[int, ...], ...] = ()  # sequences of ids that never come
    forced_first: int | None = None  # the id every answer begins with (mBART: the language)
    forced_last: int | None = None  # the id an answer gets at its limit (BART: <eos>)
    eos_ids: tuple[int, ...] = ()  # ends beside the net's own

    def __post_init__(self) -> None:
        _whole("beam", self.beam, 1, WIDEST)
        _whole("nbest", self.nbest, 1, WIDEST)
        _whole("min_new_tokens", self.min_new_tokens, 0)
        _whole("seed", self.seed, 0)
        _whole("no_repeat_ngram_size", self.no_repeat_ngram_size, 0)
        if self.max_new_tokens is not None:
            _whole("max_new_tokens", self.max_new_tokens, 1)
        if self.top_k is not None:
            _whole("top_k", self.top_k, 1)
        for name in ("coverage", "temperature", "repetition_penalty"):
            _real(name, getattr(self, name))
        _real("alpha", self.alpha, -10.0 if self.penalty == "length" else 0.0)
        if self.alpha > 10:
            raise ConfigError(f"alpha must be <= 10 (got {self.alpha})", fix="try alpha=1")
        if self.repetition_penalty == 0:
            raise ConfigError(
                "repetition_penalty must be > 0 (got 0)", fix="try repetition_penalty=1.2"
            )
        self._words()
        if self.top_p is not None:
            _real("top_p", self.top_p)
            if not 0 < self.top_p <= 1:
                raise ConfigError(
                    f"top_p must be in (0, 1] (got {self.top_p!r})", fix="try top_p=0.95"
                )
        if self.seed >= 1 << 64:
            raise ConfigError(f"seed must be < 2**64 (got {self.seed})", fix="try seed=0")
        self._agree()

    def _words(self) -> None:
        for name in ("penalty", "early_stopping"):
            value = getattr(self, name)
            known = {"penalty": ("gnmt", "length"), "early_stopping": (True, False, "never")}[name]
            if not any(value is k or (isinstance(k, str) and value == k) for k in known):
                raise ConfigError(
                    f"{name} = {value!r} is not one of its choices",
                    fix=f"known: {', '.join(map(repr, known))}",
                )
        words = [*self.bad_words, self.eos_ids]
        forced = tuple(i for i in (self.forced_first, self.forced_last) if i is not None)
        for i in (i for word in (*words, forced) for i in word):
            _whole("an id", i, 0)
        if not all(self.bad_words):
            raise ConfigError("bad_words holds an empty sequence", fix="leave it out")

    def _agree(self) -> None:
        def contradict(seen: str, fix: str) -> ConfigError:
            return ConfigError(seen, fix=fix, code="QKV-013")

        if self.sampling and self.beam > 1:
            raise contradict(
                f"beam {self.beam} and temperature {self.temperature} exclude each other",
                "beam=1 to sample, temperature=0 for beam search",
            )
        if not self.sampling and (self.top_k is not None or self.top_p is not None):
            raise contradict(
                "top_k and top_p need temperature > 0", "temperature=1, or leave them out"
            )
        if not self.sampling and self.nbest > self.beam:
            raise contradict(
                f"nbest {self.nbest} exceeds beam {self.beam}", f"try beam={self.nbest}"
            )
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise contradict(
                f"min_new_tokens {self.min_new_tokens} exceeds max_new_tokens {self.max_new_tokens}",
                "raise max_new_tokens",
            )
        if self.coverage > 0 and self.sampling:
            raise contradict("coverage ranks the answers of a beam", "coverage=0 to sample")

    @property
    def sampling(self) -> bool:
        return self.temperature > 0


def _whole(name: str, value: Any, least: int, most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(
            f"{name} must be a whole number (got {value!r})",
            fix=f"try {name}={least}",
            code="QKV-011",
        )
    if value < least:
        raise ConfigError(f"{name} must be >= {least} (got {value})", fix=f"try {name}={least}")
    if most is not None and value > most:
        raise ConfigError(f"{name} must be <= {most} (got {value})", fix=f"try {name}={most}")


def _real(name: str, value: Any, least: float = 0.0) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(
            f"{name} must be a number (got {value!r})", fix=f"write {name}=…", code="QKV-011"
        )
    if not (math.isfinite(value) and value >= least):
        raise ConfigError(
            f"{name} must be finite and >= {least:g} (got {value!r})", fix=f"try {name}=1"
        )


@dataclass(frozen=True)
class Hypothesis:
    """One answer.  score = log P(ids, <eos> | source): token_scores added from left to right in float64.

    A beam with a repetition penalty scores what it ranks: the penalised numbers; a forced token counts 0."""

    ids: tuple[int, ...]  # without <eos>
    score: float
    finished: bool  # False: stopped by the limit, or because nothing more was possible
    token_scores: tuple[float, ...]  # one per id, and one for <eos> where that ended it


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha, Wu et al. 2016 eq. 14; length counts <eos>.  alpha = 0 turns it off."""
    return float(((5 + length) / 6) ** alpha)


def rank_score(score: float, length: int, config: SearchConfig) -> float:
    """What answers are ordered by: log P / penalty of the length, which counts <eos>."""
    if config.penalty == "length":
        return float(score / max(length, 1) ** config.alpha)
    return score / length_penalty(length, config.alpha)
