"""A folder that transformers wrote, asked about pictures: the whole way from a file to probabilities is theirs."""

import numpy as np
import pytest
import torch
from PIL import Image

import qkv
from qkv.errors import ConfigError, DataError

vit = pytest.importorskip("transformers.models.vit", reason="transformers is the reference")
from transformers.models.deit import DeiTConfig, DeiTForImageClassificationWithTeacher  # noqa: E402
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil  # noqa: E402
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: E402

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}  # fmt: skip
LABELS = {"id2label": {0: "ant", 1: "bee", 2: "cow"}, "label2id": {"ant": 0, "bee": 1, "cow": 2}}


def vits():
    config = vit.ViTConfig(image_size=32, patch_size=8, **SIZES, **LABELS)
    return vit.ViTForImageClassification(config), ViTImageProcessorPil(size=32)


def deits():
    config = DeiTConfig(image_size=24, patch_size=8, **SIZES, **LABELS)
    makes = DeiTImageProcessorPil(size=28, crop_size=24)
    return DeiTForImageClassificationWithTeacher(config), makes


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i, (h, w) in enumerate([(40, 60), (32, 32), (90, 20), (9, 9), (33, 31)]):
        Image.fromarray(rng.integers(0, 256, (h, w, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("make", [vits, deits])
def test_probabilities_of_files_are_those_of_the_published_pipeline(make, photos, tmp_path):
    torch.manual_seed(0)
    net, makes = make()
    with torch.no_grad():
        for p in net.parameters():  # fresh heads answer 1/3 to everything
            p.mul_(3)
    net.eval().save_pretrained(tmp_path)
    makes.save_pretrained(tmp_path)
    model = qkv.load(tmp_path, device="cpu")
    found = model.classify(photos)
    with torch.no_grad():
        theirs = net(**makes([Image.open(p) for p in photos], return_tensors="pt")).logits
    for ours, row in zip(found, theirs.softmax(-1).tolist(), strict=True):
        # float32, two layers; 2e-7 measured
        assert {x.name: x.score for x in ours.labels} == pytest.approx(
            dict(zip(("ant", "bee", "cow"), row, strict=True)), abs=1e-5
        )
    assert len({c.label for c in found}) > 1 or len({round(c.score, 4) for c in found}) > 1


def test_no_bit_of_an_answer_depends_on_its_neighbours(photos, tmp_path):
    torch.manual_seed(0)
    net, makes = vits()
    net.save_pretrained(tmp_path)
    makes.save_pretrained(tmp_path)
    model = qkv.load(tmp_path, device="cpu")
    alone = [model.classify(p).score for p in photos]
    for n in (2, 3, 5):
        together = model.classify([*photos[:n], *photos])
        assert [c.score for c in together] == alone[:n] + alone


def test_pictures_of_another_size_than_the_net_was_made_for(photos, tmp_path):
    torch.manual_seed(0)
    net, _ = vits()
    net.eval().save_pretrained(tmp_path)
    makes = ViTImageProcessorPil(size=48)
    makes.save_pretrained(tmp_path)
    found = qkv.load(tmp_path, device="cpu").classify(photos[0])
    x = makes(Image.open(photos[0]), return_tensors="pt")
    with torch.no_grad():
        want = net(**x, interpolate_pos_encoding=True).logits.softmax(-1)
    assert found.score == pytest.approx(float(want.max()), abs=1e-5)
    ViTImageProcessorPil(size=5).save_pretrained(tmp_path)  # less than a patch
    with pytest.raises(DataError) as e:
        qkv.load(tmp_path, device="cpu").classify([photos[0]])
    assert e.value.fix and e.value.place == str(photos[0])


def test_a_net_of_four_channels_does_not_blame_the_picture(photos, tmp_path):
    config = vit.ViTConfig(image_size=32, patch_size=8, num_channels=4, **SIZES, **LABELS)
    vit.ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessorPil(size=32).save_pretrained(tmp_path)
    model = qkv.load(tmp_path, device="cpu")
    with pytest.raises(DataError, match="reads 4 channels") as e:
        model.classify(photos[0])
    assert e.value.place == str(tmp_path) and model.logits(pixels=torch.zeros(1, 4, 32, 32)).shape


def test_settings_that_are_not_known_here(tmp_path):
    net, _ = vits()
    net.save_pretrained(tmp_path)
    settings = '{"image_processor_type": "ViTImageProcessor", "do_flip": true}'
    (tmp_path / "preprocessor_config.json").write_text(settings)
    with pytest.raises(ConfigError) as c:
        qkv.load(tmp_path, device="cpu")
    assert c.value.code == "QKV-010" and "preprocessor_config.json" in c.value.place
