"""A config.json of wrong values is met with an error that names them, never with a traceback."""

import pytest

from qkv.errors import ConfigError
from qkv.models import FAMILIES, build, hf

BERT = dict(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=30
)
LLAMA = BERT | dict(num_key_value_heads=2, head_dim=8)
BART = dict(
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    encoder_ffn_dim=16,
    decoder_ffn_dim=16,
    vocab_size=30,
    pad_token_id=1,
)
SIZES = {
    "bert": BERT, "roberta": BERT, "big_bird": BERT, "longformer": BERT,
    "distilbert": dict(dim=16, n_layers=1, n_heads=2, hidden_dim=16, vocab_size=30),
    "llama": LLAMA, "qwen2": LLAMA, "qwen3": LLAMA, "mistral": LLAMA,
    "bart": BART, "mbart": BART, "marian": BART,
    "gpt2": dict(n_embd=16, n_layer=1, n_head=2, vocab_size=30),
    "t5": dict(d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=16, vocab_size=30),
    "detr": dict(),
}  # fmt: skip
KINDS = list(SIZES)
LLAMAS = ["llama", "qwen2", "qwen3", "mistral"]
STILL = ["bert", "roberta", "distilbert", "big_bird", "longformer", "bart", "mbart", "marian"]
RESNET = dict(model_type="resnet")


def made(kind, **changed):
    values = {"model_type": kind} | SIZES[kind] | changed
    module = hf.family(values, FAMILIES.values())
    return build(hf.configured(module, values))


WRONG = [
    *((k, dict(architectures=a)) for k in KINDS for a in ([["x"]], [{}], 5, {"x": 1})),
    *((k, dict(vocab_size=n)) for k in KINDS if k != "detr" for n in (0, -2)),
    *((k, dict(pad_token_id=30)) for k in STILL),
    *((k, dict(classifier_dropout=x)) for k in ("bert", "roberta", "big_bird") for x in ("abc", [1])),
    *((k, dict(num_key_value_heads=-1)) for k in LLAMAS),
    *((k, dict(head_dim=-2)) for k in LLAMAS),
    ("longformer", dict(num_hidden_layers=0)),
    ("longformer", dict(num_hidden_layers=0, attention_window=[])),
    *(
        ("detr", dict(use_timm_backbone=False, backbone_config=RESNET | bad))
        for bad in (
            dict(depths=5), dict(depths=["a"]), dict(depths=[]), dict(hidden_sizes=[1.5, 2]), dict(hidden_sizes="ab"),
            dict(out_indices=["x"]), dict(out_indices=4), dict(out_features=[["x"]]), dict(out_features=5),
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("kind,changed", WRONG, ids=str)
def test_what_is_wrong_is_named(kind, changed):
    with pytest.raises(ConfigError) as e:
        made(kind, **changed)
    assert e.value.fix


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "detr"])
def test_the_sizes_they_are_changed_from_are_right(kind):
    assert made(kind) is not None


# what transformers 4 added to the configuration of any family
OLD = dict(tf_legacy_loss=False, cross_attention_hidden_size=None, tie_encoder_decoder=False)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "detr"])
def test_what_old_versions_wrote_for_all_changes_nothing(kind):
    values = {"model_type": kind} | SIZES[kind]
    module = hf.family(values, FAMILIES.values())
    old = OLD | {"_attn_implementation_autoset": True}
    assert hf.configured(module, values | old) == hf.configured(module, values)
    with pytest.raises(ConfigError, match="tie_encoder_decoder"):
        hf.configured(module, values | {"tie_encoder_decoder": True})
