"""Reading texts with an encoder: what is found is where it says, and no text depends on its neighbours."""

import itertools
import json
import math
import random
from collections.abc import Callable

import pytest
import torch
import transformers as theirs
from torch import nn

import qkv
from qkv import read
from qkv.data.objectives import Specials
from qkv.errors import ConfigError, DataError, QkvError, UsageError
from qkv.gaps import fill
from qkv.inside import inside
from qkv.model import Model
from qkv.models import bert, build, configure, hf
from qkv.models.hf import ours
from qkv.models.interface import Memory, set_state
from qkv.readings import Habits
from qkv.shapes import Batch
from qkv.text import Published, TextConfig, train

WORDS = (
    "서울 에서 커피 를 마셔요 kim lives in old seoul and drinks black coffee every morning".split()
)
LINES = [" ".join(random.Random(i).choices(WORDS, k=1 + i % 30)) for i in range(80)]
VOCAB = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *sorted(set(WORDS)),
    "##ing",
    "drink",
    ".",
    "?",
    ",",
]


@pytest.fixture(scope="module")
def tokenizer():
    return train(LINES, TextConfig(kind="words", vocab_size=60, specials=("<mask>",)))


@pytest.fixture(scope="module")
def published():
    files = {
        "vocab.txt": "\n".join(VOCAB).encode(),
        "tokenizer_config.json": b'{"do_lower_case": true}',
    }
    return Published.from_files(files, {"model_type": "bert"})


def model_of(tok, head: str, size: str = "tiny", **more) -> Model:
    torch.manual_seed(1)
    values = {
        "family": "bert",
        "size": size,
        "head": head,
        "vocab_size": tok.vocab_size,
        "max_positions": 64,
    }
    config = configure(values | more)
    net = build(config)
    with torch.no_grad():  # far enough from 0 that answers differ
        for p in net.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return Model(net, tok, config)


class Fixed(nn.Module):
    """A net whose answer at each token is a table's row for its id."""

    def __init__(
        self, kind: str, table: torch.Tensor, pad_id: int, max_positions: int | None = None
    ) -> None:
        super().__init__()
        self.table, self.pad_id, self.max_positions = nn.Parameter(table), pad_id, max_positions
        self.head = nn.Module()
        self.head.kind = kind

    def logits(self, batch: Batch) -> torch.Tensor:
        return self.table[batch.source]

    def encode(self, batch: Batch) -> Memory:
        return Memory(self.table[batch.source], batch.keep, self.table[batch.source][:, 0])


def tagger(tok, words: dict[str, str], labels: tuple[str, ...], **more) -> Model:
    table = torch.zeros(tok.vocab_size, len(labels))
    for i, piece in enumerate(tok.tokens(range(tok.vocab_size))):
        table[i, labels.index(words.get(piece.strip("▁"), "O"))] = 5.0
    config = configure(
        {
            "family": "bert",
            "size": "tiny",
            "vocab_size": tok.vocab_size,
            "head": "tags",
            "labels": labels,
        }
    )
    return Model(Fixed("tags", table, tok.pad_id, **more), tok, config)


# ---- law 2


def same(a, b) -> bool:
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def verbs(tok) -> dict[str, tuple[list, Callable]]:
    """Texts, and what to ask about them; `answer` reads each as a question to one long context, in windows."""
    mlm, tags = model_of(tok, "mlm"), model_of(tok, "tags", labels=["O", "B-x", "I-x"])
    classes, span = model_of(tok, "classes", labels=["a", "b", "c"]), model_of(tok, "span")
    bare, context = model_of(tok, "none"), " ".join(LINES[29:31])
    texts = LINES[:48]
    mixed = [(x, "coffee") if i % 3 else x for i, x in enumerate(texts)]
    return {
        "fill": ([f"{x} <mask> old <mask>" for x in texts], lambda x: fill(mlm, x, n=3)),
        "classify": (mixed, lambda x: read.classify(classes, x)),
        "tag": (texts, lambda x: read.tag(tags, x)),
        "answer": (texts, lambda x: read.answer(span, x, context, window=56, stride=8)),
        "embed": (texts, lambda x: read.embed(bare, x)),
        "pooled": (texts, lambda x: read.embed(bare, x, "pooled")),
    }


@pytest.mark.parametrize("verb", ["fill", "classify", "tag", "answer", "embed", "pooled"])
def test_alone_or_in_a_batch_no_bit_differs(verb, tokenizer):
    texts, run = verbs(tokenizer)[verb]
    together = run(texts)
    assert len(together) == len(texts)
    assert len({repr(x) for x in together}) > 24
    for i in range(0, len(texts), 5):
        assert same(run(texts[i]), together[i])


# ---- fill


def test_fill_equals_the_reference_model(published, tmp_path):
    """ids and probabilities are those of transformers: its tokenizer, its model, softmax at [MASK]."""
    (tmp_path / "vocab.txt").write_text("\n".join(VOCAB))
    tok = theirs.BertTokenizer.from_pretrained(tmp_path)
    torch.manual_seed(0)
    config = theirs.BertConfig(
        vocab_size=len(VOCAB), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=20, initializer_range=0.5, architectures=["BertForMaskedLM"],
    )  # fmt: skip
    other = theirs.BertForMaskedLM(config).eval()
    own = hf.configured(bert, config.to_dict())
    net = build(own)
    set_state(net, ours(bert, own, other.state_dict()))
    model = Model(net, published, own)
    text = "kim drinks [MASK] coffee every [MASK] ."
    made = fill(model, text, n=4)
    seen = tok(text, return_tensors="pt")
    with torch.no_grad():
        p = other(**seen).logits.softmax(-1)[seen["input_ids"] == tok.mask_token_id]
    p[:, [tok.convert_tokens_to_ids(t) for t in VOCAB[:5]]] = 0  # no special token is a word
    assert len(made.gaps) == 2
    for gap, want in zip(made.gaps, p, strict=True):
        best = want.topk(4)
        assert [g.id for g in gap] == best.indices.tolist()
        # float32: probabilities of logits that agree to 1e-5
        assert [g.score for g in gap] == pytest.approx(best.values.tolist(), abs=1e-5)
    words = [gap[0].word for gap in made.gaps]
    assert made.text == f"kim drinks {words[0]} coffee every {words[1]} ."


def test_a_published_folder_is_loaded_read_and_written_again(tmp_path):
    """What transformers saved is asked here, saved here, and is the same to transformers again."""
    theirs.BertTokenizer(vocab={w: i for i, w in enumerate(VOCAB)}).save_pretrained(tmp_path / "a")
    config = theirs.BertConfig(
        vocab_size=len(VOCAB), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=20,
        id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}, initializer_range=0.5,
    )  # fmt: skip
    torch.manual_seed(0)
    other = theirs.BertForSequenceClassification(config).eval()
    other.save_pretrained(tmp_path / "a")
    model = qkv.load(str(tmp_path / "a"), device="cpu")
    seen = theirs.AutoTokenizer.from_pretrained(tmp_path / "a")(
        "kim", "drinks coffee", return_tensors="pt"
    )
    with torch.no_grad():
        p = other(**seen).logits.softmax(-1)[0]
    made = model.classify(("kim", "drinks coffee"))
    assert {x.name: x.score for x in made.labels} == pytest.approx(
        {"bad": float(p[0]), "good": float(p[1])}, abs=1e-6
    )
    model.save(tmp_path / "b")
    again = theirs.AutoModelForSequenceClassification.from_pretrained(tmp_path / "b").eval()
    assert again.config.id2label == config.id2label
    for name, tensor in other.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def test_fill_shapes_and_errors(tokenizer):
    model = model_of(tokenizer, "mlm")
    one = fill(model, "old <mask>", n=2)
    assert one.source == "old <mask>" and [len(g) for g in one.gaps] == [2]
    assert one.gaps[0][0].score >= one.gaps[0][1].score
    assert isinstance(fill(model, ["old <mask>"]), list) and fill(model, []) == []
    assert json.loads(json.dumps(one.to_dict()))["gaps"][0][0]["word"] == one.gaps[0][0].word
    assert one.gaps[0][0].word in one._repr_html_() and str(one) == one.text
    many = fill(model, "<mask>", n=10**6).gaps[0]
    specials = Specials.of(tokenizer)
    assert not {g.id for g in many} & {*specials.all.tolist(), tokenizer.unk_id}
    assert len(many) == tokenizer.vocab_size - len(specials.all) - 1
    with pytest.raises(DataError, match="no gap"):
        fill(model, "old [MASK]")
    with pytest.raises(DataError, match="text 1 has 131 tokens, the model has 64"):
        fill(model, ["<mask>", "old " * 128 + "<mask>"])
    with pytest.raises(DataError, match="not str"):
        fill(model, ["<mask>", 3])
    with pytest.raises(UsageError, match="'classes'"):
        fill(model_of(tokenizer, "classes", labels=["a"]), "<mask>")
    bare = train(LINES, TextConfig(kind="words", vocab_size=60))
    with pytest.raises(ConfigError, match="<mask>"):
        fill(model_of(bare, "mlm"), "<mask>")


def test_other_special_tokens_in_a_text_to_fill_stay_text(published):
    model = model_of(published, "mlm")
    seen = []
    keep = model.net.encode
    model.net.encode = lambda b: seen.append(b.source[0].tolist()) or keep(b)
    fill(model, "kim [SEP] [MASK] [CLS]")
    ids = [i for i in seen[0] if i != published.pad_id]
    assert (
        ids.count(published.sep_id)
        == ids.count(published.cls_id)
        == ids.count(published.mask_id)
        == 1
    )


# ---- classify


def test_classify_gives_probabilities_by_name(tokenizer):
    model = model_of(tokenizer, "classes", labels=["bad", "good", "soso"])
    made = read.classify(model, "old coffee")
    assert {x.name for x in made.labels} == {"bad", "good", "soso"}
    assert math.fsum(x.score for x in made.labels) == pytest.approx(1, abs=1e-6)
    assert (made.label, made.score) == (made.labels[0].name, made.labels[0].score)
    z = model.logits(torch.tensor([[1, *tokenizer.encode("old coffee").ids, 2]]))[0].softmax(-1)
    # the same numbers through Model.logits, but for the rows they are batched with
    assert made.score == pytest.approx(float(z.max()), abs=1e-6)
    assert made.label == model.config.labels[int(z.argmax())]
    assert (
        json.dumps(made.to_dict()) and "<table>" in made._repr_html_() and str(made) == made.label
    )


def test_classify_reads_pairs_in_order(tokenizer):
    model = model_of(tokenizer, "classes", labels=["no", "yes"])
    pair, turned = ("old", "coffee"), ("coffee", "old")
    made = read.classify(model, [pair, turned, "old coffee", ""])
    assert len({x.score for x in made}) == 4
    assert read.classify(model, pair) == made[0] and made[0].to_dict()["source"] == [
        "old",
        "coffee",
    ]
    ids = [1, *tokenizer.encode("old").ids, 2, *tokenizer.encode("coffee").ids, 2]
    row = read.framed(
        Specials.of(tokenizer), tokenizer.encode("old").ids, tokenizer.encode("coffee").ids
    )
    assert row.ids == ids and row.segments == [0, 0, 0, 1, 1] and row.at == 3


def test_classify_values_and_many(tokenizer):
    value = read.classify(model_of(tokenizer, "classes", labels=["stars"], problem="value"), "old")
    assert value.label == "stars" and value.score == value.labels[0].score
    many = read.classify(model_of(tokenizer, "classes", labels=["a", "b"], problem="many"), "old")
    assert all(0 < x.score < 1 for x in many.labels)
    assert math.fsum(x.score for x in many.labels) != pytest.approx(1)
    follows = read.classify(model_of(tokenizer, "nsp"), ("old", "coffee"))
    assert {x.name for x in follows.labels} == {"follows", "does not follow"}


# ---- tag


PLACES = {"kim": "B-PS", "old": "B-LC", "seoul": "I-LC"}
TAGS = ("O", "B-PS", "B-LC", "I-LC")


def test_tags_are_spans_with_their_characters(tokenizer):
    model = tagger(tokenizer, PLACES, TAGS)
    text = "  kim lives in old   seoul and kim drinks coffee"
    made = read.tag(model, text)
    found = [(s.text, s.label) for s in made.spans]
    assert found == [("kim", "PS"), ("old   seoul", "LC"), ("kim", "PS")]
    assert all(text[s.start : s.end] == s.text for s in made.spans)
    p = math.exp(5) / (math.exp(5) + len(TAGS) - 1)
    assert [s.score for s in made.spans] == pytest.approx([p] * 3, rel=1e-6)
    assert str(made).startswith("  [kim]PS lives in [old   seoul]LC and")
    assert "<mark" in made._repr_html_() and json.dumps(made.to_dict())
    assert read.tag(model, "").spans == () and read.tag(model, ["", "coffee"])[1].spans == ()


def test_tags_agree_where_the_model_learned_them_here(tokenizer):
    """A published tagger is read token by token; of ours no span begins with an inside (agreed: its slow twin is tested)."""
    sight = {"kim": "B-PS", "old": "I-LC", "seoul": "I-LC"}
    model = tagger(tokenizer, sight, TAGS)
    assert [s.text for s in read.tag(model, "kim old seoul").spans] == ["kim", "old seoul"]
    model.habits = Habits(agreed=True)
    (first, second) = read.tag(model, "kim old seoul").spans
    assert (first.text, second.text, second.label) == ("kim", "old seoul", "LC")
    assert second.score < first.score  # its first tag is B-LC, which the model thought unlikely
    assert read.tag(model, "").spans == ()


def test_a_long_text_is_tagged_in_pieces(tokenizer):
    text = " ".join(["coffee"] * 13 + ["old", "seoul"] * 9)
    whole = read.tag(tagger(tokenizer, PLACES, TAGS), text)
    pieces = read.tag(tagger(tokenizer, PLACES, TAGS, max_positions=16), text)
    assert len(whole.spans) == 9
    # scores are of logits in batches of other widths: the same table row, so the same numbers
    assert pieces == whole


def test_words_are_tagged_by_their_first_token(published):
    """drink ##ing: the second token's own tag would be outside."""
    model = tagger(published, {"drink": "B-X"}, ("O", "B-X"))
    text = "kim drinking. old"
    assert [s.text for s in read.tag(model, text).spans] == ["drink"]
    assert [s.text for s in read.tag(model, text, on="words").spans] == ["drinking."]


@pytest.mark.parametrize(
    ("name", "want"),
    [("O", "O"), ("B-PER", "B-PER"), ("I-PER", "I-PER"), ("E-PER", "I-PER"), ("L-PER", "I-PER"),
     ("S-PER", "B-PER"), ("U-PER", "B-PER"), ("PER", "I-PER"), ("B", "I-B"), ("B-A-C", "B-A-C")],
)  # fmt: skip
def test_other_ways_to_write_tags(name, want):
    assert read.bio(name) == want


# ---- answer


def brute(z: torch.Tensor, null: float, longest: int) -> tuple[tuple[int, int], float, float]:
    spans = {
        (i, j): float(z[i, 0] + z[j, 1])
        for i, j in itertools.combinations_with_replacement(range(len(z)), 2)
        if j - i < longest
    }
    total = math.log(math.fsum(math.exp(x) for x in [*spans.values(), null]))
    best = max(spans, key=spans.__getitem__)
    return best, math.exp(spans[best] - total), math.exp(null - total)


def answerer(tok, seed: int = 0) -> Model:
    torch.manual_seed(seed)
    config = configure(
        {"family": "bert", "size": "tiny", "vocab_size": tok.vocab_size, "head": "span"}
    )
    return Model(Fixed("span", torch.randn(tok.vocab_size, 2) * 2, tok.pad_id), tok, config)


@pytest.mark.parametrize(("window", "longest"), [(384, 1), (384, 3), (384, 32), (12, 1), (12, 3)])
def test_answer_is_the_best_of_all_spans(tokenizer, window, longest):
    """Against every span in turn; a token's scores do not depend on its window here, so windows change nothing but the
    spans that no window holds, and those are longer than 5 tokens with this stride."""
    for seed in range(4):
        model, context = answerer(tokenizer, seed), LINES[29]
        made = read.answer(model, "kim", context, longest=longest, window=window, stride=4)
        enc, table = tokenizer.encode(context), model.net.table.detach().double()
        (i, j), score, null = brute(table[enc.ids], float(table[tokenizer.bos_id].sum()), longest)
        assert (made.start, made.end) == (
            enc.offsets[i][0] + (enc.offsets[i][0] > 0),
            enc.offsets[j][1],
        )
        assert made.text == context[made.start : made.end]
        assert (made.score, made.no_answer) == pytest.approx((score, null), rel=1e-9)
        assert made.found == (score > null)


def test_answer_shapes_and_errors(tokenizer):
    model = answerer(tokenizer)
    made = read.answer(model, ["kim", "old"], ["old seoul", "kim lives"])
    assert [m.question for m in made] == ["kim", "old"]
    assert read.answer(model, ["kim", "old"], "old seoul")[0] == made[0]
    none = read.answer(model, "kim", "")
    assert (none.text, none.score, none.no_answer, none.found) == ("", 0.0, 1.0, False)
    assert json.dumps(made[0].to_dict()) and "<mark" in made[0]._repr_html_() and str(none) == ""
    with pytest.raises(DataError, match="1 questions and 2 contexts"):
        read.answer(model, "kim", ["a", "b"])
    with pytest.raises(DataError, match="no room"):
        read.answer(model, "kim " * 30, "old", window=32)
    with pytest.raises(UsageError, match="answer needs"):
        read.answer(model_of(tokenizer, "mlm"), "a", "b")


# ---- embed


def test_embed_pools(tokenizer):
    model = model_of(tokenizer, "none")
    ids = torch.tensor([[1, *tokenizer.encode("old black coffee").ids, 2]])
    with torch.no_grad():
        memory = model.net.encode(Batch(ids, torch.ones_like(ids, dtype=torch.bool)))
    want = {
        "mean": memory.states[0].mean(0),
        "cls": memory.states[0, 0],
        "pooled": memory.summary[0],
    }
    for pooling, vector in want.items():
        made = read.embed(model, "old black coffee", pooling)
        # float32, 2 layers, other shapes of the same sums; 1e-6 measured
        torch.testing.assert_close(made, vector, atol=1e-5, rtol=0)
        unit = read.embed(model, ["old black coffee", ""], pooling, normalize=True)
        assert unit.shape == (2, 128)
        torch.testing.assert_close(unit.norm(dim=1), torch.ones(2), atol=1e-6, rtol=0)
    assert read.embed(model, []).shape == (0, 128)
    with pytest.raises(UsageError, match="pooling"):
        read.embed(model, "old", "max")


def test_embed_takes_other_families(tokenizer):
    torch.manual_seed(0)
    config = configure({"family": "gpt2", "size": "nano", "vocab_size": tokenizer.vocab_size})
    model = Model(build(config), tokenizer, config)
    assert read.embed(model, ["old coffee", "kim"]).shape == (2, 128)


def test_a_model_asks_by_its_own_methods(tokenizer):
    model = model_of(tokenizer, "classes", labels=["a", "b"])
    assert model.classify(("old", "coffee")) == read.classify(model, ("old", "coffee"))
    assert torch.equal(model.embed("old", "cls", True), read.embed(model, "old", "cls", True))
    filler, span = model_of(tokenizer, "mlm"), answerer(tokenizer)
    assert filler.fill("old <mask>", 2) == fill(filler, "old <mask>", 2)
    assert span.answer("kim", "old seoul", longest=1) == read.answer(
        span, "kim", "old seoul", longest=1
    )
    marker = tagger(tokenizer, PLACES, TAGS)
    assert marker.tag("kim", on="words") == read.tag(marker, "kim", on="words")


def test_a_broken_model_is_named(tokenizer):
    for head, ask in (
        ("mlm", lambda m: m.fill("<mask>")),
        ("nsp", lambda m: m.classify("old")),
        ("tags", lambda m: m.tag("old")),
        ("span", lambda m: m.answer("old", "seoul")),
        ("none", lambda m: m.embed("old")),
    ):
        model = model_of(tokenizer, head, labels=["O"])
        model.net.encoder.blocks[1].ff.down.bias.data[3] = torch.nan
        with pytest.raises(QkvError, match="QKV-075"):
            ask(model)


@pytest.mark.parametrize("name", ["longest", "window", "stride"])
def test_settings_of_an_answer_are_positive(tokenizer, name):
    with pytest.raises(ConfigError, match=name):
        read.answer(answerer(tokenizer), "kim", "old", **{name: 0})
    with pytest.raises(ConfigError, match="n must"):
        fill(model_of(tokenizer, "mlm"), "<mask>", n=0)


def test_a_model_that_reads_does_not_translate(tokenizer):
    model = model_of(tokenizer, "mlm")
    for ask in (model.translate, model.summarize):
        with pytest.raises(UsageError, match="encoder-decoder.*bert"):
            ask("old coffee")


def test_a_gap_is_never_filled_with_an_id_without_a_text(tokenizer):
    model = model_of(tokenizer, "mlm", vocab_size=tokenizer.vocab_size + 50)
    made = fill(model, "old <mask>", n=10**6).gaps[0]
    assert max(g.id for g in made) < tokenizer.vocab_size
    assert len(made) == tokenizer.vocab_size - len(Specials.of(tokenizer).all) - 1


def test_windows_of_a_text_that_training_cut_are_those_of_training(tokenizer):
    """Cut at `longest`, then windows; a window of one's own reads the whole text."""
    model = model_of(tokenizer, "classes", labels=["a", "b"])
    long, extra = "old coffee kim drinks seoul " * 8, Specials.of(tokenizer).one.extra
    model.habits = Habits(window=7, stride=3, longest=15)
    head = tokenizer.decode(tokenizer.encode(long).ids[: 15 - extra])
    with pytest.warns(UserWarning, match="1 of 2 texts cut at 15 tokens"):
        cut, same = read.classify(model, [long, head])
    assert cut.labels == same.labels
    assert read.classify(model, long, window=9).labels != cut.labels


@pytest.mark.parametrize("marked", [[-1], [True, False], [0.0], ["3"], [None], 3, torch.tensor([0.5])], ids=str)  # fmt: skip
def test_marks_are_places(tokenizer, marked):
    model = model_of(tokenizer, "classes", labels=["a", "b"])
    for ask in (model.classify, model.embed, lambda text, marked: inside(model, text, marked)):
        with pytest.raises(DataError, match="no places of tokens") as e:
            ask("old coffee", marked=marked)
        assert e.value.code == "QKV-033"
    model.classify("old coffee", marked=torch.tensor([0, 99]))  # beyond the text nothing is marked


def test_what_is_no_text_is_counted_among_the_texts(tokenizer):
    model = model_of(tokenizer, "classes", labels=["a", "b"])
    with pytest.raises(DataError, match="text 1 is int"):
        read.classify(model, ["old", 3])


def test_a_stride_belongs_to_a_window(tokenizer):
    model = model_of(tokenizer, "classes", labels=["a", "b"])
    text = "old coffee new tea " * 8
    with pytest.raises(UsageError, match="stride = 5"):
        read.classify(model, text, stride=5)
    model.habits = Habits(window=20, stride=6)
    own = read.classify(model, text, window=24)
    assert own.score == read.classify(model, text, window=24, stride=6).score
    assert read.classify(model, text, window=7).score == read.classify(model, text, 7, 0).score
    assert read.classify(model, text, stride=5).score == read.classify(model, text, 20, 5).score


def test_a_text_is_cut_where_training_cut_its_texts(tokenizer):
    """As `fitted` cuts them in training: at the end, of a pair the longer one first; told, and not with a window."""
    model = model_of(tokenizer, "classes", labels=["a", "b"])
    long, short = "old coffee new tea " * 8, "new tea"
    whole, pair = read.classify(model, long), read.classify(model, (short, long))
    model.habits = Habits(longest=11)
    ids = tokenizer.encode(long).ids
    rows = [read.framed(Specials.of(tokenizer), ids[: 11 - Specials.of(tokenizer).one.extra])]
    extra, few = Specials.of(tokenizer).two.extra, tokenizer.encode(short).ids
    rows.append(read.framed(Specials.of(tokenizer), few, ids[: 11 - extra - len(few)]))
    want = read.ask(model, rows, lambda batch: list(model.net.labelled(model.net.encode(batch))))
    with pytest.warns(UserWarning, match="2 of 3 texts cut at 11 tokens"):
        cut = read.classify(model, [long, short, (short, long)])
    for found, z in zip((cut[0], cut[2]), want, strict=True):
        assert [x.score for x in found.labels] == sorted(z.softmax(-1).tolist(), reverse=True)
    assert cut[0].labels != whole.labels and cut[2].labels != pair.labels
    assert read.classify(model, long, window=20).labels == read.classify(model, long, 20, 0).labels
    assert read.classify(model, short).labels == cut[1].labels
