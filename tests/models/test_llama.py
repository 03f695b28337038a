"""Llama, Mistral, Qwen2 and Qwen3 equal the reference library: numbers, files and configurations."""

import causal
import pytest
import torch
import transformers as theirs
from parity import check_round_trip, converted, reference
from transformers import LlamaConfig, LlamaModel

from qkv.errors import ConfigError, WeightsError
from qkv.models import FAMILIES, hf

SMALL = dict(vocab_size=61, hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=20)  # fmt: skip
LLAMA3 = dict(rope_type="llama3", rope_theta=100.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)  # fmt: skip
CONFIGS = {
    "Llama": {},
    "Llama grouped, biases, tied": dict(
        num_key_value_heads=2, attention_bias=True, mlp_bias=True, tie_word_embeddings=True
    ),
    "Llama one key head, wide odd heads": dict(num_key_value_heads=1, head_dim=10, pad_token_id=5),
    "Llama linear": dict(
        rope_parameters=dict(rope_type="linear", rope_theta=500.0, factor=3.0), hidden_act="gelu"
    ),
    "Llama llama3": dict(rope_parameters=LLAMA3, head_dim=16, rms_norm_eps=1e-3),
    "Mistral window": dict(num_key_value_heads=2, sliding_window=5),
    "Mistral window of one": dict(num_key_value_heads=4, sliding_window=1, head_dim=14),
    "Mistral": dict(num_key_value_heads=1, sliding_window=None),
    "Qwen2": dict(num_key_value_heads=2),
    "Qwen2 late windows": dict(
        num_key_value_heads=1, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "Qwen3 biases": dict(num_key_value_heads=2, head_dim=10, attention_bias=True),
    "Qwen3 chosen windows, tied": dict(
        num_key_value_heads=4,
        head_dim=6,
        use_sliding_window=True,
        sliding_window=3,
        layer_types=["sliding_attention", "full_attention"],
        tie_word_embeddings=True,
    ),
}


def config_of(name):
    return getattr(theirs, name.split()[0] + "Config")(**SMALL, **CONFIGS[name])


def model_of(name, **more):
    return reference(getattr(theirs, name.split()[0] + "ForCausalLM"), config_of(name), **more)


each = pytest.mark.parametrize("name", CONFIGS)


@each
def test_states_maps_and_logits(name):
    causal.check_states_maps_and_logits(model_of(name))


@each
def test_loss_and_gradients(name):
    causal.check_loss_and_gradients(model_of(name))


@each
def test_float32(name):
    causal.check_float32(getattr(theirs, name.split()[0] + "ForCausalLM"), config_of(name))


@each
def test_loading_and_saving_keeps_every_byte(name):
    check_round_trip(model_of(name))


@each
def test_the_reference_loads_what_we_write(name, tmp_path):
    causal.check_they_load_ours(model_of(name), tmp_path)


LONG = ("Llama grouped, biases, tied", "Mistral window", "Qwen3 chosen windows, tied")


@pytest.mark.parametrize("name", LONG[1:])
def test_greedy_text_is_the_references_and_the_uncached_argmax(name):
    causal.check_greedy(getattr(theirs, name.split()[0] + "ForCausalLM"), config_of(name))


@pytest.mark.parametrize("name", LONG[:1])
def test_beams_and_their_scores_are_the_references(name):
    causal.check_beams(getattr(theirs, name.split()[0] + "ForCausalLM"), config_of(name))


@pytest.mark.parametrize("name", LONG[:2])
def test_prompts_alone_or_together(name):
    causal.check_alone_or_together(
        getattr(theirs, name.split()[0] + "ForCausalLM"), config_of(name)
    )


def test_a_bare_model_has_states_and_refuses_logits(tmp_path):
    model = reference(LlamaModel, LlamaConfig(**SMALL))
    _, _, net = converted(model)
    with pytest.raises(ConfigError) as e:
        net.output(torch.zeros(1, 24))
    assert e.value.code == "QKV-013"
    check_round_trip(model)
    causal.check_they_load_ours(model, tmp_path)


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2", "qwen3"])
def test_what_is_absent_is_as_in_the_reference(kind):
    cls = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3"}[kind]
    made = getattr(theirs, cls + "Config")().to_dict()
    made["architectures"] = [cls + "ForCausalLM"]
    assert causal.read({"model_type": kind}) == causal.read(made)


OLD = {"model_type": "llama", **SMALL, "rope_theta": 500000.0}


@pytest.mark.parametrize(
    "scaling",
    [
        None,
        {"type": "linear", "factor": 2.0},
        {"rope_type": "linear", "factor": 2.0},
        {"rope_type": "default"},
        {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4,
         "original_max_position_embeddings": 8192},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    ],
    ids=str,
)  # fmt: skip
def test_older_files_mean_what_the_reference_takes_them_for(scaling):
    values = OLD | {"rope_scaling": scaling}
    known = LlamaConfig(**{k: v for k, v in values.items() if k != "model_type"})
    assert causal.read(values).rotary == causal.read(known.to_dict()).rotary
    assert causal.read(values).rotary.base == 500000.0


@pytest.mark.parametrize("kind", ["yarn", "dynamic", "longrope", "proportional"])
def test_other_scalings_are_refused_by_name(kind):
    for key in ("rope_scaling", "rope_parameters"):
        with pytest.raises(ConfigError) as e:
            causal.read(OLD | {key: {"rope_type": kind, "factor": 2.0}})
        assert e.value.code == "QKV-012" and kind in e.value.seen


@pytest.mark.parametrize(
    "values,code",
    [
        ({"model_type": "llama", "sliding_window": 8}, "QKV-012"),
        ({"model_type": "llama", "layer_types": ["full_attention"] * 2}, "QKV-010"),
        ({"model_type": "llama", "hidden_act": "laplace"}, "QKV-012"),
        ({"model_type": "llama", "head_dim": 7}, "QKV-013"),
        ({"model_type": "llama", "num_key_value_heads": 3}, "QKV-013"),
        ({"model_type": "llama", "partial_rotary_factor": 0.5}, "QKV-012"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "linear", "factor": 0}}, "QKV-012"),
        ({"model_type": "llama", "rope_parameters": {"rope_type": "linear", "mscale": 1}}, "QKV-010"),
        ({"model_type": "llama", "rope_parameters": 3}, "QKV-011"),
        ({"model_type": "mistral", "attention_bias": True, "num_key_value_heads": 4}, "QKV-012"),
        ({"model_type": "mistral", "sliding_window": 0, "num_key_value_heads": 4}, "QKV-012"),
        ({"model_type": "mistral", "sliding_window": "8", "num_key_value_heads": 4}, "QKV-011"),
        ({"model_type": "qwen2", "mlp_bias": True, "num_key_value_heads": 4}, "QKV-012"),
        ({"model_type": "qwen3", "layer_types": ["chunked_attention"] * 2}, "QKV-012"),
        ({"model_type": "qwen3", "layer_types": ["sliding_attention"] * 2}, "QKV-013"),
        ({"model_type": "qwen3", "layer_types": ["full_attention"]}, "QKV-012"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_not_computed_is_refused_by_name(values, code):
    with pytest.raises(ConfigError) as e:
        causal.read(SMALL | values)
    assert e.value.code == code and e.value.fix


def test_another_head_is_refused_by_name():
    with pytest.raises(WeightsError) as e:
        causal.read({"model_type": "qwen3", "architectures": ["Qwen3ForTokenClassification"]})
    assert e.value.code == "QKV-055"


def test_a_kind_takes_only_what_its_files_can_say():
    llama = FAMILIES["llama"]
    for wrong in (
        dict(kind="llama", window=4),
        dict(kind="mistral", bias=True),
        dict(kind="qwen2", bias=False),
        dict(kind="mistral", window=4, window_layers=(0,)),
        dict(kind="qwen3", ff_bias=True),
    ):
        with pytest.raises(ConfigError) as e:
            llama.LlamaConfig(**wrong)
        assert e.value.code == "QKV-013"


def test_an_early_padding_id_is_the_last_row():
    config = causal.read({"model_type": "llama", **SMALL, "pad_token_id": -1})
    assert config.pad_id == 60 and FAMILIES["llama"].to_hf(config)["pad_token_id"] == 60


def test_speeds_stored_by_old_versions_are_left_out():
    model = model_of("Llama")
    module, config, _ = converted(model)
    held = dict(model.state_dict())
    clean = hf.ours(module, config, held)
    held["model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(3)
    assert hf.ours(module, config, held).keys() == clean.keys()
