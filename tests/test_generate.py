"""Model.generate: prompts continued, whole or as they come, alone or together; every mistake by name."""

import inspect
import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import qkv
from qkv import cli
from qkv.errors import ConfigError, DataError, QkvError, UsageError
from qkv.generate import Generation
from qkv.model import Model
from qkv.models import build, configure
from qkv.text import TextConfig, train

LINES = ["the cat sat on the mat", "책을 읽는 사람", "a dog ate 😀"]


def model_of(family, pieces="bytes", **more):
    tokenizer = train(LINES * 3, TextConfig(kind=pieces, vocab_size=300))
    torch.manual_seed(3)
    values = dict(family=family, n_layers=2, d_model=16, n_heads=2, max_positions=64)
    if family in ("transformer", "marian"):
        values = dict(d_model=16, n_heads=2, d_ff=32, encoder_layers=1, decoder_layers=1)
        values["family"] = family
    config = configure(values | {"vocab_size": tokenizer.vocab_size} | more)
    net = build(config)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p) * 0.8)
    return Model(net, tokenizer, config)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def model(request):
    return model_of(request.param, "chars", bos_id=1, eos_id=None if request.param == "gpt2" else 2)


def test_the_signature_is_the_promised_one():
    names = list(inspect.signature(Model.generate).parameters)
    assert (
        names[:10]
        == "self prompts max_new_tokens beam temperature top_k top_p stop seed stream".split()
    )


def test_one_in_one_out_a_list_a_list(model):
    one = model.generate("the cat", max_new_tokens=9)
    assert (
        isinstance(one, Generation) and model.generate(["the cat", "a"], max_new_tokens=9)[0] == one
    )
    assert model.generate([]) == [] and list(model.generate([], stream=True)) == []
    assert str(one) == one.text and one.prompt == "the cat" and len(one.ids) <= 9
    assert one.text == model.tokenizer.decode(one.ids) and len(one.tokens) == len(one.ids)
    shown = one.to_dict()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown and shown["text"] == one.text


def test_company_changes_nothing(model):
    texts = ["the cat", "a", "책을 읽는 사람", "the mat sat on"]
    for how in ({}, {"beam": 3}, {"temperature": 1.0, "top_k": 20, "seed": 5}):
        together = model.generate(texts, max_new_tokens=12, **how)
        assert together == [model.generate(t, max_new_tokens=12, **how) for t in texts]


@pytest.mark.parametrize("how", [{}, {"temperature": 1.0, "seed": 3}], ids=str)
@pytest.mark.parametrize("kind", ["bytes", "bpe"])
def test_streamed_pieces_are_the_text(kind, how):
    model = model_of("gpt2", kind)
    for prompt in ("the cat", "책을", "a dog ate 😀"):
        whole = model.generate(prompt, max_new_tokens=40, **how)
        coming = model.generate(prompt, max_new_tokens=40, stream=True, **how)
        assert "".join(coming) == whole.text
    texts = ["the cat", "a"]
    parts = ["", ""]
    for i, piece in model.generate(texts, max_new_tokens=20, stream=True, **how):
        parts[i] += piece
    assert parts == [g.text for g in model.generate(texts, max_new_tokens=20, **how)]


@pytest.mark.parametrize("how", [{}, {"beam": 3}, {"temperature": 1.0, "seed": 3}], ids=str)
def test_stop_strings(model, how):
    free = model.generate("the cat", max_new_tokens=30, **how).text
    stop = free[3:5]
    for given in (stop, [stop, "never there"], (stop,)):
        made = model.generate("the cat", max_new_tokens=30, stop=given, **how)
        assert stop not in made.text and made.finished
        if "beam" not in how:
            assert made.text == free[: free.index(stop)]
            assert (
                "".join(model.generate("the cat", 30, stop=given, stream=True, **how)) == made.text
            )


def test_repetition_can_be_forbidden(model):
    fed = model.ids("the cat")
    ids = [*fed, *model.generate("the cat", max_new_tokens=40, no_repeat_ngram_size=2).ids]
    pairs = list(zip(ids, ids[1:], strict=False))
    new = pairs[len(fed) - 1 :]
    assert len(new) > 8 and len(set(new)) == len(new) and not set(new) & set(pairs[: len(fed) - 1])
    less = model.generate("the cat", max_new_tokens=40, repetition_penalty=5.0)
    assert len(set(less.ids)) > len(set(model.generate("the cat", max_new_tokens=40).ids))


def test_an_empty_prompt_begins_with_the_start_token(model):
    assert model.generate("", max_new_tokens=5).prompt == ""
    silent = model_of("gpt2", bos_id=None, eos_id=None)
    with pytest.raises(DataError) as e:
        silent.generate("")
    assert e.value.code == "QKV-032" and e.value.fix


@pytest.mark.parametrize(
    "prompts,wrong,code",
    [
        ("the cat " * 20, {}, "QKV-037"),
        (3, {}, "QKV-033"),
        (["a", None], {}, "QKV-033"),
        ("a", {"stop": ""}, "QKV-012"),
        ("a", {"stop": ["x", ""]}, "QKV-012"),
        ("a", {"stop": [3]}, "QKV-011"),
        ("a", {"max_new_tokens": 0}, "QKV-012"),
        ("a", {"top_k": 3}, "QKV-013"),
        ("a", {"beam": 2, "temperature": 1.0}, "QKV-013"),
        ("a", {"beam": 2, "stream": True}, "QKV-013"),
        ("a", {"repetition_penalty": 0.0}, "QKV-012"),
    ],
    ids=str,
)
def test_mistakes_are_named(model, prompts, wrong, code):
    with pytest.raises(QkvError) as e:
        made = model.generate(prompts, **wrong)
        list(made)
    assert e.value.code == code and e.value.fix


def test_ids_without_a_text_never_come():
    model = model_of("gpt2", vocab_size=2000)
    tokens = model.generate(["the", "a", "mat"], max_new_tokens=30)
    assert all(i < model.tokenizer.vocab_size for g in tokens for i in g.ids)


def test_an_encoder_decoder_answers_as_translate_does_and_can_be_read_along():
    model = model_of("transformer", "chars")
    made = model.generate("the cat", max_new_tokens=20)
    assert made.ids == model.translate("the cat", max_new_tokens=20).ids
    assert "".join(model.generate("the cat", max_new_tokens=20, stream=True)) == made.text
    stop = made.text[2]
    cut = model.generate("the cat", max_new_tokens=20, stop=stop)
    assert cut.text == made.text[: made.text.index(stop)]
    assert "".join(model.generate("the cat", 20, stop=stop, stream=True)) == cut.text


def test_special_text_in_a_prompt_is_text(model):
    made = model.generate("<eos><bos>", max_new_tokens=3)
    assert model.tokenizer.eos_id not in model.ids("<eos><bos>") and made.prompt == "<eos><bos>"


def test_a_prompt_is_not_generated_in_inference_mode_of_the_caller(model):
    coming = model.generate("the", max_new_tokens=5, stream=True)
    next(coming, None)
    assert not torch.is_inference_mode_enabled()


def test_config_error_for_a_reader():
    model = model_of("gpt2")
    del_step = Model(torch.nn.Linear(2, 2), model.tokenizer, model.config)
    with pytest.raises(ConfigError) as e:
        del_step.generate("a")
    assert e.value.code == "QKV-013"


def published(folder, model, config=(), **told):
    """The model as a publisher writes it, with other keys in config.json and this generation_config.json."""
    model.save(folder)
    (folder / "manifest.json").unlink()
    values = json.loads((folder / "config.json").read_text("utf-8"))
    values.pop("qkv")
    values = {k: v for k, v in (values | dict(config)).items() if v is not None}
    (folder / "config.json").write_text(json.dumps(values), "utf-8")
    if told:
        (folder / "generation_config.json").write_text(json.dumps(told), "utf-8")
    elif (folder / "generation_config.json").exists():
        (folder / "generation_config.json").unlink()
    return folder


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("given", [None, 2, [2, 3]], ids=str)
@pytest.mark.parametrize("several", [False, True])
def test_answers_end_where_generation_config_says(kind, given, several, tmp_path):
    family = {"family": "gpt2"} if kind == "gpt2" else {"family": "llama", "kind": kind}
    model = model_of(**family, eos_id=None, bos_id=1)
    free = model.generate("the cat", max_new_tokens=30).ids
    ends = [free[9], free[4]] if several else [free[4]]
    eos = ends if several else ends[0]
    folder = published(tmp_path / "m", model, {"eos_token_id": given}, eos_token_id=eos)
    ours, theirs = qkv.load(folder), AutoModelForCausalLM.from_pretrained(folder)
    fed = ours.ids("the cat")
    want = theirs.generate(torch.tensor([fed]), max_new_tokens=30, pad_token_id=0, do_sample=False)
    made = ours.generate("the cat", max_new_tokens=30)
    assert made.finished and [*fed, *made.ids] == want[0, :-1].tolist()


def test_answers_begin_and_end_where_generation_config_says(tmp_path):
    tokenizer = train(LINES * 3, TextConfig(kind="chars", vocab_size=60))
    sizes = dict(d_model=16, n_heads=2, d_ff=32, encoder_layers=1, decoder_layers=1)
    config = configure({"family": "bart", "vocab_size": tokenizer.vocab_size, **sizes})
    model = Model(build(config), tokenizer, config)
    given = dict(eos_token_id=[5, 6], decoder_start_token_id=7)
    net = qkv.load(published(tmp_path / "m", model, **given)).net
    assert (net.start_id, net.eos_id) == (7, 5)
    assert qkv.load(tmp_path / "m").decode.eos_ids == (6,)


SAMPLES = dict(temperature=1.0, top_k=50, top_p=None)


@pytest.mark.parametrize(
    "given,want,unheard",
    [
        (dict(do_sample=True), SAMPLES, ""),
        (dict(do_sample=True, top_p=0.9), SAMPLES | dict(top_p=0.9), ""),
        (dict(do_sample=True, top_k=20, temperature=0.7), dict(temperature=0.7, top_k=20), ""),
        (dict(do_sample=True, top_k=0, top_p=1.0), SAMPLES | dict(top_k=None), ""),
        (dict(do_sample=True, top_p=0.0), SAMPLES, "top_p"),
        (dict(do_sample=True, num_beams=4), SAMPLES | dict(beam=1), "num_beams"),
        (dict(do_sample=True, temperature=0.0, top_k=9), dict(temperature=0.0, top_k=None), ""),
        (dict(do_sample=False, top_k=9, top_p=0.5), dict(temperature=0.0, top_k=None), ""),
        (dict(num_beams=4, length_penalty=20.0), dict(beam=4, alpha=1.0), "length_penalty"),
        (dict(num_beams=4, length_penalty=-2.0), dict(beam=4, alpha=-2.0), ""),
        (dict(forced_bos_token_id=-1, forced_eos_token_id=-1, eos_token_id=-1), dict(forced_first=None, forced_last=None, eos_ids=()), ""),
        (dict(forced_eos_token_id=[]), dict(forced_last=None), ""),
        (dict(forced_eos_token_id=[2, 3]), dict(forced_last=2), "forced_eos_token_id"),  # theirs: a tie
        (dict(forced_bos_token_id=5), dict(forced_first=None), "forced_bos_token_id"),  # theirs: of a prompt of one token
        (dict(min_length=9), dict(min_new_tokens=0), "min_length"),  # theirs: with the prompt
        (dict(suppress_tokens=[7]), dict(bad_words=((7,),)), ""),
        (dict(suppress_tokens=[2]), {}, "suppress_tokens"),  # theirs: no end either
        (dict(max_new_tokens=5, min_new_tokens=9), dict(max_new_tokens=5, min_new_tokens=5), ""),
    ],
    ids=str,
)  # fmt: skip
def test_a_publishers_settings_of_generation_are_ours(given, want, unheard, tmp_path):
    folder = published(tmp_path / "m", model_of("gpt2"), **given)
    if unheard:
        with pytest.warns(UserWarning, match=f"does not have: {unheard};"):
            made = qkv.load(folder)
    else:
        made = qkv.load(folder)
    assert {name: getattr(made.decode, name) for name in want} == want
    made.save(tmp_path / "again")
    assert qkv.load(tmp_path / "again").decode == made.decode
    if made.decode.sampling:
        told = json.loads((tmp_path / "again" / "generation_config.json").read_text("utf-8"))
        assert (told["top_k"], told["top_p"]) == (made.decode.top_k or 0, made.decode.top_p or 1.0)


def test_what_a_publisher_does_not_forbid_may_be_said(tmp_path):
    """transformers lets Marian write padding unless bad_words_ids says otherwise."""
    model = model_of("marian")
    assert model.net.banned
    assert qkv.load(published(tmp_path / "m", model)).net.banned == ()


def test_a_file_in_float64_keeps_its_bits(tmp_path):
    model = model_of("gpt2")
    model.net.double()
    with torch.no_grad():
        for weight in model.net.parameters():
            weight.mul_(1 / 3)
    made = qkv.load(published(tmp_path / "m", model))
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(
        made.net.decoder.each[0].attn.q.weight, model.net.decoder.each[0].attn.q.weight
    )
    assert torch.equal(made.logits(ids), model.logits(ids))


def test_other_ends_beyond_the_vocabulary_are_none(tmp_path):
    model = model_of("llama", "chars", bos_id=1)
    V = model.config.vocab_size
    folder = published(tmp_path / "m", model, eos_token_id=[2, V + 3], min_new_tokens=4)
    made = qkv.load(folder)
    assert made.net.more_eos == () and len(made.generate("the cat", max_new_tokens=9).ids) >= 4


@pytest.mark.parametrize(
    "family,more",
    [
        ("bert", dict(segments=0)),
        ("bert", dict(layout="roberta", segments=0, pad_id=1)),
        ("longformer", dict(segments=0, window=4, pad_id=1)),
        ("bigbird", dict(segments=0)),
        ("bert", dict(head="classes", labels=["a"], problem="one")),
        ("bart", dict(head="classes", labels=["a"], problem="one")),
    ],
    ids=str,
)
def test_what_transformers_cannot_use_is_written_as_ours(family, more, tmp_path):
    sizes = dict(encoder_layers=1, decoder_layers=1) if family == "bart" else dict(n_layers=1)
    sizes |= dict(vocab_size=40, d_model=16, n_heads=2, d_ff=16)
    config = configure(dict(family=family) | sizes | more)
    Model(build(config), train(LINES, TextConfig(kind="chars", vocab_size=40)), config).save(
        tmp_path / "m"
    )
    assert "model" in json.loads((tmp_path / "m" / "config.json").read_text("utf-8"))
    assert qkv.load(tmp_path / "m").config == config


def test_a_reader_is_not_asked_how_it_writes(tmp_path):
    config = configure(
        dict(family="bert", vocab_size=40, d_model=16, n_layers=1, n_heads=2, head="classes", labels=["a", "b"])
    )  # fmt: skip
    old = dict(do_sample=True, top_p=3, num_beams=0, early_stopping="soon", eos_token_id=[1, 2])
    published(tmp_path / "m", Model(build(config), None, config), old)
    assert qkv.load(tmp_path / "m").family == "bert"


def test_what_a_publisher_asks_of_generation_and_we_do_not_have_is_told(tmp_path, capsys):
    model_of("gpt2").save(tmp_path / "m")
    path = tmp_path / "m" / "generation_config.json"
    config = tmp_path / "m" / "config.json"
    values = json.loads(config.read_text("utf-8"))
    values.pop("qkv")  # as a publisher writes it
    config.write_text(json.dumps(values), "utf-8")
    told = json.loads(path.read_text("utf-8"))
    (tmp_path / "m" / "manifest.json").unlink()
    assert qkv.load(tmp_path / "m").family == "gpt2"  # nothing to tell: warnings are errors here
    path.write_text(
        json.dumps(told | {"guidance_scale": 1.5, "begin_suppress_tokens": [3]}), "utf-8"
    )
    with pytest.warns(UserWarning, match="begin_suppress_tokens, guidance_scale"):
        qkv.load(tmp_path / "m")
    assert cli.main(["generate", "--model", str(tmp_path / "m"), "a", "--max-new-tokens", "1"]) == 0
    assert "guidance_scale" in capsys.readouterr().err


def test_an_answer_in_one_go_takes_no_id_without_a_text_either():
    model = model_of("transformer", vocab_size=600)
    n = model.tokenizer.vocab_size
    assert model.nameless == tuple(range(n, 600))
    for answers in (model.translate(["the", "a mat"], beam=2, max_new_tokens=20), model.generate(["the"], 20)):  # fmt: skip
        assert all(i < n for a in answers for i in a.ids)


def test_a_language_model_does_not_translate():
    for ask in (Model.translate, Model.summarize):
        with pytest.raises(UsageError, match="encoder-decoder.*gpt2.*generate"):
            ask(model_of("gpt2"), "the cat")
    with pytest.raises(UsageError, match="encoder-decoder"):
        model_of("gpt2").force(["the"], ["cat"])
