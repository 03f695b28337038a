"""Files of small types: read in float32, and written again as they were, unless a number would be lost."""

import json
from typing import Any

import parity
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import qkv
from qkv.checkpoints import ACTIVATIONS, widest
from qkv.models.hf import ACTS
from qkv.models.interface import state_of
from qkv.shapes import Batch
from qkv.weights.files import File

SMALL: dict[str, Any] = dict(vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2)  # fmt: skip
WIDE = SMALL | dict(intermediate_size=24)
VIT: dict[str, Any] = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=8)  # fmt: skip
T5: dict[str, Any] = dict(vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2)
MODELS = {
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)
    ),
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**WIDE, num_key_value_heads=1)),
    "bert": lambda: hf.BertForMaskedLM(hf.BertConfig(**WIDE)),
    "t5": lambda: hf.T5ForConditionalGeneration(hf.T5Config(**T5)),
    "bart": lambda: hf.BartForConditionalGeneration(
        hf.BartConfig(vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=24, decoder_ffn_dim=24, encoder_attention_heads=2, decoder_attention_heads=2)
    ),
    "vit": lambda: hf.ViTForImageClassification(hf.ViTConfig(**VIT)),
    "bare gpt2": lambda: hf.GPT2Model(hf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)),
    "bare llama": lambda: hf.LlamaModel(hf.LlamaConfig(**WIDE, num_key_value_heads=1)),
    "bare bert": lambda: hf.BertModel(hf.BertConfig(**WIDE)),
    "bare bart": lambda: hf.BartModel(
        hf.BartConfig(vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=24, decoder_ffn_dim=24, encoder_attention_heads=2, decoder_attention_heads=2)
    ),
    "bare vit": lambda: hf.ViTModel(hf.ViTConfig(**VIT)),
    "bare longformer": lambda: hf.LongformerModel(hf.LongformerConfig(**WIDE, attention_window=4)),
}  # fmt: skip


@pytest.fixture(params=MODELS)
def theirs(request):
    torch.manual_seed(0)
    return MODELS[request.param]()


def read(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_a_file_of_a_small_type_is_read_in_float32_and_written_as_it_was(theirs, kind, tmp_path):
    theirs.to(kind).save_pretrained(tmp_path / "theirs")
    model = qkv.load(tmp_path / "theirs", device="cpu")
    assert {t.dtype for t in state_of(model.net).values()} == {torch.float32}
    model.save(tmp_path / "ours")
    before, after = read(tmp_path / "theirs"), read(tmp_path / "ours")
    assert {t.dtype for t in after.values()} == {kind}
    for name in after:  # tied names that one side alone writes are compared by the parity tests
        assert name not in before or torch.equal(after[name], before[name]), name
    assert before.keys() & after.keys()
    again = type(theirs).from_pretrained(tmp_path / "ours")
    assert again.dtype == again.config.dtype == kind
    again = again.state_dict()
    assert all(torch.equal(again[name], t) for name, t in theirs.state_dict().items())


def test_what_was_trained_since_keeps_its_digits(theirs, tmp_path):
    theirs.to(torch.bfloat16).save_pretrained(tmp_path / "theirs")
    model = qkv.load(tmp_path / "theirs", device="cpu")
    with torch.no_grad():
        next(model.net.parameters()).flatten()[-1] += 1e-7
    model.save(tmp_path / "ours")
    assert {t.dtype for t in read(tmp_path / "ours").values()} == {torch.float32}
    again, held = qkv.load(tmp_path / "ours", device="cpu"), state_of(model.net)
    assert all(torch.equal(held[n], t) for n, t in state_of(again.net).items())


def test_of_mixed_types_the_widest_is_noted(tmp_path):
    """transformers reads all tensors in one type: the first's, where config.json names none."""
    torch.manual_seed(0)
    theirs = hf.BertForMaskedLM(hf.BertConfig(**WIDE))
    theirs.bert.embeddings.to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "theirs")
    qkv.load(tmp_path / "theirs", device="cpu").save(tmp_path / "ours")
    assert {t.dtype for t in read(tmp_path / "ours").values()} == {torch.bfloat16, torch.float32}
    again = hf.BertForMaskedLM.from_pretrained(tmp_path / "ours")
    assert again.dtype == torch.float32
    for name, t in theirs.state_dict().items():
        assert torch.equal(again.state_dict()[name], t.float()), name


def test_two_small_types_are_read_in_one_that_holds_both():
    small = {"a": torch.ones(2).half(), "b": torch.ones(2).bfloat16()}
    assert widest({"model.safetensors": File(small)}) == torch.float32
    assert widest({"model.safetensors": File({"a": small["a"]})}) == torch.float16


def test_a_type_that_was_asked_for_is_written(theirs, tmp_path):
    theirs.save_pretrained(tmp_path / "theirs")
    qkv.load(tmp_path / "theirs", "cpu", torch.bfloat16).save(tmp_path / "ours")
    assert {t.dtype for t in read(tmp_path / "ours").values()} == {torch.bfloat16}


UNTIED: dict[str, Any] = {
    "bert": (hf.BertForMaskedLM, hf.BertConfig, {}),
    "bert with both heads": (hf.BertForPreTraining, hf.BertConfig, {}),
    "roberta": (hf.RobertaForMaskedLM, hf.RobertaConfig, {}),
    "bigbird": (hf.BigBirdForMaskedLM, hf.BigBirdConfig, dict(block_size=4, num_random_blocks=1)),
    "longformer": (hf.LongformerForMaskedLM, hf.LongformerConfig, dict(attention_window=4)),
    "distilbert": (hf.DistilBertForMaskedLM, hf.DistilBertConfig, dict(dim=16, n_heads=2, hidden_dim=24)),
}  # fmt: skip


@pytest.fixture(params=UNTIED)
def untied(request, tmp_path):
    torch.manual_seed(0)
    cls, config, more = UNTIED[request.param]
    sizes = SMALL if "dim" in more else WIDE
    theirs = cls(config(**sizes, **more, tie_word_embeddings=False)).eval()
    with torch.no_grad():
        for p in theirs.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs


def test_an_untied_word_head_is_written_whole(untied, tmp_path):
    """Names and bytes, the bias that nothing reads included: transformers would draw a missing one anew, and warn."""
    qkv.load(tmp_path / "theirs", device="cpu").save(tmp_path / "ours")
    before, after = read(tmp_path / "theirs"), read(tmp_path / "ours")
    assert before.keys() == after.keys()
    assert all(torch.equal(t, after[name]) for name, t in before.items())


def test_the_spare_bias_changes_nothing(untied, tmp_path):
    model = qkv.load(tmp_path / "theirs", device="cpu")
    ids = torch.arange(4, 24).view(2, 10)
    held, before = dict(model.net.named_buffers()), model.logits(ids)
    spare = held.get("head.words.spare")
    assert (spare is None) == isinstance(untied, hf.DistilBertForMaskedLM)
    if spare is not None:
        assert float(spare.abs().max()) > 0
        spare += 1
        assert torch.equal(model.logits(ids), before)


def assert_same_logits(theirs, folder):
    """float32."""
    ids = torch.arange(4, 24).view(2, 10)
    ours = qkv.load(folder, device="cpu").logits(ids)
    with torch.no_grad():
        out = theirs(ids)
    want = out.prediction_logits if "prediction_logits" in out else out.logits
    assert float((ours - want).abs().max()) < 1e-5 * float(want.abs().max())


def test_a_file_without_the_spare_bias_is_read(untied, tmp_path):
    tensors = read(tmp_path / "theirs")
    dead = [n for n in ("cls.predictions.bias", "lm_head.bias") if n in tensors]
    left = {n: t for n, t in tensors.items() if n not in dead}
    save_file(left, tmp_path / "theirs" / "model.safetensors", metadata={"format": "pt"})
    assert_same_logits(untied, tmp_path / "theirs")


def test_a_file_with_one_name_for_the_bias_is_read(untied, tmp_path):
    """As transformers 4 wrote it, where `decoder.bias` and `bias` were one tensor also in an untied head."""
    tensors = read(tmp_path / "theirs")
    second = [n for n in ("cls.predictions.decoder.bias", "lm_head.decoder.bias") if n in tensors]
    left = {n: t for n, t in tensors.items() if n not in second}
    save_file(left, tmp_path / "theirs" / "model.safetensors", metadata={"format": "pt"})
    for name in second:
        untied.get_parameter(name).data.copy_(tensors[name.replace(".decoder", "")])
    assert_same_logits(untied, tmp_path / "theirs")


SPELLED = {
    "bert": (hf.BertModel, hf.BertConfig, WIDE | {"hidden_act": "gelu_python"}),
    "vit": (hf.ViTModel, hf.ViTConfig, VIT | {"hidden_act": "swish", "pooler_act": "gelu_fast"}),
    "t5": (hf.T5EncoderModel, hf.T5Config, T5 | {"feed_forward_proj": "gated-swish"}),
}


@pytest.mark.parametrize("name", SPELLED)
def test_an_activation_keeps_the_name_it_came_with(name, tmp_path):
    cls, config, values = SPELLED[name]
    cls(config(**values)).save_pretrained(tmp_path / "theirs")
    qkv.load(tmp_path / "theirs", device="cpu").save(tmp_path / "ours")
    before, after = (
        json.loads((tmp_path / x / "config.json").read_text()) for x in ("theirs", "ours")
    )
    keys = [key for key in ACTIVATIONS if key in before]
    assert keys and all(before[key] == after[key] for key in keys)


@pytest.mark.parametrize("name", ACTS)
def test_every_activation_is_theirs(name):
    theirs = parity.reference(hf.BertModel, hf.BertConfig(**WIDE, hidden_act=name))
    _, _, net = parity.converted(theirs)
    ids = torch.arange(1, 21).view(2, 10)
    keep = torch.ones_like(ids, dtype=torch.bool)
    with torch.no_grad():
        ours, want = net.encode(Batch(ids, keep)).states, theirs(ids).last_hidden_state
    assert float((ours - want).abs().max()) < 1e-10


@pytest.mark.parametrize("name", ACTS)
def test_an_activation_keeps_its_name(name, tmp_path):
    """One formula here, another order of operations there: 7e-7 in float32 between gelu_new and gelu_pytorch_tanh."""
    torch.manual_seed(0)
    theirs = hf.BertModel(hf.BertConfig(**WIDE, hidden_act=name)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    qkv.load(tmp_path / "theirs", device="cpu").save(tmp_path / "ours")
    again = hf.BertModel.from_pretrained(tmp_path / "ours").eval()
    assert again.config.hidden_act == name
    ids = torch.arange(1, 21).view(2, 10)
    with torch.no_grad():
        a, b = (m(ids).last_hidden_state for m in (theirs, again))
    assert torch.equal(a, b)
