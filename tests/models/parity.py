"""A tiny random model of the reference library and ours with its weights: the same numbers, both ways.

Tolerances: float64 logits and maps 1e-10 absolute (sums of a few hundred products of numbers near 1: 1e-13 is usual);
gradients 1e-9 of the largest entry; float32 1e-5 of the largest logit."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from qkv.models import FAMILIES, build, hf
from qkv.models.interface import set_state, state_of
from qkv.shapes import Batch, pad

LENGTHS = (7, 1, 16, 12)  # rows of a batch: padded, of one token, a whole multiple of 16


def reference(cls: Any, config: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """A random model of theirs in eval mode; every vector is random too, so that no bias or norm is left at 0 or 1."""
    torch.manual_seed(seed)
    model = cls._from_config(config, attn_implementation="eager").to(dtype).eval()
    with torch.no_grad():
        for p in (p for p in model.parameters() if p.requires_grad):  # sinusoids stay what they are
            p.add_(torch.randn_like(p) * 0.05)
        for name, b in model.named_buffers():
            if name.endswith("final_logits_bias"):
                b.add_(torch.randn_like(b) * 0.05)
    return model


def values(model: Any) -> dict[str, Any]:
    """Their config.json, as save_pretrained writes it."""
    made: dict[str, Any] = model.config.to_dict()
    return {**made, "architectures": [type(model).__name__]}


def converted(model: Any) -> tuple[Any, Any, nn.Module]:
    """Family module, configuration and net of ours, holding their weights."""
    given = values(model)
    module = hf.family(given, FAMILIES.values())
    config = hf.fitted(module, hf.configured(module, given), model.state_dict())
    net = build(config).to(next(model.parameters()).dtype).eval()
    set_state(net, hf.ours(module, config, model.state_dict()))
    return module, config, net


def rows(
    vocab: int, lengths: tuple[int, ...] = LENGTHS, seed: int = 1, low: int = 3
) -> list[list[int]]:
    g = torch.Generator().manual_seed(seed)
    return [torch.randint(low, vocab, (n,), generator=g).tolist() for n in lengths]


def batch(
    vocab: int,
    lengths: tuple[int, ...] = LENGTHS,
    target: tuple[int, ...] | None = None,
    pad_id: int = 0,
) -> Batch:
    ids, keep = pad(rows(vocab, lengths), pad_id)
    if target is None:
        return Batch(ids, keep)
    out, out_keep = pad(rows(vocab, target, seed=2), pad_id)
    return Batch(ids, keep, out, out_keep)


def check_round_trip(model: Any) -> None:
    """load -> save: the same names (but for tied copies and skipped buffers) and the same bytes."""
    module, config, net = converted(model)
    given, back = model.state_dict(), hf.theirs(module, config, state_of(net))
    for name, tensor in back.items():
        assert torch.equal(tensor, given[name]), name
    table = module.table(config)
    names = hf.full_names(module, table, given)
    known = table.skipped(names).keys() | table.tied.keys()
    left = {stored for full, stored in names.items() if full not in known} - set(back)
    assert not left, left
    again = hf.configured(module, module.to_hf(config))
    assert again == config


def check_gradients(
    net: nn.Module, module: Any, config: Any, model: Any, rtol: float = 1e-9
) -> None:
    """After a backward pass on both sides: every parameter's gradient, under their names.

    Where ours never was part of the graph (None) theirs is zero or None."""
    ours = {
        n: p.grad if p.grad is not None else torch.zeros_like(p) for n, p in net.named_parameters()
    }
    held = state_of(net)
    made = hf.theirs(module, config, {n: ours.get(n, torch.zeros_like(t)) for n, t in held.items()})
    theirs = dict(model.named_parameters())
    assert made.keys() & theirs.keys()
    for name, grad in made.items():
        if name not in theirs:
            continue  # a buffer of theirs
        want = theirs[name].grad
        want = torch.zeros_like(grad) if want is None else want
        scale = max(float(want.abs().max()), 1e-3)
        assert_close(grad, want, atol=rtol * scale, rtol=0, msg=lambda m, n=name: f"{n}: {m}")


def largest(a: Tensor, b: Tensor, keep: Tensor) -> float:
    """max |a - b| over real tokens."""
    return float((a - b)[keep].detach().abs().max())
