"""Batch invariance: sentences translated alone and in random batches; how many tokens and score bits differ (goal: 0 and 0).

    python bench/invariance.py [--model RUN] [--n 5000] [--long 40] [--threads 2] [--beams 1,4] [--rounds 1] [--out invariance.json]

Sentences: Multi30k where ../shared/data (or QKV_SHARED) holds it, else the built-in phrases.  Without --model a random tiny
Transformer and a random RNN are made; random weights never end, so --max-new-tokens keeps their answers short.
Every 40th source (--long) is ten sentences in one, because short ones hide what only a long neighbour changes.
Alone means a batch of one source; a random batch mixes 2-64 sources of any lengths.  Scores are compared as the float64 sums
and as each token's log-probability, bit for bit."""

import argparse
import gzip
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import side

Answers = list[tuple[tuple[int, ...], float, tuple[float, ...]]]
FAMILIES = ("transformer", "rnn")


def sentences(n: int) -> tuple[str, list[str]]:
    root = Path(os.environ.get("QKV_SHARED", Path(__file__).parents[2] / "shared"))
    file = root / "data" / "multi30k" / "train.de.gz"
    if file.is_file():
        with gzip.open(file) as lines:
            return "multi30k train.de", [
                line.decode().strip() for line, _ in zip(lines, range(n), strict=False)
            ]
    from qkv.data.phrases import pairs

    return "builtin:phrases", [pair[0] for pair in pairs("train")[:n]]


def with_long(texts: list[str], every: int) -> list[str]:
    """Every so-many-th text joined to the nine after it; 0: none."""
    return [
        " ".join(texts[i : i + 10]) if every and i % every == every - 1 else text
        for i, text in enumerate(texts)
    ]


def models(args: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    import torch

    import qkv
    from qkv.model import Model
    from qkv.models import build, configure
    from qkv.text import TextConfig, train

    if args.model:
        return {args.model: qkv.load(args.model)}
    tokenizer = train(texts, TextConfig(kind="bpe", vocab_size=400 if args.tiny else 4000))
    made = {}
    for family in FAMILIES:
        torch.manual_seed(0)
        config = configure({"family": family, "size": "tiny", "vocab_size": tokenizer.vocab_size})
        made[f"random {family}"] = Model(build(config), tokenizer, config)
    return made


def answers(net: Any, config: Any, sources: list[list[int]], groups: list[list[int]]) -> Answers:
    """The best answer of every source, decoded group by group."""
    from qkv.decode.engine import Engine

    found: Answers = [((), 0.0, ())] * len(sources)
    for group in groups:
        engine = Engine(net, config, batch_tokens=1 << 30)
        for i, (best, *_) in zip(group, engine([sources[i] for i in group]), strict=True):
            found[i] = (best.ids, best.score, best.token_scores)
    return found


def random_groups(n: int, rng: random.Random) -> list[list[int]]:
    order, groups = rng.sample(range(n), n), []
    while order:
        size = rng.randint(2, 64)
        groups.append(order[:size])
        order = order[size:]
    return groups


def compare(alone: Answers, batched: Answers) -> dict[str, Any]:
    """Tokens at which two answers differ, and scores whose bits do."""
    tokens = bits = sentences = 0
    worst, first = 0.0, None
    for i, ((a, s, p), (b, t, q)) in enumerate(zip(alone, batched, strict=True)):
        differ = abs(len(a) - len(b)) + sum(x != y for x, y in zip(a, b, strict=False))
        wrong = (s.hex() != t.hex()) + sum(x.hex() != y.hex() for x, y in zip(p, q, strict=False))
        tokens, bits, sentences = tokens + differ, bits + wrong, sentences + bool(differ or wrong)
        worst = max(worst, abs(s - t))
        first = i if first is None and (differ or wrong) else first
    return {
        "tokens": tokens,
        "scores": bits,
        "sentences": sentences,
        "worst": worst,
        "first": first,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", help="a run or model folder; default: random tiny models")
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument(
        "--long", type=int, default=40, help="every so-many-th source is long; 0: none"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--beams", default="1,4")
    parser.add_argument(
        "--rounds", type=int, default=1, help="how many random divisions into batches"
    )
    parser.add_argument(
        "--max-new-tokens", type=int, help="default: 8 for random weights, else the model's"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="a smoke test of this script")
    parser.add_argument("--out", help="a JSON file with the counts")
    args = parser.parse_args()
    args.n = min(args.n, 12) if args.tiny else args.n
    import torch

    from qkv.decode.answer import SearchConfig

    torch.set_num_threads(args.threads)
    most = args.max_new_tokens or (None if args.model else 8)
    corpus, texts = sentences(args.n)
    texts = with_long(texts, args.long)
    rng, rows, results = random.Random(args.seed), [], []
    for name, model in models(args, texts).items():
        sources = [model.ids(text) for text in texts]
        for beam in map(int, args.beams.split(",")):
            config, began = SearchConfig(beam=beam, max_new_tokens=most), time.perf_counter()
            alone = answers(model.net, config, sources, [[i] for i in range(len(sources))])
            for _ in range(args.rounds):
                groups = random_groups(len(sources), rng)
                found = compare(alone, answers(model.net, config, sources, groups))
                took = time.perf_counter() - began
                total = sum(len(ids) for ids, _, _ in alone)
                results.append(
                    {"model": name, "beam": beam, "of_tokens": total, "seconds": took, **found}
                )
                rows.append(
                    (name, beam, len(sources), f"{found['tokens']} of {total:,}", found["scores"],
                     f"{found['worst']:.1e}", found["first"] if found["first"] is not None else "-", f"{took:.0f}")
                )  # fmt: skip
                print(*rows[-1], flush=True, file=sys.stderr)
    head = (
        "model",
        "beam",
        "sentences",
        "differing tokens",
        "differing scores",
        "largest",
        "first at",
        "s",
    )
    facts = {
        "machine": side.machine(args.threads),
        "settings": vars(args),
        "corpus": corpus,
        "results": results,
    }
    side.report(f"Batch invariance, {corpus}", side.table(head, rows), facts, args.out)
    raise SystemExit(any(r["tokens"] or r["scores"] for r in results))


if __name__ == "__main__":
    main()
