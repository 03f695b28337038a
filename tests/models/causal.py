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
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from qkv.decode.answer import rank_score
from qkv.decode.engine import Engine
from qkv.decode.search import SearchConfig
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


def left(rows: list[list[int]], pad: int) -> dict[str, Tensor]:
    """Left-padded prompts, as the reference wants them."""
    S = max(map(len, rows))
    ids = torch.tensor([[pad] * (S - len(r)) + r for r in rows])
    keep = torch.tensor([[0] * (S - len(r)) + [1] * len(r) for r in rows])
    return {"input_ids": ids, "attention_mask": keep}


PROMPTS = [[5, 6, 7, 9], [11], [3, 4] * 6, [20, 21, 22], list(range(30, 47))]


def sharp(cls: Any, config: Any) -> tuple[Any, Any]:
    """A reference model whose next token is not always the same one, and ours, float32; without an <eos> of its own."""
    config.eos_token_id = None
    model = reference(cls, config, dtype=torch.float32)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)
    return model, converted(model)[2]


def check_greedy(cls: Any, config: Any) -> None:
    """256 tokens of five different prompts in one batch: the reference's, and the argmax of one uncached pass."""
    model, net = sharp(cls, config)
    asked: dict[str, Any] = dict(max_new_tokens=256, do_sample=False, pad_token_id=0)
    with torch.inference_mode():
        want = model.generate(**left(PROMPTS, 0), eos_token_id=None, **asked)
    want = want[:, max(map(len, PROMPTS)) :].tolist()
    got = [h.ids for (h,) in Engine(net, SearchConfig(max_new_tokens=256))(PROMPTS)]
    assert [list(ids) for ids in got] == want and len({len(set(w)) for w in want}) > 1
    with torch.inference_mode():
        for prompt, ids in zip(PROMPTS, got, strict=True):
            whole = torch.tensor([[*prompt, *ids]])
            logits = net.logits(Batch(whole, torch.ones_like(whole, dtype=torch.bool)))
            assert logits[0, len(prompt) - 1 : -1].argmax(-1).tolist() == list(ids)
    ends = [sorted(set(w), key=w.index)[3] for w in want[:2]]  # ids that do come
    with torch.inference_mode():
        want = model.generate(**left(PROMPTS, 0), eos_token_id=ends, **asked)
    got = Engine(net, SearchConfig(max_new_tokens=256, eos_ids=tuple(ends)))(PROMPTS)
    ended = 0
    for (h,), row in zip(got, want[:, max(map(len, PROMPTS)) :].tolist(), strict=True):
        end = [row[len(h.ids)]] if h.finished else []
        assert row[: len(h.token_scores)] == [*h.ids, *end] and set(end) <= set(ends)
        ended += h.finished
    assert ended >= 2


def check_beams(cls: Any, config: Any, **more: Any) -> None:
    """Beam 4: the four hypotheses and their scores, for the reference's rules of stopping and ranking."""
    model, net = sharp(cls, config)
    prompts = PROMPTS[:1] if more else PROMPTS  # the reference's processors see its padding too
    first = Engine(net, SearchConfig(max_new_tokens=12, beam=4, nbest=4))(prompts)
    eos = tuple({hs[k].ids[6] for hs in first[:2] for k in (1, 3)})
    seen = []
    for early in (True, False, "never"):
        for alpha in (1.0, 0.0, -0.5):
            with torch.inference_mode():
                out = model.generate(
                    **left(prompts, 0), max_new_tokens=12, do_sample=False, num_beams=4, num_return_sequences=4,
                    eos_token_id=list(eos), pad_token_id=0, early_stopping=early, length_penalty=alpha,
                    output_scores=True, return_dict_in_generate=True, **more,
                )  # fmt: skip
            how: Any = dict(
                penalty="length", early_stopping=early, alpha=alpha, eos_ids=eos, **more
            )
            got = Engine(net, SearchConfig(max_new_tokens=12, beam=4, nbest=4, **how))(prompts)
            made = [h for hypotheses in got for h in hypotheses]
            rows = out.sequences[:, max(map(len, prompts)) :].tolist()
            for h, row, score in zip(made, rows, out.sequences_scores.tolist(), strict=True):
                n = len(h.token_scores)
                end = [row[n - 1]] if h.finished else []
                assert row[:n] == [*h.ids, *end] and set(end) <= set(eos)
                # they add twelve float32 numbers of size 1 to 5 in float32, we in float64
                assert abs(rank_score(h.score, n, SearchConfig(**how)) - score) < 1e-4
            seen.append(tuple(h.finished for h in made))
    assert any(any(s) for s in seen)


def check_alone_or_together(cls: Any, config: Any) -> None:
    """Law 2: prompts of different lengths in one batch get, bit for bit, what each gets alone."""
    _, net = sharp(cls, config)
    for how in (
        dict(beam=3, nbest=3),
        dict(beam=1),
        dict(temperature=1.0, nbest=2, seed=3),
    ):
        engine = Engine(net, SearchConfig(max_new_tokens=20, **how))
        assert engine(PROMPTS) == [engine([p])[0] for p in PROMPTS]
