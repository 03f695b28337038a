"""Marian (OPUS-MT) equals transformers' with the same weights, and a folder of it translates what theirs translates."""

import json

import pytest
import torch
from parity import batch, check_round_trip, converted, reference, values
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
)
from transformers import MarianConfig, MarianModel, MarianMTModel, MarianTokenizer

import qkv
from qkv.decode.engine import Engine
from qkv.decode.search import SearchConfig
from qkv.errors import ConfigError, DataError, WeightsError
from qkv.models import hf, marian
from qkv.models.interface import state_of
from qkv.parts.positions import sinusoid

V, PAD = 37, 36
COMMON = dict(
    vocab_size=V, d_model=24, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
    decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=40, max_position_embeddings=64, dropout=0.0,
    activation_function="swish", scale_embedding=True, pad_token_id=PAD, eos_token_id=0, decoder_start_token_id=PAD,
)  # fmt: skip
SEPARATE = dict(share_encoder_decoder_embeddings=False, decoder_vocab_size=41)
CASES = {
    "plain": {},
    "odd-heads-and-width": {"d_model": 15, "encoder_attention_heads": 3, "decoder_attention_heads": 5},
    "unscaled-gelu": {"scale_embedding": False, "activation_function": "gelu"},
    "untied": {"tie_word_embeddings": False},
    "two-vocabularies": SEPARATE,
    "two-vocabularies-untied": SEPARATE | {"tie_word_embeddings": False},
}  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES)


def twin(case, cls=MarianMTModel, **more):
    return reference(cls, MarianConfig(**{**COMMON, **CASES[case], **more}))


def pairs():
    """Sources and targets of several lengths; every row ends in <eos>."""
    b = batch(PAD, (7, 1, 16, 12), (5, 9, 16, 1), PAD)
    for ids, keep in ((b.source, b.keep), (b.target, b.target_keep)):
        ids[torch.arange(len(ids)), keep.sum(1) - 1] = 0
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
    check_they_load_ours(MarianMTModel, model, pairs(), tmp_path)


@pytest.mark.parametrize("case", ["plain", "two-vocabularies"])
def test_bare_models(case):
    model = twin(case, MarianModel)
    _, config, net = converted(model)
    check_states_and_maps(model, pairs())
    check_round_trip(model)
    names = hf.theirs(marian, config, state_of(net))
    assert "encoder.layers.0.fc1.weight" in names and "final_logits_bias" not in names


# -- decoding --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def loud():
    return louder(twin("untied", max_position_embeddings=300))


@pytest.mark.parametrize("ends", [False, True], ids=["256-tokens", "with-eos"])
def test_greedy_tokens_are_theirs(loud, ends):
    check_greedy(loud, pairs(), ends, bad_words_ids=[[PAD]])


def test_beams_and_their_scores_are_theirs(loud):
    check_beams(loud, pairs(), bad_words_ids=[[PAD]])


def test_a_row_alone_is_the_row_in_a_batch(loud):
    check_rows_alone(converted(loud)[2].float(), pairs())


# -- quirks ----------------------------------------------------------------------------------------


def test_padding_learns_nothing_as_an_input():
    """The start token is padding: its vector learns where it is an answer only, and with two vocabularies nowhere."""
    net = converted(twin("untied"))[2]
    b = pairs()
    b.source[0, 2] = PAD
    net.logits(b)[b.target_keep].square().sum().backward()
    for e in (net.source_embed, net.target_embed):
        grad = e.token.weight.grad
        assert float(grad[PAD].abs().max()) == 0 and float(grad.abs().max()) > 0


@pytest.mark.parametrize("C", [15, 24, 512])
def test_sinusoids_are_theirs_to_the_bit(C):
    """All sines, then all cosines; an odd width has one sine more."""
    config = MarianConfig(**{**COMMON, "d_model": C, "encoder_attention_heads": 1, "decoder_attention_heads": 1})  # fmt: skip
    theirs = MarianModel(config).encoder.embed_positions.weight
    assert torch.equal(theirs, sinusoid(64, C, halves=True))


def test_sinusoids_in_a_file_must_be_these():
    model = twin("plain")
    given, config = model.state_dict(), hf.configured(marian, values(model))
    name = "model.encoder.embed_positions.weight"
    assert name in given and name not in hf.theirs(marian, config, hf.ours(marian, config, given))
    with pytest.raises(WeightsError) as e:
        hf.ours(marian, config, given | {name: given[name].roll(1, 0)})
    assert name in e.value.seen


def test_texts_beyond_the_positions_are_refused():
    """QUIRK: waves go on for ever, the model was trained up to max_positions; theirs raises an IndexError."""
    engine = Engine(converted(twin("plain"))[2], SearchConfig(max_new_tokens=2))
    assert engine([[5] * 63 + [0]])
    with pytest.raises(DataError) as e:
        engine([[5] * 64 + [0]])
    assert e.value.code == "QKV-037"


# -- config.json -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changed",
    [
        dict(normalize_before=True), dict(normalize_embedding=True), dict(static_position_embeddings=False),
        dict(is_encoder_decoder=False), dict(activation_function="laplace"), dict(guided_alignment=True),
    ],
    ids=str,
)  # fmt: skip
def test_keys_that_would_compute_something_else_are_refused(changed):
    with pytest.raises(ConfigError) as e:
        hf.configured(marian, values(twin("plain")) | changed)
    assert next(iter(changed)) in str(e.value)


def test_the_config_of_a_published_opus_model_is_read():
    """The keys of Helsinki-NLP/opus-mt-* as transformers 4 wrote them."""
    config = hf.configured(marian, {
        "_num_labels": 3, "activation_dropout": 0.0, "activation_function": "swish", "add_bias_logits": False,
        "add_final_layer_norm": False, "architectures": ["MarianMTModel"], "attention_dropout": 0.0,
        "bad_words_ids": [[58100]], "bos_token_id": 0, "classif_dropout": 0.0, "classifier_dropout": 0.0, "d_model": 512,
        "decoder_attention_heads": 8, "decoder_ffn_dim": 2048, "decoder_layerdrop": 0.0, "decoder_layers": 6,
        "decoder_start_token_id": 58100, "decoder_vocab_size": 58101, "dropout": 0.1, "encoder_attention_heads": 8,
        "encoder_ffn_dim": 2048, "encoder_layerdrop": 0.0, "encoder_layers": 6, "eos_token_id": 0,
        "extra_pos_embeddings": 58101, "forced_eos_token_id": 0, "id2label": {"0": "LABEL_0"}, "init_std": 0.02,
        "is_encoder_decoder": True, "label2id": {"LABEL_0": 0}, "max_length": 512, "max_position_embeddings": 512,
        "model_type": "marian", "normalize_before": False, "normalize_embedding": False, "num_beams": 6,
        "num_hidden_layers": 6, "pad_token_id": 58100, "scale_embedding": True,
        "share_encoder_decoder_embeddings": True, "static_position_embeddings": True, "transformers_version": "4.22.0",
        "use_cache": True, "vocab_size": 58101,
    })  # fmt: skip
    assert (config.start_id, config.pad_id, config.eos_id, config.forced_eos_id) == (
        58100,
        58100,
        0,
        0,
    )
    assert (
        config.activation == "silu" and config.scale_embedding and config.target_vocab_size is None
    )


def test_absent_keys_have_the_defaults_of_transformers():
    want = hf.configured(marian, MarianConfig().to_dict() | {"architectures": ["MarianMTModel"]})
    assert hf.configured(marian, {"model_type": "marian"}) == want


# -- from scratch and to the end -------------------------------------------------------------------


@pytest.mark.parametrize(
    "more", [{}, {"target_vocab_size": 33}], ids=["shared", "two-vocabularies"]
)
def test_one_batch_is_learned_by_heart_and_comes_back(more):
    learn_by_heart({"family": "marian", "size": "tiny", "vocab_size": 33} | more, marian)


TEXTS = ("the cat sat on the mat", "a dog ate the bread of the cat", "the mat of a dog", "bread")


def spm_pair(folder):
    """Two small sentencepiece models and the numbers of their pieces, as OPUS-MT publishes them."""
    import io

    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    pieces = ["</s>", "<unk>"]
    for name, turn in (("source.spm", str), ("target.spm", lambda s: s[::-1])):
        made = io.BytesIO()
        SentencePieceTrainer.train(
            sentence_iterator=iter([turn(s) for s in TEXTS * 5]), model_writer=made, vocab_size=30,
            hard_vocab_limit=False, minloglevel=2,
        )  # fmt: skip
        (folder / name).write_bytes(made.getvalue())
        side = SentencePieceProcessor(model_proto=made.getvalue())
        pieces += [side.id_to_piece(i) for i in range(3, len(side))]
    numbers = {p: i for i, p in enumerate([*dict.fromkeys(pieces), "<pad>"])}
    (folder / "vocab.json").write_text(json.dumps(numbers))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "MarianTokenizer"})
    )
    return len(numbers)


@pytest.mark.filterwarnings("ignore")
def test_a_published_folder_translates_as_transformers_does(tmp_path):
    n = spm_pair(tmp_path)
    marks = dict(pad_token_id=n - 1, decoder_start_token_id=n - 1, vocab_size=n)
    model = louder(twin("untied", **marks)).float()
    model.generation_config.bad_words_ids = [[n - 1]]
    model.generation_config.forced_eos_token_id = 0
    model.save_pretrained(tmp_path)
    tokenizer = MarianTokenizer.from_pretrained(tmp_path)
    given = tokenizer(list(TEXTS), return_tensors="pt", padding=True)
    ours = qkv.load(tmp_path)
    for beams in (1, 4):
        ids = model.generate(**given, num_beams=beams, max_new_tokens=20, length_penalty=1.0)
        want = tokenizer.batch_decode(ids, skip_special_tokens=True)
        got = [t.text for t in ours.translate(list(TEXTS), beam=beams, max_new_tokens=20)]
        assert got == want and len(set(want)) > 1
    assert ours.translate(TEXTS[0], max_new_tokens=20).text == ours.translate(list(TEXTS), max_new_tokens=20)[0].text  # fmt: skip
    again = tmp_path / "again"
    ours.save(again)
    third = MarianMTModel.from_pretrained(again, attn_implementation="eager").eval()
    assert third.generation_config.bad_words_ids[0] == [n - 1]
    assert torch.equal(third.generate(**given, num_beams=4, max_new_tokens=20), ids)
    assert (
        MarianTokenizer.from_pretrained(again)(TEXTS[0]).input_ids == tokenizer(TEXTS[0]).input_ids
    )
    assert qkv.load(again).decode == ours.decode


@pytest.mark.parametrize("start", [999, -1])
def test_a_start_beyond_the_vocabulary_is_met_with_the_key_to_mend(tmp_path, start):
    """Published files may name such an id (Marian's own default is 58100); states of the source need none."""
    settings = COMMON | dict(decoder_start_token_id=start)
    reference(MarianMTModel, MarianConfig(**settings)).save_pretrained(tmp_path)
    model = qkv.load(tmp_path, device="cpu")
    ids = torch.tensor([[3, 4, 0]])
    with pytest.raises(ConfigError, match="decoder_start_token_id") as e:
        model.logits(ids, target=ids)
    assert e.value.code == "QKV-013" and str(V) in e.value.seen
    with pytest.raises(ConfigError, match="decoder_start_token_id"):
        list(Engine(model.net, SearchConfig(max_new_tokens=2)).stream([[3, 4, 0]]))
