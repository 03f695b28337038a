"""Decoding speed: answers per second, ours against transformers' generate of the same sizes, side by side.

    python bench/decode_speed.py [--sizes tiny,base,gpt2] [--asks 1x1,32x1,1x4,32x4] [--threads 2] [--samples 5] [--out decode_speed.json]

Random weights, batch 1 and 32, greedy and beam 4; <eos> cannot come before the last step.
tiny (beside MarianMTModel): 4+4 layers, d 128, ffn 256, 4 heads, 10,000 pieces; sources of 20 tokens, 25 steps.
base (beside MarianMTModel): 6+6, 512, 2,048, 8 heads, 32,000; the same.
gpt2 (beside GPT2LMHeadModel): GPT-2 small, 124 million; prompts of 64 tokens, 64 new ones."""

import argparse
import random
import time
from collections.abc import Callable
from typing import Any

import side

SIZES = {
    "tiny": {"layers": 4, "C": 128, "F": 256, "H": 4, "V": 10_000, "source": 20, "steps": 25},
    "base": {"layers": 6, "C": 512, "F": 2048, "H": 8, "V": 32_000, "source": 20, "steps": 25},
    "gpt2": {"layers": 12, "C": 768, "F": 3072, "H": 12, "V": 50_257, "source": 64, "steps": 64},
}
SMOKE = {"layers": 1, "C": 16, "F": 32, "H": 2, "V": 100, "source": 5, "steps": 4}
Decode = Callable[[list[list[int]], int], int]  # sources, beam -> tokens made for the first


def ours(size: dict[str, int], prompted: bool) -> Decode:
    from qkv.decode.answer import SearchConfig
    from qkv.decode.engine import Engine
    from qkv.models import build, configure

    values = {
        "vocab_size": size["V"], "d_model": size["C"], "n_heads": size["H"], "d_ff": size["F"],
    }  # fmt: skip
    n, steps = size["layers"], size["steps"]
    depth = {"n_layers": n} if prompted else {"encoder_layers": n, "decoder_layers": n}
    family = "gpt2" if prompted else "transformer"
    net = build(configure({"family": family} | values | depth)).eval()

    def decode(sources: list[list[int]], beam: int) -> int:
        config = SearchConfig(beam=beam, max_new_tokens=steps, min_new_tokens=steps)
        return len(Engine(net, config)(sources)[0][0].ids)

    return decode


def theirs(size: dict[str, int], prompted: bool) -> Decode:
    import torch

    net = (gpt2 if prompted else marian)(size).eval()
    net.generation_config.max_length = None

    @torch.inference_mode()
    def decode(sources: list[list[int]], beam: int) -> int:
        ids, steps = torch.tensor(sources), size["steps"]
        out = net.generate(
            ids, attention_mask=torch.ones_like(ids), num_beams=beam, do_sample=False,
            min_new_tokens=steps, max_new_tokens=steps, early_stopping=beam > 1,
        )  # fmt: skip
        return out.shape[1] - (len(sources[0]) if prompted else 1)

    return decode


def gpt2(size: dict[str, int]) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=size["V"], n_embd=size["C"], n_layer=size["layers"], n_head=size["H"],
        n_inner=size["F"], bos_token_id=0, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def marian(size: dict[str, int]) -> Any:
    from transformers import MarianConfig, MarianMTModel

    n, C, F, H = size["layers"], size["C"], size["F"], size["H"]
    config = MarianConfig(
        vocab_size=size["V"], d_model=C, encoder_layers=n, decoder_layers=n, encoder_ffn_dim=F,
        decoder_ffn_dim=F, encoder_attention_heads=H, decoder_attention_heads=H,
        activation_function="relu", scale_embedding=True, pad_token_id=0, eos_token_id=2,
        decoder_start_token_id=1, forced_eos_token_id=None, max_position_embeddings=64,
    )  # fmt: skip
    return MarianMTModel(config)


def work(args: argparse.Namespace) -> None:
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    kind, name = args.worker.split("-")
    size, rng = SMOKE if args.tiny else SIZES[name], random.Random(0)
    decode = {"ours": ours, "transformers": theirs}[kind](size, name == "gpt2")
    words = range(size["source"] - 1)
    sources = [[rng.randrange(4, size["V"]) for _ in words] + [2] for _ in range(64)]
    decode(sources[:1], 1)
    decode(sources[:32], 4)

    def sample(what: str) -> side.Sample:
        batch, beam = map(int, what.split("x"))
        done, tokens, began = 0, 0, time.perf_counter()
        while not done or (time.perf_counter() - began < args.seconds and not args.tiny):
            tokens = decode(sources[:batch], beam)
            done += batch
        return {"per_second": done / (time.perf_counter() - began), "tokens": tokens}

    side.serve(sample)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--asks", default="1x1,32x1,1x4,32x4", help="batch x beam")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--samples", type=int, default=5, help="rounds")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="at least so long for one sample"
    )
    parser.add_argument("--tiny", action="store_true", help="a smoke test of this script")
    parser.add_argument("--out", help="a JSON file with every sample")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    options = [f"--{k}={getattr(args, k)}" for k in ("threads", "seconds")] + ["--tiny"] * args.tiny
    asks, found = args.asks.split(","), {}
    for size in args.sizes.split(","):
        names = [f"ours-{size}", f"transformers-{size}"]
        found |= side.side_by_side(
            __file__, names, options, threads=args.threads, rounds=args.samples, asks=asks
        )
    speed = {
        n: {a: side.median(s, "per_second") for a, s in asked.items()} for n, asked in found.items()
    }
    rows: list[tuple[object, ...]] = []
    for size in args.sizes.split(","):
        a, b = speed[f"ours-{size}"], speed[f"transformers-{size}"]
        rows.append((size, "ours", *(a[x] for x in asks)))
        rows.append((size, "transformers", *(b[x] for x in asks)))
        rows.append((size, "ratio", *(f"{a[x] / b[x]:.2f}" for x in asks)))
    head = ("model", "who", *(f"batch {x.split('x')[0]}, beam {x.split('x')[1]}" for x in asks))
    facts = {
        "machine": side.machine(args.threads),
        "settings": vars(args),
        "median": speed,
        "samples": found,
    }
    side.report(
        "Decoding, answers per second",
        side.table(head, rows),
        facts,
        args.out,
    )


if __name__ == "__main__":
    main()
