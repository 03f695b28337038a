"""Normalise and sum: the definition, and the fast paths that must equal it.

A row that may look at nothing gives zeros and finite gradients on every path."""

import torch
from torch import Tensor
from torch.nn import functional as F

from ..shapes import Bias, Heads, Keep, Maps, Mask
from .dropout import Pieces
from .flex import flexible
from .patterns import Allowed
from .plan import LEAST
from .sparse import sparse

SHORT = 128 * 128  # pairs (T, S) up to which `short` is the faster one
BLOCK = 16  # keys added at a time where padding must not change a bit
FEW = 64  # keys that no matrix product sums in more than one piece


def softmax(scores: Tensor, mask: Mask) -> Maps:
    """Softmax over the keys that may be seen; a row with none is all zeros.

    Masked scores are replaced, not added to, so that no content of a masked key reaches the answer."""
    scores = scores.masked_fill(~mask, -torch.inf)
    top = scores.detach().amax(-1, keepdim=True)
    lifted = (scores - top.masked_fill(top == -torch.inf, 0.0)).exp()
    total = lifted.sum(-1, keepdim=True) if torch.is_grad_enabled() else steady_sum(lifted)
    return lifted / total.masked_fill(total == 0, 1.0)


def steady_sum(x: Tensor) -> Tensor:
    """Sum over the last axis, (…, S) -> (…, 1), to which zeros at the end add nothing, not even to the last bit.

    torch adds in an order that S decides, so a text of 47 tokens padded to 48 and to 64 had two sums (law 2;
    docs/diary.md).  Here blocks of 16 are added number by number, then always 16 are summed."""
    extra = -x.shape[-1] % BLOCK
    blocks = (F.pad(x, (0, extra)) if extra else x).view(*x.shape[:-1], -1, BLOCK)
    total = blocks[..., 0, :]
    for n in range(1, blocks.shape[-2]):
        total = total + blocks[..., n, :]
    return total.sum(-1, keepdim=True)


def scores(q: Heads, k: Heads, *, bias: Bias | None, scale: float) -> Tensor:
    """scale · q kᵀ + bias: (B, H, T, D) and (B, H, S, D) -> (B, H, T, S)."""
    s = q @ k.transpose(-1, -2) * scale
    return s if bias is None else s + bias


def dense(
    q: Heads, k: Heads, v: Heads, allowed: Allowed, *, bias: Bias | None = None, scale: float
) -> Heads:
    """The definition: softmax(scale · q kᵀ + bias) v over allowed pairs.  The slow twin of `fused`."""
    return softmax(scores(q, k, bias=bias, scale=scale), allowed.dense()) @ v


def fused(
    q: Heads, k: Heads, v: Heads, allowed: Allowed, *, bias: Bias | None = None, scale: float
) -> Heads:
    """The same in one kernel that never stores the (T, S) weights (Dao et al. 2022).

    On a CPU it runs in float32 or wider: the kernel's bf16 backward is many times slower (docs/diary.md).
    Short texts are trained by `short` instead, where the kernel's own start costs more than the weights."""
    if q.shape[2] == 1 and q.device.type == "cpu" and not torch.is_grad_enabled():
        return one_query(q, k, v, allowed, bias=bias, scale=scale)
    known = recognised(q, k, v, allowed, bias=bias, scale=scale)
    if known is not None:
        return known
    half = q.device.type == "cpu" and q.dtype in (torch.bfloat16, torch.float16)
    if half and torch.is_grad_enabled() and q.shape[2] * k.shape[2] <= SHORT:
        return short(q, k, v, allowed, bias=bias, scale=scale)
    if half:
        q, k, v = q.float(), k.float(), v.float()
    if bias is None and torch.is_grad_enabled() and allowed.triangle:
        with torch.autocast(q.device.type, enabled=False):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
    added = allowed.added(q.dtype)
    added = added if bias is None else (added + bias).to(q.dtype)  # as the kernels of a GPU ask
    with torch.autocast(q.device.type, enabled=False):
        if q.device.type == "cpu" and k.shape[2] > FEW and not torch.is_grad_enabled():
            return by_width(q, k, v, allowed.keep, added, scale)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=added, scale=scale)


def recognised(
    q: Heads,
    k: Heads,
    v: Heads,
    allowed: Allowed,
    *,
    bias: Bias | None = None,
    scale: float,
    p: float = 0.0,
) -> Heads | None:
    """The same where the pattern says which pairs there are, by `sparse` or, on an accelerator, flex_attention; None where it does not, or `fused` is faster.

    p: the share of weights that is dropped.  Without a gradient the texts of a batch that are short are left to `fused`."""
    T = q.shape[2]
    if bias is not None or T < LEAST:
        return None
    if q.device.type == "cuda" and not p and allowed.sparse:
        return flexible(q, k, v, allowed, scale=scale)
    if q.device.type != "cpu":
        return None
    split = not p and not torch.is_grad_enabled()
    plan = allowed.plan(torch.promote_types(q.dtype, torch.float32), split=split)
    if plan is None:
        return None
    drop = Pieces.of(p) if p else None
    y = sparse(q, k[:, :, :T], v[:, :, :T], plan, scale=scale, drop=drop)
    short = torch.tensor([row.begin for row in plan.rows])
    for n in sorted(set(short.tolist()) - {0}):
        rows = (short == n).nonzero()[:, 0]
        q1, k1, v1 = (x[rows, :, :n] for x in (q, k, v))
        y[rows, :, :n] = fused(q1, k1, v1, allowed.part(rows, n), scale=scale)
    return y


def by_width(q: Heads, k: Heads, v: Heads, keep: Keep, added: Tensor, scale: float) -> Heads:
    """The kernel on rows of like length, their keys cut to that length in sixteens: added (B, 1 or H, T, S).

    A product over the keys sums them in pieces that S decides (two of 104 for S = 208, one for 192: MKL 2024), so
    that a row's last bits would depend on the longest row beside it (law 2; docs/diary.md)."""
    S = k.shape[2]
    last = (keep * torch.arange(1, S + 1)).amax(1)  # (B): keys up to the last real one
    width = (-(-last // BLOCK) * BLOCK).clamp(min=FEW, max=S)
    y = torch.empty_like(q)
    for w in sorted(set(width.tolist())):
        rows = (width == w).nonzero()[:, 0]
        y[rows] = F.scaled_dot_product_attention(
            q[rows], k[:, :, :w][rows], v[:, :, :w][rows], added[..., :w][rows], scale=scale
        )
    return y


def short(
    q: Heads, k: Heads, v: Heads, allowed: Allowed, *, bias: Bias | None = None, scale: float
) -> Heads:
    """The same with both products in half precision and the softmax between them in float32."""
    added, blind = allowed.added(torch.float32), allowed.blind
    if blind is not None:
        added = added.masked_fill(blind, 0.0)  # any finite row: it is weighed with 0 below
    added = added if bias is None else added + bias
    with torch.autocast(q.device.type, enabled=False):
        weights = torch.softmax(torch.add(added, q @ k.transpose(-1, -2), alpha=scale), -1)
        weights = weights if blind is None else weights.masked_fill(blind, 0.0)
        return weights.to(v.dtype) @ v


def one_query(
    q: Heads, k: Heads, v: Heads, allowed: Allowed, *, bias: Bias | None = None, scale: float
) -> Heads:
    """The same for a step of decoding, q (R, H, 1, D), by products and sums of numbers only.

    The fused kernel's last bits depend on which thread a row falls to, these do not (law 2; docs/diary.md)."""
    s = (q * k).sum(-1).unsqueeze(2) * scale  # (R, H, S, D) -> (R, H, 1, S)
    s = s if bias is None else s + bias
    if s.shape[-1] % BLOCK:
        return mix(softmax(s, allowed.dense()), v)
    # torch's softmax adds sixteens lane by lane: zeros at the end change nothing, as in `steady_sum`
    weights = torch.softmax(s.masked_fill(allowed.hidden, -torch.inf), -1)
    blind = allowed.blind
    return mix(weights if blind is None else weights.masked_fill(blind, 0.0), v)


def mix(weights: Maps, v: Heads) -> Heads:
    """weights v: (B, H, T, S) and (B, H, S, D) -> (B, H, T, D); by `one_query`'s products and sums in a step of decoding.

    torch adds rows four at a time, so zeros at the end change nothing where S is a multiple of 16."""
    if weights.shape[2] > 1 or v.device.type != "cpu" or torch.is_grad_enabled():
        return weights @ v
    extra = -v.shape[2] % BLOCK
    if extra:
        weights, v = F.pad(weights, (0, extra)), F.pad(v, (0, 0, 0, extra))
    return (weights.transpose(-1, -2) * v).sum(2, keepdim=True)
