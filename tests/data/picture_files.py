"""Small picture files, good and bad, made by hand."""

import gzip
import io
import struct
import tarfile

import numpy as np
from PIL import Image


def pixels(height=6, width=8, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encoded(image, kind="PNG", **how):
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def class_folders(root, classes=("cat", "dog"), n=4, size=(6, 8), low=0, high=256):
    """root/<class>/<i>.png, each class of its own brightness where low < high is a narrow band."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(n):
            rng = np.random.default_rng((c, i))
            x = rng.integers(low, high, (*size, 3)) + (60 * c if high <= 100 else 0)
            (root / name / f"{i}.png").write_bytes(encoded(x.astype(np.uint8)))
    return root


def idx(array):
    """The bytes of an idx file."""
    head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(np.uint8).tobytes()


def idx_pair(folder, pictures, labels, name="train", packed=True):
    end, pack = (".gz", gzip.compress) if packed else ("", bytes)
    path = folder / f"{name}-images-idx3-ubyte{end}"
    path.write_bytes(pack(idx(pictures)))
    (folder / f"{name}-labels-idx1-ubyte{end}").write_bytes(pack(idx(np.asarray(labels))))
    return path


def archive(path, members, mode="w", kind=tarfile.PAX_FORMAT):
    """A tar archive of {name: bytes}, or of (TarInfo, bytes) pairs."""
    with tarfile.open(path, mode, format=kind) as tar:
        for name, raw in members.items() if isinstance(members, dict) else members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def recipe(path, **changes):
    """A classifier of the pictures there that is trained in a second."""
    values = {
        "name": "pets",
        "objective": {"kind": "image-classify", "crop": 1, "flip": True, "erase": 0.2},
        "data": {"train": {"path": str(path)}, "holdout": 0.3},
        "model": {"family": "vit", "size": "tiny", "patch_size": 4, "pool": "first"},
        "optim": {"lr": 3e-3, "warmup": 3},
        "train": {"steps": 12, "batch_rows": 16, "eval_every": 6, "save_every": 6, "log_every": 3},
    }
    return values | changes
