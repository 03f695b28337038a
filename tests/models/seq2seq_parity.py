"""An encoder-decoder of theirs and ours with the same weights, compared number by number (BART, mBART, Marian)."""

import copy
import json
from typing import Any

import torch
from parity import batch, check_gradients, converted, largest
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from qkv.decode.engine import Engine
from qkv.decode.search import SearchConfig, search
from qkv.learn.terms import term_loss
from qkv.look.record import record
from qkv.models import build, configure, describe, hf
from qkv.models.interface import set_state, state_of
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


def cut(row: list[int], eos: int | None, start: int = 1) -> list[int]:
    """Their row without what it was started with, and without <eos> and what follows it."""
    ids = row[start:]
    return ids[: ids.index(eos)] if eos in ids else ids


def louder(model: Any, by: float = 3.0) -> Any:
    """Larger matrices: a random model that does not say one token for ever."""
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1 and p.requires_grad:
                p.mul_(by)
    return model


def brief(model: Any, by: float = 2.0) -> Any:
    """A copy that ends its answers now and then."""
    made = copy.deepcopy(model)
    made.final_logits_bias[0, made.config.eos_token_id] += by
    return made


def forced(config: Any, first: int | None, **settings: Any) -> SearchConfig:
    return SearchConfig(forced_first=first, forced_last=config.forced_eos_id, **settings)


def check_greedy(
    model: Any, b: Batch, ends: bool, first: int | None = None, n: int = 256, **settings: Any
) -> None:
    """n tokens, of their greedy search and ours; with `ends` answers may end earlier."""
    model = brief(model) if ends else model
    _, config, net = converted(model)
    least = 3 if ends else n - 1
    ids = model.generate(
        input_ids=b.source, attention_mask=b.keep.long(), do_sample=False, num_beams=1, max_new_tokens=n,
        min_new_tokens=least, forced_bos_token_id=first, **settings,
    )  # fmt: skip
    want = [cut(row, config.eos_id) for row in ids.tolist()]
    made = search(net, b, forced(config, first, max_new_tokens=n, min_new_tokens=least))
    assert [list(h[0].ids) for h in made] == want
    assert ends or len({i for row in want for i in row}) > 5
    assert first is None or {row[0] for row in want} == {first}
    assert {len(row) for row in want} == {n - 1} if not ends else min(map(len, want)) < n - 1


def check_beams(
    model: Any, b: Batch, first: int | None = None, n: int = 24, **settings: Any
) -> None:
    """The four hypotheses of a beam of four, and log P / length; theirs takes its softmax in float32: 1e-5."""
    model = brief(model)
    _, config, net = converted(model)
    out = model.generate(
        input_ids=b.source, attention_mask=b.keep.long(), num_beams=4, num_return_sequences=4, do_sample=False,
        length_penalty=1.0, max_new_tokens=n, min_new_tokens=3, forced_bos_token_id=first,
        return_dict_in_generate=True, output_scores=True, **settings,
    )  # fmt: skip
    want = [cut(row, config.eos_id) for row in out.sequences.tolist()]
    asked = dict(beam=4, nbest=4, max_new_tokens=n, min_new_tokens=3, penalty="length", early_stopping=False)  # fmt: skip
    made = [h for found in search(net, b, forced(config, first, **asked)) for h in found]
    assert [list(h.ids) for h in made] == want
    scores = torch.tensor([h.score / len(h.token_scores) for h in made])
    assert_close(scores, out.sequences_scores.to(scores), atol=1e-5, rtol=0)
    assert len({len(row) for row in want}) > 1


def check_rows_alone(net: Any, b: Batch) -> None:
    """Law 2, float32: alone or beside others, the same tokens and the same bits of every score."""
    rows = [row[:n] for row, n in zip(b.source.tolist(), b.keep.sum(1).tolist(), strict=True)]
    for beam in (1, 4):
        engine = Engine(net, SearchConfig(beam=beam, nbest=beam, max_new_tokens=20))
        together = engine(rows)
        assert together == [engine([row])[0] for row in rows]


def learn_by_heart(values: dict[str, Any], module: Any) -> None:
    """One batch, from random weights to a loss near 0; then through our settings and through theirs."""
    torch.manual_seed(0)
    config = configure(values | {"dropout": 0.0})
    net = build(config)
    b = batch(33, (6, 4, 9), (5, 7, 3), 0)
    optimiser = torch.optim.AdamW(net.parameters(), lr=2e-3)
    for _ in range(40):
        made = term_loss(net.loss_inputs(b))
        optimiser.zero_grad()
        (made.smoothed / made.tokens).backward()
        optimiser.step()
    assert float(made.nll) / made.tokens < 0.1
    assert float(net.head.bias.abs().max()) == 0 and not net.head.bias.requires_grad
    with torch.no_grad():
        want = net.eval().logits(b)
        again = build(configure(describe(config))).eval()
        set_state(again, state_of(net))
        assert torch.equal(again.logits(b), want)
        back = hf.configured(module, module.to_hf(config))
        again = build(back).eval()
        set_state(again, hf.ours(module, back, hf.theirs(module, config, state_of(net))))
        assert torch.equal(again.logits(b), want)
