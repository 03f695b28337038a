"""GPT-2 equals the reference library: numbers, files and configurations."""

import causal
import pytest
import torch
from parity import batch, check_round_trip, converted, largest, reference
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from qkv.errors import ConfigError, WeightsError
from qkv.models import FAMILIES, hf

SMALL = dict(vocab_size=61, n_embd=20, n_layer=2, n_head=4, n_positions=32)
CONFIGS = {
    "plain": SMALL,
    "odd heads, untied": SMALL | dict(n_embd=15, n_head=5, n_inner=7, tie_word_embeddings=False),
    "one head, relu": SMALL | dict(n_head=1, activation_function="relu", layer_norm_epsilon=1e-3),
    "scaled by layer": SMALL | dict(scale_attn_by_inverse_layer_idx=True, n_layer=3),
    "unscaled": SMALL | dict(scale_attn_weights=False, activation_function="gelu"),
}
each = pytest.mark.parametrize("values", CONFIGS.values(), ids=CONFIGS)


@each
def test_states_maps_and_logits(values):
    causal.check_states_maps_and_logits(reference(GPT2LMHeadModel, GPT2Config(**values)))


@each
def test_loss_and_gradients(values):
    causal.check_loss_and_gradients(reference(GPT2LMHeadModel, GPT2Config(**values)))


@each
def test_float32(values):
    causal.check_float32(GPT2LMHeadModel, GPT2Config(**values))


@each
def test_loading_and_saving_keeps_every_byte(values):
    check_round_trip(reference(GPT2LMHeadModel, GPT2Config(**values)))


@each
def test_the_reference_loads_what_we_write(values, tmp_path):
    causal.check_they_load_ours(reference(GPT2LMHeadModel, GPT2Config(**values)), tmp_path)


LONG = SMALL | dict(n_positions=300)


def test_greedy_text_is_the_references_and_the_uncached_argmax():
    causal.check_greedy(GPT2LMHeadModel, GPT2Config(**LONG))


@pytest.mark.parametrize(
    "more", [{}, {"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 2}], ids=str
)
def test_beams_and_their_scores_are_the_references(more):
    causal.check_beams(GPT2LMHeadModel, GPT2Config(**LONG), **more)


def test_prompts_alone_or_together():
    causal.check_alone_or_together(GPT2LMHeadModel, GPT2Config(**LONG))


def test_a_bare_model_has_states_and_refuses_logits(tmp_path):
    model = reference(GPT2Model, GPT2Config(**SMALL))
    _, config, net = converted(model)
    b = batch(61)
    with torch.no_grad():
        want = model(input_ids=b.source, attention_mask=b.keep.long()).last_hidden_state
        assert largest(net.encode(b).states, want, b.keep) < 1e-10
    with pytest.raises(ConfigError) as e:
        net.logits(b)
    assert e.value.code == "QKV-013"
    check_round_trip(model)
    causal.check_they_load_ours(model, tmp_path)


PUBLISHED = {  # as the smallest of them was published, before most keys of today
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.2,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}


def test_a_published_configuration_is_read_and_written_back():
    config = causal.read(PUBLISHED)
    again = FAMILIES["gpt2"].to_hf(config)
    silent = {k for k in PUBLISHED if k.startswith("summary")}
    silent |= {"n_ctx", "initializer_range", "task_specific_params"}
    assert {k: again[k] for k in PUBLISHED if k not in silent} == {
        k: v for k, v in PUBLISHED.items() if k not in silent
    }
    assert (config.embed_dropout, config.dropout) == (0.2, 0.0)


def test_scores_in_float32_are_written_back():
    """qkv makes them so always; transformers in half precision does where the file says it."""
    for upcast in (False, True):
        values = GPT2Config(**SMALL, reorder_and_upcast_attn=upcast).to_dict()
        config = hf.configured(FAMILIES["gpt2"], values, "config.json")
        assert FAMILIES["gpt2"].to_hf(config)["reorder_and_upcast_attn"] is upcast


def test_what_is_absent_is_as_in_the_reference():
    assert causal.read({"model_type": "gpt2"}) == causal.read(
        {**GPT2Config().to_dict(), "architectures": ["GPT2LMHeadModel"]}
    )


@pytest.mark.parametrize(
    "values,code",
    [
        ({"add_cross_attention": True}, "QKV-012"),
        ({"pruned_heads": {"0": [1]}}, "QKV-012"),
        ({"activation_function": "laplace"}, "QKV-012"),
        ({"n_inner": "many"}, "QKV-011"),
        ({"eos_token_id": "end"}, "QKV-011"),
        ({"n_head": 3}, "QKV-013"),
        ({"sliding_window": 4}, "QKV-010"),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused_by_name(values, code):
    with pytest.raises(ConfigError) as e:
        causal.read({"model_type": "gpt2", **SMALL, **values})
    assert e.value.code == code and e.value.fix


def test_another_head_is_refused_by_name():
    with pytest.raises(WeightsError) as e:
        causal.read({"model_type": "gpt2", "architectures": ["GPT2ForSequenceClassification"]})
    assert e.value.code == "QKV-055" and "GPT2ForSequenceClassification" in e.value.seen


def test_several_ends_and_none_are_kept():
    to_hf = FAMILIES["gpt2"].to_hf
    for eos in (None, 7, [7, 9]):
        config = causal.read({"model_type": "gpt2", "eos_token_id": eos, "pad_token_id": None})
        made = to_hf(config)
        assert made["eos_token_id"] == eos and made["pad_token_id"] is None


def test_buffers_of_old_versions_are_left_out_with_a_reason():
    model = reference(GPT2LMHeadModel, GPT2Config(**SMALL))
    module, config, _ = converted(model)
    held = dict(model.state_dict())
    clean = hf.ours(module, config, held)
    held["transformer.h.0.attn.bias"] = torch.ones(1, 1, 32, 32)
    held["transformer.h.0.attn.masked_bias"] = torch.tensor(-1e4)
    assert hf.ours(module, config, held).keys() == clean.keys()
    bare = {n.removeprefix("transformer."): t for n, t in held.items() if n != "lm_head.weight"}
    assert hf.ours(module, config, bare).keys() == clean.keys()
