"""Nets that continue a prompt: limits, beginnings, ends, text as it comes; bitwise the same beside any neighbours."""

import pytest
import torch

from qkv.decode.engine import Engine
from qkv.decode.reader import Reader
from qkv.decode.search import SearchConfig, search
from qkv.errors import ConfigError, DataError
from qkv.models import build, configure
from qkv.shapes import Batch, pad

V = 31
PROMPTS = [[5, 6, 7], [8], list(range(3, 22)), [9, 10, 11, 12, 13, 14, 15]]


def net_of(family, **more):
    torch.manual_seed(1)
    values = dict(family=family, n_layers=2, d_model=16, n_heads=2, max_positions=48, vocab_size=V)
    net = build(configure(values | more)).eval()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn_like(p) * 0.4)
    return net


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def net(request):
    return net_of(request.param)


def letters(ids):
    return "".join(chr(ord("a") + i) if i < 26 else "." for i in ids)


HOWS = [dict(), dict(beam=3, nbest=3), dict(beam=2, nbest=2, penalty="length", early_stopping=False),
        dict(temperature=0.8, nbest=2, top_p=0.9), dict(repetition_penalty=1.5, no_repeat_ngram_size=2)]  # fmt: skip


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_alone_or_in_any_batch_bit_for_bit(net, how):
    config = SearchConfig(max_new_tokens=18, **how)
    alone = [Engine(net, config)([p])[0] for p in PROMPTS]
    for tokens in (16, 64, 4096):
        assert Engine(net, config, batch_tokens=tokens)(PROMPTS) == alone
    assert Engine(net, config)(PROMPTS[::-1]) == alone[::-1]


def test_scores_are_those_of_one_pass(net):
    config = SearchConfig(max_new_tokens=12, beam=3, nbest=2)
    for prompt, answers in zip(PROMPTS, Engine(net, config)(PROMPTS), strict=True):
        for h in answers:
            ids = [*prompt, *h.ids, *([net.eos_id] if h.finished else [])]
            whole, keep = pad([ids], 0)
            logp = net.logits(Batch(whole, keep)).log_softmax(-1)[0, len(prompt) - 1 : -1]
            want = logp.gather(1, whole[0, len(prompt) :, None])[:, 0]
            # float32, one pass against steps
            assert list(h.token_scores) == pytest.approx(want.tolist(), abs=1e-5)


def test_prompt_and_answer_share_the_positions():
    net = net_of("gpt2", eos_id=None)
    for n in (1, 17, 47):
        (h,) = Engine(net, SearchConfig(max_new_tokens=100))([[4] * n])[0]
        assert len(h.ids) == 48 - n and not h.finished
    (a,), (b,) = Engine(net, SearchConfig(max_new_tokens=100))([[4] * 40, [5]])
    assert (len(a.ids), len(b.ids)) == (8, 47)


def test_a_prompt_as_long_as_the_context_is_named(net):
    for prompts in ([[3], [4] * 48], [[3], [4] * 100]):
        with pytest.raises(DataError) as e:
            Engine(net)(prompts)
        assert e.value.code == "QKV-037" and e.value.place == "prompt 1" and e.value.fix
    with pytest.raises(DataError) as e:
        search(net, Batch(*pad([[4] * 48], 0)), SearchConfig())
    assert e.value.code == "QKV-037"


@pytest.mark.parametrize("wrong", [V, 10_000, -1])
def test_ids_beyond_the_vocabulary_are_named(net, wrong):
    with pytest.raises(DataError) as e:
        Engine(net)([[3], [4, wrong]])
    assert e.value.code == "QKV-041" and e.value.place == "prompt 1" and str(wrong) in e.value.seen


def test_an_empty_prompt_begins_with_the_start_token():
    net = net_of("gpt2", bos_id=7)
    engine = Engine(net, SearchConfig(max_new_tokens=5))
    assert engine([[], [3, 4]])[0] == engine([[7]])[0]
    assert list(Engine(net, SearchConfig(max_new_tokens=5)).tokens([[]]))
    silent = net_of("gpt2", bos_id=None, eos_id=None)
    with pytest.raises(DataError) as e:
        Engine(silent)([[3], []])
    assert e.value.code == "QKV-032" and e.value.place == "prompt 1"


def test_every_id_may_come_padding_and_start_too(net):
    """A published decoder bans nothing: whichever id the head prefers comes."""
    for i in (net.pad_id, net.start_id, 3):
        if i == net.eos_id:
            continue
        batch = Batch(*pad([[3, 4]], 0))
        wrapped = Preferring(net, i)
        assert search(wrapped, batch, SearchConfig(max_new_tokens=2))[0][0].ids == (i, i)


class Preferring:
    """The net with one id far ahead."""

    prompted, source_rows = True, 16

    def __init__(self, net, i):
        self.net, self.i, self.banned = net, i, net.banned
        self.start_id, self.eos_id, self.pad_id = net.start_id, net.eos_id, net.pad_id
        self.max_positions, self.start, self.first = net.max_positions, net.start, net.first

    def step(self, ids, state):
        logits, state = self.net.step(ids, state)
        logits[:, self.i] += 1e4
        return logits, state


@pytest.mark.parametrize("how", [dict(), dict(temperature=1.0, seed=4)], ids=str)
def test_tokens_as_they_come_are_the_answer(net, how):
    engine = Engine(net, SearchConfig(max_new_tokens=20, **how))
    got = {i: [] for i in range(len(PROMPTS))}
    for i, token, score in engine.tokens(PROMPTS):
        got[i].append((token, score))
    for i, (h,) in enumerate(engine(PROMPTS)):
        assert [t for t, _ in got[i]] == list(h.ids)
        assert [s for _, s in got[i]] == list(h.token_scores[: len(h.ids)])


def test_reading_along_starts_at_once_and_may_be_left(net):
    engine = Engine(net, SearchConfig(max_new_tokens=20))
    coming = engine.tokens([[5, 6]])
    first = next(coming)
    assert first[1] == (engine([[5, 6]])[0][0].ids or (net.eos_id,))[0]
    assert (
        not torch.is_inference_mode_enabled()
    )  # between two tokens the caller's world is as it was
    coming.close()


def test_a_beam_cannot_be_read_along(net):
    for wrong in (dict(beam=2), dict(temperature=1.0, nbest=2)):
        with pytest.raises(ConfigError) as e:
            list(Engine(net, SearchConfig(**wrong)).tokens([[3]]))
        assert e.value.code == "QKV-013"
    with pytest.raises(ConfigError):
        list(Engine(net).pieces([[3]]))


@pytest.mark.parametrize("how", [dict(), dict(temperature=1.0, seed=4)], ids=str)
def test_a_stop_string_ends_an_answer_and_is_not_told(net, how):
    config = SearchConfig(max_new_tokens=25, min_new_tokens=25, **how)
    texts = [letters(h.ids) for (h,) in Engine(net, config)(PROMPTS)]
    stop = (texts[0][4:7], texts[2][2:4])
    reader = Reader(letters, stop)
    engine = Engine(net, config, reader=reader)
    pieces = {i: "" for i in range(len(PROMPTS))}
    for i, piece in engine.pieces(PROMPTS):
        pieces[i] += piece
    for i, (h,) in enumerate(engine(PROMPTS)):
        ends = [texts[i].find(s) + len(s) for s in stop if s in texts[i]]
        cut = [texts[i].find(s) for s in stop if s in texts[i]]
        assert letters(h.ids) == (texts[i][: min(ends)] if ends else texts[i])
        assert h.finished == bool(ends) and len(h.token_scores) == len(h.ids)
        assert (
            reader.text(PROMPTS[i], h.ids)
            == pieces[i]
            == (texts[i][: min(cut)] if cut else texts[i])
        )
    assert not any(s in piece for s in stop for piece in pieces.values())


def test_a_stop_string_ends_the_hypotheses_of_a_beam(net):
    """As <eos> would: what has one is finished, whatever else lives on has none before its last token."""
    config = SearchConfig(max_new_tokens=12, beam=3, nbest=3, min_new_tokens=12)
    free = Engine(net, config)(PROMPTS)
    stop = letters(free[0][0].ids)[3:5]
    found = Engine(net, config, reader=Reader(letters, (stop,)))(PROMPTS)
    assert any(h.finished for hs in found for h in hs)
    for h in (h for hs in found for h in hs):
        assert h.finished == (stop in letters(h.ids)) and stop not in letters(h.ids[:-1])
