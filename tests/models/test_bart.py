"""BART and mBART equal transformers' with the same weights, and are read and written without losing a bit."""

import pytest
import torch
from parity import batch, check_gradients, check_round_trip, converted, largest, reference, values
from seq2seq_parity import (
    check_beams,
    check_cached_steps,
    check_float32,
    check_greedy,
    check_logits_loss_and_gradients,
    check_rows_alone,
    check_states_and_maps,
    check_they_load_ours,
    learn_by_heart,
    louder,
    theirs_of,
)
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartForQuestionAnswering,
    BartForSequenceClassification,
    BartModel,
    MBartConfig,
    MBartForConditionalGeneration,
    MBartForQuestionAnswering,
    MBartForSequenceClassification,
    MBartModel,
)

from qkv.errors import ConfigError, DataError, UsageError, WeightsError
from qkv.learn.terms import term_loss
from qkv.model import Model
from qkv.models import bart, build, configure, hf
from qkv.models.interface import state_of
from qkv.shapes import Batch
from qkv.text import TextConfig, train

V = 37
COMMON = dict(
    vocab_size=V, d_model=24, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
    decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=40, max_position_embeddings=64,
    dropout=0.0, pad_token_id=1, bos_token_id=0, eos_token_id=2,
)  # fmt: skip
CASES = {
    "plain": (BartForConditionalGeneration, BartConfig(**COMMON)),
    "scaled-odd-heads": (
        BartForConditionalGeneration,
        BartConfig(**{**COMMON, "d_model": 15, "encoder_attention_heads": 3, "decoder_attention_heads": 5},
                   scale_embedding=True, activation_function="relu"),
    ),
    "untied": (BartForConditionalGeneration, BartConfig(**COMMON, tie_word_embeddings=False, activation_function="swish")),
    "no-padding-id": (
        BartForConditionalGeneration,
        BartConfig(**{**COMMON, "pad_token_id": None}, activation_function="gelu_new"),
    ),
    "mbart": (MBartForConditionalGeneration, MBartConfig(**COMMON, scale_embedding=True, decoder_start_token_id=30)),
    "mbart-untied-unscaled": (
        MBartForConditionalGeneration,
        MBartConfig(**{**COMMON, "d_model": 21, "encoder_attention_heads": 7, "decoder_attention_heads": 3},
                    tie_word_embeddings=False),
    ),
}  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES)


def twin(case, dtype=torch.float64):
    cls, config = CASES[case]
    return reference(cls, config, dtype=dtype)


def pairs(pad_id=1, target=(5, 9, 16, 1)):
    """Sources and targets of several lengths; every row ends in <eos>."""
    b = batch(V, (7, 1, 16, 12), target, pad_id)
    for ids, keep in ((b.source, b.keep), (b.target, b.target_keep)):
        last = keep.sum(1) - 1
        ids[torch.arange(len(ids)), last] = 2
    return b


@each_case
def test_equal_in_float64(case):
    model, b = twin(case), pairs()
    check_states_and_maps(model, b)
    check_logits_loss_and_gradients(model, b)
    check_cached_steps(converted(model)[2], b)


@each_case
def test_read_and_written_whole(case, tmp_path):
    model = twin(case)
    check_round_trip(model)
    check_float32(model, pairs())
    check_they_load_ours(CASES[case][0], model, pairs(), tmp_path)


def test_the_loss_of_a_target_that_ends_in_its_language_is_theirs():
    """mBART's own targets end in </s> and the language, which their loss wraps round to the start."""
    model = twin("mbart")
    b = pairs(target=(6, 6, 6, 6))
    b.target[:, -1] = 30
    b.target[:, -2] = 2
    want = model(input_ids=b.source, attention_mask=b.keep.long(), labels=b.target).logits
    assert largest(converted(model)[2].logits(b), want, b.target_keep) < 1e-10


@pytest.mark.parametrize("cls,tie", [(BartModel, True), (BartModel, False), (MBartModel, True)])
def test_bare_models_have_states_and_their_own_names(cls, tie, tmp_path):
    kind = MBartConfig if cls is MBartModel else BartConfig
    model = reference(cls, kind(**COMMON, tie_word_embeddings=tie))
    _, config, net = converted(model)
    assert config.head == "none"
    check_states_and_maps(model, pairs())
    names = hf.theirs(bart, config, state_of(net))
    assert "shared.weight" in names and not [n for n in names if n.startswith("model.")]
    if not tie:
        with pytest.raises(UsageError):
            net.logits(pairs())
    check_round_trip(model)
    check_they_load_ours(cls, model, pairs(), tmp_path)


def test_a_bare_tied_model_writes_as_theirs_does():
    """transformers makes a generator of a bare checkpoint: the tied output, and a bias of zeros."""
    model = reference(BartModel, BartConfig(**COMMON))
    full = reference(BartForConditionalGeneration, BartConfig(**COMMON))
    full.model.load_state_dict(model.state_dict())
    full.final_logits_bias.zero_()
    net = converted(model)[2]
    b = pairs()
    assert largest(net.logits(b), theirs_of(full, net, b).logits, b.target_keep) < 1e-10


# -- heads -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels,problem", [(3, None), (1, None), (4, "multi_label_classification")]
)
@pytest.mark.parametrize("cls,kind", [(BartForSequenceClassification, BartConfig), (MBartForSequenceClassification, MBartConfig)])  # fmt: skip
def test_classes_are_read_from_the_last_eos(cls, kind, labels, problem):
    given = dict(COMMON, num_labels=labels, problem_type=problem, decoder_start_token_id=2)
    model = reference(cls, kind(**given))
    module, config, net = converted(model)
    b = pairs()
    b.source[b.source == 2] = 5
    b.source[torch.arange(4), b.keep.sum(1) - 1] = 2
    b.source[2, 4:6] = (
        2  # texts with several <eos>: rows must have as many for them, one each for the others
    )
    rows = [b.source[i : i + 1, : int(n)] for i, n in enumerate(b.keep.sum(1))]
    y = torch.tensor([0, 1, 0, 2] if labels == 3 else [0.5, -1.0, 2.0, 0.0])
    if problem:
        y = torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]]).double()
    want = torch.cat([model(input_ids=row, labels=None).logits for row in rows])
    assert largest(net.logits(b), want, torch.ones(4, dtype=bool)) < 1e-10
    b = Batch(b.source, b.keep, label=y)
    made = term_loss(net.loss_inputs(b))
    loss = {
        None: lambda: (
            torch.nn.functional.cross_entropy(want, y)
            if labels > 1
            else torch.nn.functional.mse_loss(want.flatten(), y.double())
        ),
        "multi_label_classification": lambda: torch.nn.functional.binary_cross_entropy_with_logits(
            want, y
        ),
    }[problem]()
    assert abs(float((made.smoothed / made.tokens - loss).detach())) < 1e-10
    (made.smoothed / made.tokens).backward()
    loss.backward()
    check_gradients(net, module, config, model)
    check_round_trip(model)


@pytest.mark.parametrize("cls", [MBartForSequenceClassification, MBartForQuestionAnswering])
def test_mbart_reads_a_text_again_from_its_language_on(cls):
    model = reference(cls, MBartConfig(**COMMON, num_labels=3, decoder_start_token_id=30))
    _, _, net = converted(model)
    b = batch(V, (7, 3, 16, 12), pad_id=1)
    b.source[b.source == 2] = 5
    ends = b.keep.sum(1) - 1
    b.source[torch.arange(4), ends - 1] = 2
    b.source[torch.arange(4), ends] = torch.tensor([33, 34, 35, 33])  # </s> and a language
    want, got = model(input_ids=b.source, attention_mask=b.keep.long()), net.logits(b)
    if net.head.kind == "classes":
        assert largest(got, want.logits, torch.ones(4, dtype=bool)) < 1e-10
    else:
        assert largest(got[..., 0], want.start_logits, b.keep) < 1e-10
        assert largest(got[..., 1], want.end_logits, b.keep) < 1e-10


def test_a_text_without_eos_has_no_class():
    _, _, net = converted(reference(BartForSequenceClassification, BartConfig(**COMMON)))
    b = batch(V, (5, 3), pad_id=1)
    with pytest.raises(DataError) as e:
        net.logits(Batch(b.source.masked_fill(b.source == 2, 5), b.keep))
    assert "row 0" in e.value.place


def test_spans_and_their_loss(tmp_path):
    model = reference(BartForQuestionAnswering, BartConfig(**COMMON))
    module, config, net = converted(model)
    b = pairs()
    b = Batch(b.source, b.keep, label=torch.tensor([[1, 3], [0, 0], [4, 15], [2, 2]]))
    want = model(input_ids=b.source, attention_mask=b.keep.long())
    got = net.logits(b)
    assert largest(got[..., 0], want.start_logits, b.keep) < 1e-10
    assert largest(got[..., 1], want.end_logits, b.keep) < 1e-10
    made = term_loss(net.loss_inputs(b))
    inside = [x.masked_fill(~b.keep, -torch.inf) for x in (want.start_logits, want.end_logits)]
    loss = sum(torch.nn.functional.cross_entropy(x, y) for x, y in zip(inside, b.label.T, strict=True)) / 2  # fmt: skip
    assert abs(float((made.smoothed / made.tokens - loss).detach())) < 1e-10
    (made.smoothed / made.tokens).backward()
    loss.backward()
    check_gradients(net, module, config, model)
    check_round_trip(model)
    check_they_load_ours(BartForQuestionAnswering, model, b, tmp_path)


@pytest.mark.parametrize("head", ["classes", "span"])
def test_texts_are_classified_and_questions_answered(head):
    tok = train(["the cat sat on the mat", "a dog ate"], TextConfig(kind="chars", vocab_size=60))
    labels = {"labels": ["good", "bad", "odd"]} if head == "classes" else {}
    config = configure(
        {"family": "bart", "size": "tiny", "vocab_size": tok.vocab_size, "head": head} | labels
    )
    torch.manual_seed(0)
    model = Model(build(config), tok, config)
    if head == "classes":
        texts = ["the cat", "a dog ate the mat", ("a cat", "a dog")]
        made = model.classify(texts)
        assert [model.classify(t) for t in texts] == made  # law 2: alone as in a batch
        assert all(abs(sum(x.score for x in m.labels) - 1) < 1e-6 for m in made)
    else:
        found = model.answer("who sat", "the cat sat on the mat")
        assert found.no_answer >= 0 and found.context[found.start : found.end] == found.text


# -- decoding --------------------------------------------------------------------------------------


def loud(case):
    cls, config = CASES[case]
    changed = {**config.to_dict(), "max_position_embeddings": 300}
    return louder(reference(cls, type(config)(**changed)))


@pytest.mark.parametrize("ends", [False, True], ids=["256-tokens", "with-eos"])
@pytest.mark.parametrize("case,first", [("untied", None), ("mbart-untied-unscaled", 31)])
def test_greedy_tokens_are_theirs(case, first, ends):
    check_greedy(loud(case), pairs(), ends, first)


@pytest.mark.parametrize("case,first", [("untied", 0), ("mbart-untied-unscaled", 31)])
def test_beams_and_their_scores_are_theirs(case, first):
    check_beams(loud(case), pairs(), first)


def test_a_row_alone_is_the_row_in_a_batch():
    check_rows_alone(converted(loud("mbart-untied-unscaled"))[2].float(), pairs())


# -- quirks ----------------------------------------------------------------------------------------


def test_bart_positions_begin_at_row_two():
    _, _, net = converted(twin("plain"))
    with torch.no_grad():
        before = net.logits(pairs())
        for e in (net.source_embed, net.target_embed):
            e.position.weight[:2] += 1
        assert torch.equal(net.logits(pairs()), before)
        net.source_embed.position.weight[2] += 1
        assert not torch.equal(net.logits(pairs()), before)


def test_padding_learns_nothing_as_an_input():
    """A token in the middle of a text that has the padding's id: a gradient for its vector, if it were any other."""
    net = converted(reference(BartForConditionalGeneration, BartConfig(**COMMON, tie_word_embeddings=False)))[2]  # fmt: skip
    b = pairs()
    b.source[0, 2], b.source[0, 3] = 1, 9
    net.logits(b)[b.target_keep].square().sum().backward()
    grad = net.source_embed.token.weight.grad
    assert float(grad[1].abs().max()) == 0 and float(grad[9].abs().max()) > 0


def test_the_spare_matrix_changes_nothing():
    _, _, net = converted(twin("untied"))
    b = pairs()
    before = net.logits(b)
    net.spare += 1
    assert torch.equal(net.logits(b), before)
    assert "spare" not in dict(net.named_parameters())


# -- config.json -----------------------------------------------------------------------------------


def read(**changed):
    given = {**values(reference(BartForConditionalGeneration, BartConfig(**COMMON))), **changed}
    return hf.configured(bart, given)


@pytest.mark.parametrize(
    "changed",
    [
        dict(normalize_before=True), dict(add_final_layer_norm=True), dict(normalize_embedding=False),
        dict(static_position_embeddings=True), dict(is_decoder=True),
        dict(is_encoder_decoder=False), dict(activation_function="laplace"), dict(num_hidden_layers=9),
        dict(vocab_size="37"), dict(attention_kind="flat"),
    ],
    ids=str,
)  # fmt: skip
def test_keys_that_would_compute_something_else_are_refused(changed):
    with pytest.raises(ConfigError) as e:
        read(**changed)
    assert next(iter(changed)) in str(e.value)


def test_keys_of_old_files_are_read():
    config = read(
        normalize_before=False, normalize_embedding=True, add_final_layer_norm=False, add_bias_logits=False,
        static_position_embeddings=False, extra_pos_embeddings=2, num_hidden_layers=2, classif_dropout=0.0,
        force_bos_token_to_be_generated=True, output_past=True, save_step=3, _num_labels=3, prefix=" ",
        task_specific_params={"summarization": {"num_beams": 4}},
    )  # fmt: skip
    assert config.forced_bos_id == 0
    both = read(force_bos_token_to_be_generated=False, forced_bos_token_id=3)
    assert both.forced_bos_id == 3


def test_keys_of_learning_and_keys_that_nothing_reads_change_nothing():
    assert read(encoder_layerdrop=0.1, decoder_layerdrop=0.2, extra_pos_embeddings=0) == read()


def test_absent_keys_have_the_defaults_of_transformers():
    ours = hf.configured(bart, {"model_type": "bart"})
    want = hf.configured(bart, {**BartConfig().to_dict(), "architectures": ["BartForConditionalGeneration"]})  # fmt: skip
    assert ours == want
    ours = hf.configured(bart, {"model_type": "mbart"})
    want = hf.configured(bart, {**MBartConfig().to_dict(), "architectures": ["MBartForConditionalGeneration"]})  # fmt: skip
    assert ours == want and ours.start_id == 0  # without a start token theirs begins with <bos>


def test_files_without_the_output_bias_have_one_of_zeros():
    model = twin("plain")
    given = {n: t for n, t in model.state_dict().items() if n != "final_logits_bias"}
    config = hf.configured(bart, values(model))
    assert float(hf.ours(bart, config, given)["head.bias"].abs().max()) == 0


def test_a_checkpoint_that_does_not_tie_what_its_config_ties_is_refused():
    model = twin("plain")
    given = model.state_dict() | {"lm_head.weight": model.lm_head.weight + 1}
    with pytest.raises(WeightsError) as e:
        hf.ours(bart, hf.configured(bart, values(model)), given)
    assert "lm_head.weight" in e.value.seen
    assert '"tie_word_embeddings": false' in e.value.fix


# -- from scratch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [{}, {"norm_first": True, "scale_embedding": True}, {"tie": False}], ids=str
)
def test_one_batch_is_learned_by_heart_and_comes_back(more):
    learn_by_heart({"family": "bart", "size": "tiny", "vocab_size": 33} | more, bart)
