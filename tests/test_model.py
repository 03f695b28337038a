"""The Model a person uses: files that are what they were, answers that do not depend on company, errors that say."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

import qkv
from cli_tiny import PAIRS, home
from qkv.errors import ConfigError, DataError, QkvError, StoreError, UsageError, WeightsError
from qkv.model import Model
from qkv.models import build, configure
from qkv.models.interface import state_of
from qkv.text import TextConfig, train
from qkv.weights import store
from qkv.weights.files import tensor_bytes

SOURCES = [ko for ko, _ in PAIRS]


@pytest.fixture(scope="module")
def model():
    return qkv.load(home() / "runs" / "demo-1", device="cpu")


@pytest.fixture
def folder(tmp_path, model):
    model.save(tmp_path / "m")
    return tmp_path / "m"


@pytest.fixture(scope="module")
def fresh():
    """Random weights: long, undecided answers."""
    tokenizer = train(["the cat sat on the mat"], TextConfig(kind="chars", vocab_size=60))
    torch.manual_seed(3)
    config = configure(
        dict(
            d_model=16,
            n_heads=2,
            d_ff=32,
            encoder_layers=2,
            decoder_layers=2,
            vocab_size=tokenizer.vocab_size,
        )
    )
    return Model(build(config), tokenizer, config)


def answer(t):
    return t.text, t.tokens, t.score, t.ids


# -- files (law 6; A7, A16–A20) --------------------------------------------------------------------------


def whole(files):
    return {n: c if isinstance(c, bytes) else b"".join(c) for n, c in files.items()}


def test_what_is_saved_and_loaded_is_the_same_model(model, folder):
    again = qkv.load(folder, device="cpu")
    assert tensor_bytes(state_of(again.net)) == tensor_bytes(state_of(model.net))
    assert whole(again.files()) == whole(model.files())
    assert [answer(t) for t in again.translate(SOURCES[:6], beam=3)] == [
        answer(t) for t in model.translate(SOURCES[:6], beam=3)
    ]
    assert again.family == "transformer" and again.config == model.config


def test_loading_ties_the_matrices_again(folder):
    net = qkv.load(folder, device="cpu").net
    tied = (net.source_embed.token.weight, net.target_embed.token.weight, net.head.weight)
    assert len({m.data_ptr() for m in tied}) == 1


def test_loading_does_not_move_torchs_generator(folder):
    before = torch.get_rng_state()
    qkv.load(folder, device="cpu")
    assert torch.equal(before, torch.get_rng_state())


def test_a_folder_may_be_moved_and_its_name_may_be_anything(folder, tmp_path, monkeypatch):
    moved = tmp_path / "모델 🐈 with space"
    folder.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert qkv.load("모델 🐈 with space", device="cpu").translate(SOURCES[0]).text


def rewrite(folder, name, change):
    """Change a file and its manifest: damage that only the content can tell."""
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != store.MANIFEST}
    files[name] = change(files[name])
    shutil.rmtree(folder)
    store.write_folder(folder, files)


def config_with(**changes):
    def change(data):
        values = json.loads(data)
        for key, value in changes.items():
            where = values if key in values or key.startswith("new_") else values["model"]
            where[key] = value
        return json.dumps(values).encode()

    return change


def nan_weights(data):
    tensors = {k: v.clone() for k, v in nan_weights.state.items()}
    next(iter(tensors.values())).view(-1)[3] = torch.nan
    return tensor_bytes(tensors)


REWRITTEN = {
    "unknown-key": ("config.json", config_with(new_key=1), "QKV-010"),
    "unknown-setting": ("config.json", config_with(d_modle=32), "QKV-010"),
    "wrong-type": ("config.json", config_with(d_model="32"), "QKV-011"),
    "newer-format": ("config.json", config_with(format_version=99), "QKV-063"),
    "odd-format": ("config.json", config_with(format_version="1"), "QKV-055"),
    "no-table": ("config.json", config_with(model=[1]), "QKV-055"),
    "unknown-family": ("config.json", config_with(family="transfromer"), "QKV-055"),
    "other-width": ("config.json", config_with(d_ff=128), "QKV-052"),
    "more-layers": ("config.json", config_with(decoder_layers=2), "QKV-051"),
    "small-vocabulary": ("config.json", config_with(vocab_size=7), "QKV-041"),
    "not-json": ("config.json", lambda data: data[:-4], "QKV-014"),
    "nan-weights": ("model.safetensors", nan_weights, "QKV-053"),
    "short-weights": ("model.safetensors", lambda data: data[:-8], "QKV-050"),
    "pickled-weights": ("model.safetensors", lambda data: b"\x80\x02}q\x00.", None),
    "no-tokenizer": ("tokenizer.json", lambda data: b"{}", None),
}


@pytest.mark.parametrize("case", REWRITTEN)
def test_a_model_that_cannot_be_is_refused_with_its_code(case, folder, model):
    name, change, code = REWRITTEN[case]
    nan_weights.state = state_of(model.net)
    rewrite(folder, name, change)
    with pytest.raises(QkvError) as e:
        qkv.load(folder, device="cpu")
    assert code in (None, e.value.code) and e.value.code != "QKV-090"
    assert "m" in e.value.place and e.value.fix


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "README.md"]
)
def test_a_changed_or_missing_byte_is_seen(name, folder):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(bytes(data))
    with pytest.raises(StoreError) as e:
        qkv.load(folder, device="cpu")
    assert e.value.code == "QKV-060" and name in str(e.value)
    (folder / name).unlink()
    with pytest.raises(QkvError) as e:
        qkv.load(folder, device="cpu")
    assert e.value.code == ("QKV-021" if name == "config.json" else "QKV-060")


def test_a_tampered_manifest_and_a_swapped_tokenizer_are_seen(folder, fresh):
    manifest = (folder / store.MANIFEST).read_bytes()
    (folder / store.MANIFEST).write_bytes(manifest.replace(b'"size": 1', b'"size": 2', 1))
    with pytest.raises(StoreError):
        qkv.load(folder, device="cpu")
    (folder / store.MANIFEST).write_bytes(manifest)
    for name, data in fresh.tokenizer.files().items():
        (folder / name).write_bytes(data)
    with pytest.raises(StoreError) as e:
        qkv.load(folder, device="cpu")
    assert e.value.code == "QKV-060"


def test_a_place_without_a_model_is_named(tmp_path):
    for place, seen in ((tmp_path / "nowhere", "no model"), (tmp_path, "no model")):
        with pytest.raises(QkvError, match=seen) as e:
            qkv.load(place)
        assert (e.value.code, e.value.exit_code) == ("QKV-021", 3) and e.value.fix
    (tmp_path / "config.json").write_text('{"architectures": ["Other"]}', "utf-8")
    with pytest.raises(WeightsError) as e:
        qkv.load(tmp_path)
    assert e.value.code == "QKV-055"


# -- translating -----------------------------------------------------------------------------------------


def test_one_in_one_out_list_in_list_out(model):
    one = model.translate(SOURCES[0])
    assert isinstance(one, qkv.Translation) and str(one) == one.text
    assert model.translate([]) == [] and model.generate([]) == []
    assert [t.source for t in model.translate(SOURCES[:3])] == SOURCES[:3]
    assert [answer(t) for t in model.translate(s for s in SOURCES[:2])] == [
        answer(t) for t in model.translate(tuple(SOURCES[:2]))
    ]


def test_a_beam_is_a_search_though_the_publisher_samples(model, monkeypatch):
    want = [answer(t) for t in model.translate(SOURCES[:2], beam=3)]
    several = [[answer(t) for t in n] for n in model.translate(SOURCES[:2], nbest=2)]
    sampled = replace(model.decode, beam=1, temperature=0.7, top_k=50)
    monkeypatch.setattr(model, "decode", sampled)
    assert [answer(t) for t in model.translate(SOURCES[:2], beam=3)] == want
    assert [[answer(t) for t in n] for n in model.translate(SOURCES[:2], nbest=2)] == several


@pytest.mark.parametrize("text", ["", " ", "\n\t ", "\u3000"])
def test_nothing_in_nothing_out(model, text):
    t = model.translate(text)
    assert (t.text, t.score) == ("", 0.0)
    assert [x.text for x in model.translate([text, SOURCES[0]])][1] == model.translate(
        SOURCES[0]
    ).text


@pytest.mark.parametrize(
    "text",
    [
        "<eos>",
        "저는 <eos> 책을",
        "<pad><bos></s>[MASK]",
        "\0",
        "🐈‍⬛",
        "a" * 3000,
        "a b " * 700,
    ],
)
def test_any_text_is_answered_and_no_text_is_a_control(model, fresh, text):
    for m in (model, fresh):
        ids = m.tokenizer.encode(text).ids
        assert not {m.tokenizer.pad_id, m.tokenizer.bos_id, m.tokenizer.eos_id} & set(ids)
        t = m.translate(text, max_new_tokens=5)
        assert len(t.ids) <= 5 and t.score <= 0


def test_half_a_character_is_refused(model):
    with pytest.raises(DataError) as e:
        model.translate("\ud800")
    assert e.value.code == "QKV-030"


def test_company_does_not_change_an_answer(fresh):
    texts = ["the cat", "a", "the mat sat on the cat on the mat", "tttt", "the cat"]
    together = fresh.translate(texts, beam=3, max_new_tokens=20)
    for t, text in zip(together, texts, strict=True):
        assert answer(t) == answer(fresh.translate(text, beam=3, max_new_tokens=20))
    small = fresh.translate(texts, beam=3, max_new_tokens=20, batch_tokens=1)
    assert [answer(t) for t in small] == [answer(t) for t in together]


def test_n_best_are_different_and_in_order(fresh):
    best = fresh.translate("the cat", nbest=4, max_new_tokens=6)
    assert len(best) == 4 and len({t.ids for t in best}) == 4
    lists = fresh.translate(["the cat", "a"], nbest=2, beam=5, max_new_tokens=6)
    assert [len(x) for x in lists] == [2, 2]
    one = fresh.translate("the cat", beam=4, max_new_tokens=6)
    assert answer(one) == answer(best[0])


def test_a_score_is_what_forced_scoring_gives(model, fresh):
    t = model.translate(SOURCES[3])
    (forced,) = model.force([SOURCES[3]], [t.text])
    assert forced.score == pytest.approx(t.score, abs=1e-4)  # fp32, one pass instead of T steps
    assert len(forced.token_scores) == len(t.ids) + 1 and sum(forced.token_scores) == forced.score
    (rare,) = model.force([SOURCES[3]], [PAIRS[-1][1]])
    assert rare.score < forced.score


def test_an_alignment_has_a_row_per_token_and_a_column_per_source_token(model):
    t = model.translate(SOURCES[0])
    rows = t.alignment
    assert len(rows) == len(t.tokens) and {len(r) for r in rows} == {len(t.source_tokens)}
    assert all(sum(r) == pytest.approx(1, abs=1e-5) for r in rows)
    shown = t.to_dict()
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert "<script" not in model.translate("<script>alert(1)</script>")._repr_html_()


def test_sampling_is_reproducible_by_seed_and_does_not_mind_company(fresh):
    def drawn(texts, seed):
        how = dict(temperature=1.0, top_k=20, seed=seed, max_new_tokens=12)
        return [t.ids for t in fresh.generate(texts, **how)]

    texts = ["the cat", "the mat", "a cat"]
    assert drawn(texts, 1) == drawn(texts, 1) != drawn(texts, 2)
    greedy = fresh.generate("the cat", max_new_tokens=12)
    assert greedy.ids == fresh.generate("the cat", max_new_tokens=12, seed=5).ids
    before = torch.get_rng_state()
    drawn(texts, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert drawn(["the cat", "xyz", "a"], 1)[0] == drawn(texts, 1)[0] == drawn(["the cat"], 1)[0]


@pytest.mark.parametrize(
    "wrong,kind",
    [
        ({"beam": 0}, ConfigError),
        ({"beam": 2, "temperature": 1.0}, ConfigError),
        ({"max_new_tokens": 0}, ConfigError),
        ({"temperature": -1.0}, ConfigError),
        ({"top_p": 0.0, "temperature": 1.0}, ConfigError),
        ({"top_k": 3}, ConfigError),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(model, wrong, kind):
    with pytest.raises(kind):
        model.generate("책을", **wrong)


@pytest.mark.parametrize("texts", [[1], [None, "a"], [b"bytes"]], ids=str)
def test_what_is_not_text_is_refused(model, texts):
    with pytest.raises(DataError, match="not str"):
        model.translate(texts)


# -- numbers ---------------------------------------------------------------------------------------------


def test_logits_are_teacher_forced_and_of_the_vocabulary(model):
    ids = torch.tensor([[5, 6, 2, 0], [5, 2, 0, 0]])
    target = torch.tensor([[7, 8, 2], [9, 2, 0]])
    logits = model.logits(ids, target=target)
    assert logits.shape == (2, 3, model.tokenizer.vocab_size)
    assert torch.equal(logits, model.logits(ids, ids != 0, target))
    # the last target token is only ever predicted, never read
    other = target.clone()
    other[0, 2] = 10
    assert torch.equal(model.logits(ids, target=other), logits)


@pytest.mark.parametrize(
    "wrong",
    [
        dict(ids=torch.tensor([[999]]), target=torch.tensor([[2]])),
        dict(ids=torch.tensor([[5]]), target=torch.tensor([[-1]])),
        dict(ids=torch.tensor([[5]])),
        dict(ids=torch.tensor([5]), target=torch.tensor([[2]])),
        dict(ids=torch.tensor([[5.0]]), target=torch.tensor([[2]])),
        dict(ids=torch.tensor([[5]]), target=torch.tensor([[2], [2]])),
        dict(ids=torch.tensor([[5]]), keep=torch.ones(1, 2).bool(), target=torch.tensor([[2]])),
        dict(ids=torch.tensor([[5]]), keep=torch.ones(1, 1), target=torch.tensor([[2]])),
    ],
    ids=["large", "negative", "no-target", "flat", "float", "counts", "keep-shape", "keep-float"],
)
def test_ids_that_do_not_fit_are_refused(model, wrong):
    with pytest.raises(DataError) as e:
        model.logits(**wrong)
    assert e.value.fix


def test_an_embedding_is_one_vector_a_text_whatever_its_company(model):
    one, all_ = model.embed(SOURCES[0]), model.embed(SOURCES[:5])
    assert one.shape == (32,) and all_.shape == (5, 32)
    assert torch.equal(one, all_[0]) and not torch.equal(all_[0], all_[1])
    assert model.embed([]).shape == (0, 32)
    assert model.embed("").isfinite().all()


def test_forward_writes_nothing_on_any_module(fresh):
    def state():
        return {
            name: {k: v for k, v in vars(m).items() if not k.startswith("_")}
            for name, m in fresh.net.named_modules()
        }, tensor_bytes(state_of(fresh.net))

    before = state()
    fresh.translate(["the cat", "a"], beam=2, max_new_tokens=4)
    fresh.embed("the cat")
    ids = torch.tensor([[5, 2]])
    fresh.logits(ids, target=ids)
    assert state() == before


def test_unknown_layers_are_usage_errors(model):
    with pytest.raises(UsageError), qkv.record(model, layers=[7]):
        pass
