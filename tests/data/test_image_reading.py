"""Pictures from folders, archives and idx files: each is used or named with its reason; no file can do harm."""

import gzip
import io
import os
import struct
import tarfile
import zlib

import numpy as np
import pytest
from picture_files import archive, class_folders, encoded, idx, idx_pair, pixels
from PIL import Image

from qkv.data.images.decode import FIXES, Unusable, decode, from_numbers
from qkv.data.images.idx import read_idx
from qkv.data.images.sources import ImageSource, read_pictures, single
from qkv.data.images.tar import MAX_HEADER, MAX_NAME, members, unsafe
from qkv.data.report import REASONS, SkipReport
from qkv.data.watch import fingerprint
from qkv.errors import ConfigError, DataError, MissingError


def read(path, **how):
    report = SkipReport()
    found = list(read_pictures(ImageSource(path=str(path), **how), report))
    assert report.read == report.used + sum(report.skipped.values())
    assert report.used == len(found)
    assert all(reason in REASONS for reason in report.skipped)
    return found, report


def reason(raw, **how):
    with pytest.raises(Unusable) as e:
        decode(raw, **how)
    assert e.value.reason in FIXES and e.value.reason in REASONS
    return e.value.reason


# -- one file -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_the_listed_formats_are_read(kind):
    x = pixels(16, 16)
    made = decode(encoded(x, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert made.shape == (16, 16, 3) and made.dtype == np.uint8
    if kind in ("PNG", "BMP", "TIFF", "WEBP"):
        np.testing.assert_array_equal(made, x)


@pytest.mark.parametrize("kind", ["PPM", "ICO", "TGA", "PCX", "PDF", "EPS", "JPEG2000"])
def test_other_formats_are_not_opened(kind):
    assert reason(encoded(Image.new("RGB", (16, 16)), kind)) == "not a picture"


def test_channels_become_what_the_model_reads():
    grey = pixels(channels=1)
    np.testing.assert_array_equal(decode(encoded(grey)), grey.repeat(3, -1))
    np.testing.assert_array_equal(decode(encoded(grey), channels=1), grey)
    colour = Image.fromarray(pixels())
    luma = np.asarray(colour.convert("L"))[..., None]  # ITU-R 601-2
    np.testing.assert_array_equal(decode(encoded(colour), channels=1), luma)
    palette = colour.quantize(16)
    np.testing.assert_array_equal(decode(encoded(palette)), np.asarray(palette.convert("RGB")))
    cmyk = colour.convert("CMYK")
    np.testing.assert_array_equal(decode(encoded(cmyk, "TIFF")), np.asarray(cmyk.convert("RGB")))
    bits = colour.convert("1")
    assert set(decode(encoded(bits)).flat) <= {0, 255}


def test_alpha_is_laid_on_white():
    x = np.zeros((1, 3, 4), np.uint8)
    x[0, :, 3] = 0, 128, 255
    assert decode(encoded(x))[0, :, 0].tolist() == [255, 127, 0]
    see_through = Image.new("P", (2, 1))
    see_through.putpalette([10, 20, 30, 40, 50, 60])
    see_through.putdata([0, 1])
    made = decode(encoded(see_through, transparency=0))
    assert made[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_sixteen_bits_keep_their_brightness():
    x = np.array([[0, 257, 32768, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert decode(encoded(Image.fromarray(x), kind), channels=1)[0, :, 0].tolist() == [0, 1, 128, 255]  # fmt: skip


def test_floating_point_pixels_are_refused():
    x = Image.fromarray(np.ones((2, 2), np.float32))
    assert reason(encoded(x, "TIFF")) == "unknown kind of pixel"
    wide = Image.fromarray(np.full((2, 2), 70000, np.int32))
    assert reason(encoded(wide, "TIFF")) == "unknown kind of pixel"


def test_the_camera_was_turned():
    x = Image.fromarray(pixels(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    upright = decode(encoded(x, "TIFF", exif=exif))
    np.testing.assert_array_equal(upright, np.rot90(np.asarray(x), -1))
    exif[0x0112] = 77  # no orientation
    np.testing.assert_array_equal(decode(encoded(x, "PNG", exif=exif)), np.asarray(x))


def test_the_first_frame_of_several():
    frames = [Image.new("RGB", (3, 3), c) for c in ("red", "blue")]
    raw = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(raw)[0, 0].tolist() == [255, 0, 0]


def png(width, height, rows=b"", depth=8, colour=2):
    """A PNG of our own making: its header may lie."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))  # fmt: skip

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("size", [(9000, 9000), (11_000, 11_000), (60_000, 60_000), (1, 1 << 30)])
def test_a_bomb_is_judged_by_its_header(size):
    # the second passes Pillow's first limit, the third its second one
    assert reason(png(*size)) == "too many pixels"


def test_the_limit_is_the_users():
    assert reason(png(100, 100), most=9999) == "too many pixels"


@pytest.mark.parametrize(
    "raw,why",
    [
        (b"", "empty file"),
        (b"hello", "not a picture"),
        (b"GIF89a", "damaged picture"),
        (png(0, 5), "damaged picture"),
        (encoded(pixels())[:20], "damaged picture"),
        (png(5, 5, b"\0" * 3), "damaged picture"),
        (encoded(pixels(64, 64), "JPEG")[:-400], "damaged picture"),
        (encoded(pixels(64, 64))[:2000], "damaged picture"),
    ],
)
def test_a_bad_file_has_a_reason(raw, why):
    assert reason(raw) == why


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_no_damage_makes_anything_but_a_reason(kind):
    whole = encoded(pixels(24, 24), kind)
    rng = np.random.default_rng(0)
    for _ in range(60):
        raw = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for at in rng.integers(0, len(raw), 4):
            raw[at] = rng.integers(0, 256)
        try:
            assert decode(bytes(raw)).dtype == np.uint8
        except Unusable as e:
            assert e.reason in FIXES


def test_arrays_of_every_layout():
    x = pixels(5, 7)
    for given in (x, np.moveaxis(x, -1, 0), x.astype(np.float32) / 255):
        np.testing.assert_array_equal(from_numbers(given, 3, ""), x)
    np.testing.assert_array_equal(from_numbers(x[..., 0], 3, ""), x[..., :1].repeat(3, -1))
    assert from_numbers(x, 1, "").shape == (5, 7, 1)
    clear = np.concatenate([x, np.zeros((5, 7, 1), np.uint8)], -1)
    assert (from_numbers(clear, 3, "") == 255).all()


@pytest.mark.parametrize(
    "x",
    [
        np.zeros((5,), np.uint8),
        np.zeros((5, 7, 2), np.uint8),
        np.zeros((0, 7, 3), np.uint8),
        np.full((5, 7), 300.0),
        np.full((5, 7), np.nan),
        np.full((5, 7), -0.1),
        np.zeros((5, 7), np.int64),
        np.zeros((2, 5, 7, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_pictures(x):
    with pytest.raises(DataError) as e:
        from_numbers(x, 3, "picture 3")
    assert e.value.code == "QKV-038" and e.value.place == "picture 3" and e.value.fix


def test_a_single_picture_is_an_error_with_a_fix(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as e:
        single(tmp_path / "a.png", 3)
    assert e.value.code == "QKV-038" and "a.png" in e.value.place and "PNG" in e.value.fix
    (tmp_path / "b.png").write_bytes(png(60_000, 60_000))
    with pytest.raises(DataError) as e:
        single(tmp_path / "b.png", 3)
    assert e.value.code == "QKV-037"
    with pytest.raises(MissingError) as e:
        single(tmp_path / "c.png", 3)
    assert "a.png" in e.value.fix or "b.png" in e.value.fix
    with pytest.raises(MissingError):
        single(tmp_path, 3)


# -- folders ------------------------------------------------------------------------------------------------


def test_a_folder_of_class_folders(tmp_path):
    root = class_folders(tmp_path / "pets")
    (root / "cat" / "deep").mkdir()
    (root / "cat" / "deep" / "x.JPG").write_bytes(encoded(pixels(), "JPEG"))
    found, report = read(root)
    assert len(found) == 9 and not report.skipped
    assert {f.label for f in found} == {"cat", "dog"}
    assert found[0].name.endswith("pets/cat/0.png") and found[0].number == 1
    assert [f.number for f in found] == list(range(1, 10))


def test_every_file_of_a_folder_is_accounted_for(tmp_path):
    root = class_folders(tmp_path / "pets", n=1)
    (root / "loose.png").write_bytes(encoded(pixels()))
    (root / "cat" / "notes.txt").write_text("a cat")
    (root / "cat" / "empty.png").write_bytes(b"")
    (root / "dog" / "short.jpg").write_bytes(encoded(pixels(64, 64), "JPEG")[:-500])
    (root / "dog" / "bomb.png").write_bytes(png(60_000, 60_000))
    (root / "dog" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "dog" / "loop").symlink_to(root, target_is_directory=True)
    os.mkfifo(root / "dog" / "pipe.png")
    found, report = read(root)
    assert len(found) == 2
    assert dict(report.skipped) == {
        "no class folder": 1,
        "unknown kind of file": 1,
        "empty file": 1,
        "damaged picture": 1,
        "too many pixels": 1,
        "cannot be opened": 1,
        "link or device": 2,
    }
    before = fingerprint(str(root))
    assert before == fingerprint(str(root)) and before["whole"]
    (root / "cat" / "notes.txt").write_text("a dog")
    assert fingerprint(str(root))["sha256"] != before["sha256"]
    places = {(file.rpartition("/")[2], why) for file, _, why in report.places()}
    assert ("bomb.png", "too many pixels") in places and ("gone.png", "cannot be opened") in places


def test_nothing_usable_is_told(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError) as e:
        read(tmp_path)
    assert e.value.code == "QKV-032" and "class" in e.value.fix
    with pytest.raises(MissingError):
        read(tmp_path / "b")
    with pytest.raises(MissingError):
        (tmp_path / "f").write_text("x")
        read(tmp_path / "f")


@pytest.mark.parametrize(
    "values",
    [
        {"path": ""},
        {"path": "a", "labels": "b"},
        {"path": "a.tar", "images": "b"},
        {"path": "a", "format": "idx"},
        {"path": "a", "max_pixels": 0},
        {"path": "a", "max_pixels": 1 << 30},
    ],
)
def test_a_source_that_cannot_be(values):
    with pytest.raises(ConfigError):
        ImageSource(**values)


def test_kinds_by_name():
    kinds = {"a/b": "folder", "a.tar": "tar", "a.TAR.gz": "tar", "a.tgz": "tar", "train-images-idx3-ubyte.gz": "idx", "a.json": "coco"}  # fmt: skip
    assert {p: ImageSource(path=p).kind for p in kinds} == kinds


# -- archives -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("mode,end", [("w", ".tar"), ("w:gz", ".tar.gz")])
def test_an_archive_is_the_folder_it_was(mode, end, kind, tmp_path):
    root = class_folders(tmp_path / "pets")
    names = {f"{c}/{i}.png": (root / c / f"{i}.png").read_bytes() for c in ("cat", "dog") for i in range(4)}  # fmt: skip
    names["dog/" + "long" * 20 + "/" + "deep" * 10 + ".png"] = names["dog/3.png"]
    path = archive(tmp_path / f"pets{end}", names, mode, kind)
    found, report = read(path)
    assert [(f.label, f.name) for f in found] == [(n.split("/")[0], f"{path}/{n}") for n in names]
    for f, raw in zip(found, names.values(), strict=True):
        np.testing.assert_array_equal(f.pixels, decode(raw))
        assert f.blob.read() == raw  # found again later
    assert not report.skipped


def test_hostile_members_are_named_and_never_followed(tmp_path):
    good = encoded(pixels())
    link, device = tarfile.TarInfo("cat/link.png"), tarfile.TarInfo("cat/dev.png")
    link.type, link.linkname, device.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.CHRTYPE
    folder = tarfile.TarInfo("cat/deep")
    folder.type = tarfile.DIRTYPE
    given = [
        ("cat/1.png", good), ("../cat/2.png", good), ("/cat/3.png", good), (link, b""), (device, b""),
        (folder, b""), ("cat/../../4.png", good), ("cat/1.png", good), ("cat/5.txt", b"x"), ("top.png", good),
        ("c" * (MAX_NAME + 1) + "/6.png", good), ("./dog/7.png", good),
    ]  # fmt: skip
    before = set(tmp_path.rglob("*"))
    found, report = read(archive(tmp_path / "a.tar", given))
    assert [f.label for f in found] == ["cat", "dog"]
    assert dict(report.skipped) == {
        "unsafe name": 4,
        "link or device": 2,
        "same name again": 1,
        "unknown kind of file": 1,
        "no class folder": 1,
    }
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "a.tar"}


def test_unsafe_names():
    for name in ("/a", "../a", "a/../b", "a\\..\\b", "", "a\0b", "\\\\host\\a"):
        assert unsafe(name)
    assert not unsafe("a..b/c.png")


@pytest.mark.parametrize("cut", [0, 100, 700, 1500, 2048])  # the last: after the first member
def test_a_damaged_archive_is_an_error(cut, tmp_path):
    path = archive(tmp_path / "a.tar", {"cat/1.png": encoded(pixels(20, 20)), "dog/2.png": encoded(pixels(20, 20))})  # fmt: skip
    whole = path.read_bytes()
    assert whole[2048:].startswith(b"dog/2.png\0")
    path.write_bytes(whole[:cut])
    with pytest.raises(DataError) as e:
        read(path)
    assert e.value.code == "QKV-036"
    (tmp_path / "b.tar").write_bytes(b"x" * 2048)
    with pytest.raises(DataError) as e:
        read(tmp_path / "b.tar")
    assert "no tar header" in e.value.seen


def test_an_extended_header_may_not_be_huge(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, MAX_HEADER + 1
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(4096))
    with pytest.raises(DataError) as e:
        list(members(str(tmp_path / "a.tar")))
    assert e.value.code == "QKV-036"
    info.type, info.size = tarfile.XHDTYPE, 512
    (tmp_path / "b.tar").write_bytes(info.tobuf() + b"9999 path=x\n".ljust(512, b"\0"))
    with pytest.raises(DataError):
        list(members(str(tmp_path / "b.tar")))


def test_a_member_too_large_is_passed_over(tmp_path, monkeypatch):
    from qkv.data.images import tar

    monkeypatch.setattr(tar, "MAX_BYTES", 1000)
    given = {"cat/1.png": b"x" * 2000, "cat/2.png": encoded(pixels())}
    found, report = read(archive(tmp_path / "a.tar", given))
    assert len(found) == 1 and report.skipped == {"too many bytes": 1}


def test_a_packed_archive_that_swells_like_a_bomb(tmp_path):
    path = tmp_path / "a.tar.gz"
    head = tarfile.TarInfo("cat/1.png")
    head.size = 16 << 20
    path.write_bytes(gzip.compress(head.tobuf() + bytes(16 << 20), 9))
    with pytest.raises(DataError) as e:
        read(path)
    assert e.value.code == "QKV-036" and "bomb" in e.value.seen


# -- idx ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_an_idx_pair(packed, tmp_path):
    x = pixels(5, 28 * 28).reshape(5, 28, 28, 3)[..., 0]
    path = idx_pair(tmp_path, x, [3, 1, 4, 1, 5], packed=packed)
    found, report = read(path)
    assert [f.label for f in found] == ["3", "1", "4", "1", "5"]
    np.testing.assert_array_equal(np.stack([f.pixels[..., 0] for f in found]), x)
    assert found[2].place == f"{path}:3"


def test_idx_files_that_do_not_fit(tmp_path):
    x = np.zeros((4, 3, 3), np.uint8)
    path = idx_pair(tmp_path, x, [1, 2, 3])
    with pytest.raises(DataError) as e:
        read(path)
    assert e.value.code == "QKV-031"
    with pytest.raises(DataError):
        read(tmp_path / "train-labels-idx1-ubyte.gz", format="idx", labels=str(path))
    for raw, code in (
        (idx(x)[:-1], "QKV-036"),
        (idx(x) + b"x", "QKV-033"),
        (b"\0\0\x0d\x03" + idx(x)[4:], "QKV-033"),
        (b"\0\0\x08", "QKV-033"),
        (b"\0\0\x08\x03" + b"\xff" * 12, "QKV-037"),
        (idx(x)[:20], "QKV-036"),
    ):
        (tmp_path / "bad-idx3").write_bytes(raw)
        with pytest.raises(DataError) as e:
            read_idx(str(tmp_path / "bad-idx3"))
        assert e.value.code == code
    with pytest.raises(ConfigError):
        ImageSource(path="some.idx")  # where are its labels?


def test_pictures_without_pixels_in_an_idx_file(tmp_path):
    path = idx_pair(tmp_path, np.zeros((2, 0, 3), np.uint8), [1, 2])
    with pytest.raises(DataError) as e:
        read(path)
    assert e.value.code == "QKV-032" and "empty picture" in e.value.seen


def test_io_of_a_picture_leaves_no_warning(tmp_path, recwarn):
    x = Image.fromarray(pixels())
    exif = Image.Exif()
    exif[0x0112] = 3
    raw = io.BytesIO()
    x.save(raw, "JPEG", exif=exif.tobytes()[:-6])
    decode(raw.getvalue())
    assert not recwarn.list
