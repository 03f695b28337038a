"""BERT, RoBERTa and DistilBERT against transformers; tolerances: parity.py."""

import json
from dataclasses import replace
from typing import Any

import parity
import pytest
import torch
import transformers as theirs
from safetensors.torch import save_file
from torch.nn import functional as F
from torch.testing import assert_close

from qkv.errors import ConfigError, DataError, WeightsError
from qkv.learn.terms import term_loss, terms_of
from qkv.look.record import record
from qkv.models import FAMILIES, bert, build, configure, describe, hf
from qkv.models.interface import adopt, set_state, state_of
from qkv.shapes import Batch, pad

V = 50
HEADS = {
    "none": "Model",
    "mlm": "ForMaskedLM",
    "nsp": "ForNextSentencePrediction",
    "pretraining": "ForPreTraining",
    "classes": "ForSequenceClassification",
    "tags": "ForTokenClassification",
    "span": "ForQuestionAnswering",
}
CONFIGS: dict[str, type] = {
    "Bert": theirs.BertConfig,
    "Roberta": theirs.RobertaConfig,
    "XLMRoberta": theirs.XLMRobertaConfig,
    "Camembert": theirs.CamembertConfig,
    "DistilBert": theirs.DistilBertConfig,
}


def small(line: str, **more: Any) -> Any:
    if line == "DistilBert":
        sizes = dict(dim=12, n_layers=2, n_heads=2, hidden_dim=20)
    else:
        sizes = dict(
            hidden_size=12, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20
        )
    return CONFIGS[line](**{"vocab_size": V, "max_position_embeddings": 24, **sizes, **more})


THREE = {0: "no", 1: "yes", 2: "perhaps"}
ONE = {0: "stars"}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"bert-{head}": ("Bert", head, {}) for head in HEADS},
    **{
        f"{line.lower()}-{head}": (line, head, {})
        for line in ("Roberta", "DistilBert")
        for head in ("none", "mlm", "classes", "tags", "span")
    },
    "bert-odd-heads": ("Bert", "mlm", {"hidden_size": 15, "num_attention_heads": 3}),
    "bert-untied": ("Bert", "pretraining", {"tie_word_embeddings": False}),
    "bert-tanh-gelu": ("Bert", "mlm", {"hidden_act": "gelu_new", "layer_norm_eps": 1e-5}),
    "bert-one-segment": ("Bert", "classes", {"type_vocab_size": 1, "id2label": THREE}),
    "bert-four-segments": ("Bert", "tags", {"type_vocab_size": 4, "id2label": THREE}),
    "bert-no-padding-id": ("Bert", "mlm", {"pad_token_id": None}),
    "bert-value": ("Bert", "classes", {"id2label": ONE}),
    "bert-values": ("Bert", "classes", {"id2label": THREE, "problem_type": "regression"}),
    "bert-many": (
        "Bert",
        "classes",
        {"id2label": THREE, "problem_type": "multi_label_classification"},
    ),
    "roberta-one-segment": ("Roberta", "mlm", {"type_vocab_size": 1, "layer_norm_eps": 1e-5}),
    "roberta-relu": ("Roberta", "mlm", {"hidden_act": "relu"}),  # its word head keeps gelu
    "roberta-padding-id-5": ("Roberta", "mlm", {"pad_token_id": 5}),
    "roberta-untied": ("Roberta", "mlm", {"tie_word_embeddings": False}),
    "xlm-roberta": ("XLMRoberta", "classes", {"id2label": THREE}),
    "camembert": ("Camembert", "tags", {"id2label": THREE}),
    "distilbert-sinusoid": ("DistilBert", "mlm", {"sinusoidal_pos_embds": True}),
    "distilbert-untied": ("DistilBert", "mlm", {"tie_word_embeddings": False}),
    "distilbert-odd-heads": ("DistilBert", "classes", {"dim": 15, "n_heads": 5}),
}


def made(name: str, dtype: torch.dtype = torch.float64) -> Any:
    line, head, more = CASES[name]
    return parity.reference(
        getattr(theirs, line + HEADS[head]), small(line, **more), seed=len(name), dtype=dtype
    )


@pytest.fixture(scope="module", params=CASES)
def case(request):
    model = made(request.param)
    return model, *parity.converted(model)


def batch_for(config: bert.BertConfig, lengths: tuple[int, ...] = parity.LENGTHS) -> Batch:
    """Padded rows, two texts in each where the model tells them apart, and every kind of answer."""
    found = parity.batch(V, lengths, pad_id=config.pad_id or 0)
    g = torch.Generator().manual_seed(3)
    S, kinds = found.source.shape[1], max(1, config.kinds)
    segment = torch.randint(kinds, (len(lengths), S), generator=g)
    most = V if config.head in ("mlm", "pretraining") else max(2, len(config.labels))
    target = torch.randint(most, found.source.shape, generator=g)
    counts = found.keep & (torch.rand(found.keep.shape, generator=g) < 0.7)
    return replace(
        found,
        segment=segment,
        target=target,
        target_keep=counts,
        label=label_for(config, lengths, g),
    )


def label_for(
    config: bert.BertConfig, lengths: tuple[int, ...], g: torch.Generator
) -> torch.Tensor:
    B, n = len(lengths), max(2, len(config.labels))
    if config.head == "span":
        last = torch.tensor([[n - 1] for n in lengths])
        return (torch.rand(B, 2, generator=g) * (last + 1)).long().sort(1).values
    if config.problem == "value":
        return torch.randn(B, len(config.labels), generator=g, dtype=torch.float64)
    if config.problem == "many":
        return torch.randint(2, (B, n), generator=g)
    return torch.randint(n, (B,), generator=g)


def inputs(config: bert.BertConfig, b: Batch) -> dict[str, torch.Tensor]:
    made = {"input_ids": b.source, "attention_mask": b.keep.long()}
    return made | ({"token_type_ids": b.segment} if config.kinds else {})


def logits_of(head: str, out: Any) -> Any:
    if head == "span":
        return torch.stack([out.start_logits, out.end_logits], -1)
    return out.prediction_logits if head == "pretraining" else out.logits


# ---- the same numbers


def test_states_and_maps(case):
    model, _, config, net = case
    b, seen = batch_for(config), []
    hooks = [
        block.register_forward_hook(lambda m, i, o: seen.append(o[0]))
        for block in net.encoder.blocks
    ]
    with torch.no_grad(), record(net) as maps:
        memory = net.encode(b)
        out = model(**inputs(config, b), output_hidden_states=True, output_attentions=True)
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(out.hidden_states) - 1
    for ours, want in zip(seen, out.hidden_states[1:], strict=True):
        assert parity.largest(ours, want, b.keep) < 1e-10
    assert parity.largest(memory.states, out.hidden_states[-1], b.keep) < 1e-10
    for i, want in enumerate(out.attentions):
        ours = maps[f"encoder.blocks.{i}.attn"].transpose(1, 2)  # (B, H, T, S) -> (B, T, H, S)
        assert parity.largest(ours, want.transpose(1, 2), b.keep) < 1e-10


def test_summary_is_the_pooled_first_token(case):
    model, _, config, net = case
    b = batch_for(config)
    base = getattr(model, model.base_model_prefix, model)
    with torch.no_grad():
        out, ours = base(**inputs(config, b)), net.encode(b).summary
    pooled = getattr(out, "pooler_output", None)
    assert config.has_pooler == (pooled is not None)
    want = out.last_hidden_state[:, 0] if pooled is None else pooled
    assert float((ours - want).abs().max()) < 1e-10


def test_logits(case):
    model, _, config, net = case
    b = batch_for(config)
    with torch.no_grad():
        if config.head == "none":
            with pytest.raises(ConfigError, match="no labels"):
                net.logits(b)
            return
        out, ours = model(**inputs(config, b)), net.logits(b)
        want = logits_of(config.head, out)
        assert ours.shape == want.shape
        per_text = config.head in ("nsp", "classes")
        keep = torch.ones(len(b), dtype=torch.bool) if per_text else b.keep
        assert parity.largest(ours, want, keep) < 1e-10
        if config.head == "pretraining":
            ours = net.labelled(net.encode(b))
            assert float((ours - out.seq_relationship_logits).abs().max()) < 1e-10


def reference_loss(config: bert.BertConfig, b: Batch, out: Any) -> torch.Tensor:
    """Their loss from their logits: transformers itself may compute it in float32."""
    if config.head == "none":
        return out.last_hidden_state[b.keep].square().sum()
    z = logits_of(config.head, out)
    if config.head == "span":
        z = z.masked_fill(~b.keep[..., None], -torch.inf)
        return (
            F.cross_entropy(z[..., 0], b.label[:, 0]) + F.cross_entropy(z[..., 1], b.label[:, 1])
        ) / 2
    if config.head == "classes" and config.problem == "value":
        return F.mse_loss(z, b.label)
    if config.head == "classes" and config.problem == "many":
        return F.binary_cross_entropy_with_logits(z, b.label.double())
    if config.head in ("classes", "nsp"):
        return F.cross_entropy(z, b.label)
    tokens = F.cross_entropy(z[b.target_keep], b.target[b.target_keep])
    follows = (
        F.cross_entropy(out.seq_relationship_logits, b.label)
        if config.head == "pretraining"
        else 0.0
    )
    return tokens + follows


def test_losses_and_gradients(case):
    model, module, config, net = case
    b = batch_for(config)
    want = reference_loss(config, b, model(**inputs(config, b)))
    if config.head == "none":
        ours = net.encode(b).states[b.keep].square().sum()
    else:
        terms = [term_loss(t) for t in terms_of(net.loss_inputs(b))]
        ours = sum((t.smoothed / t.tokens for t in terms), torch.zeros((), dtype=torch.float64))
    assert abs(float(ours.detach() - want.detach())) < 1e-10 * max(1.0, float(want.detach()))
    net.zero_grad(), model.zero_grad()
    ours.backward(), want.backward()
    parity.check_gradients(net, module, config, model)


def test_round_trip_is_exact(case):
    parity.check_round_trip(case[0])


def test_transformers_loads_what_we_write(case, tmp_path):
    model, module, config, net = case
    (tmp_path / "config.json").write_text(json.dumps(module.to_hf(config)))
    written = hf.theirs(module, config, state_of(net))
    save_file(written, tmp_path / "model.safetensors", {"format": "pt"})
    again, info = type(model).from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float64, attn_implementation="eager"
    )
    dead = set() if config.tie else {"cls.predictions.bias", "lm_head.bias"}
    assert set(info["missing_keys"]) <= dead
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    b = batch_for(config)
    with torch.no_grad():
        one, two = (m(**inputs(config, b)) for m in (model, again.eval()))
    for name, want in one.items():
        assert torch.equal(two[name], want), name


def test_float32_is_near():
    for name in ("bert-mlm", "roberta-classes", "distilbert-span"):
        model = made(name, torch.float32)
        _, config, net = parity.converted(model)
        b = batch_for(config)
        with torch.no_grad():
            ours, want = net.logits(b), logits_of(config.head, model(**inputs(config, b)))
        keep = torch.ones(len(b), dtype=torch.bool) if config.head == "classes" else b.keep
        assert parity.largest(ours, want, keep) < 1e-5 * float(want.abs().max())


def test_roberta_counts_positions_of_real_tokens():
    """An id of padding inside a text has no position, and padding on the left shifts nothing (their rule)."""
    model = made("roberta-mlm")
    _, config, net = parity.converted(model)
    ids = torch.tensor([[0, 7, 1, 8, 2], [1, 1, 0, 9, 2]])
    keep = torch.tensor([[True] * 5, [False, False, True, True, True]])
    with torch.no_grad():
        ours = net.logits(Batch(ids, keep))
        want = model(input_ids=ids, attention_mask=keep.long()).logits
    assert parity.largest(ours, want, keep) < 1e-10


def test_padding_beyond_the_positions_is_harmless_and_a_long_text_an_error():
    net = parity.converted(made("bert-mlm"))[2]  # 24 positions
    ids, keep = pad(parity.rows(V, (24, 3)), 0)
    wide, wide_keep = F.pad(ids, (0, 8)), F.pad(keep, (0, 8))
    with torch.no_grad():
        a, b = net.logits(Batch(ids, keep)), net.logits(Batch(wide, wide_keep))[:, :24]
    assert parity.largest(a, b, keep) < 1e-12  # other shapes of the same sums
    with pytest.raises(DataError, match="25 tokens, the model has 24"):
        net.logits(Batch(torch.ones(1, 32, dtype=torch.long), torch.arange(32)[None] < 25))


def test_packed_texts_do_not_see_each_other():
    net = parity.converted(made("bert-mlm"))[2]
    one, two = parity.rows(V, (5, 7))
    ids, group = torch.tensor([one + two]), torch.tensor([[0] * 5 + [1] * 7])
    keep = torch.ones(1, 12, dtype=torch.bool)
    with torch.no_grad():
        packed = net.logits(Batch(ids, keep, group=group))[0]
        alone = [net.logits(Batch(torch.tensor([r]), keep[:, : len(r)]))[0] for r in (one, two)]
    assert_close(packed, torch.cat(alone), atol=1e-12, rtol=0)


# ---- files as they are found


def test_old_names_and_buffers_load():
    """TensorFlow's gamma and beta, position_ids, heads that the architecture leaves out, a bias stored once or twice."""
    model = made("bert-mlm")
    module, config, net = parity.converted(model)
    old = {}
    for name, tensor in model.state_dict().items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        )
        old[name] = tensor
    old["bert.embeddings.position_ids"] = torch.arange(24)[None]
    old["bert.pooler.dense.weight"] = torch.zeros(12, 12)
    old["bert.pooler.dense.bias"] = torch.zeros(12)
    old["cls.seq_relationship.weight"] = torch.zeros(2, 12)
    del old["cls.predictions.bias"]  # its copy, the decoder's bias, is there
    found = hf.ours(module, config, old)
    for name, tensor in state_of(net).items():
        assert torch.equal(found[name], tensor), name
    old["bert.embeddings.LayerNorm.weight"] = torch.zeros(12)
    with pytest.raises(WeightsError, match="twice"):
        hf.ours(module, config, old)


def test_a_bare_model_loads_with_and_without_prefix_and_pooler():
    model = made("bert-none")
    module, config, net = parity.converted(model)
    bare = model.state_dict()
    full = {"bert." + n: t for n, t in bare.items()}
    b = batch_for(config)
    for given in (bare, full, {k: t for k, t in bare.items() if "pooler" not in k}):
        fit = hf.fitted(module, config, given)
        again = build(fit).double().eval()
        set_state(again, hf.ours(module, fit, given))
        with torch.no_grad():
            assert torch.equal(again.encode(b).states, net.encode(b).states)
    assert fit.has_pooler is False and again.pooler is None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"is_decoder": True}, "is_decoder"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "laplace"}, "hidden_act"),
        (
            {"problem_type": "ranking", "architectures": ["BertForSequenceClassification"]},
            "problem_type",
        ),
        (
            {"architectures": ["BertForQuestionAnswering"], "id2label": {"0": "a"}},
            "first and a last",
        ),
        ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
        ({"residual_scale": 2.0}, "residual_scale"),
        ({"hidden_size": "12"}, "hidden_size"),
        ({"pad_token_id": "0"}, "pad_token_id"),
        (
            {"model_type": "roberta", "architectures": ["RobertaModel"], "pad_token_id": None},
            "pad_id",
        ),
    ],
    ids=str,
)
def test_what_is_not_computed_is_named(values, said):
    given = small("Bert").to_dict() | values
    with pytest.raises(ConfigError, match=said):
        hf.configured(bert, given)


def test_unknown_heads_are_named():
    given = small("Bert").to_dict() | {"architectures": ["BertForMultipleChoice"]}
    with pytest.raises(WeightsError, match="BertForMultipleChoice"):
        hf.configured(bert, given)


@pytest.mark.parametrize("line", CONFIGS)
def test_absent_keys_have_their_defaults(line):
    kind = CONFIGS[line]().model_type
    short = hf.configured(bert, {"model_type": kind})
    full = hf.configured(bert, CONFIGS[line]().to_dict())
    assert short == full


@pytest.mark.parametrize(
    ("line", "head", "given"),
    [
        ("Bert", "classes", {"classifier_dropout": 0.3, "hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0.2}),
        ("Roberta", "tags", {"classifier_dropout": 0.4, "eos_token_id": 5}),
        ("DistilBert", "classes", {"seq_classif_dropout": 0.5, "attention_dropout": 0.3}),
        ("DistilBert", "span", {"qa_dropout": 0.6, "sinusoidal_pos_embds": True}),
    ],
)  # fmt: skip
def test_settings_of_training_survive(line, head, given):
    values = small(line, **given).to_dict() | {"architectures": [line + HEADS[head]]}
    config = hf.configured(bert, values)
    written = bert.to_hf(config)
    assert {k: written[k] for k in given} == given
    assert hf.configured(bert, written) == config
    p = next(
        v
        for k, v in given.items()
        if k in ("classifier_dropout", "seq_classif_dropout", "qa_dropout")
    )
    assert config.headed().dropout == p


def test_labels_keep_their_names():
    given = small("Bert", id2label=THREE).to_dict()
    given |= {"architectures": ["BertForTokenClassification"]}
    config = hf.configured(bert, json.loads(json.dumps(given)))
    assert config.labels == ("no", "yes", "perhaps")
    assert bert.to_hf(config)["id2label"] == {"0": "no", "1": "yes", "2": "perhaps"}


# ---- our own


def fresh(**more: Any) -> tuple[bert.BertConfig, Any]:
    torch.manual_seed(0)
    config = configure({"family": "bert", "size": "tiny", "vocab_size": V, **more})
    return config, build(config).eval()


def test_describe_and_configure_are_inverse():
    config, _ = fresh(head="classes", labels=["a", "b"], layout="roberta", pad_id=1)
    assert configure(describe(config)) == config


def test_a_fresh_net_begins_as_the_paper_says():
    config, net = fresh(head="pretraining")
    for name, p in net.named_parameters():
        if p.dim() > 1:
            # 256 numbers at least: the standard error of their deviation is 0.0009
            assert abs(float(p.detach().std()) - 0.02) < 0.004, name
        elif name.endswith("bias"):
            assert not p.any(), name
        else:
            assert bool((p == 1).all()), name
    assert not net.embed.token.weight[config.pad_id].any()


def test_distilbert_positions_may_begin_as_sinusoids():
    _, net = fresh(layout="distilbert", sinusoid=True)
    want = theirs.models.distilbert.modeling_distilbert.create_sinusoidal_embeddings
    assert_close(
        net.embed.position.weight.data, want(512, 128, torch.empty(512, 128)), atol=1e-6, rtol=0
    )


def test_contradictions_are_refused():
    with pytest.raises(ConfigError, match="labels"):
        fresh(head="classes")
    with pytest.raises(ConfigError, match="distilbert has no head 'nsp'"):
        fresh(layout="distilbert", head="nsp")
    with pytest.raises(ConfigError, match="norm_eps"):
        fresh(layout="distilbert", norm_eps=1e-5)


def test_adopting_takes_the_encoder_and_says_what_is_new():
    _, old = fresh(head="pretraining")
    held = {n: t.clone() for n, t in state_of(old).items()}
    _, net = fresh(head="classes", labels=["a", "b", "c"])
    before = {n: t.clone() for n, t in state_of(net).items()}
    assert adopt(net, held) == ["head.classes.out.weight", "head.classes.out.bias"]
    for name, tensor in state_of(net).items():
        want = before[name] if name.startswith("head.") else held[name]
        assert torch.equal(tensor, want), name


def test_adopting_keeps_a_word_head_and_makes_a_missing_pooler():
    held = state_of(fresh(head="mlm")[1])
    _, net = fresh(head="pretraining")
    names = adopt(net, held)
    assert names == [
        "pooler.dense.weight",
        "pooler.dense.bias",
        "head.next.out.weight",
        "head.next.out.bias",
    ]
    assert torch.equal(net.head.words.dense.weight, held["head.words.dense.weight"])


def test_adopting_refuses_another_encoder():
    held = dict(state_of(fresh()[1]))
    with pytest.raises(WeightsError, match="embed.token.weight"):
        adopt(fresh(vocab_size=V + 1, head="none")[1], held)
    del held["encoder.blocks.1.ff.up.weight"]
    with pytest.raises(WeightsError, match="encoder.blocks.1.ff.up.weight"):
        adopt(fresh(head="none")[1], held)
    held |= state_of(fresh()[1]) | {"encoder.blocks.2.ff.up.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match="encoder.blocks.2.ff.up.weight"):
        adopt(fresh(head="none")[1], held)


def test_a_batch_without_its_answer_is_an_error():
    b = parity.batch(V)
    with pytest.raises(DataError, match="target"):
        fresh(head="mlm")[1].loss_inputs(b)
    with pytest.raises(DataError, match="label"):
        fresh(head="classes", labels=["a"])[1].loss_inputs(b)


@pytest.mark.parametrize("head", ["mlm", "nsp", "pretraining", "classes", "tags", "span"])
def test_one_batch_is_learned_by_heart(head):
    labels = ["a", "b", "c"] if head in ("classes", "tags") else []
    config, net = fresh(head=head, labels=labels, d_model=32, dropout=0.0, attn_dropout=0.0)
    b, steps = batch_for(config), []
    optim = torch.optim.Adam(net.train().parameters(), 5e-3)
    for _ in range(40):
        terms = [term_loss(t) for t in terms_of(net.loss_inputs(b))]
        loss = sum((t.smoothed / t.tokens for t in terms), torch.zeros(()))
        optim.zero_grad(), loss.backward(), optim.step()
        steps.append(float(loss.detach()))
    assert steps[-1] < 0.1 * steps[0]


def test_every_line_is_a_family_member():
    assert FAMILIES["bert"] is bert
    for line, config in CONFIGS.items():
        assert bert.LAYOUTS[config().model_type].classes == line
