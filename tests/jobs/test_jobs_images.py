"""Recipes of pictures: from files to a model that names them, and all that can go wrong on the way."""

import io
import json
import sys
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import qkv
from qkv.data.images.process import Size
from qkv.data.images.sources import ImageSource
from qkv.data.report import SkipReport
from qkv.dry_run import dry_run
from qkv.errors import (
    ConfigError,
    DataError,
    Interrupted,
    MissingError,
    OutOfMemoryError,
    UsageError,
    WeightsError,
)
from qkv.jobs.images import ImagesJob, measure_file
from qkv.jobs.reading import Reader, of_size
from qkv.learn.loop import Header, Note, Step, TrainConfig, out_of_memory
from qkv.pictures import of_pixels
from qkv.recipe import Recipe
from qkv.run import fresh_net

sys.path.append(str(Path(__file__).parents[1] / "data"))
from picture_files import archive, class_folders, encoded, idx_pair, pixels, recipe  # noqa: E402


@pytest.fixture(scope="module")
def pets(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures") / "pets"
    return class_folders(root, n=20, size=(12, 12), high=60)


@pytest.fixture(scope="module")
def run(pets):
    return qkv.train(recipe(pets), root=pets.parent / "runs")


def learned(path, root, **changes):
    return qkv.train(recipe(path, **changes), root=root)


def test_a_folder_becomes_a_classifier(run, pets):
    found = run.to_dict()["best"]
    assert {"dev/loss", "dev/accuracy", "dev/f1"} <= set(found)
    model = run.best()
    assert model.config.labels == ("cat", "dog") and model.has_pictures
    assert not model.has_tokenizer and "3 channels, 2 labels" in repr(model)
    names = sorted(p.name for p in model.folder.iterdir())
    assert "preprocessor_config.json" in names and "tokenizer.json" not in names
    scores = qkv.evaluate(model, pets)
    assert scores["examples"] == 40 and scores["scores"]["accuracy"] > 95  # one is brighter
    assert "model.classify" in (model.folder / "README.md").read_text("utf-8")
    for path in (str(run.folder), run.folder, run):
        with pytest.raises(UsageError, match="measures a model"):
            qkv.evaluate(path, pets)


def test_answers_do_not_depend_on_how_a_picture_is_given(run, pets):
    model, path = run.best(), pets / "cat" / "3.png"
    image = Image.open(path)
    x = np.asarray(image)
    given = [
        path,
        str(path),
        image,
        x,
        torch.from_numpy(x.copy()),
        np.moveaxis(x, -1, 0),
        x / 255.0,
        torch.from_numpy(x.copy()).double() / 255,
    ]
    found = model.classify(given)
    assert len({c.score for c in found}) == 1 and {c.label for c in found} == {"cat"}
    assert found[0].source == str(path) and found[2].source == "picture 2"
    one = model.classify(path)
    assert one.to_dict() == found[0].to_dict() and sum(x.score for x in one.labels) == pytest.approx(1)  # fmt: skip
    # law 2: alone, or beside others, of any number
    many = model.classify([path, *sorted(pets.rglob("*.png"))])
    assert many[0].score == one.score
    assert model.classify(np.stack([x, x]))[1].score == one.score and model.classify([]) == []


def test_logits_of_pixels(run, pets):
    model = run.best()
    pixels_ = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    z = model.logits(pixels=pixels_)
    assert z.shape == (3, 2)
    x, _ = model.processor([np.asarray(Image.open(pets / "dog" / "1.png"))])
    p = model.logits(pixels=torch.from_numpy(x)).softmax(-1)[0, 1]
    dog = dict((x.name, x.score) for x in model.classify(pets / "dog" / "1.png").labels)["dog"]
    assert float(p) == dog
    for bad in (pixels_[0], pixels_[:, :1], pixels_.long(), None):
        with pytest.raises(DataError) as e:
            model.logits(pixels=bad)
        assert e.value.code == "QKV-038"
    with pytest.raises(DataError):
        model.logits(torch.zeros(1, 3, dtype=torch.long), pixels=pixels_)
    with pytest.raises(DataError):
        model.logits(pixels=pixels_, keep=torch.ones(3, 5, 5, dtype=torch.bool))


def test_what_is_no_picture_is_a_named_error(run, tmp_path):
    model = run.best()
    (tmp_path / "x.png").write_bytes(b"nothing")
    for given, kind, code in (
        (tmp_path / "x.png", DataError, "QKV-038"),
        (tmp_path / "y.png", MissingError, "QKV-020"),
        ([3], DataError, "QKV-038"),
        (np.zeros((5, 3, 2), np.uint8), DataError, "QKV-038"),
        (Image.new("F", (3, 3)), DataError, "QKV-038"),
        (Image.open(io.BytesIO(encoded(pixels(64, 64), "JPEG")[:-400])), DataError, "QKV-038"),
    ):
        with pytest.raises(kind) as e:
            model.classify(given)
        assert e.value.code == code and e.value.fix
    for ask in (lambda: model.translate("hi"), lambda: model.embed("hi"), lambda: model.tokenizer):
        with pytest.raises(UsageError) as e:
            ask()
        assert "reads pictures" in str(e.value)


def test_the_saved_folder_is_the_same_model_here_and_in_transformers(run, pets, tmp_path):
    model = run.best()
    model.save(tmp_path / "again")
    again = qkv.load(tmp_path / "again", device="cpu")
    assert again.processor == model.processor
    path = pets / "dog" / "7.png"
    assert again.classify(path).score == model.classify(path).score
    vit = pytest.importorskip("transformers.models.vit", reason="transformers is the reference")
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    theirs = vit.ViTForImageClassification.from_pretrained(tmp_path / "again").eval()
    makes = ViTImageProcessorPil.from_pretrained(tmp_path / "again")
    with torch.no_grad():
        z = theirs(**makes(Image.open(path), return_tensors="pt")).logits
    ours = model.classify(path)
    assert theirs.config.id2label[int(z.argmax())] == ours.label
    # float32, two layers; 1e-7 measured
    assert float(z.softmax(-1).max()) == pytest.approx(ours.score, abs=1e-5)


def test_our_own_form_of_a_folder_keeps_the_pictures_settings(pets, tmp_path):
    values = recipe(pets)
    values["model"] |= {"pool": "mean"}  # transformers has no such ViT
    values["train"] |= {"steps": 1, "eval_every": 1}
    model = qkv.train(values, root=tmp_path).best()
    told = json.loads((model.folder / "config.json").read_text())
    assert told["model_type"] == "qkv-vit"
    again = qkv.load(model.folder, device="cpu")
    assert again.processor == model.processor and not again.has_tokenizer


def test_a_model_without_settings_knows_pixels_only(run, tmp_path):
    model = run.best()
    files = {n: c for n, c in model.files().items() if n != "preprocessor_config.json"}
    qkv.weights.store.write_folder(tmp_path / "bare", files)
    bare = qkv.load(tmp_path / "bare", device="cpu")
    assert bare.logits(pixels=torch.zeros(1, 3, 12, 12)).shape == (1, 2)
    with pytest.raises(MissingError) as e:
        bare.classify(Image.new("RGB", (12, 12)))
    assert e.value.code == "QKV-021" and "preprocessor_config" in str(e.value)


# -- reading ------------------------------------------------------------------------------------------------


def test_an_archive_trains_the_same_model_as_its_folder(pets, tmp_path):
    names = sorted(p.relative_to(pets).as_posix() for p in pets.rglob("*.png"))
    path = archive(tmp_path / "pets.tar.gz", {n: (pets / n).read_bytes() for n in names}, "w:gz")
    short = {"steps": 2, "batch_rows": 16, "eval_every": 2, "save_every": 2}
    runs = [learned(p, tmp_path / f"runs{i}", train=short) for i, p in enumerate((pets, path))]
    a, b = ((r.folder / "best" / "model.safetensors").read_bytes() for r in runs)
    assert a == b


def test_an_idx_pair_trains_on_grey_pictures_with_names(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    x = rng.integers(0, 60, (60, 28, 28)) + 120 * labels[:, None, None]
    train, dev = idx_pair(tmp_path, x[:48], labels[:48]), idx_pair(tmp_path, x[48:], labels[48:], "dev")  # fmt: skip
    values = recipe(train, data={"train": {"path": str(train)}, "dev": {"path": str(dev)}})
    values["objective"] |= {"classes": ["dark", "light"]}
    values["model"] = {"family": "vit", "size": "tiny"}
    seen = []
    made = qkv.train(values, root=tmp_path / "runs", listen=seen.append)
    model = made.best()
    assert model.config.labels == ("dark", "light") and model.net.channels == 1
    assert model.classify(np.full((28, 28), 200, np.uint8)).label == "light"
    told = dict(next(e for e in seen if isinstance(e, Header)).lines)
    assert "48 pictures train, 12 dev" in told["data"] and told["pictures"] == "28 × 28, 1 channels"
    assert next(e for e in seen if isinstance(e, Step)).unit == "pictures"
    assert qkv.evaluate(model, ImageSource(path=str(dev)))["examples"] == 12


def test_larger_pictures_are_resized_to_what_the_recipe_says(tmp_path):
    root = class_folders(tmp_path / "big", n=6, size=(70, 90), high=60)
    values = recipe(root)
    values["model"] |= {"image_size": 16}
    job = ImagesJob.read(Recipe.read(values))
    assert job.settings["image_size"] == 16 and job.train.shelf[0].shape == (16, 16, 3)
    # nothing said: the family's size, here that of `tiny`; a small first picture gives its own
    job = ImagesJob.read(Recipe.read(recipe(root)))
    assert job.settings["image_size"] == 28
    small = class_folders(tmp_path / "small", n=6, size=(12, 8), high=60)
    assert ImagesJob.read(Recipe.read(recipe(small))).settings["image_size"] == (12, 8)


@pytest.mark.parametrize("family", ["vit", "hybrid"])
def test_a_run_goes_on_with_larger_pictures(family, tmp_path):
    """Dosovitskiy et al. 2021, section 3.2: the positions are interpolated, everything else is taken as it is."""
    root = class_folders(tmp_path / "small", n=8, size=(28, 28), high=60)
    values = recipe(root) | {"model": {"family": family, "size": "tiny", "pool": "first"}}
    values["train"] |= {"steps": 2, "eval_every": 2, "save_every": 2}
    small = qkv.train(values, root=tmp_path / "runs").best()
    values = recipe(root) | {"from": str(small.folder), "model": {"image_size": 42}}
    values["train"] |= {"steps": 2, "eval_every": 2, "save_every": 2}
    read = Recipe.read(values)
    job = ImagesJob.read(read, small)
    assert job.train.shelf[0].shape == (42, 42, 3) and job.processor.mean == small.processor.mean
    net, config, fresh = fresh_net(job, small)
    assert config.image_size == 42 and fresh == []
    theirs, ours = (x.state_dict() for x in (small.net, net))
    moved = {name for name in ours if ours[name].shape != theirs[name].shape}
    assert moved == {"embed.places.position"}
    x = torch.rand(1, 3, 42, 42)
    assert_close(net.eval().logits(of_pixels(x)), small.logits(pixels=x), atol=0, rtol=0)
    large = qkv.train(values, root=tmp_path / "runs").best()
    assert large.processor.output == (42, 42) and large.net.image_size == (42, 42)


def test_bad_pictures_are_counted_and_the_rest_is_learned(pets, tmp_path):
    root = class_folders(tmp_path / "pets", n=10, size=(12, 12), high=60)
    (root / "cat" / "bad.png").write_bytes(encoded(pixels(64, 64))[:900])
    (root / "cat" / "note.txt").write_text("x")
    made = learned(root, tmp_path / "runs", train={"steps": 1, "eval_every": 1, "batch_rows": 8})
    lines = [json.loads(x) for x in (made.folder / "skipped.jsonl").read_text().strip().split("\n")]
    assert {(Path(x["file"]).name, x["reason"]) for x in lines} == {
        ("bad.png", "damaged picture"),
        ("note.txt", "unknown kind of file"),
    }
    assert all(x["line"] >= 1 for x in lines)
    report = json.loads((made.folder / "data.json").read_text())["report"]
    assert report["lines"] == report["used"] + sum(report["skipped"].values()) == 22


def test_the_same_picture_is_never_on_both_sides(tmp_path):
    root = class_folders(tmp_path / "pets", n=12, size=(12, 12), high=60)
    for p in sorted(root.rglob("*.png")):
        p.with_name(f"copy-{p.name}").write_bytes(p.read_bytes())
    job = ImagesJob.read(Recipe.read(recipe(root)))
    assert job.leak == 0 and sum(job.sizes) == 48
    values = recipe(root, data={"train": {"path": str(root)}, "dev": {"path": str(root)}})
    assert ImagesJob.read(Recipe.read(values)).leak == 24  # and where it is, that is told


def test_labels_of_dev_that_train_does_not_know_are_counted(pets, tmp_path):
    dev = class_folders(tmp_path / "dev", classes=("cat", "dog", "eel"), n=3, size=(12, 12), high=60)  # fmt: skip
    values = recipe(pets, data={"train": {"path": str(pets)}, "dev": {"path": str(dev)}})
    job = ImagesJob.read(Recipe.read(values))
    assert job.sizes == (40, 6) and job.dev_report.skipped == {"unknown label": 3}


def test_labels_of_the_model_are_the_data_s_or_an_error(pets, tmp_path):
    """Other names, or their order, would be another model than the one that was measured."""
    for labels in (["dog", "cat"], ["cat"], ["cat", "dog", "eel"]):
        values = recipe(pets)
        values["model"] |= {"labels": labels}
        with pytest.raises(ConfigError, match=r"'cat', 'dog'.*objective\.classes") as e:
            qkv.train(values, root=tmp_path)
        assert e.value.code == "QKV-013"
    values["model"] |= {"labels": ["dog", "cat"]}
    values["objective"] |= {"classes": ["dog", "cat"]}
    job = ImagesJob.read(Recipe.read(values))
    assert fresh_net(job, None)[1].labels == ("dog", "cat")


def test_digits_that_are_no_class_are_not_counted_as_others(tmp_path):
    """Classes 5 and 6: a 0 is neither, while of classes with names the first is meant."""
    x, labels = np.zeros((6, 12, 12), np.uint8), np.array([0, 1, 5, 6, 6, 9])
    path, report = idx_pair(tmp_path, x, labels), SkipReport()
    reader = Reader(None, of_size(12), 1, ("5", "6"))
    reader.read(ImageSource(path=str(path)), report, 1.0)
    assert reader.labels[1] == ["5", "6", "6"] and report.skipped == {"unknown label": 3}
    named = Reader(None, of_size(12), 1, ("dark", "light"))
    named.read(ImageSource(path=str(path)), report := SkipReport(), 1.0)
    assert named.labels[1] == ["dark", "light"] and report.skipped == {"unknown label": 4}


def test_a_class_is_the_same_however_its_letters_are_composed(tmp_path):
    apart, whole = (unicodedata.normalize(form, "고양이") for form in ("NFD", "NFC"))
    train = class_folders(tmp_path / "train", classes=(apart, "dog"), n=3, size=(12, 12), high=60)
    dev = class_folders(tmp_path / "dev", classes=(whole, "dog"), n=3, size=(12, 12), high=60)
    values = recipe(train, data={"train": {"path": str(train)}, "dev": {"path": str(dev)}})
    job = ImagesJob.read(Recipe.read(values))
    assert job.sizes == (6, 6) and set(job.config.classes) == {whole, "dog"}


def test_mistakes_are_met_with_a_fix(pets, tmp_path, monkeypatch):
    one = class_folders(tmp_path / "outer" / "train", n=2).parent
    with pytest.raises(DataError) as e:
        ImagesJob.read(Recipe.read(recipe(one)))
    assert e.value.code == "QKV-032" and "one class" in e.value.seen
    few = class_folders(tmp_path / "few", n=1)
    with pytest.raises(DataError) as e:
        ImagesJob.read(
            Recipe.read(recipe(few, data={"train": {"path": str(few)}, "holdout": 1e-6}))
        )
    assert "hold" in e.value.seen
    for change, code in (
        ({"objective": {"kind": "image-classify", "flop": True}}, "QKV-010"),
        ({"objective": {"kind": "image-classify", "erase": 2.0}}, "QKV-012"),
        ({"data": {"train": {"path": "x", "fields": {}}}}, "QKV-010"),
        ({"model": {"family": "vit", "channels": 2}}, "QKV-012"),
        ({"train": {"batch_rows": 0}}, "QKV-012"),
    ):
        with pytest.raises(ConfigError) as c:
            ImagesJob.read(Recipe.read(recipe(pets, **change)))
        assert c.value.code == code
    with pytest.raises(OutOfMemoryError) as o, out_of_memory(TrainConfig(batch_rows=32), True):
        raise MemoryError
    assert "train.batch_rows=16" in o.value.fix and "32 pictures" in o.value.seen


def test_settings_that_leave_pictures_their_sizes(run, tmp_path):
    """A checkpoint is measured on them; to learn from, they must be of one size; a misfit is called by its name."""
    root = tmp_path / "mixed"
    for i, size in enumerate([(12, 12), (8, 20), (16, 16), (12, 12)]):
        path = root / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(pixels(*size, seed=i)))
    model = run.best()
    model.processor = replace(model.processor, size=None)
    found = measure_file(model, ImageSource(path=str(root)))
    said = [model.classify(p).label == p.parent.name for p in sorted(root.rglob("*.png"))]
    assert found["scores"]["accuracy"] == pytest.approx(100 * sum(said) / 4)
    with pytest.raises(DataError, match="3 sizes, as 8 × 20 and 16 × 16") as e:
        ImagesJob.read(Recipe.read(recipe(root)), model)
    assert e.value.place == str(root)
    model.processor = replace(model.processor, size=Size(shortest_edge=8))
    (root / "dog" / "x.png").write_bytes(encoded(pixels(1, 3000)))
    with pytest.raises(DataError, match="too narrow") as e:
        measure_file(model, ImageSource(path=str(root)))
    assert e.value.place == f"{root}/dog/x.png:5"


# -- going on -----------------------------------------------------------------------------------------------


def test_a_run_that_was_stopped_goes_on_as_if_it_never_had(pets, tmp_path):
    values = recipe(pets)
    values["objective"] |= {"randaugment": 1}
    whole = qkv.train(values, root=tmp_path / "a")
    seen = []

    def stop(event):
        seen.append(event)
        if isinstance(event, Step) and event.step == 9:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        qkv.train(values, root=tmp_path / "b", listen=stop)
    again = qkv.train(values, root=tmp_path / "b")
    for name in ("metrics.jsonl", "best/model.safetensors", "last/model.safetensors"):
        a, b = ((r.folder / name).read_bytes() for r in (whole, again))
        assert a == b, name


def test_pictures_that_changed_are_noticed(tmp_path):
    root = class_folders(tmp_path / "pets", n=8, size=(12, 12), high=60)

    def stop(event):
        if isinstance(event, Step):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        qkv.train(recipe(root), root=tmp_path / "runs", listen=stop)
    (root / "cat" / "0.png").write_bytes(encoded(pixels(12, 12)))
    with pytest.raises(DataError) as e:
        qkv.train(recipe(root), root=tmp_path / "runs")
    assert e.value.code == "QKV-035" and "folder" in e.value.seen


def test_another_head_on_the_weights_of_a_run(run, pets, tmp_path):
    root = class_folders(tmp_path / "three", classes=("ant", "bee", "cow"), n=8, size=(20, 20), high=60)  # fmt: skip
    values = recipe(root, **{"from": str(run.folder), "model": {}})
    values["train"] |= {"steps": 1, "eval_every": 1}
    values["optim"] = {"lr": 1e-9}
    notes = []
    after = qkv.train(values, root=tmp_path / "runs", listen=notes.append).best()
    before = run.best()
    assert after.config.labels == ("ant", "bee", "cow") and after.processor == before.processor
    assert any("head.classes" in n.text for n in notes if isinstance(n, Note))
    a, b = (m.net.encoder.blocks[0].attn.q.weight for m in (before, after))
    torch.testing.assert_close(a, b, atol=1e-7, rtol=0)  # one step at a learning rate of 1e-9
    with pytest.raises(WeightsError):
        qkv.train(values | {"model": {"d_model": 64}}, root=tmp_path / "runs")


def test_a_dry_run_writes_nothing_and_counts_pictures(pets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = dry_run(recipe(pets))
    assert plan.unit == "pictures" and plan.vocab_size == 0 and plan.padding == 0
    assert plan.train_pairs + plan.dev_pairs == 40 and not list(tmp_path.iterdir())
