"""Training speed of the tiny encoder-decoder: target tokens per second, ours against peers, side by side.

    python bench/train_speed.py [--modes ours-bf16,torch-bf16,…] [--threads 2] [--samples 7] [--out train_speed.json]

4+4 layers, d 128, ffn 256, 4 heads, 10,000 pieces tied three ways, post-norm, relu, label smoothing 0.1, AdamW, clipping;
about 4,096 tokens a batch, lengths 14-20.  Everybody gets the same batches and does the same in a step: forward, loss,
backward, clip, fused AdamW, zero_grad.  Ours is the step of `qkv.learn.loop.Trainer`, nothing less; the peers are written
here from public interfaces.  `--sites residual` drops out where ours does (embeddings and what a sublayer adds) for all,
`--sites all` on attention weights and inside the feed-forward network too, for all."""

import argparse
import random
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import side

MODES = (
    "ours-fp32", "ours-bf16",
    "torch-fp32", "torch-bf16", "torch-bf16-compile",
    "marian-fp32", "marian-bf16",
)  # fmt: skip
TINY = {"layers": 1, "C": 16, "F": 32, "H": 2, "V": 50, "tokens": 80}
FULL = {"layers": 4, "C": 128, "F": 256, "H": 4, "V": 10_000, "tokens": 4096}
EOS, START, SMOOTHING, CLIP, LR = 2, 1, 0.1, 1.0, 1e-3
Step = Callable[[Any], float]


def batches(size: dict[str, int], n: int = 8) -> list[Any]:
    from qkv.shapes import Batch, pad

    rng = random.Random(0)

    def rows(B: int) -> list[list[int]]:
        lengths = [rng.randint(14, 20) for _ in range(B)]
        return [[rng.randrange(4, size["V"]) for _ in range(m - 1)] + [EOS] for m in lengths]

    B = max(2, size["tokens"] // 20)
    return [Batch(*pad(rows(B), 0), *pad(rows(B), 0)) for _ in range(n)]


# ---- ours


def ours(size: dict[str, int], args: argparse.Namespace, precision: str, data: list[Any]) -> Step:
    from qkv.learn.loop import Position, TrainConfig, Trainer
    from qkv.learn.optim import OptimConfig
    from qkv.models import build, configure

    inner = args.dropout if args.sites == "all" else 0.0
    layers, C = size["layers"], size["C"]
    values = {
        "family": "transformer", "vocab_size": size["V"], "d_model": C, "n_heads": size["H"],
        "d_ff": size["F"], "encoder_layers": layers, "decoder_layers": layers,
        "dropout": args.dropout, "attn_dropout": inner, "ff_dropout": inner,
    }  # fmt: skip
    nothing: Any = SimpleNamespace()
    trainer = Trainer(
        net=build(configure(values)),
        stream=SimpleNamespace(batch=lambda i: data[i % len(data)]),
        config=TrainConfig(precision=precision, smoothing=SMOOTHING, compile=args.compile),  # type: ignore[arg-type]
        optim=OptimConfig(lr=LR, schedule="constant", warmup=0, clip=CLIP),
        seed=0,
        keeper=nothing,
        log=nothing,
        validate=lambda net, step: {},
    )
    at = Position()

    def step(_: Any) -> float:
        nonlocal at
        k = at.step + 1
        loss, _nll = trainer.gradients(k, trainer.micro_batches(k))
        at = SimpleNamespace(step=k, applied=k - 1)  # type: ignore[assignment]
        at, _, _ = trainer.update(Position(step=k, applied=k - 1), float(loss))
        return float(loss)

    return step


# ---- the peers


def torch_transformer(size: dict[str, int], args: argparse.Namespace) -> Any:
    """torch.nn.Transformer between a shared embedding with sinusoids and a tied output."""
    import torch
    from torch import nn

    from qkv.parts.positions import sinusoid

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            C, n = size["C"], size["layers"]
            self.token = nn.Embedding(size["V"], C)
            nn.init.normal_(self.token.weight, std=C**-0.5)
            self.body = nn.Transformer(
                C, size["H"], n, n, size["F"], args.dropout, batch_first=True
            )
            # post-norm as in the paper: no norm after the last one
            self.body.encoder.norm = self.body.decoder.norm = None
            self.drop = nn.Dropout(args.dropout)
            self.register_buffer("wave", sinusoid(64, C))
            if args.sites == "residual":
                quiet(self.body)

        def embed(self, ids: Any) -> Any:
            C = self.token.weight.shape[1]
            return self.drop(self.token(ids) * C**0.5 + self.wave[: ids.shape[1]])

        def forward(self, source: Any, keep: Any, fed: Any, target_keep: Any) -> Any:
            T = fed.shape[1]
            ahead = torch.ones(T, T, dtype=torch.bool).triu(1)
            states = self.body(
                self.embed(source), self.embed(fed), tgt_mask=ahead, tgt_is_causal=True,
                src_key_padding_mask=~keep, memory_key_padding_mask=~keep,
                tgt_key_padding_mask=~target_keep,
            )  # fmt: skip
            return nn.functional.linear(states, self.token.weight)

    return Net()


def quiet(body: Any) -> None:
    """No dropout on attention weights and inside the feed-forward network: only where ours has it."""
    from torch import nn

    for module in body.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
        if isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
            module.dropout = nn.Dropout(0.0)


def marian(size: dict[str, int], args: argparse.Namespace) -> Any:
    """transformers' MarianMTModel with random weights."""
    from torch import nn
    from transformers import MarianConfig, MarianMTModel

    inner = args.dropout if args.sites == "all" else 0.0
    n, C, F, H = size["layers"], size["C"], size["F"], size["H"]
    config = MarianConfig(
        vocab_size=size["V"], d_model=C, encoder_layers=n, decoder_layers=n, encoder_ffn_dim=F,
        decoder_ffn_dim=F, encoder_attention_heads=H, decoder_attention_heads=H,
        activation_function="relu", dropout=args.dropout, attention_dropout=inner,
        activation_dropout=inner, scale_embedding=True, use_cache=False, pad_token_id=0,
        eos_token_id=EOS, decoder_start_token_id=START, forced_eos_token_id=EOS,
        max_position_embeddings=64, encoder_layerdrop=0.0, decoder_layerdrop=0.0,
    )  # fmt: skip

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = MarianMTModel(config)

        def forward(self, source: Any, keep: Any, fed: Any, target_keep: Any) -> Any:
            return self.body(
                input_ids=source, attention_mask=keep.long(), decoder_input_ids=fed,
                decoder_attention_mask=target_keep.long(),
            ).logits  # fmt: skip

    return Net()


def peer(size: dict[str, int], args: argparse.Namespace, kind: str, how: list[str]) -> Step:
    import torch
    from torch.nn import functional as F

    net = {"torch": torch_transformer, "marian": marian}[kind](size, args).train()
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=LR, betas=(0.9, 0.98), weight_decay=0.0, fused=True
    )

    def losses(source: Any, keep: Any, fed: Any, target: Any, target_keep: Any) -> Any:
        logits = net(source, keep, fed, target_keep)
        return F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), ignore_index=0, label_smoothing=SMOOTHING
        )

    call = torch.compile(losses) if "compile" in how else losses

    def step(b: Any) -> float:
        fed = torch.cat([torch.full_like(b.target[:, :1], START), b.target[:, :-1]], 1)
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in how):
            loss = call(b.source, b.keep, fed, b.target, b.target_keep)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return float(loss)

    return step


# ---- one process per mode


def work(args: argparse.Namespace) -> None:
    import warnings

    import torch

    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    size = TINY if args.tiny else FULL
    data = batches(size)
    kind, *how = args.worker.split("-")
    step = ours(size, args, how[0], data) if kind == "ours" else peer(size, args, kind, how)
    began, count = time.perf_counter(), 0
    for b in data[: args.warmup]:
        step(b)
    warm = time.perf_counter() - began

    def sample(_: str) -> side.Sample:
        nonlocal count
        tokens, loss, t = 0, 0.0, time.perf_counter()
        for _ in range(args.steps):
            b = data[count % len(data)]
            loss, tokens, count = step(b), tokens + b.target_tokens, count + 1
        seconds = time.perf_counter() - t
        return {"per_second": tokens / seconds, "loss": loss, "warm_seconds": warm}

    side.serve(sample)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--samples", type=int, default=7, help="rounds; each mode is measured once in each"
    )
    parser.add_argument("--steps", type=int, default=4, help="steps of one sample")
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--sites", choices=("residual", "all"), default="residual")
    parser.add_argument("--compile", action="store_true", help="torch.compile for ours too")
    parser.add_argument("--hold", action="store_true", help="wait for return when all are warm")
    parser.add_argument("--tiny", action="store_true", help="a smoke test of this script")
    parser.add_argument("--out", help="a JSON file with every sample")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args)
    options = [
        f"--{k}={getattr(args, k)}" for k in ("threads", "steps", "warmup", "dropout", "sites")
    ]
    options += [f"--{k}" for k in ("tiny", "compile") if getattr(args, k)]
    names = args.modes.split(",")
    found = side.side_by_side(
        __file__, names, options, threads=args.threads, rounds=args.samples, hold=args.hold
    )
    samples = {name: asked["go"] for name, asked in found.items()}
    speed = {name: side.median(s, "per_second") for name, s in samples.items()}
    peers = {n: s for n, s in speed.items() if not n.startswith("ours")}
    best = max(peers, key=lambda n: peers[n]) if peers else names[0]
    head = ("mode", "target tokens/s", "min - max", f"x {best}", "warm-up s")
    rows = []
    for name in names:
        each = [s["per_second"] for s in samples[name]]
        span = f"{min(each):,.0f} - {max(each):,.0f}"
        ratio, warm = speed[name] / speed[best], samples[name][0]["warm_seconds"]
        rows.append((name, speed[name], span, f"{ratio:.2f}", f"{warm:.1f}"))
    facts = {"machine": side.machine(args.threads), "settings": vars(args), "samples": samples}
    facts |= {"median": speed, "fastest_peer": best}
    side.report("Training, tiny encoder-decoder", side.table(head, rows), facts, args.out)


if __name__ == "__main__":
    main()
