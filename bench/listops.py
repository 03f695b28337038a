"""ListOps: full attention, Longformer, BigBird, Performer, and full attention that sees the beginning only, in one table.

    python bench/listops.py [--quick] [--only full,performer] [--threads 1] [--out listops.json]
    python bench/listops.py --setting lra          # published lengths, 2 layers, d 64; wants an accelerator

The texts are made here (docs/long.md); the rows differ in attention alone.  Guessing the commonest digit gets 17 %."""

import argparse

from rows import Recipe, model, objective, parser, run, script

# lengths of texts, examples of train and dev or test, sizes, and how long to learn
SETTINGS: dict[str, Recipe] = {
    "cpu": dict(length=200, least=50, n=20_000, held=1000, steps=1200, tokens=8192, cut=64, lr=2e-3),
    "quick": dict(length=120, least=30, n=6000, held=500, steps=300, tokens=4096, cut=32, lr=2e-3),
    "tiny": dict(length=40, least=8, n=80, held=20, steps=4, tokens=256, cut=16, lr=2e-3),
    "lra": dict(length=2000, least=500, n=96_000, held=2000, steps=10_000, tokens=65_536, cut=512, lr=1e-3),
}  # fmt: skip
ROWS = "full,truncated,longformer,bigbird,performer"


def job(name: str, args: argparse.Namespace) -> tuple[Recipe, str]:
    """A row's recipe, and where it is tested."""
    setting = "tiny" if args.tiny else "quick" if args.quick else args.setting
    s = SETTINGS[setting]
    steps, most = args.steps or s["steps"], s["length"] + 8
    query = f"length={s['length']}&least={s['least']}"

    def source(split: str, n: int) -> str:
        return f"builtin:listops/{split}?n={n}&{query}"

    sizes = {"d_model": 64, "n_layers": 2, "n_heads": 2, "d_ff": 128, "max_positions": most}
    recipe = {
        "name": f"listops-{setting}-{name}-{args.seed}",
        "seed": args.seed,
        "objective": objective(name, most, s["cut"]),
        "data": {
            "train": {"path": source("train", s["n"]), "fields": {"text": "text", "label": "label"}},
            "dev": {"path": source("dev", s["held"]), "fields": {"text": "text", "label": "label"}},
        },
        "text": {"kind": "bpe", "vocab_size": 400},
        "model": model(name, sizes | {"dropout": 0.1 if setting == "lra" else 0.0}),
        "optim": {"lr": s["lr"], "warmup": steps // 10, "schedule": "cosine", "weight_decay": 0.01},
        "train": {
            "steps": steps,
            "batch_tokens": s["tokens"],
            "eval_every": max(1, steps // 6),
            "save_every": steps,
            "log_every": max(1, steps // 50),
            "metric": "dev/accuracy",
        },
    }  # fmt: skip
    return recipe, source("test", s["held"])


def main() -> None:
    made = parser(__doc__, ROWS)
    made.add_argument("--setting", default="cpu", choices=("cpu", "lra"))
    args = made.parse_args()
    run(args, script(__file__), "ListOps", lambda name: job(name, args))


if __name__ == "__main__":
    main()
