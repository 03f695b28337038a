"""T5, v1.1 and mT5 equal the reference library: numbers, gradients, answers, files and configurations.

Tolerances as in parity.py.  The reference computes the mean square of its norm in float32 whatever the model's type: `exact`
lets it use the model's own, so that float64 is compared with float64."""

import json
from contextlib import contextmanager
from unittest.mock import patch

import pytest
import seq2seq_parity
import torch
from parity import batch, check_gradients, check_round_trip, converted, largest, reference, rows
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import (
    MT5Config,
    MT5EncoderModel,
    MT5ForConditionalGeneration,
    MT5Model,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    T5Model,
)
from transformers.models.mt5.modeling_mt5 import MT5LayerNorm
from transformers.models.t5.modeling_t5 import T5LayerNorm

import qkv
from qkv.decode import SearchConfig, force, search
from qkv.errors import ConfigError, UsageError, WeightsError
from qkv.look.record import record
from qkv.models import FAMILIES, build, configure, hf
from qkv.models.interface import state_of
from qkv.models.t5 import T5Config as Ours
from qkv.parts import kernels
from qkv.parts.patterns import Allowed, Causal, Full
from qkv.shapes import Batch, pad

V = 61
SMALL = dict(vocab_size=V, d_model=12, d_kv=5, d_ff=24, num_layers=2, num_heads=3, decoder_start_token_id=0)  # fmt: skip
UNTIED = dict(tie_word_embeddings=False, feed_forward_proj="gated-gelu")
CONFIGS = {
    "T5": {},
    "T5 uneven stacks, wide heads": dict(num_decoder_layers=3, num_layers=1, d_kv=16, num_heads=4),
    "T5 few buckets, near": dict(
        relative_attention_num_buckets=8,
        relative_attention_max_distance=6,
        feed_forward_proj="gated-silu",
        layer_norm_epsilon=1e-3,
    ),
    "T5 starts from another id": dict(decoder_start_token_id=3, pad_token_id=2, d_kv=1),
    "T5 tied, not scaled": UNTIED,
    "T5 untied": UNTIED,
    "T5 untied, saved as tied": dict(scale_decoder_outputs=False, dense_act_fn="gelu"),
    "MT5": dict(d_kv=7),
    "MT5 untied": dict(tie_word_embeddings=False, feed_forward_proj="gated-relu"),
}
HEADS = {"T5": (T5ForConditionalGeneration, T5Config), "MT5": (MT5ForConditionalGeneration, MT5Config)}  # fmt: skip
each = pytest.mark.parametrize("name", CONFIGS)
TARGETS = (5, 9, 1, 16)


@contextmanager
def exact():
    def norm(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))  # fmt: skip

    with patch.object(T5LayerNorm, "forward", norm), patch.object(MT5LayerNorm, "forward", norm):
        yield


def model_of(name, dtype=torch.float64, **more):
    cls, config = HEADS[name.split()[0]]
    model = reference(cls, config(**{**SMALL, **CONFIGS[name], **more}), dtype=dtype)
    if "untied" in name:  # as a published checkpoint with two matrices is loaded
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.shared.weight))
    return model


def both(name):
    model = model_of(name)
    b = batch(V, target=TARGETS, pad_id=model.config.pad_token_id)
    return model, *converted(model), b


def asked(b, **more):
    labels = b.target.masked_fill(~b.target_keep, -100)
    return dict(input_ids=b.source, attention_mask=b.keep.long(), labels=labels) | more


@each
def test_states_maps_and_logits(name):
    """Every layer's states, every self and cross attention map, the encoder's and decoder's ends, the logits."""
    model, _, config, net, b = both(name)
    seen = []
    blocks = [*net.encoder.stack.blocks, *net.decoder.stack.blocks]
    hooks = [x.register_forward_hook(lambda *a: seen.append(a[2][0])) for x in blocks]
    with torch.no_grad(), record(net) as maps:
        got = net.logits(b)
    for hook in hooks:
        hook.remove()
    with torch.no_grad(), exact():
        want = model(**asked(b), output_hidden_states=True, output_attentions=True)
    assert float(want.logits.std()) > 0.1
    assert largest(got, want.logits, b.target_keep) < 1e-10
    with torch.no_grad():
        assert largest(net.encode(b).states, want.encoder_last_hidden_state, b.keep) < 1e-10
    L = config.encoder_layers
    sides = ((seen[:L], want.encoder_hidden_states, b.keep), (seen[L:], want.decoder_hidden_states, b.target_keep))  # fmt: skip
    for mine, other, keep in sides:
        for ours, theirs in zip(
            mine[:-1], other[1:-1], strict=True
        ):  # their last one is after the norm
            assert largest(ours, theirs, keep) < 1e-10
    kinds = {
        "encoder.stack.blocks.{}.attn": (want.encoder_attentions, b.keep),
        "decoder.stack.blocks.{}.attn": (want.decoder_attentions, b.target_keep),
        "decoder.stack.blocks.{}.cross": (want.cross_attentions, b.target_keep),
    }
    for path, (theirs, keep) in kinds.items():
        for i, want_map in enumerate(theirs):
            ours = maps.pop(path.format(i))
            assert largest(ours.transpose(1, 2), want_map.transpose(1, 2), keep) < 1e-10
    assert not maps


@each
def test_loss_and_gradients(name):
    """The mean of -log p of the targets, and what it sends to each parameter, the tables of buckets among them."""
    model, module, config, net, b = both(name)
    p = net.loss_inputs(b)
    ours = F.cross_entropy(p.states @ p.weight.T, p.labels)
    ours.backward()
    with exact():
        theirs = F.cross_entropy(model(**asked(b)).logits[b.target_keep], b.target[b.target_keep])
        theirs.backward()
    assert abs(float((ours - theirs).detach())) < 1e-10
    check_gradients(net, module, config, model)
    for stack in (net.encoder.stack, net.decoder.stack):
        assert float(stack.relative.table.weight.grad.abs().max()) > 1e-6


@each
def test_float32(name):
    model = model_of(name, dtype=torch.float32)
    _, _, net = converted(model)
    b = batch(V, target=TARGETS, pad_id=model.config.pad_token_id)
    with torch.no_grad():
        want, got = model(**asked(b)).logits, net.logits(b)
    assert largest(got, want, b.target_keep) < 1e-5 * float(want[b.target_keep].abs().max())


def test_far_tokens_share_the_last_bucket():
    """Distances up to 299, beyond the 128 from where all is one bucket."""
    model = model_of("T5")
    _, _, net = converted(model)
    b = batch(V, (300, 150), target=(140, 300))
    with torch.no_grad(), exact():
        assert largest(net.logits(b), model(**asked(b)).logits, b.target_keep) < 1e-10


# -- files ---------------------------------------------------------------------------------------------


@each
def test_load_and_save_are_inverse(name):
    check_round_trip(model_of(name))


def write(folder, model):
    """config.json and model.safetensors as we write them."""
    module, config, net = converted(model)
    made = {n: t.clone() for n, t in hf.theirs(module, config, state_of(net)).items()}
    save_file(made, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(module.to_hf(config)), "utf-8")
    return net


@each
def test_they_load_what_we_write(name, tmp_path):
    model = model_of(name)
    write(tmp_path, model)
    again, notes = type(model).from_pretrained(
        tmp_path, dtype=torch.float64, output_loading_info=True, attn_implementation="eager"
    )
    assert not notes["missing_keys"] and not notes["unexpected_keys"], notes
    b = batch(V, target=TARGETS, pad_id=model.config.pad_token_id)
    with torch.no_grad(), exact():
        assert torch.equal(model(**asked(b)).logits, again(**asked(b)).logits)


@each
def test_we_load_what_they_write_and_they_what_we_save(name, tmp_path):
    """Both ways through folders, with `qkv.load` and `Model.save`: the same bytes of every tensor."""
    model = model_of(name, dtype=torch.float32)
    model.save_pretrained(tmp_path / "theirs")
    mine = qkv.load(tmp_path / "theirs", device="cpu")
    b = batch(V, target=TARGETS, pad_id=model.config.pad_token_id)
    with torch.no_grad():
        want = model(**asked(b)).logits
        assert largest(mine.net.logits(b), want, b.target_keep) < 1e-5 * float(want.abs().max())
    mine.save(tmp_path / "ours")
    again = type(model).from_pretrained(tmp_path / "ours").state_dict()
    assert all(torch.equal(again[n], t) for n, t in model.state_dict().items())
    assert again.keys() == model.state_dict().keys()


def test_the_tensors_tell_whether_the_output_is_tied():
    """transformers 5 writes tie_word_embeddings = true whatever is the case; older files say what is."""
    module, tied = FAMILIES["t5"], Ours(vocab_size=V)
    a, b = torch.zeros(V, 512), torch.ones(V, 512)
    said = hf.configured(module, {"model_type": "t5", "tie_word_embeddings": False})
    assert hf.fitted(module, tied, {"shared.weight": a}).tie == "all"
    assert hf.fitted(module, tied, {"shared.weight": a, "lm_head.weight": a}).tie == "all"
    assert hf.fitted(module, tied, {"shared.weight": a, "lm_head.weight": b}).tie == "inputs"
    assert hf.fitted(module, tied, {"lm_head.weight": b}).tie == "all"
    # a file that is said to have two, and has one, is cut short: the missing one is named later
    assert hf.fitted(module, said, {"shared.weight": a}).tie == "inputs"


def test_old_files_hold_copies_and_a_table_that_nothing_reads():
    model = model_of("T5")
    module, config, net = converted(model)
    old = model.state_dict()
    old["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.ones(32, 3)  # fmt: skip
    assert hf.ours(module, config, old).keys() == state_of(net).keys()
    only = {n: t for n, t in old.items() if n not in ("shared.weight", "lm_head.weight")}
    made = hf.ours(module, config, only)["source_embed.token.weight"]
    assert torch.equal(made, model.shared.weight)


# -- bare models ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [T5Model, MT5Model])
def test_a_model_without_output(cls, tmp_path):
    model = reference(cls, cls.config_class(**SMALL))
    check_round_trip(model)
    module, config, net = converted(model)
    b = batch(V, target=TARGETS)
    fed = net.shift(b.target)
    with torch.no_grad(), exact():
        want = model(
            input_ids=b.source, attention_mask=b.keep.long(), decoder_input_ids=fed
        ).last_hidden_state
        assert largest(net.states(b, fed, net.encode(b)), want, b.target_keep) < 1e-10
    for ask in (net.logits, net.loss_inputs):
        with pytest.raises(UsageError, match="no output layer"):
            ask(b)
    write(tmp_path, model)
    _, notes = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"], notes


@pytest.mark.parametrize("cls", [T5EncoderModel, MT5EncoderModel])
def test_an_encoder_alone(cls, tmp_path):
    model = reference(cls, cls.config_class(**SMALL))
    check_round_trip(model)
    module, config, net = converted(model)
    b = batch(V)
    with torch.no_grad(), exact():
        want = model(input_ids=b.source, attention_mask=b.keep.long()).last_hidden_state
        assert largest(net.encode(b).states, want, b.keep) < 1e-10
    with pytest.raises(UsageError, match="no output layer"):
        net.logits(b)
    write(tmp_path, model)
    _, notes = cls.from_pretrained(tmp_path, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"], notes


def test_an_encoder_out_of_a_whole_checkpoint():
    """Its folder may hold the decoder too: left out, as the reference does."""
    whole = model_of("T5 untied")
    values = {**whole.config.to_dict(), "architectures": ["T5EncoderModel"]}
    config = hf.configured(FAMILIES["t5"], values)
    made = hf.ours(FAMILIES["t5"], config, whole.state_dict())
    assert made.keys() == state_of(build(config)).keys()


# -- configurations ------------------------------------------------------------------------------------


def read(**values):
    return hf.configured(FAMILIES["t5"], {"model_type": "t5", **values})


@pytest.mark.parametrize("kind", ["t5", "mt5"])
def test_absent_keys_mean_what_they_mean_there(kind):
    default = (T5Config() if kind == "t5" else MT5Config()).to_dict()
    assert read(model_type=kind) == read(**default)
    assert read(model_type=kind, num_layers=3).decoder_layers == 3


def test_scaled_unless_said_otherwise():
    """As T5Config reads it: tie_word_embeddings = false was the sign of v1.1; scale_decoder_outputs is the newer one."""
    assert (read().tie, read().scale_head) == ("all", True)
    v11 = read(tie_word_embeddings=False)
    assert (v11.tie, v11.scale_head) == ("inputs", False)
    again = read(tie_word_embeddings=True, scale_decoder_outputs=False)
    assert (again.tie, again.scale_head) == ("all", False)
    assert not read(model_type="mt5", scale_decoder_outputs=True).scale_head
    for values in (dict(), dict(tie_word_embeddings=False), dict(scale_decoder_outputs=False)):
        assert read(**values).scale_head == T5Config(**values).scale_decoder_outputs


@pytest.mark.parametrize("gate", ["", "gated-"])
@pytest.mark.parametrize("word", hf.ACTS)
def test_every_feed_forward_of_theirs(word, gate):
    model = model_of("T5", feed_forward_proj=gate + word, num_layers=1)
    _, config, net = converted(model)
    b = batch(V, target=TARGETS)
    with torch.no_grad(), exact():
        assert largest(net.logits(b), model(**asked(b)).logits, b.target_keep) < 1e-10
    again = T5Config(**FAMILIES["t5"].to_hf(config))
    assert read(**again.to_dict()).activation == config.activation
    assert again.is_gated_act == bool(gate)


def test_the_older_and_the_newer_key_of_the_activation():
    """transformers lets dense_act_fn and is_gated_act of a saved file win over feed_forward_proj."""
    values = dict(feed_forward_proj="relu", dense_act_fn="gelu", is_gated_act=True)
    theirs, ours = T5Config(**values), read(**values)
    assert (theirs.dense_act_fn, theirs.is_gated_act) == ("gelu", True) == (ours.activation, ours.gated)  # fmt: skip


@pytest.mark.parametrize(
    "values",
    [
        dict(feed_forward_proj="hardtanh"),
        dict(feed_forward_proj="gated-laplace"),
        dict(feed_forward_proj="double-gated-gelu"),
        dict(dense_act_fn="relu6"),
        dict(is_decoder=True),
        dict(is_encoder_decoder=False),
        dict(tie_encoder_decoder=True),
        dict(relative_attention_num_buckets=7),
        dict(relative_attention_max_distance=16),
        dict(d_model=0),
        dict(d_model="512"),
        dict(dropout_rate=1.5),
        dict(rope_theta=10_000.0),
    ],
    ids=str,
)
def test_what_is_not_computed_is_refused(values):
    with pytest.raises(ConfigError) as seen:
        read(**values)
    assert seen.value.fix


@pytest.mark.parametrize(
    "values",
    [
        dict(architectures=["T5ForSequenceClassification"]),
        dict(architectures=["T5ForQuestionAnswering"]),
        dict(model_type="mt5", architectures=["T5ForConditionalGeneration"]),
        dict(model_type="umt5"),
        dict(model_type="longt5"),
    ],
    ids=str,
)
def test_other_models_are_named_errors(values):
    with pytest.raises(WeightsError, match="QKV-055"):
        values = {"model_type": "t5", **values}
        hf.configured(hf.family(values, FAMILIES.values()), values)


def test_published_files_of_every_age():
    """Keys of t5-small, flan-t5 and mt5 as their publishers wrote them."""
    small = dict(architectures=["T5WithLMHeadModel"], n_positions=512, output_past=True, d_ff=2048,
                 d_kv=64, d_model=512, initializer_factor=1.0, task_specific_params={"summarization": {"prefix": "x"}})  # fmt: skip
    flan = dict(architectures=["T5ForConditionalGeneration"], feed_forward_proj="gated-gelu", tie_word_embeddings=False,
                dense_act_fn="gelu_new", is_gated_act=True, n_positions=512, output_past=True, use_cache=True)  # fmt: skip
    mt5 = dict(model_type="mt5", architectures=["MT5ForConditionalGeneration"], feed_forward_proj="gated-gelu",
               tie_word_embeddings=False, tokenizer_class="T5Tokenizer", relative_attention_num_buckets=32)  # fmt: skip
    assert read(**small) == read()
    assert (read(**flan).activation, read(**flan).gated, read(**flan).tie) == ("gelu_tanh", True, "inputs")  # fmt: skip
    assert (read(**mt5).gated, read(**mt5).scale_head, read(**mt5).n_heads) == (True, False, 6)


# -- answers -------------------------------------------------------------------------------------------


def talkative(name):
    """A model whose greedy answers do not fall into a loop at once, and its batch of prompts."""
    model = model_of(name)
    with torch.no_grad():
        for n, p in model.named_parameters():
            # tied vectors as they are would repeat what they are fed; far places must differ
            places = 8.0 if "relative" in n else 2.0
            p.mul_(1.0 if "layer_norm" in n else 0.1 if n == "shared.weight" else places)
    return model, *converted(model), batch(V, pad_id=model.config.pad_token_id)


def cut(row, eos):
    """A generated row without its start token, up to <eos>."""
    row = row[1:]
    return row[: row.index(eos)] if eos in row else row


@pytest.mark.parametrize(
    ("name", "most", "least"),
    [("T5", 256, 256), ("T5 untied", 256, 0), ("T5 starts from another id", 40, 0), ("MT5", 40, 40)],
    ids=["eos disabled", "eos allowed", "another start", "mT5"],
)  # fmt: skip
def test_greedy_answers(name, most, least):
    model, _, config, net, b = talkative(name)
    found = search(net, b, SearchConfig(max_new_tokens=most, min_new_tokens=least))
    with exact():
        made = model.generate(
            input_ids=b.source, attention_mask=b.keep.long(), do_sample=False, max_new_tokens=most,
            min_new_tokens=least or None,
        )  # fmt: skip
    for ours, theirs in zip(found, made.tolist(), strict=True):
        assert list(ours[0].ids) == cut(theirs, config.eos_id)
        assert len(ours[0].ids) == most or not least
    assert len({i for answer in found for i in answer[0].ids}) > 8  # not one token for ever


@pytest.mark.parametrize("name", ["T5", "T5 untied"])
def test_four_beams_and_their_scores(name):
    """The four hypotheses of each source, in order, and log P / length; theirs takes its softmax in float32: 1e-5."""
    model, _, config, net, b = talkative(name)
    with exact():
        out = model.generate(
            input_ids=b.source, attention_mask=b.keep.long(), do_sample=False, num_beams=4, num_return_sequences=4,
            length_penalty=1.0, max_new_tokens=20, return_dict_in_generate=True, output_scores=True,
        )  # fmt: skip
    how = SearchConfig(beam=4, nbest=4, max_new_tokens=20, penalty="length", early_stopping=False)
    made = [h for found in search(net, b, how) for h in found]
    want = [cut(row, config.eos_id) for row in out.sequences.tolist()]
    assert [list(h.ids) for h in made] == want
    assert len({tuple(row) for row in want}) == 16
    scores = torch.tensor([h.score / len(h.token_scores) for h in made])
    assert_close(scores, out.sequences_scores.to(scores), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["T5", "T5 untied"])
def test_cached_steps_equal_one_pass(name):
    """Through 40 tokens, so that caches grow; float64: the sums are those of other kernels."""
    _, _, _, net, _ = talkative(name)
    seq2seq_parity.check_cached_steps(net, batch(V, target=(40, 17, 1, 33)), atol=1e-10)


@pytest.mark.parametrize("name", ["T5", "T5 few buckets, near"])
def test_alone_as_beside_others(name):
    """Law 2 in float32: greedy and beam answers, 0 differing bits of any score."""
    _, _, _, net, _ = talkative(name)
    seq2seq_parity.check_rows_alone(net.float(), batch(V, (7, 1, 16, 12, 70)))


def test_forced_scores():
    """log P of given answers: the reference's own log-probabilities, summed."""
    model, _, _, net, b = both("T5 untied")
    with torch.no_grad(), exact():
        logp = torch.log_softmax(model(**asked(b)).logits, -1)
    each = logp.gather(2, b.target[:, :, None])[:, :, 0].masked_fill(~b.target_keep, 0.0)
    got = torch.tensor([f.score for f in force(net, b)], dtype=torch.float64)
    assert_close(got, each.sum(1), atol=1e-5, rtol=0)  # log-probabilities are rounded to float32


# -- gradients through the bias ------------------------------------------------------------------------


def sums(kernel, q, k, v, table, allowed):
    """Gradients of a fixed random sum of the kernel's answer, the bias's among them."""
    given = [x.detach().clone().requires_grad_() for x in (q, k, v, table)]
    y = kernel(*given[:3], allowed, bias=given[3], scale=1.0)
    g = torch.Generator().manual_seed(5)
    weigh = torch.randn(y.shape, generator=g, dtype=torch.float64)
    return y.detach().double(), torch.autograd.grad((y.double() * weigh).sum(), given)


@pytest.mark.parametrize("pattern", [Full(), Causal()], ids=["both ways", "causal"])
@pytest.mark.parametrize(
    ("T", "dtype", "bound"),
    [(9, torch.float64, 1e-12), (9, torch.float32, 1e-5), (9, torch.bfloat16, 0.03), (160, torch.bfloat16, 0.03)],
    ids=["fused, float64", "fused, float32", "short, bf16", "fused, bf16"],
)  # fmt: skip
def test_the_gradient_of_the_bias_in_every_kernel(T, dtype, bound, pattern):
    """Against the definition in float64, with padding and a row that may look at nothing; bf16 keeps 8 bits."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 2, T, 4, generator=g, dtype=torch.float64).to(dtype) for _ in range(3))  # fmt: skip
    table = torch.randn(1, 2, T, T, generator=g, dtype=torch.float64)
    keep = torch.arange(T) < torch.tensor([T, T - 4, 0])[:, None]
    allowed = Allowed.of(pattern, keep)
    double = [x.double() for x in (q, k, v)]
    want_y, want = sums(kernels.dense, *double, table, allowed)
    wide = table.to(torch.float32 if dtype == torch.bfloat16 else dtype)  # autocast leaves tables
    got_y, got = sums(kernels.fused, q, k, v, wide, allowed)
    assert float(got_y[2].detach().abs().max()) == 0
    assert_close(got_y, want_y, atol=bound * float(want_y.abs().max()), rtol=0)
    for a, b in zip(got, want, strict=True):
        assert_close(a.double(), b, atol=bound * float(b.abs().max()), rtol=0)


def test_a_source_of_nothing_leaves_gradients_finite():
    """Law 4 in the whole model: a row that is all padding, and a target of nothing."""
    net = build(Ours(vocab_size=V, d_model=12, n_heads=3, d_head=5, d_ff=24, encoder_layers=2, decoder_layers=2))  # fmt: skip
    b = batch(V, target=TARGETS)
    b.keep[1], b.target_keep[2] = False, False
    made = net.eval().loss_inputs(b)
    F.cross_entropy(made.states @ made.weight.T, made.labels).backward()
    assert all(bool(p.grad.isfinite().all()) for p in net.parameters())


# -- a beginning of its own ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["tiny", "v1.1-tiny"])
def test_fresh_weights_have_the_originals_deviations(size):
    """Per kind of matrix, within 8 % of what `_init_weights` of the reference draws; here >= 128 numbers each."""
    torch.manual_seed(0)
    config = configure({"family": "t5", "size": size, "vocab_size": 500})
    net = build(config)
    theirs = T5ForConditionalGeneration(T5Config(**FAMILIES["t5"].to_hf(config)))
    made = hf.theirs(FAMILIES["t5"], config, state_of(net))
    for name, want in theirs.state_dict().items():
        if name in made and name != "lm_head.weight":  # theirs is tied however they are asked
            near = 0.2 if "relative" in name else 0.08
            assert float(made[name].square().mean().sqrt()) == pytest.approx(
                float(want.square().mean().sqrt()), rel=near
            ), name
    b = batch(500, target=TARGETS)
    with torch.no_grad():
        assert 0.5 < float(net.eval().logits(b).std()) < 2  # neither deaf nor certain


def test_dropout_falls_where_the_original_drops():
    """Embeddings, attention weights, feed-forward, what each sublayer adds, and the end of both stacks."""
    net = build(Ours(vocab_size=V, d_model=12, n_heads=3, d_head=5, d_ff=24, dropout=0.25))
    rates = {n: m.p for n, m in net.named_modules() if type(m).__name__ == "Dropout"}
    assert set(rates.values()) == {0.25}
    assert {"source_embed.drop", "target_embed.drop", "encoder.drop", "decoder.drop"} <= rates.keys()  # fmt: skip


LINES = ["저는 커피를 좋아해요\tI like coffee", "우리는 책을 원해요\tWe want books", "너는 노래를 들어요\tYou hear songs",
         "그들은 집에 가요\tThey go home", "저는 책을 읽어요\tI read books", "우리는 커피를 원해요\tWe want coffee"]  # fmt: skip


def test_a_recipe_trains_it_by_heart_and_the_run_loads(tmp_path, monkeypatch):
    """`family = "t5"` in a recipe: the one loop, its folder, and transformers on that folder."""
    from qkv.weights import disk

    monkeypatch.setattr(disk.fs, "fsync", lambda fd: None)
    corpus = tmp_path / "pairs.tsv"
    corpus.write_text("\n".join(LINES) + "\n", "utf-8")
    recipe = {
        "name": "t5",
        "data": {"train": {"path": str(corpus)}, "dev": {"path": str(corpus)}},
        "text": {"kind": "words"},
        "model": {"family": "t5", "size": "tiny", "dropout": 0.0},
        "optim": {"lr": 0.002, "warmup": 20},
        "train": dict(steps=90, batch_tokens=512, precision="fp32", smoothing=0.0, eval_every=90, save_every=90, log_every=50),
        "eval": {"sentences": 0},
    }  # fmt: skip
    run = qkv.train(recipe, root=tmp_path / "runs")
    assert [m["dev/loss"] for m in run.metrics if "dev/loss" in m][-1] < 0.05
    model = run.best()
    sources, targets = zip(*(line.split("\t") for line in LINES), strict=True)
    assert [a.text for a in model.translate(list(sources))] == list(targets)
    again, notes = T5ForConditionalGeneration.from_pretrained(
        run.folder / "best", output_loading_info=True
    )
    assert not notes["missing_keys"] and not notes["unexpected_keys"], notes
    ids, keep = pad([model.ids(s) for s in sources], 0)
    eos = model.config.eos_id
    made = again.generate(input_ids=ids, attention_mask=keep.long(), max_new_tokens=20).tolist()
    ours = [list(h[0].ids) for h in search(model.net, Batch(ids, keep), SearchConfig(max_new_tokens=20))]  # fmt: skip
    assert [cut(row, eos) for row in made] == ours


def test_rows_are_random():
    """The batch of these tests is padded, holds a row of one token, and no two rows are alike."""
    made = rows(V)
    assert {len(r) for r in made} == {7, 1, 16, 12} and len({tuple(r) for r in made}) == 4
