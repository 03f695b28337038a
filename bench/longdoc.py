"""Who wrote it?  Windows of eight authors' novels, about 2,000 tokens each: the beginning, pieces, or the whole document.

    python bench/longdoc.py [--data ../shared/data] [--quick] [--only full,performer,…] [--out longdoc.json]

Train and dev are one book of each author, test is another book: expect a gap.  Chance is 12.5 %, naive Bayes on words 78.5 %.
The rows differ in attention, and in how much of a document it sees."""

import argparse

from rows import Recipe, model, objective, parser, run, script

SETTINGS: dict[str, Recipe] = {
    "cpu": dict(longest=2048, cut=512, steps=400, tokens=8192, pieces=4000),
    "quick": dict(longest=1024, cut=256, steps=80, tokens=8192, pieces=4000),
    "tiny": dict(longest=128, cut=32, steps=2, tokens=512, pieces=400),
}
ROWS = "full,truncated,windows,longformer,bigbird,performer"


def job(name: str, args: argparse.Namespace) -> tuple[Recipe, str]:
    """A row's recipe, and where it is tested."""
    setting = "tiny" if args.tiny else "quick" if args.quick else "cpu"
    s = SETTINGS[setting]
    steps, folder = args.steps or s["steps"], f"{args.data}/longdoc-authors-en"
    fields = {"text": "text", "label": "author"}
    sizes = {
        "d_model": 64,
        "n_layers": 2,
        "n_heads": 2,
        "d_ff": 128,
        "dropout": 0.1,
        "pooling": "mean",
    }
    recipe = {
        "name": f"longdoc-{setting}-{name}-{args.seed}",
        "seed": args.seed,
        "objective": objective(name, s["longest"], s["cut"]),
        "data": {
            "train": {"path": f"{folder}/train.jsonl.gz", "fields": fields},
            "dev": {"path": f"{folder}/dev.jsonl.gz", "fields": fields},
        },
        "text": {"kind": "bpe", "vocab_size": s["pieces"]},
        "model": model(name, sizes | {"max_positions": s["longest"]}),
        "optim": {"lr": 2e-3, "warmup": steps // 10, "schedule": "cosine", "weight_decay": 0.05},
        "train": {
            "steps": steps,
            "batch_tokens": s["tokens"],
            "eval_every": max(1, steps // 5),
            "save_every": steps,
            "log_every": max(1, steps // 40),
            "metric": "dev/accuracy",
        },
    }
    return recipe, f"{folder}/test.jsonl.gz"


def main() -> None:
    made = parser(__doc__, ROWS)
    made.add_argument("--data", default="../shared/data")
    args = made.parse_args()
    run(args, script(__file__), "Authors of long documents", lambda name: job(name, args))


if __name__ == "__main__":
    main()
