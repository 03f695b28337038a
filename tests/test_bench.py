"""The benchmarks still run: each script once, as small as it goes."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
TRAIN = ["--threads=1", "--samples=1", "--steps=1", "--warmup=1"]
OURS = ["--modes=ours-fp32,ours-bf16"]
PEERS = ["--modes=ours-fp32,torch-bf16,marian-fp32"]
needs_transformers = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed"
)


def run(script: str, out: Path, *words: str) -> dict:
    command = [sys.executable, str(BENCH / script), "--tiny", *words, f"--out={out}"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "| ---" in done.stdout and "load average" in done.stdout
    return json.loads(out.read_text("utf-8"))


def test_training_speed_of_ours(tmp_path):
    found = run("train_speed.py", tmp_path / "t.json", *TRAIN, *OURS)
    assert set(found["median"]) == {"ours-fp32", "ours-bf16"}
    assert all(speed > 0 for speed in found["median"].values())


def test_speed_of_gpt_on_characters(tmp_path):
    found = run("nano.py", tmp_path / "n.json", "--threads=1")
    assert found["fastest_peer"] in ("nanogpt-fp32", "plain-fp32")
    assert set(found["median"]) == {"ours-fp32", "nanogpt-fp32", "plain-fp32"}


def test_invariance_counts_nothing_on_random_models(tmp_path):
    found = run("invariance.py", tmp_path / "i.json", "--threads=1", "--n=6")
    assert len(found["results"]) == 4
    assert not any(r["tokens"] or r["scores"] for r in found["results"])
    assert all(r["of_tokens"] > 0 for r in found["results"])


def test_listops_trains_and_measures_a_row(tmp_path):
    words = ["--only=performer", f"--root={tmp_path}"]
    found = run("listops.py", tmp_path / "l.json", *words)["rows"]["performer"]
    assert 0 <= found["accuracy"] <= 100 and found["seconds"] > 0 and found["parameters"] > 1e4


def test_features_beat_the_law_of_independent_ones(tmp_path):
    found = run("features.py", tmp_path / "f.json", f"--png={tmp_path / 'f.png'}")
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    few, many = found["pair"]
    assert many["orthogonal"] < few["orthogonal"] and many["law"] == few["law"] / 4


def test_rounding_of_ours_does_not_grow_with_the_mean_of_values(tmp_path):
    """Below 2 % (0.9 measured) where products are in bf16, and far below where they are not."""
    found = run("rounding.py", tmp_path / "r.json", "--threads=1")["errors"]["performer"]
    assert len(found) == 5 and all(0 <= e < 2 for kind in found.values() for e in kind.values())


def test_start_up_measures_every_command(tmp_path):
    found = run("startup.py", tmp_path / "s.json")
    assert {"qkv --help", "import qkv"} < set(found["samples"])
    assert found["samples"]["import torch"][0] > found["samples"]["python (nothing)"][0]


def test_long_sequences_are_measured_and_drawn(tmp_path):
    words = ["--threads=1", "--modes=sdpa,window,blocks", f"--plot={tmp_path / 'l.png'}"]
    found = run("long.py", tmp_path / "l.json", *words)
    at = found["median"]["window"]["1024xbf16"]
    assert at["wall"] > 0 and at["cpu"] > 0 and (tmp_path / "l.png").stat().st_size > 10_000


@pytest.mark.slow
@needs_transformers
def test_the_peers_of_long_sequences_run(tmp_path):
    words = ["--threads=1", "--modes=sdpa,longformer,bigbird", "--dtypes=fp32"]
    found = run("long.py", tmp_path / "l.json", *words)
    assert all(found["median"][m]["1024xfp32"]["wall"] > 0 for m in ("longformer", "bigbird"))


@pytest.mark.slow
@needs_transformers
def test_training_speed_of_the_peers(tmp_path):
    found = run("train_speed.py", tmp_path / "t.json", *TRAIN, *PEERS)
    assert found["fastest_peer"] in ("torch-bf16", "marian-fp32")


@pytest.mark.slow
@needs_transformers
def test_decoding_speed_makes_all_steps_on_both_sides(tmp_path):
    words = ["--threads=1", "--samples=1", "--sizes=tiny,gpt2", "--asks=1x1,2x4"]
    found = run("decode_speed.py", tmp_path / "d.json", *words)
    made = {s["tokens"] for asked in found["samples"].values() for (s,) in asked.values()}
    assert made == {4.0}


def test_fashion_compares_vit_and_hybrid(tmp_path):
    found = run("fashion.py", tmp_path / "f.json", "--threads=1")
    assert [r["model"] for r in found["runs"]] == ["vit", "hybrid"]
    assert all(0 <= r["test"] <= 100 and r["parameters"] > 0 for r in found["runs"])


def test_detr_trains_on_shapes_and_is_measured(tmp_path):
    found = run("detr.py", tmp_path / "d.json", "--threads=1", "--stages=shapes")["shapes"]
    assert {"map", "map50", "loss"} <= set(found["scores"]) and len(found["curve"]) == 2
    assert (tmp_path / "d.png").stat().st_size > 1000


def test_the_mean_of_models_that_began_alike(tmp_path):
    import torch

    import qkv
    from qkv.model import Model
    from qkv.models import build, configure
    from qkv.models.interface import state_of
    from qkv.text import TextConfig, train

    tokenizer = train(["the cat sat", "a dog ate"], TextConfig(kind="chars", vocab_size=50))
    settings = {"family": "transformer", "size": "tiny", "vocab_size": tokenizer.vocab_size}
    models = []
    for seed, more in ((1, {}), (2, {}), (3, {"n_heads": 2})):
        torch.manual_seed(seed)
        config = configure(settings | more)
        models.append(Model(build(config), tokenizer, config))
        models[-1].save(tmp_path / f"{seed}")
    command = [sys.executable, str(BENCH / "soup.py"), "both", "1", "2"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    a, b, mean = (state_of(m.net) for m in (*models[:2], qkv.load(tmp_path / "both")))
    for name, x in mean.items():
        torch.testing.assert_close(x, (a[name] + b[name]) / 2, atol=1e-7, rtol=1e-6)  # of float32
    done = subprocess.run([*command[:2], "all", "1", "3"], cwd=tmp_path, capture_output=True, text=True, timeout=300)  # fmt: skip
    assert "differ in configuration" in done.stderr and not (tmp_path / "all").exists()
