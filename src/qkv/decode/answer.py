"""What a search is asked and what it answers: SearchConfig, Hypothesis, and the score they are ranked by."""

import math
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """How to decode.  beam 1 and temperature 0: greedy.  temperature > 0: sampling, then nbest is the number
    of samples.  Raises ConfigError on a value out of range and on settings that contradict each other."""

    beam: int = 1
    nbest: int = 1
    max_new_tokens: int | None = None  # counts <eos>; None: 2 x the source's real length + 10
    min_new_tokens: int = 0  # tokens before <eos> may come
    alpha: float = 1.0  # length penalty ((5 + length) / 6) ** alpha; 0: off
    coverage: float = 0.0  # beta of Wu et al. 2016 eq. 14; 0: off
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _whole("beam", self.beam, 1)
        _whole("nbest", self.nbest, 1)
        _whole("min_new_tokens", self.min_new_tokens, 0)
        _whole("seed", self.seed, 0)
        if self.max_new_tokens is not None:
            _whole("max_new_tokens", self.max_new_tokens, 1)
        if self.top_k is not None:
            _whole("top_k", self.top_k, 1)
        for name in ("alpha", "coverage", "temperature"):
            _real(name, getattr(self, name))
        if self.alpha > 10:
            raise ConfigError(f"alpha must be <= 10 (got {self.alpha})", fix="try alpha=1")
        if self.top_p is not None:
            _real("top_p", self.top_p)
            if not 0 < self.top_p <= 1:
                raise ConfigError(
                    f"top_p must be in (0, 1] (got {self.top_p!r})", fix="try top_p=0.95"
                )
        if self.seed >= 1 << 64:
            raise ConfigError(f"seed must be < 2**64 (got {self.seed})", fix="try seed=0")
        self._agree()

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


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(
            f"{name} must be a whole number (got {value!r})",
            fix=f"try {name}={least}",
            code="QKV-011",
        )
    if value < least:
        raise ConfigError(f"{name} must be >= {least} (got {value})", fix=f"try {name}={least}")


def _real(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(
            f"{name} must be a number (got {value!r})", fix=f"write {name}=…", code="QKV-011"
        )
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} must be finite and >= 0 (got {value!r})", fix=f"try {name}=1")


@dataclass(frozen=True)
class Hypothesis:
    """One answer.  score = log P(ids, <eos> | source): token_scores added from left to right in float64."""

    ids: tuple[int, ...]  # without <eos>
    score: float
    finished: bool  # False: stopped by the limit, or because nothing more was possible
    token_scores: tuple[float, ...]  # one per id, and one for <eos> where finished


def length_penalty(length: int, alpha: float) -> float:
    """((5 + length) / 6) ** alpha, Wu et al. 2016 eq. 14; length counts <eos>.  alpha = 0 turns it off."""
    return float(((5 + length) / 6) ** alpha)
