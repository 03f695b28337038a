"""An encoder-decoder of theirs and ours with the same weights, compared number by number (BART, mBART, Marian)."""

import json
from typing import Any

import torch
from parity import check_gradients, converted, largest
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from qkv.decode.search import search
from qkv.look.record import record
from qkv.models import hf
from qkv.models.interface import state_of
from qkv.shapes import Batch


def theirs_of(model: Any, net: Any, b: Batch) -> Any:
    """Their forward pass over our batch, fed what our decoder is fed."""
    return model(
        input_ids=b.source, attention_mask=b.keep.long(),
        decoder_input_ids=net.shift(b.target), decoder_attention_mask=b.target_keep.long(),
        output_hidden_states=True, output_attentions=True, use_cache=False,
    )  # fmt: skip


def check_states_and_maps(model: Any, b: Batch) -> None:
    """Every layer's states and every attention map of both stacks, float64."""
    _, _, net = converted(model)
    want = theirs_of(model, net, b)
    seen: dict[str, Tensor] = {}
    for side in ("encoder", "decoder"):
        for i, block in enumerate(getattr(net, side).stack.blocks):
            block.register_forward_hook(_keep(seen, f"{side}.{i}"))
    with torch.no_grad(), record(net) as maps:
        memory = net.encode(b)
        states = net.states(b, net.shift(b.target), memory)
    ends = {
        "encoder": (memory.states, want.encoder_last_hidden_state, want.encoder_hidden_states, b.keep),
        "decoder": (states, _last(want), want.decoder_hidden_states, b.target_keep),
    }  # fmt: skip
    for side, (last, their_last, layers, keep) in ends.items():
        assert largest(last, their_last, keep) < 1e-10
        assert len(layers) > len(getattr(net, side).stack.blocks)
        # their list begins with the embeddings; a final norm changes its last entry, which is compared above
        n = len(layers) - (2 if net.encoder.stack.config.final_norm else 1)
        for i in range(n):
            assert largest(seen[f"{side}.{i}"], layers[i + 1], keep) < 1e-10, (side, i)
    asked = {
        "encoder.stack.blocks.{}.attn": (want.encoder_attentions, b.keep),
        "decoder.stack.blocks.{}.attn": (want.decoder_attentions, b.target_keep),
        "decoder.stack.blocks.{}.cross": (want.cross_attentions, b.target_keep),
    }
    for name, (layers, keep) in asked.items():
        for i, layer in enumerate(layers):
            got = maps[name.format(i)]
            assert got.shape == layer.shape
            assert largest(got.transpose(1, 2), layer.transpose(1, 2), keep) < 1e-10, name
    assert len(maps) == sum(len(layers) for layers, _ in asked.values())


def _keep(seen: dict[str, Tensor], name: str) -> Any:
    def hook(module: nn.Module, given: Any, made: Any) -> None:
        seen[name] = made[0]

    return hook


def _last(want: Any) -> Tensor:
    last = getattr(want, "last_hidden_state", None)
    return want.decoder_hidden_states[-1] if last is None else last


def check_logits_loss_and_gradients(model: Any, b: Batch) -> None:
    module, config, net = converted(model)
    want = theirs_of(model, net, b).logits
    got = net.logits(b)
    assert float(want.detach().std()) > 0.1  # the comparison is of numbers that differ
    assert largest(got, want, b.target_keep) < 1e-10
    keep = b.target_keep
    p = net.loss_inputs(b)
    ours = F.cross_entropy(F.linear(p.states, p.weight, p.bias), p.labels)
    theirs = F.cross_entropy(want[keep], b.target[keep])
    assert abs(float(ours.detach() - theirs.detach())) < 1e-10
    ours.backward()
    theirs.backward()
    check_gradients(net, module, config, model)


def check_float32(model: Any, b: Batch) -> None:
    """float32: within 1e-5 of the largest logit."""
    _, _, net = converted(model.float())
    with torch.no_grad():
        want = theirs_of(model, net, b).logits
        assert largest(net.logits(b), want, b.target_keep) < 1e-5 * float(want.abs().max())


def check_they_load_ours(cls: Any, model: Any, b: Batch, folder: Any) -> None:
    """transformers itself reads the config.json and model.safetensors that we write: nothing missing, same numbers."""
    module, config, net = converted(model.float())
    tensors = hf.theirs(module, config, state_of(net))
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "model.safetensors", {"format": "pt"})  # fmt: skip
    (folder / "config.json").write_text(json.dumps(module.to_hf(config)))
    again, info = cls.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    assert not info["mismatched_keys"]
    again.eval()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    given = dict(input_ids=b.source, attention_mask=b.keep.long())
    if hasattr(net, "shift"):
        given["decoder_input_ids"] = net.shift(b.target)
    with torch.no_grad():
        a, c = again(**given), model(**given)
    assert torch.equal(a[0], c[0])


def check_cached_steps(net: Any, b: Batch, atol: float = 1e-12) -> None:
    """Step after step = one pass, float64."""
    with torch.no_grad():
        want, fed, state = net.logits(b), net.shift(b.target), net.start(b)
        for t in range(fed.shape[1]):
            got, state = net.step(fed[:, t], state)
            real = b.target_keep[:, t]
            assert_close(got[real], want[real, t], atol=atol, rtol=0)


def answers(net: Any, b: Batch, config: Any) -> list[list[Any]]:
    return search(net, b, config, banned=getattr(net, "banned", ()))


def cut(row: list[int], eos: int | None, start: int = 1) -> list[int]:
    """Their row without what it was started with, and without <eos> and what follows it."""
    ids = row[start:]
    return ids[: ids.index(eos)] if eos in ids else ids
