"""Views: plain numbers in, bounded JSON out."""

import json
import subprocess
import sys
from math import log2
from types import SimpleNamespace

import numpy as np
import pytest

from qkv.errors import QkvError, UsageError
from qkv.look.colour import stops
from qkv.look.page import embed
from qkv.look.tokens import MAX_CHARS, display, group, romanise, visible
from qkv.look.views import MAX_SIDE, Alignment, Grid, alignment, entropy, in_order, rollout


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def random_map(*shape, seed=0, sharp=2.0):
    return softmax(np.random.default_rng(seed).normal(size=shape) * sharp)


def names(n, mark="▁"):
    return [f"{mark}t{k}" for k in range(n)]


def test_alignment_is_by_default_the_mean_over_heads_of_the_last_cross_layer():
    maps = {f"decoder.blocks.{k}.cross": random_map(1, 2, 3, 4, seed=k) for k in (0, 2, 10)}
    maps["decoder.blocks.11.self"] = random_map(1, 2, 3, 3)
    np.testing.assert_array_equal(alignment(maps), maps["decoder.blocks.10.cross"][0].mean(0))
    np.testing.assert_array_equal(
        alignment(maps, layer=1, head=1), maps["decoder.blocks.2.cross"][0, 1]
    )
    mean = np.mean([m[0].mean(0) for n, m in maps.items() if "cross" in n], axis=0)
    np.testing.assert_allclose(alignment(maps, layer="mean"), mean, atol=1e-15)


def test_alignment_of_one_sentence_ignores_its_neighbours_in_the_batch():
    maps = {"decoder.blocks.0.cross": random_map(3, 2, 4, 5)}
    for row in range(3):
        alone = {"decoder.blocks.0.cross": maps["decoder.blocks.0.cross"][row]}
        np.testing.assert_array_equal(alignment(maps, row=row), alignment(alone))


@pytest.mark.parametrize("choice", [{"layer": 1}, {"layer": -2}, {"head": 2}, {"row": 1}])
def test_what_was_not_recorded_is_a_usage_error(choice):
    with pytest.raises(UsageError, match="asked for, there are"):
        alignment({"decoder.blocks.0.cross": random_map(1, 2, 3, 4)}, **choice)


def test_a_model_without_cross_attention_is_told_so():
    with pytest.raises(UsageError, match="no cross-attention map"):
        alignment({"encoder.blocks.0.self": random_map(1, 2, 3, 3)})


def test_padding_never_shows():
    view = Alignment(names(5), names(3), random_map(16, 16))
    assert view.weights.shape == (3, 5)
    with pytest.raises(UsageError, match="3 × 5 tokens"):
        Alignment(names(5), names(3), random_map(2, 5))


def test_scores_and_non_finite_numbers_are_refused():
    with pytest.raises(UsageError, match=r"0\.\.1"):
        Alignment(names(2), names(1), [[3.0, -1.0]])
    with pytest.raises(QkvError) as e:
        Alignment(names(2), names(1), [[0.5, float("nan")]])
    assert e.value.code == "QKV-075"


def test_json_weights_are_the_weights_to_three_decimals():
    view = Alignment(names(4), names(3), random_map(3, 4))
    made = json.loads(json.dumps(view.to_dict()))
    np.testing.assert_allclose(
        np.array(made["weights"]) * made["unit"], view.weights, atol=0.0005 + 1e-12
    )
    assert made["pooled"] == 1


def test_rollout_sums_over_every_path_through_the_layers():
    T, L = 4, 3
    maps = {f"encoder.blocks.{k}.self": random_map(1, 2, T, T, seed=k) for k in range(L)}
    hats = [(maps[n][0].mean(0) + np.eye(T)) / 2 for n in in_order(maps)]
    brute = np.zeros((T, T))
    for path in np.ndindex(*[T] * (L + 1)):  # from the top layer's position down to the input's
        step = [hats[L - 1 - k][path[k], path[k + 1]] for k in range(L)]
        brute[path[0], path[-1]] += np.prod(step)
    np.testing.assert_allclose(rollout(maps), brute, atol=1e-14)
    np.testing.assert_allclose(rollout(maps).sum(-1), 1, atol=1e-14)


def test_rollout_keeps_a_row_that_looks_at_nothing():
    empty = random_map(1, 1, 3, 3)
    empty[0, 0, 2] = 0
    np.testing.assert_array_equal(rollout({"encoder.blocks.0.self": empty})[2], [0, 0, 1])


def test_entropy_is_zero_for_one_token_and_log2_for_all_alike():
    heads = np.stack([np.eye(8), np.full((8, 8), 1 / 8), np.zeros((8, 8))])
    np.testing.assert_allclose(entropy(heads), [0, log2(8), 0], atol=1e-12)


def test_layers_are_in_the_order_of_their_numbers():
    assert in_order([f"decoder.blocks.{k}.self" for k in (10, 9, 1)]) == [
        f"decoder.blocks.{k}.self" for k in (1, 9, 10)
    ]


def test_decoder_columns_are_what_the_decoder_has_read():
    maps = {
        "decoder.blocks.0.self": random_map(1, 2, 3, 3),
        "encoder.blocks.0.self": random_map(1, 2, 2, 2),
    }
    groups = {g["kind"]: g for g in Grid(maps, names(2), ["▁a", "▁b", "<eos>"]).to_dict()["groups"]}
    assert [t["text"] for t in groups["decoder"]["rows"]] == ["a", "b", "⏎"]
    assert [t["text"] for t in groups["decoder"]["columns"]] == ["▸", "a", "b"]
    assert groups["encoder"]["rows"] == groups["encoder"]["columns"]


@pytest.mark.parametrize("text", ["<" * 200, "\u202e" * 200, "\U0001f600" * 200, "한" * 200])
def test_a_view_of_thousands_of_hostile_tokens_stays_below_2_mb(text):
    S = 2 * MAX_SIDE
    maps = {
        f"{stack}.blocks.{k}.{what}": random_map(2, S, S, seed=k).astype(np.float32)
        for k in range(2)
        for stack, what in (("encoder", "self"), ("decoder", "self"), ("decoder", "cross"))
    }
    tokens = [text] * S
    assert len(embed(Grid(maps, tokens, tokens).to_dict()).encode()) <= 2_000_000
    flat = np.full((S, S), 1.0)  # four digits in every cell
    assert len(embed(Alignment(tokens, tokens, flat).to_dict()).encode()) <= 2_000_000


def test_pooling_shows_the_strongest_weight_of_a_cell():
    S = 4096
    weights = np.zeros((S, S), np.float32)
    weights[4000, 17] = 0.75
    made = Alignment(names(S), names(S), weights).to_dict()
    size = made["pooled"]
    cells = np.array(made["weights"])
    assert size > 1 and cells[4000 // size, 17 // size] == 750 and cells.sum() == 750
    assert len(made["source"]) == cells.shape[1] <= MAX_SIDE


def test_tensors_are_accepted_and_torch_is_not_needed():
    class Half:  # what we use of a torch tensor
        def detach(self):
            return self

        float = cpu = detach

        def numpy(self):
            return np.eye(2, dtype=np.float32)

    assert Alignment(names(2), names(2), Half()).weights.tolist() == [[1, 0], [0, 1]]
    code = "import sys, qkv.look.page, qkv.look.plots; sys.exit(bool({'torch', 'matplotlib'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_real_bf16_tensor_is_accepted():
    torch = pytest.importorskip("torch")
    maps = {
        "decoder.blocks.0.cross": torch.full(
            (1, 2, 3, 4), 0.25, dtype=torch.bfloat16, requires_grad=True
        )
    }
    assert alignment(maps).tolist() == [[0.25] * 4] * 3


def test_word_marks_vanish_and_specials_are_signs():
    assert [(t.text, t.kind) for t in display(["▁커피", "를", "▁", "<eos>"])] == [
        ("커피", "word"),
        ("를", "piece"),
        ("␣", "word"),
        ("⏎", "special"),
    ]
    assert [(t.text, t.kind) for t in display(["play", "##ing", "[SEP]"])] == [
        ("play", "word"),
        ("ing", "piece"),
        ("⏎", "special"),
    ]
    assert [t.kind for t in display(["커피", "한잔"])] == ["word", "word"]


@pytest.mark.parametrize(
    "hidden",
    [
        "\0",
        "\x1b",
        "\x85",
        "\u202e",
        "\u2066",
        "\u200b",
        "\u2028",
        "\ufeff",
        "\ud800",
        "\U000e0041",
    ],
)
def test_no_hidden_character_is_shown_raw(hidden):
    shown = visible(f"a{hidden}b")
    assert hidden not in shown and shown.startswith("a") and shown.endswith("b") and len(shown) > 2


def test_shown_text_is_bounded_and_composed():
    assert len(visible("x" * 10**6)) == MAX_CHARS
    assert visible("\u1112\u1161\u11ab") == "한"
    assert visible("👨\u200d👩") == "👨\u200d👩"
    assert [t.text for t in group(display(["▁a", "b", "▁c"]), 2)] == ["ab", "c"]


def test_romanised_hangul():
    assert romanise("커피 한잔 어때?") == "keopi hanjan eottae?"
    assert romanise("강 닭 값 왜") == "gang dak gap wae"


@pytest.mark.parametrize("dark", [False, True])
def test_colours_are_ordered_by_lightness_for_every_kind_of_colour_vision(dark):
    linear = np.array(
        [
            [((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in rgb]
            for rgb in stops(64, dark=dark)
        ]
    )
    # linear RGB as seen without red or green cones (Viénot, Brettel & Mollon 1999), then as grey
    sights = SimpleNamespace(
        full=np.eye(3),
        protan=np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
        deutan=np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
    )
    for sight in vars(sights).values():
        light = linear @ sight.T @ [0.2126, 0.7152, 0.0722]
        steps = np.diff(light) * (1 if dark else -1)
        assert (steps > 0).all()
