"""Sampling that depends on the sentence alone: temperature, top-k, top-p, and random numbers that are a function.

The uniform number of a step is hash(seed, sentence, sample, position): no generator, so no order, no batch and no
neighbour can change a text.  The sentence's key is a hash of its source ids; the same sentence twice in a request
thus gets the same text, and `nbest` samples or another seed give others."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..shapes import Batch
from .answer import SearchConfig
from .rows import Floats, Ints, top

Words = NDArray[np.uint64]


def keys(batch: Batch) -> Words:
    """64 bits of BLAKE2b of each source's real ids; (B)."""
    source, keep = batch.source.cpu().numpy(), batch.keep.cpu().numpy()
    rows = [source[b, keep[b]].astype("<i8").tobytes() for b in range(len(batch))]
    digests = [hashlib.blake2b(row, digest_size=8).digest() for row in rows]
    return np.array([int.from_bytes(d, "little") for d in digests], dtype=np.uint64)


def _mix(x: Words) -> Words:
    """The finaliser of splitmix64 (Steele, Lea & Flood 2014): every input bit reaches every output bit."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def uniforms(seed: int, key: Words, number: Ints, position: int) -> Floats:
    """One number in [0, 1) per row, 53 bits, a pure function of (seed, sentence, sample number, position)."""
    x = _mix(np.full(len(key), seed, np.uint64)) ^ key
    x = _mix(x) ^ number.astype(np.uint64)
    x = _mix(x) ^ np.uint64(position)
    bits: Floats = (_mix(x) >> np.uint64(11)).astype(np.float64)
    return bits * 2.0**-53


def draw(logp: Tensor, u: Tensor, config: SearchConfig) -> Tensor:
    """ids (R): the first id, in the order of ids, where the cumulated probability exceeds u (R) times its total.

    p ~ exp(logp / temperature) over the kept ids, in float64; logp (R, V)."""
    ids, p = kept(logp, config)
    cdf = p.cumsum(-1)
    total = cdf[:, -1:]
    # u < 1, but the product may round up to the total, where no id is left
    at = torch.minimum(u[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    place = torch.searchsorted(cdf, at, right=True).clamp(max=p.shape[1] - 1)
    return (place if ids is None else ids.gather(1, place))[:, 0]


def kept(logp: Tensor, config: SearchConfig) -> tuple[Tensor | None, Tensor]:
    """Candidate ids (R, K) in rising order (None: all V) and their weights (R, K), 0 where a filter drops one.

    top_k keeps the k most probable (Fan et al. 2018); top_p then the fewest most probable of these whose
    share reaches p (Holtzman et al. 2020), one at least.  Equal ones: the lower id first."""
    R, V = logp.shape
    peak = logp.max(-1, keepdim=True).values.double()
    peak = peak.where(peak > -torch.inf, 0.0)

    def weight(chosen: Tensor) -> Tensor:
        return ((chosen.double() - peak) / config.temperature).exp()

    k, p = config.top_k, config.top_p
    if p is None or p >= 1:
        if k is None or k >= V:
            return None, weight(logp)
        values, ids = top(logp, k)
        return _by_id(ids, weight(values))
    whole = None if k is not None else weight(logp).cumsum(-1)[:, -1:]
    for size in (64, 1024, V) if k is None else (k,):  # a sort of all V is rarely needed
        values, ids = top(logp, size)
        chosen = weight(values)
        share = chosen.cumsum(-1)
        enough = p * (share[:, -1:] if whole is None else whole)
        if size >= V or bool((share[:, -1:] >= enough).all()):
            break
    before = torch.cat((torch.zeros_like(share[:, :1]), share[:, :-1]), 1)
    return _by_id(ids, chosen.where(before < enough, 0.0))


def _by_id(ids: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    ids, order = ids.sort(-1)
    return ids, p.gather(1, order)
