"""Translation: pairs of texts, scored by BLEU and chrF."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, TypeVar

import torch

from ..data.report import Pair, SkipReport
from ..data.sources import PairSource, read_pairs
from ..data.stream import Corpus, Stream, encode, sampler
from ..data.watch import overlap
from ..decode.answer import SearchConfig
from ..errors import DataError, TokenizerError
from ..learn import measure
from ..learn.loop import Validate
from ..model import Model
from ..readings import Habits
from ..recipe import Recipe
from ..score import corpus_nll
from ..text import AnyTokenizer
from ..text import train as train_tokenizer
from .settings import special_ids

T = TypeVar("T")


@dataclass
class PairsJob:
    """Encoded pairs, the tokenizer, and what was skipped."""

    recipe: Recipe
    train: Corpus
    dev: Corpus
    tokenizer: AnyTokenizer
    report: SkipReport
    dev_report: SkipReport
    leak: int
    written: list[dict[str, Any]] = field(default_factory=list)
    processor: None = None

    @classmethod
    def read(cls, recipe: Recipe, tokenizer: AnyTokenizer | None = None) -> "PairsJob":
        report, dev_report = SkipReport(), SkipReport()
        source = recipe.data.train
        if not isinstance(source, PairSource):
            raise TypeError("translation reads pairs")
        pairs = list(read_pairs(source, report))
        if recipe.data.dev is None:
            pairs, dev = parted(pairs, lambda p: p.source, recipe)
        else:
            dev = list(read_pairs(recipe.data.dev, dev_report))
        if tokenizer is None:
            texts = (s for p in pairs for s in (p.source, p.target))
            tokenizer = train_tokenizer(texts, recipe.text)
        most = recipe.data.max_tokens
        train = encode(pairs, tokenizer, tokenizer.target, report, max_tokens=most)
        kept = dev_report if recipe.data.dev else report  # held-out pairs were read with the others
        made = encode(dev, tokenizer, tokenizer.target, kept)
        leak = overlap(pairs, dev)
        return cls(recipe, train, made, tokenizer, report, dev_report, leak)

    @property
    def sizes(self) -> tuple[int, int]:
        return len(self.train), len(self.dev)

    @property
    def longest(self) -> int:
        """Tokens of the longest side."""
        return max(int(x.lengths.max(initial=0)) for x in (self.train, self.dev))

    @property
    def settings(self) -> dict[str, Any]:
        return special_ids(self.tokenizer)

    @property
    def template(self) -> None:
        return None

    @property
    def habits(self) -> Habits:
        return Habits()

    def stream(self) -> Stream:
        alpha, tok = self.recipe.text.sample_alpha, self.tokenizer
        if tok.eos_id is None:
            raise TokenizerError(
                "this tokenizer has no end-of-text token",
                fix="name one as eos_token in tokenizer_config.json",
            )
        return Stream(
            self.train,
            self.recipe.train.batch_tokens,
            self.recipe.seed,
            pad_id=tok.pad_id or 0,  # padding is masked: any id will do
            eos_id=tok.eos_id,
            resample=sampler(tok, tok.target, alpha) if alpha else None,
        )

    def remarks(self, config: Any) -> Sequence[str]:
        return ()

    def samples(self) -> list[dict[str, Any]]:
        return self.written

    def validation(self, model: Model) -> Validate:
        """Loss and perplexity on all of dev, BLEU and chrF on some sentences."""

        def measured(net: torch.nn.Module, step: int) -> dict[str, float]:
            nll, tokens = corpus_nll(net, self.dev, model.tokenizer)
            metrics = {"dev/loss": nll / tokens, "dev/perplexity": measure.perplexity(nll, tokens)}
            pairs = self.dev.pairs[: self.recipe.eval.sentences]
            return metrics | (self.translated(model, pairs) if pairs else {})

        return measured

    def translated(self, model: Model, pairs: Sequence[Pair]) -> dict[str, float]:
        # greedy and short: what a glance during training costs; `qkv eval` searches properly
        how = SearchConfig(max_new_tokens=2 * self.recipe.data.max_tokens or None)
        found = [a[0].text for a in model.answers([p.source for p in pairs], how, 4096)]
        asked, refs = self.recipe.eval, [p.target for p in pairs]
        scores = measure.translation_scores(
            found, refs, asked.metrics, asked.tokenize, asked.lowercase
        )
        self.written = [
            {"source": p.source, "reference": p.target, "text": text}
            for p, text in list(zip(pairs, found, strict=True))[:5]
        ]
        return {f"dev/{name}": float(s.value) for name, s in scores.items()}


def held_out(text: str, share: float) -> bool:
    """An example's side of the split depends on its text alone, so that no sentence is on both sides."""
    digest = blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < share * 2**64


def parted(found: list[T], text: Callable[[T], str], recipe: Recipe) -> tuple[list[T], list[T]]:
    """(train, dev) by `held_out`.  Raises DataError QKV-032 where a side of the split is empty."""
    sides: tuple[list[T], list[T]] = [], []
    for x in found:
        sides[held_out(text(x), recipe.data.holdout)].append(x)
    if not all(sides):
        raise DataError(
            f"{len(found)} examples are too few to hold {recipe.data.holdout:.0%} apart",
            place=getattr(recipe.data.train, "path", ""),
            fix="give [data.dev], or a larger data.holdout",
            code="QKV-032",
        )
    return sides
