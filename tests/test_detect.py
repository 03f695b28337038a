"""From pictures with boxes to boxes on a picture: training, answers, files, the command line."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil

import qkv
from qkv.cli import main
from qkv.data.images.shapes import KINDS, Shapes, picture
from qkv.data.images.sources import ImageSource
from qkv.detect import best_of, detect, overlay
from qkv.errors import DataError, QkvError
from qkv.jobs.detect import DetectJob, evaluation, measure, measure_file
from qkv.learn.loop import Note, Step
from qkv.model import Model
from qkv.models import build, configure
from qkv.recipe import Recipe

RECIPE = {
    "name": "shapes",
    "data": {
        "train": {"path": "builtin:shapes/train?n=24&size=32&most=2"},
        "dev": {"path": "builtin:shapes/dev?n=6&size=32&most=2"},
    },
    "objective": {"kind": "detect", "flip": True, "scale": 0.8, "crop": 0.5},
    "model": {"family": "detr", "size": "tiny"},
    "optim": {"lr": 1e-3, "warmup": 5},
    "train": {
        "steps": 6,
        "batch_rows": 4,
        "eval_every": 3,
        "save_every": 3,
        "log_every": 3,
        "metric": "dev/map",
    },
}


def with_(base, **parts):
    return {k: {**v, **parts.get(k, {})} if isinstance(v, dict) else v for k, v in base.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = qkv.train(RECIPE, root=tmp_path_factory.mktemp("runs"))
    torch.set_num_threads(threads)
    return made


@pytest.fixture(scope="module")
def model(run):
    return run.best()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(picture(Shapes(size=48), "test", 3)[0]).save(path)
    return path


# -- training -----------------------------------------------------------------------------------------------


def test_a_run_measures_boxes_and_its_model_is_whole(run, model):
    last = run.metrics[-1]
    names = {"loss", "loss/class", "loss/box", "loss/giou", "map", "map50", "map75", "miscount"}
    assert names <= {k.removeprefix("dev/") for k in last}
    parts = sum(last[f"dev/loss/{p}"] for p in ("class", "box", "giou"))
    assert last["dev/loss"] == pytest.approx(parts)
    assert tuple(model.config.labels) == KINDS and model.processor.pad
    assert model.config.queries == 6 and len(model.processor.mean) == 3
    shown = [json.loads(x) for x in (run.folder / "samples.jsonl").read_text().split("\n") if x]
    assert shown and shown[-1]["step"] == 6 and shown[0]["reference"][0][0] in KINDS


def test_a_stopped_run_goes_on_bit_for_bit(tmp_path):
    whole = qkv.train(RECIPE, root=tmp_path / "whole")
    count = [0]

    def stop(event):
        count[0] += 1
        if getattr(event, "step", 0) == 3 and hasattr(event, "metrics"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        qkv.train(RECIPE, root=tmp_path / "two", listen=stop)
    again = qkv.train(RECIPE, root=tmp_path / "two")
    a, b = ({k: v.clone() for k, v in r.best().net.state_dict().items()} for r in (whole, again))
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_twelve_pictures_can_be_learned_by_heart():
    """One batch without noise: the loss falls to a part of what it was, the boxes come near."""
    from qkv.learn.terms import Totals, term_loss, terms_of

    job = DetectJob.read(
        Recipe.read(with_(RECIPE, objective={"flip": False, "scale": 1.0, "crop": 0.0}))
    )
    (batch,) = list(evaluation(job.train, job.processor, 24))
    torch.manual_seed(0)
    net = build(configure({"family": "detr", "size": "tiny", "labels": KINDS})).train()
    optim, totals, seen = torch.optim.AdamW(net.parameters(), 3e-3), Totals([batch]), []
    for _ in range(80):
        loss = sum(
            term_loss(t).smoothed / totals.of(t, 0) for t in terms_of(net.loss_inputs(batch))
        )
        optim.zero_grad()
        loss.backward()
        optim.step()
        seen.append(float(loss.detach()))
    assert seen[-1] < 0.7 * seen[0]


def test_batches_are_padded_and_boxes_stay_in_their_pictures():
    job = DetectJob.read(Recipe.read(RECIPE))
    stream = job.stream()
    a, b = stream.batch(7), job.stream().batch(7)
    assert torch.equal(a.pixels, b.pixels) and torch.equal(a.boxes, b.boxes)
    assert len({tuple(stream.batch(i).pixels.shape[2:]) for i in range(12)}) > 1
    for i in range(12):
        batch = stream.batch(i)
        B = len(batch)
        keep = torch.ones(B, *batch.pixels.shape[2:], dtype=torch.bool)
        keep = keep if batch.pixel_keep is None else batch.pixel_keep
        assert (batch.pixels * ~keep[:, None] == 0).all()
        real = batch.label >= 0
        x, y, w, h = batch.boxes[real].unbind(-1)
        assert (w > 0).all() and (h > 0).all()
        assert (
            (x - w / 2 >= -1e-6).all()
            and (x + w / 2 <= 1 + 1e-6).all()
            and (y + h / 2 <= 1 + 1e-6).all()
        )
        assert (batch.boxes[~real] == 0).all()


def test_boxes_of_different_sizes_of_one_picture_are_the_same_parts():
    job = DetectJob.read(Recipe.read(with_(RECIPE, objective={"shortest": 16})))
    full = DetectJob.read(Recipe.read(RECIPE))
    assert job.train.shelf[0].shape == (16, 16, 3) and full.train.shelf[0].shape == (32, 32, 3)
    assert np.array_equal(job.train.corners[0], full.train.corners[0])
    assert job.train.sizes[0] == (
        32,
        32,
    )  # average precision is measured in pixels of the picture itself


def test_a_detector_that_says_the_truth_has_an_average_precision_of_one():
    """`measure` end to end: a net that knows the boxes, on pictures of two sizes after resizing."""
    job = DetectJob.read(Recipe.read(RECIPE))
    from qkv.models.interface import BoxWeights, Detected

    class Knows(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.p = torch.nn.Parameter(torch.zeros(1))

        def loss_inputs(self, batch):
            B, M = batch.label.shape
            logits = torch.full((1, B, M, 4), -9.0)
            logits[0].scatter_(2, torch.where(batch.label < 0, 3, batch.label)[..., None], 9.0)
            return Detected(logits, batch.boxes[None], batch.label, batch.boxes, BoxWeights())

    found, said = measure(Knows(), job.dev, job.processor, 3)
    assert found["map"] == pytest.approx(1.0) and found["miscount"] == 0
    assert found["loss"] == pytest.approx(0.0, abs=1e-4) and len(said) == 6


# -- answers ------------------------------------------------------------------------------------------------


def test_answers_equal_the_reference_s_post_processing(model):
    net = model.net
    g = torch.Generator().manual_seed(0)
    logits, boxes = torch.randn(2, 6, 4, generator=g) * 2, torch.rand(2, 6, 4, generator=g)
    sizes = [(48, 64), (33, 21)]
    want = DetrImageProcessorPil().post_process_object_detection(
        SimpleNamespace(logits=logits, pred_boxes=boxes), threshold=0.4, target_sizes=sizes
    )
    from qkv.detect import _answer

    for row, (size, theirs) in enumerate(zip(sizes, want, strict=True)):
        ours = _answer(model, "x", size, best_of(logits, boxes), row, 0.4)
        order = theirs["scores"].argsort(descending=True, stable=True)
        assert [d.label for d in ours] == [KINDS[i] for i in theirs["labels"][order].tolist()]
        assert_close(
            torch.tensor([d.score for d in ours]), theirs["scores"][order], atol=1e-7, rtol=0
        )
        assert_close(torch.tensor([d.box for d in ours]), theirs["boxes"][order], atol=1e-4, rtol=0)
    assert net.training is False


def test_one_in_one_out_list_in_list_out(model, photo):
    one = model.detect(photo, threshold=0.0)
    several = model.detect([photo, Image.open(photo), np.asarray(Image.open(photo))[:30]], 0.0)
    assert isinstance(several, list) and len(several) == 3 and model.detect([]) == []
    assert (one.width, one.height) == (48, 48) and (several[2].width, several[2].height) == (48, 30)
    # a neighbour of another size changes no bit
    assert several[0] == one and several[1].things == one.things
    scores = [d.score for d in one]
    assert len(one) == 6 and scores == sorted(scores, reverse=True)
    assert len(model.detect(photo, threshold=1.0)) == 0
    assert str(model.detect(photo, threshold=1.0)) == ""
    held = one.to_dict()
    assert json.loads(json.dumps(held)) == held and held["boxes"][0]["label"] in KINDS
    assert str(one).count("\n") == 5 and one[0].label in str(one)
    assert one._repr_html_().count("<rect") == 6


def test_a_published_folder_gives_the_same_answers(model, photo, tmp_path):
    model.save(tmp_path / "saved")
    assert qkv.load(tmp_path / "saved").detect(photo, 0.0).things == model.detect(photo, 0.0).things
    # it has the published form, whatever its backbone learned while training: transformers reads it
    config = replace(model.config, queries=7)
    torch.manual_seed(0)
    Model(build(config), None, config, processor=model.processor).save(tmp_path / "theirs")
    assert json.loads((tmp_path / "theirs" / "config.json").read_text())["model_type"] == "detr"
    from transformers import DetrForObjectDetection

    theirs, info = DetrForObjectDetection.from_pretrained(
        tmp_path / "theirs", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ours = qkv.load(tmp_path / "theirs")
    pixels = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = theirs.eval()(pixels).logits
    assert_close(ours.logits(pixels=pixels), want, atol=1e-5 * float(want.abs().max()), rtol=0)


def test_where_its_queries_looked(model, photo):
    answer, view = overlay(model, photo, threshold=0.0)
    assert len(view.things) == len(answer) == 6
    maps = view.things[0].maps
    assert list(maps)[-1] == "mean of all" and maps["layer 1"].shape == (
        6,
        6,
    )  # a cell for eight pixels
    assert maps["layer 1"].sum() == pytest.approx(1.0, abs=1e-5)
    mean = np.mean([maps[f"layer 2, head {h}"] for h in (1, 2)], 0)
    assert np.allclose(mean, maps["layer 2"], atol=1e-7)
    assert view.things[0].box == pytest.approx(answer[0].box, abs=1e-3)
    assert (
        len(overlay(model, photo, threshold=1.0)[1].things) == 1
    )  # the surest, where none is sure


@pytest.mark.parametrize(
    "given, said",
    [
        ("nowhere.png", "nowhere.png"),
        (3, "int"),
        (np.zeros((5, 5, 7), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
    ],
)
def test_what_is_no_picture_is_told(model, given, said):
    with pytest.raises(QkvError, match=said):
        model.detect([given])


def test_only_a_detector_detects(model, photo):
    with pytest.raises(QkvError, match="threshold"):
        detect(model, photo, 1.5)
    config = configure({"family": "vit", "size": "tiny", "labels": ["a", "b"]})
    with pytest.raises(QkvError, match="finds boxes"):
        Model(build(config), None, config).detect(photo)
    bare = configure({"family": "detr", "size": "tiny", "head": "none"})
    with pytest.raises(QkvError, match="finds boxes"):
        Model(build(bare), None, bare).detect(photo)
    with pytest.raises(QkvError):
        model.classify(photo)


# -- files --------------------------------------------------------------------------------------------------


def coco(folder, n=4):
    """A user's folder: pictures of two sizes, one without boxes; a bad box and a missing file among them."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(n):
        pixels, corners, kinds = picture(Shapes(size=(32, 40)[i % 2], most=2), "test", i)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        images.append(
            {"id": i, "file_name": f"{i}.png", "width": pixels.shape[1], "height": pixels.shape[0]}
        )
        for b, k in zip(corners.tolist() if i else [], kinds.tolist(), strict=False):
            box = [b[0], b[1], b[2] - b[0], b[3] - b[1]]
            annotations.append(
                {"id": len(annotations), "image_id": i, "category_id": k + 1, "bbox": box}
            )
    images.append({"id": 99, "file_name": "gone.png", "width": 9, "height": 9})
    annotations.append({"id": 1000, "image_id": 1, "category_id": 1, "bbox": [3, 3, 0, 5]})
    categories = [{"id": k + 1, "name": name} for k, name in enumerate(KINDS)]
    path = folder / "annotations.json"
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    return path


def test_a_user_s_folder_trains_and_tells_what_was_left_out(tmp_path):
    path = str(coco(tmp_path / "cells"))
    data = {"train": {"path": path}, "dev": {"path": path}}
    run = qkv.train(with_(RECIPE, data=data, train={"steps": 2, "eval_every": 2}), root=tmp_path)
    assert json.loads((run.folder / "data.json").read_text())["leak"] == 4
    skipped = [json.loads(x) for x in (run.folder / "skipped.jsonl").read_text().split("\n") if x]
    reasons = {row["reason"] for row in skipped}
    assert reasons == {"box without area", "no such picture"}
    found = measure_file(run.best(), ImageSource(path=path))
    assert found["examples"] == 4 and "map50" in found["scores"]
    assert qkv.evaluate(run.best(), path)["scores"] == found["scores"]
    assert (
        qkv.evaluate(run.best(), str(tmp_path / "cells"))["scores"] == found["scores"]
    )  # the folder
    with pytest.raises(QkvError, match="annotations.json"):
        qkv.evaluate(run.best(), str(tmp_path / "cells" / "images"))


def test_pictures_without_any_box_are_learned_from(tmp_path):
    path = coco(tmp_path / "empty", 3)
    held = json.loads(path.read_text())
    path.write_text(json.dumps({**held, "annotations": []}))
    data = {"train": {"path": str(path)}, "dev": {"path": str(path)}}
    settings = with_(RECIPE, data=data, train={"steps": 2, "eval_every": 2, "metric": "dev/loss"})
    run = qkv.train(settings, root=tmp_path)
    assert np.isfinite(run.metrics[-1]["dev/loss"]) and run.metrics[-1]["dev/loss/box"] == 0


def test_boxes_of_no_known_class_are_an_error(run, tmp_path):
    """A name written otherwise would train a night for nothing, and be measured as if that were an answer."""
    path = str(coco(tmp_path / "cells"))
    data = {"train": {"path": path}, "dev": {"path": path}}
    for classes in (["Circle"], ["nothing", "here"]):
        values = with_(RECIPE, data=data, objective={"classes": classes})
        with pytest.raises(DataError, match=r"unknown category.*objective\.classes") as e:
            qkv.train(values, root=tmp_path)
        assert e.value.code == "QKV-032"
    held = json.loads(Path(path).read_text())
    held["categories"] = [{**c, "name": c["name"].title()} for c in held["categories"]]
    Path(path).write_text(json.dumps(held))
    with pytest.raises(DataError, match="unknown category"):
        qkv.evaluate(run.best(), path)


def test_more_boxes_than_queries_are_told(tmp_path):
    path = coco(tmp_path / "cells")
    held = json.loads(path.read_text())
    held["annotations"] += [
        {"image_id": 2, "category_id": 1, "bbox": [i, 1, 5, 5]} for i in range(9)
    ]
    path.write_text(json.dumps(held))
    data, told = {"train": {"path": str(path)}, "dev": {"path": str(path)}}, []
    values = with_(RECIPE, data=data, train={"steps": 1, "eval_every": 1})
    qkv.train(values, root=tmp_path, listen=told.append)
    texts = [e.text for e in told if isinstance(e, Note)]
    most = sum(a["image_id"] == 2 for a in held["annotations"])
    assert any(f"2.png has {most}; model.queries = {most + 4}" in text for text in texts)
    job = DetectJob.read(Recipe.read(values))
    assert not job.remarks(SimpleNamespace(queries=most))
    assert job.remarks(SimpleNamespace(queries=most - 1))


def test_pictures_beside_a_list_that_changed_are_noticed(tmp_path):
    path = coco(tmp_path / "cells")
    (tmp_path / "cells" / "notes.txt").write_text("of no list")
    data = {"train": {"path": str(path)}, "dev": {"path": str(path)}}
    values = with_(RECIPE, data=data, train={"steps": 2, "eval_every": 2, "log_every": 1})

    def stop(event):
        if isinstance(event, Step):
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        qkv.train(values, root=tmp_path / "runs", listen=stop)
    (tmp_path / "cells" / "notes.txt").write_text("changed")
    (tmp_path / "cells" / "images" / "2.png").unlink()
    with pytest.raises(DataError, match=r"annotations\.json: the list changed") as e:
        qkv.train(values, root=tmp_path / "runs")
    assert e.value.code == "QKV-035"


def test_another_set_of_classes_takes_over_the_backbone(run, tmp_path):
    path = coco(tmp_path / "cells")
    held = json.loads(path.read_text())
    held["categories"] += [{"id": 9, "name": "star"}]
    path.write_text(json.dumps(held))
    data = {"train": {"path": str(path)}, "dev": {"path": str(path)}}
    model = {"queries": 9}
    settings = {k: v for k, v in RECIPE.items() if k != "model"} | {
        "from": str(run.folder),
        "model": model,
    }
    made = qkv.train(with_(settings, data=data, train={"steps": 1, "eval_every": 1}), root=tmp_path)
    net = made.best().net
    assert net.config.labels == (*KINDS, "star") and net.queries.weight.shape[0] == 9
    # one step at a small rate leaves what was taken near where it was
    first = run.best().net.backbone.stem.conv.weight.detach()
    assert float((net.backbone.stem.conv.weight.detach() - first).abs().max()) < 0.01


def size_of(path):
    with Image.open(path) as image:
        return image.size


# -- the command line ---------------------------------------------------------------------------------------


def test_detect_on_the_command_line(run, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["detect", "--model", str(run.folder), str(photo), "--threshold", "0"]
    assert main([*asked, "-o", "boxes.png"]) == 0
    lines = capsys.readouterr().out.strip().split("\n")
    assert len(lines) == 6 and len(lines[0].split("\t")) == 7
    assert size_of("boxes.png") == (320, 320)
    assert main([*asked, "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["width"] == 48 and len(held["boxes"]) == 6
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8broken")
    os.mkdir("drawn")
    assert main([*asked, "bad.jpg", "--json", "-o", "drawn"]) == 1
    both = [json.loads(x) for x in capsys.readouterr().out.strip().split("\n")]
    assert both[1]["error"]["code"] == "QKV-038" and len(both[0]["boxes"]) == 6
    assert os.listdir("drawn") == ["photo.png"]
    for wrong in (["-o", "boxes.jpg"], ["--threshold", "2"], ["--threshold", "x"]):
        assert main(["detect", "--model", str(run.folder), str(photo), *wrong]) == 2
    assert main([*asked, str(photo), "-o", "one.png"]) == 2


def test_look_and_eval_on_the_command_line(run, photo, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["look", "--model", str(run.folder), str(photo), "-o", "a.html", "-o", "a.png"]) == 0
    )
    assert "overlayView" in (tmp_path / "a.html").read_text() and size_of("a.png")[0] > 300
    capsys.readouterr()
    assert main(["eval", str(run.folder), "builtin:shapes/test?n=3&size=32", "--json"]) == 0
    assert "map50" in json.loads(capsys.readouterr().out)["scores"]
    path = coco(tmp_path / "cells")
    path.rename(tmp_path / "list.json")  # the pictures are elsewhere
    assert main(["eval", str(run.folder), "list.json"]) == 1
    assert "qkv eval RUN FILE FOLDER" in capsys.readouterr().err
    assert main(["eval", str(run.folder), "list.json", "cells/images"]) == 0
    shown = capsys.readouterr()
    assert "4 examples, 2 lines skipped" in shown.out
    assert "skipped 1 (box without area): list.json/annotations:" in shown.err


def test_a_drawing_never_lies_over_a_picture_or_another_drawing(
    run, photo, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    asked = ["detect", "--model", str(run.folder)]
    for folder in ("a", "b", "v1.0"):
        os.mkdir(folder)
    for name in ("a/x.png", "b/x.png"):
        (tmp_path / name).write_bytes(photo.read_bytes())
    before = photo.read_bytes()
    for words in (["photo.png", "-o", "."], ["photo.png", "a/x.png", "-o", "."], ["photo.png", "-o", "photo.png"]):  # fmt: skip
        assert main([*asked, *words]) == 2
        assert "photo.png" in capsys.readouterr().err and photo.read_bytes() == before
    Image.open(photo).save("photo.bmp")  # photo.png is not given, and still somebody's
    assert main([*asked, "photo.bmp", "-o", "."]) == 2 and photo.read_bytes() == before
    words = [*asked, "a/x.png", "b/x.png", "--threshold", "0", "-o"]
    assert main([*words, "boxes"]) == 0 and sorted(os.listdir("boxes")) == ["x-2.png", "x.png"]
    assert main([*words, "boxes"]) == 0 and len(os.listdir("boxes")) == 2  # again is no mistake
    assert main([*words, "v1.0"]) == 0 and len(os.listdir("v1.0")) == 2  # a folder with a dot


def test_a_picture_that_does_not_fit_is_called_by_its_name(model, photo, tmp_path, monkeypatch):
    def refuse(self, x):
        raise DataError("too flat", place="picture 0", code="QKV-038")

    monkeypatch.setattr(type(model.processor), "fitted", refuse)
    with pytest.raises(DataError) as e:
        detect(model, [str(photo)])
    assert e.value.place == str(photo)
