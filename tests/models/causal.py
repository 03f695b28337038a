"""Checks of decoder-only models against the reference library; test_gpt2 and test_llama choose the configurations.

Tolerances: as in parity.py.  The reference computes RMS norms and the softmax of some families in float32 whatever
the model's type: `exact` lets it use the model's own, so that float64 is compared with float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from parity import batch, check_gradients, converted, largest, reference
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from qkv.look.record import record
from qkv.models import FAMILIES, hf
from qkv.models.interface import state_of
from qkv.shapes import Batch

NORMS = (LlamaRMSNorm, MistralRMSNorm, Qwen2RMSNorm, Qwen3RMSNorm)
SOFTMAX = F.softmax


def _norm(self: Any, x: Tensor) -> Tensor:
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def _softmax(x: Tensor, dim: int, dtype: Any = None) -> Tensor:
    return SOFTMAX(x, dim=dim)


@contextmanager
def exact() -> Iterator[None]:
    patches = [patch.object(cls, "forward", _norm) for cls in NORMS]
    patches.append(patch.object(F, "softmax", _softmax))
    for p in patches:
        p.start()
    try:
        yield
    finally:
        for p in patches:
            p.stop()


def check_states_maps_and_logits(model: Any) -> None:
    """Every layer's states, every map and the logits of a padded batch."""
    _, _, net = converted(model)
    b = batch(model.config.vocab_size)
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_hook(lambda *a: seen.append(a[2][0])) for block in net.decoder.blocks
    ]
    with torch.no_grad(), record(net) as maps:
        got = net.logits(b)
    for hook in hooks:
        hook.remove()
    with torch.no_grad(), exact():
        want = model(
            input_ids=b.source,
            attention_mask=b.keep.long(),
            output_hidden_states=True,
            output_attentions=True,
        )
    assert largest(got, want.logits, b.keep) < 1e-10
    assert largest(net.encode(b).states, want.hidden_states[-1], b.keep) < 1e-10
    for ours, theirs in zip(seen[:-1], want.hidden_states[1:-1], strict=True):
        assert largest(ours, theirs, b.keep) < 1e-10
    for i, theirs in enumerate(want.attentions):
        ours = maps[f"decoder.blocks.{i}.attn"]
        assert largest(ours.transpose(1, 2), theirs.transpose(1, 2), b.keep) < 1e-10


def check_loss_and_gradients(model: Any) -> None:
    """The mean of -log p of every next token, and what it sends to each parameter."""
    module, config, net = converted(model)
    b = batch(model.config.vocab_size)
    p = net.loss_inputs(b)
    ours = F.cross_entropy(p.states @ p.weight.T, p.labels)
    ours.backward()
    with exact():
        logits = model(input_ids=b.source, attention_mask=b.keep.long()).logits
        counts = b.keep[:, 1:]
        theirs = F.cross_entropy(logits[:, :-1][counts], b.source[:, 1:][counts])
        theirs.backward()
    assert abs(float((ours - theirs).detach())) < 1e-10
    check_gradients(net, module, config, model)


def check_float32(cls: Any, config: Any) -> None:
    model = reference(cls, config, dtype=torch.float32)
    _, _, net = converted(model)
    b = batch(config.vocab_size)
    with torch.no_grad():
        want = model(input_ids=b.source, attention_mask=b.keep.long()).logits
        got = net.logits(b)
    assert largest(got, want, b.keep) < 1e-5 * float(want[b.keep].abs().max())


def check_they_load_ours(model: Any, folder: Any) -> None:
    """config.json and model.safetensors as we write them: their class loads all of it and computes the same."""
    module, config, net = converted(model)
    made = {n: t.clone() for n, t in hf.theirs(module, config, state_of(net)).items()}
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    known = type(model.config).from_dict(module.to_hf(config))
    known.save_pretrained(folder)
    again, notes = type(model).from_pretrained(
        folder, dtype=torch.float64, output_loading_info=True, attn_implementation="eager"
    )
    assert not notes["missing_keys"] and not notes["unexpected_keys"], notes
    b = batch(model.config.vocab_size)
    with torch.no_grad(), exact():
        one, other = (
            m(input_ids=b.source, attention_mask=b.keep.long())[0][b.keep] for m in (model, again)
        )
    assert torch.equal(one, other)


def read(values: dict[str, Any]) -> Any:
    """A config.json -> our configuration."""
    return hf.configured(hf.family(values, FAMILIES.values()), values)


def rows_of(made: Tensor, start: int, pad: int) -> list[list[int]]:
    """Generated ids (B, T) after the prompts, without padding."""
    return [[i for i in row if i != pad] for row in made[:, start:].tolist()]


def left(rows: list[list[int]], pad: int) -> dict[str, Tensor]:
    """Left-padded prompts, as the reference wants them."""
    S = max(map(len, rows))
    ids = torch.tensor([[pad] * (S - len(r)) + r for r in rows])
    keep = torch.tensor([[0] * (S - len(r)) + [1] * len(r) for r in rows])
    return {"input_ids": ids, "attention_mask": keep}


__all__ = ["Batch", "assert_close"]
