"""preprocessor_config.json <-> Processor.  Every key is taken, known to change no pixel, or an error."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...errors import ConfigError, did_you_mean
from .process import BICUBIC, Pair, Processor, Size

FILE = "preprocessor_config.json"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DEFAULTS: dict[str, Processor] = {  # what a file of this type leaves open
    "ViTImageProcessor": Processor(size=Size(height=224, width=224)),
    "DeiTImageProcessor": Processor(
        kind="DeiTImageProcessor",
        size=Size(height=256, width=256),
        resample=BICUBIC,
        crop=(224, 224),
    ),
    "DetrImageProcessor": Processor(
        kind="DetrImageProcessor",
        size=Size(shortest_edge=800, longest_edge=1333),
        mean=IMAGENET[0],
        std=IMAGENET[1],
        pad=True,
    ),
}
# keys that say how the file was made, or how results are handed over, and change no pixel
SILENT = frozenset(
    "image_processor_type feature_extractor_type processor_class _valid_processor_keys qkv "
    "return_tensors device disable_grouping image_seq_length transformers_version "
    "format do_convert_annotations model_input_names".split()
)


class Settings:
    """The file while it is read; each error names the key, its value and what is known."""

    def __init__(self, values: Mapping[str, Any], place: object) -> None:
        self.values, self.place = values, place
        self.used: set[str] = set()

    def take(self, name: str, kind: type, default: Any) -> Any:
        """null counts as absent.  Raises ConfigError QKV-011."""
        self.used.add(name)
        value = self.values.get(name)
        if value is None:
            return default
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise self.wrong(name, f"must be {kind.__name__}", "QKV-011")
        return value

    def wrong(self, name: str, why: str, code: str = "QKV-012") -> ConfigError:
        seen = f"{name} {why} (got {str(self.values.get(name))[:60]})"
        return ConfigError(seen, place=self.place, fix="correct the file", code=code)

    def size(
        self, name: str, default: Size | None, square: bool, longest: int | None
    ) -> Size | None:
        """{"height": …}, a list (height, width), or one number: both sides, or the shorter with a limit for the longer."""
        self.used.add(name)
        value = self.values.get(name)
        if value is None:
            return default
        if type(value) is int:
            made = {"height": value, "width": value} if square else {"shortest_edge": value}
            value = made if square or longest is None else made | {"longest_edge": longest}
        elif isinstance(value, list) and len(value) == 2:
            value = dict(zip(("height", "width"), value, strict=True))
        if not isinstance(value, Mapping):
            raise self.wrong(name, "is no size", "QKV-011")
        if unknown := [k for k in value if k not in Size.__dataclass_fields__]:
            raise self.wrong(name, f"has an unknown {unknown[0]!r}", "QKV-010")
        try:
            return Size(**value)
        except ConfigError as e:
            raise ConfigError(e.seen, place=self.place, fix=e.fix, code=e.code) from None

    def exact(self, name: str, default: Pair | None) -> Pair | None:
        self.used.add(name)
        if self.values.get(name) is None:
            return default
        made = self.size(name, None, True, None)
        if made is None or made.exact is None:
            raise self.wrong(name, "must have height and width")
        return made.exact

    def channels(self, name: str, default: tuple[float, ...] | None) -> tuple[float, ...] | None:
        """One number of each channel; a single one stands for three."""
        self.used.add(name)
        value = self.values.get(name)
        if value is None:
            return default
        listed = [value] * 3 if type(value) in (int, float) else value
        if not isinstance(listed, list) or not all(type(x) in (int, float) for x in listed):
            raise self.wrong(name, "must be a list of numbers", "QKV-011")
        return tuple(float(x) for x in listed)

    def done(self) -> None:
        """Raises ConfigError QKV-010 for a key nobody asked for: it may change pixels."""
        for name, value in self.values.items():
            if name not in self.used and name not in SILENT and value not in (None, False):
                raise ConfigError(
                    f"{name!r} = {str(value)[:60]} is not known here and may change the pixels",
                    place=self.place,
                    fix=did_you_mean(name, sorted(self.used)),
                    code="QKV-010",
                )


def kind_of(values: Mapping[str, Any], place: object) -> str:
    """The processor's name without its back end: ViTImageProcessorFast and ViTFeatureExtractor are ViTImageProcessor."""
    named = values.get("image_processor_type") or values.get("feature_extractor_type")
    kind = str(named).removesuffix("Fast").removesuffix("Pil")
    kind = kind.replace("FeatureExtractor", "ImageProcessor")
    if kind not in DEFAULTS:
        raise ConfigError(
            f"image_processor_type {named!r} is not known",
            place=place,
            fix=did_you_mean(kind, DEFAULTS),
            code="QKV-012",
        )
    return kind


def processor(values: Any, place: object = FILE) -> Processor:
    """What the file says.  Raises ConfigError QKV-010 … QKV-013."""
    if not isinstance(values, Mapping):
        raise ConfigError("is no object", place=place, fix="fetch it again", code="QKV-014")
    kind = kind_of(values, place)
    base, keys = DEFAULTS[kind], Settings(values, place)
    detr = kind == "DetrImageProcessor"
    square = keys.take("default_to_square", bool, not detr)
    longest = keys.take("max_size", int, 1333 if detr else None)
    for name in ("data_format", "input_data_format"):
        if keys.take(name, str, "channels_first") != "channels_first":
            raise keys.wrong(name, "is not computed here")
    on = {
        name: keys.take(f"do_{name}", bool, default)
        for name, default in (
            ("resize", True),
            ("center_crop", base.crop is not None),
            ("rescale", True),
            ("normalize", True),
            ("pad", keys.take("pad_and_return_pixel_mask", bool, base.pad)),
        )
    }
    size = keys.size("size", base.size, square, longest)
    crop = keys.exact("crop_size", base.crop)
    if on["center_crop"] and crop is None:
        raise keys.wrong("crop_size", "is missing, and do_center_crop is on", "QKV-015")
    factor = keys.take("rescale_factor", float, 1 / 255)
    mean, std = (
        keys.channels(name, default)
        for name, default in (("image_mean", base.mean), ("image_std", base.std))
    )
    made = {
        "size": size if on["resize"] else None,
        "resample": keys.take("resample", int, base.resample),
        "crop": crop if on["center_crop"] and not detr else None,
        "factor": factor if on["rescale"] else None,
        "mean": mean if on["normalize"] else None,
        "std": std if on["normalize"] else None,
        "pad": on["pad"],
        "pad_size": keys.exact("pad_size", None),
        "convert_rgb": keys.take("do_convert_rgb", bool, False),
    }
    keys.done()
    try:
        return replace(base, **made)
    except ConfigError as e:
        raise ConfigError(e.seen, place=place, fix=e.fix, code=e.code) from None


def settings(p: Processor) -> dict[str, Any]:
    """The inverse: the file's content, every step said."""
    made: dict[str, Any] = {
        "image_processor_type": p.kind,
        "do_resize": p.size is not None,
        "resample": p.resample,
        "do_rescale": p.factor is not None,
        "do_normalize": p.mean is not None,
    }
    if p.size is not None:
        made["size"] = p.size.to_dict()
    if p.kind != "DetrImageProcessor":
        made["do_center_crop"] = p.crop is not None
    if p.crop is not None:
        made["crop_size"] = dict(zip(("height", "width"), p.crop, strict=True))
    if p.factor is not None:
        made["rescale_factor"] = p.factor
    if p.mean is not None and p.std is not None:
        made |= {"image_mean": list(p.mean), "image_std": list(p.std)}
    if p.pad or p.kind == "DetrImageProcessor":
        made["do_pad"] = p.pad
    if p.pad_size is not None:
        made["pad_size"] = dict(zip(("height", "width"), p.pad_size, strict=True))
    if p.convert_rgb:
        made["do_convert_rgb"] = True
    return made
