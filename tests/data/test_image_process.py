"""Pixel values are those of transformers' processors on Pillow, and their settings are read and written whole."""

import json

import numpy as np
import pytest
from PIL import Image

from qkv.data.images.decode import converted
from qkv.data.images.process import BICUBIC, BILINEAR, Processor, Size, cropped
from qkv.data.images.published import processor, settings
from qkv.errors import ConfigError, DataError, QkvError

deit = pytest.importorskip(
    "transformers.models.deit.image_processing_pil_deit", reason="transformers is the reference"
)
from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil  # noqa: E402
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil  # noqa: E402

THEIRS = {
    "ViTImageProcessor": ViTImageProcessorPil,
    "DeiTImageProcessor": deit.DeiTImageProcessorPil,
    "DetrImageProcessor": DetrImageProcessorPil,
}
SIZES = [(31, 47), (64, 64), (90, 33), (7, 200), (48, 48)]


def picture(height, width, mode="RGB", seed=0):
    rng = np.random.default_rng((seed, height, width))
    bands = {"RGB": 3, "L": 1, "RGBA": 4, "CMYK": 4}[mode]
    shape = (height, width) if bands == 1 else (height, width, bands)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8), mode)


def pictures(mode="RGB"):
    # random noise is the hardest picture to resize alike; smooth ones hide differences of filters
    return [picture(*size, mode) for size in SIZES]


@pytest.mark.filterwarnings("ignore:.*mode.*parameter:DeprecationWarning")
@pytest.mark.parametrize(
    "values",
    [
        {"image_processor_type": "ViTImageProcessor", "size": {"height": 48, "width": 48}},
        {"image_processor_type": "ViTImageProcessorFast", "size": 32, "resample": BICUBIC},
        {"image_processor_type": "ViTImageProcessor", "size": [40, 24], "resample": 0},
        {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 20},
         "do_center_crop": True, "crop_size": {"height": 24, "width": 16}},
        {"image_processor_type": "ViTImageProcessor", "size": {"max_height": 50, "max_width": 30},
         "do_pad": True},
        {"image_processor_type": "ViTImageProcessor", "size": {"max_height": 50, "max_width": 30},
         "do_pad": True, "pad_size": {"height": 61, "width": 60}},
        {"image_processor_type": "ViTImageProcessor", "do_resize": False, "do_center_crop": True,
         "crop_size": 40, "do_normalize": False},
        {"image_processor_type": "ViTImageProcessor", "size": 16, "do_rescale": False,
         "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 40.0]},
        {"image_processor_type": "DeiTImageProcessor", "size": 40, "crop_size": 33},
        {"image_processor_type": "DeiTImageProcessor"},
        {"feature_extractor_type": "DetrFeatureExtractor", "size": 40, "max_size": 70},
        {"image_processor_type": "DetrImageProcessor",
         "size": {"shortest_edge": 33, "longest_edge": 47}},
        {"image_processor_type": "DetrImageProcessor", "size": {"height": 30, "width": 50}},
        {"image_processor_type": "DetrImageProcessor",
         "size": {"max_height": 45, "max_width": 90}, "pad_size": {"height": 90, "width": 91}},
    ],
    ids=lambda v: json.dumps(v)[23:70],
)  # fmt: skip
def test_pixels_equal_the_published_processors(values):
    ours = processor(values)
    theirs = THEIRS[ours.kind](**{k: v for k, v in values.items() if not k.endswith("_type")})
    given = pictures()
    if not ours.pad and ours.output is None:
        pytest.fail("the test asks for one size")
    want = theirs(given, return_tensors="np")
    pixels, keep = ours([converted(p, 3) for p in given])
    assert pixels.shape == want["pixel_values"].shape
    # the same float64 product and float32 division: nothing may differ; the promise is 1e-6
    np.testing.assert_array_equal(pixels, want["pixel_values"].astype(np.float32))
    if "pixel_mask" in want:
        np.testing.assert_array_equal(keep, want["pixel_mask"].astype(bool))
    else:
        assert keep.all() or ours.pad


@pytest.mark.filterwarnings("ignore:.*mode.*parameter:DeprecationWarning")
def test_grey_pictures_equal_too():
    values = {"image_processor_type": "ViTImageProcessor", "size": 28, "image_mean": [0.3], "image_std": [0.4]}  # fmt: skip
    ours, given = processor(values), pictures("L")
    theirs = ViTImageProcessorPil(size=28, image_mean=[0.3], image_std=[0.4])
    pixels, _ = ours([converted(p, 1) for p in given])
    np.testing.assert_array_equal(pixels, theirs(given, return_tensors="np")["pixel_values"])


@pytest.mark.filterwarnings("ignore:.*mode.*parameter:DeprecationWarning")
@pytest.mark.parametrize("mode", ["RGBA", "L", "CMYK"])
def test_other_modes_become_rgb_as_do_convert_rgb_makes_them(mode):
    given = pictures(mode)
    theirs = ViTImageProcessorPil(size=24, do_convert_rgb=True)
    ours = processor({"image_processor_type": "ViTImageProcessor", "size": 24, "do_convert_rgb": True})  # fmt: skip
    pixels, _ = ours([converted(p, 3) for p in given])
    np.testing.assert_array_equal(pixels, theirs(given, return_tensors="np")["pixel_values"])


def test_the_table_equals_the_arithmetic_it_stands_for():
    p = Processor(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    x = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    y = (x.astype(np.float64) * (1 / 255)).astype(np.float32)
    y = (y - np.float32([0.1, 0.5, 0.9])) / np.float32([0.2, 0.3, 0.4])
    np.testing.assert_array_equal(p.numbers(x), np.moveaxis(y, -1, 0))
    np.testing.assert_array_equal(p.numbers(np.stack([x, x]))[1], p.numbers(x))


def test_the_middle_of_odd_and_small_pictures():
    x = np.arange(5 * 4, dtype=np.uint8).reshape(5, 4, 1)
    assert cropped(x, (2, 2))[..., 0].tolist() == [[5, 6], [9, 10]]
    wide = cropped(x, (3, 7))[..., 0]
    assert wide.shape == (3, 7) and wide[0].tolist() == [0, 0, 4, 5, 6, 7, 0]


@pytest.mark.parametrize("kind", THEIRS)
def test_settings_go_to_the_file_and_back(kind, tmp_path):
    theirs = THEIRS[kind](size={"height": 20, "width": 24}, image_mean=[0.1, 0.2, 0.3])
    theirs.save_pretrained(tmp_path)
    read = processor(json.loads((tmp_path / "preprocessor_config.json").read_text()))
    assert read.mean == (0.1, 0.2, 0.3) and read.size == Size(height=20, width=24)
    assert processor(settings(read)) == read
    # what we write, transformers reads as the same processor
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings(read)))
    again = THEIRS[kind].from_pretrained(tmp_path)
    x = [picture(50, 41)]
    np.testing.assert_array_equal(
        again(x, return_tensors="np")["pixel_values"], theirs(x, return_tensors="np")["pixel_values"]
    )  # fmt: skip


@pytest.mark.parametrize(
    "size, crop, large, small",
    [
        ({"height": 8, "width": 8}, None, {"height": 12, "width": 18}, None),
        ({"height": 16, "width": 16}, (14, 14), {"height": 14, "width": 21}, (12, 18)),
        ({"shortest_edge": 16}, (14, 14), {"shortest_edge": 21}, (12, 18)),
        (None, (14, 14), None, (12, 18)),
    ],
)
def test_made_for_another_size_what_is_cropped_keeps_its_share(size, crop, large, small):
    made = Processor(size=size and Size(**size), crop=crop).made_for((12, 18))
    assert made.size == (large and Size(**large)) and made.crop == small
    assert made.size is None or made.output == (12, 18)


@pytest.mark.parametrize(
    "values,code,word",
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "QKV-012", "CLIPImageProcessor"),
        ({}, "QKV-012", "None"),
        ({"do_flip_channel_order": True}, "QKV-010", "do_flip_channel_order"),
        ({"size_divisor": 32}, "QKV-010", "size_divisor"),
        ({"resample": "bilinear"}, "QKV-011", "resample"),
        ({"size": {"height": 20}}, "QKV-013", "height"),
        ({"size": {"hight": 20, "width": 20}}, "QKV-010", "hight"),
        ({"size": {"height": 20.5, "width": 20}}, "QKV-012", "20.5"),
        ({"size": 10**9}, "QKV-012", "whole numbers"),
        ({"image_mean": [0.5, 0.5]}, "QKV-013", "fit together"),
        ({"image_std": [0.5, 0.0, 0.5]}, "QKV-012", "above 0"),
        ({"image_mean": "half"}, "QKV-011", "image_mean"),
        ({"do_center_crop": True}, "QKV-015", "crop_size"),
        ({"data_format": "channels_last"}, "QKV-012", "data_format"),
        ({"resample": 9}, "QKV-012", "resample"),
    ],
)
def test_a_setting_that_would_change_pixels_is_a_named_error(values, code, word):
    if values and "image_processor_type" not in values:
        values = {"image_processor_type": "ViTImageProcessor"} | values
    with pytest.raises(ConfigError) as e:
        processor(values, "p.json")
    assert e.value.code == code and word in str(e.value) and e.value.place == "p.json"


def test_keys_that_change_nothing_are_read_over():
    made = processor({"image_processor_type": "ViTImageProcessor", "_valid_processor_keys": [], "do_reduce_labels": False})  # fmt: skip
    assert made == processor({"image_processor_type": "ViTImageProcessor"})


@pytest.mark.parametrize("height,width", [(1, 100_000), (60, 1)])
def test_a_picture_too_narrow_is_a_named_error(height, width):
    size = Size(shortest_edge=30) if width > 1 else Size(max_height=20, max_width=20)
    with pytest.raises(DataError) as e:
        size.of(height, width)
    assert e.value.code == "QKV-038"


def test_pictures_of_several_sizes_need_resizing_or_padding():
    two = [np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)]
    with pytest.raises(DataError):
        Processor()(two)
    with pytest.raises(DataError):
        Processor(pad=True, pad_size=(4, 4))(two)
    pixels, keep = Processor(pad=True)(two)
    assert pixels.shape == (2, 3, 5, 4) and keep.sum((1, 2)).tolist() == [16, 20]
    with pytest.raises(QkvError):
        Processor(size=Size(height=4, width=4), resample=BILINEAR, mean=(0.5,), std=(0.5,))(two)
