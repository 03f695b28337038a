"""How good a model is: translations of a test file, scored."""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from .data.batches import fixed_batches
from .data.images.sources import ImageSource
from .data.records import RecordSource
from .data.report import SkipReport
from .data.sources import PairSource, read_pairs
from .data.stream import Corpus, collate, encode
from .errors import UsageError
from .learn import measure
from .learn.losses import token_loss
from .model import Model
from .recipe import TRANSLATE, Recipe
from .text import AnyTokenizer


def recipe_of(model: Model) -> Recipe | None:
    """The recipe of the run that a model was loaded from; None where it comes from elsewhere."""
    path = None if model.folder is None else model.folder.parent / "config.toml"
    return Recipe.read(path) if path is not None and path.is_file() else None


def translates(model: Model) -> bool:
    """Is it measured by its translations, and not by another objective that it was trained for?"""
    recipe = recipe_of(model)
    return not model.has_pictures and (recipe is None or recipe.objective_kind == TRANSLATE)


def like(source: RecordSource, data: str | Path | PairSource | RecordSource) -> RecordSource:
    """A file of the same columns as another."""
    if isinstance(data, RecordSource):
        return data
    path = data.path if isinstance(data, PairSource) else str(data)
    return replace(source, path=path, part=(0.0, 1.0), where={})


@torch.inference_mode()
def corpus_nll(net: Any, corpus: Corpus, tokenizer: AnyTokenizer) -> tuple[float, int]:
    """Σ -log p over all target tokens (<eos> included) in nats, and their number."""
    total, tokens = 0.0, 0
    device = next(net.parameters()).device
    for index in fixed_batches(corpus.lengths, 8192):
        batch = collate(index, corpus.source, corpus.target, pad_id=net.pad_id, eos_id=net.eos_id)
        made = token_loss(net.loss_inputs(batch.to(device)))
        total, tokens = total + float(made.nll), tokens + made.tokens
    return total, tokens


def evaluate(
    model: Model,
    data: str | Path | PairSource | RecordSource | ImageSource,
    metrics: Sequence[str] = ("bleu", "chrf", "ter"),
    *,
    beam: int | None = None,
    tokenize: str = "13a",
    lowercase: bool = False,
    source: str | int = 0,
    target: str | int = 1,
    batch_tokens: int = 4096,
) -> dict[str, Any]:
    """Translate a test file and score it: sacreBLEU with signatures, perplexity, quality by source length.

    A model that was trained for another objective is measured by that: {"examples", "skipped", "places", "scores"}; the file then has
    the columns of its training data, or it is a folder, archive or idx file of pictures.  Raises DataError for a file without usable records, MissingError for one that is
    not there."""
    if not isinstance(model, Model):
        raise UsageError(
            f"evaluate measures a model, not {type(model).__name__} {str(model)[:80]!r}",
            fix='qkv.evaluate(qkv.load("runs/NAME"), data), or run.best()',
        )
    recipe = recipe_of(model)
    if model.has_pictures:
        from .jobs.images import measure_pictures

        return measure_pictures(model, recipe, data)
    if recipe is not None and not translates(model) and not isinstance(data, ImageSource):
        from .jobs.texts import measure_file

        return measure_file(recipe, model, like(recipe.data.train, data))
    if isinstance(data, (RecordSource, ImageSource)):
        raise UsageError("translations are scored on pairs", fix="give a PairSource or a path")
    if not isinstance(data, PairSource):
        data = PairSource(path=str(data), source=source, target=target)
    report = SkipReport()
    pairs = list(read_pairs(data, report))
    how = replace(model.decode, beam=model.decode.beam if beam is None else beam, nbest=1)
    sources, refs = [p.source for p in pairs], [p.target for p in pairs]
    began = time.perf_counter()
    hyps = [a[0].text for a in model.answers(sources, how, batch_tokens)]
    seconds = time.perf_counter() - began
    corpus = encode(pairs, model.tokenizer, model.tokenizer.target, SkipReport())
    nll, tokens = corpus_nll(model.net, corpus, model.tokenizer.target)
    scores = measure.translation_scores(hyps, refs, tuple(metrics), tokenize, lowercase)
    lengths = [len(model.tokenizer.encode(s).ids) for s in sources]
    bins = (
        measure.by_length(hyps, refs, lengths, tokenize=tokenize, lowercase=lowercase)
        if len(pairs) > 20
        else []
    )
    return {
        "sentences": len(pairs),
        **report.left_out(),
        "seconds": seconds,
        "decode": asdict(how),
        "scores": {name: s.to_dict() for name, s in scores.items()},
        "perplexity": measure.perplexity(nll, tokens),
        "by_length": [asdict(b) for b in bins],
        "samples": [asdict(r) for r in measure.sample_table(sources, refs, hyps, 5, 0)],
        "hypotheses": hyps,
    }
