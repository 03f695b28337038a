"""Korean small talk from 10,595 questions and answers: a GPT that writes on, a Transformer and a GRU with attention that translate.

    python bench/chatbot.py [--data ../shared/data] [--out chatbot] [--only gpt,transformer,gru] [--seed 1] [key=value …]

All cut the same texts by the same tokenizer recipe (BPE, 4,000 pieces).  5 % of train, kept apart by a hash, chooses the step; dev
is measured once: perplexity for each piece of the answers, their end included, and for each character of them."""

import argparse
import json
from pathlib import Path
from typing import Any

import qkv
from qkv.data.report import SkipReport
from qkv.data.sources import PairSource, read_pairs
from qkv.weights import store

ASKED = ("커피 한잔 어때?", "오늘 너무 피곤해", "여자친구랑 헤어졌어", "주말에 뭐 하지?", "배고프다", "시험에 떨어졌어", "고마워", "너는 누구야?")  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "gpt": {"family": "gpt2", "d_model": 192, "n_layers": 3, "n_heads": 4, "max_positions": 128, "dropout": 0.3},
    "transformer": {"family": "transformer", "d_model": 192, "n_heads": 4, "d_ff": 384, "encoder_layers": 2, "decoder_layers": 2, "dropout": 0.3},
    "gru": {"family": "rnn", "cell": "gru", "d_model": 256, "dropout": 0.4},
}  # fmt: skip


def recipe(name: str, data: str, seed: int) -> dict[str, Any]:
    path = f"{data}/chatbot-ko/train.jsonl.gz"
    talk = {"path": path, "fields": {"question": "q", "answer": "a"}}
    chats = name == "gpt"
    return {
        "name": f"chatbot-{name}",
        "seed": seed,
        **({"objective": {"kind": "chat", "max_tokens": 128}} if chats else {}),
        "data": {
            "train": talk if chats else {"path": path, "source": "q", "target": "a"},
            "holdout": 0.05,
        },
        "text": {"kind": "bpe", "vocab_size": 4000},
        "model": MODELS[name],
        "optim": {
            "lr": 2e-3 if chats else 1e-3,
            "schedule": "cosine",
            "warmup": 50,
            "weight_decay": 0.1,
        },
        # a row of the GPT holds the question too, and a fifth of its tokens are learned: smaller batches, more of them
        "train": {
            "steps": 2400 if chats else 600,
            "batch_tokens": 1024 if chats else 4096,
            "eval_every": 200 if chats else 50,
            "save_every": 600,
        },
        **({} if chats else {"eval": {"sentences": 0}}),
    }


def measured(model: qkv.Model, name: str, file: str) -> dict[str, Any]:
    """Perplexity of the answers of dev, for each piece and for each character."""
    pairs = PairSource(path=file, source="q", target="a")
    if name == "gpt":
        perplexity = qkv.evaluate(model, file)["scores"]["perplexity"]
    else:
        perplexity = qkv.evaluate(model, pairs, metrics=["chrf"])["perplexity"]
    answers = [pair.target for pair in read_pairs(pairs, SkipReport())]
    pieces = sum(len(model.tokenizer.encode(a)) + 1 for a in answers)  # and the end
    characters = sum(len(a) + 1 for a in answers)
    each = perplexity ** (pieces / characters)
    return {"perplexity": round(perplexity, 2), "by character": round(each, 3), "pieces": pieces}


def answered(model: qkv.Model, name: str) -> dict[str, str]:
    say = (lambda q: model.chat(q)) if name == "gpt" else (lambda q: model.translate(q, beam=4))
    return {q: str(getattr(a := say(q), "text", a)) for q in ASKED}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--out", default="chatbot")
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("settings", nargs="*")
    args = parser.parse_args()
    for name in args.only.split(","):
        run = qkv.train(recipe(name, args.data, args.seed), args.settings)
        model = run.best()
        row = {
            "model": name,
            "parameters": sum(p.numel() for p in model.net.parameters()),
            "chosen": run.to_dict()["best"],
            **measured(model, name, f"{args.data}/chatbot-ko/dev.jsonl.gz"),
            "answers": answered(model, name),
        }
        print(json.dumps(row, ensure_ascii=False, indent=1), flush=True)
        text = json.dumps(row, ensure_ascii=False, indent=1) + "\n"
        store.write_file(Path(args.out) / f"{name}.json", text.encode())


if __name__ == "__main__":
    main()
