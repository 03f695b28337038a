"""Tiny published tokenizers in every layout, made on the spot, and lines that try to break them."""

import io
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from qkv.data.phrases import pairs

SIZE = 700


@cache
def corpus() -> list[str]:
    """Phrases in both languages, and words of random characters so that odd ones get pieces too."""
    rng = random.Random(5)
    phrases = [s for pair in pairs("hand") for s in pair] + [
        s for p in pairs("dev")[:400] for s in p
    ]
    odd = ["".join(chr(rng.choice(ODD)) for _ in range(rng.randint(1, 5))) for _ in range(150)]
    return phrases + [" ".join(rng.sample(odd, 4)) for _ in range(150)]


ODD = [*range(0xE9, 0xF9), *range(0x3B1, 0x3C0), *range(0x410, 0x420), *range(0x4E00, 0x4E10), *range(0x1100, 0x1108), 0x1F600, 0x1F44D, 0x301]  # fmt: skip

SPECIAL_TEXT = [
    "<s>", "</s>", "<pad>", "<unk>", "<mask>", "[CLS]", "[SEP]", "[MASK]", "[PAD]", "[UNK]", "<extra_id_0>", "<extra_id_99>",
    "<|endoftext|>", "en_XX", "ko_KR", "<0x41>", ">>ko<<",
]  # fmt: skip
SEEDS = [
    "", " ", "   ", "\t", "\n", "\r\n", "a\tb", " a", "a ", "  a  b  ", "\0", "a\0b", "\x01\x02\x1f\x7f\x85", "a\u2028b\u2029c", "\ufeffa", "\ufffd",
    "\u200b", "a\u200db", "\u00a0x\u3000y", "שלום עולם", "مرحبا بالعالم", "\u202eabc\u202c", "👩\u200d👩\u200d👧\u200d👦", "👍🏽 ok", "🇰🇷🇺🇸", "e\u0301" * 20,
    "a" + "\u0301" * 300, "Ⅷ ﬁ ＜ｓ＞ ｱｲｳ ½ ①", "한글", "한글", "ㅎㅏㄴㄱㅡㄹ", "한국어ㅋㅋㅋ", "각", "ᄒᆞᆫ글", "뷁", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "İstanbul ǅ ß ẞ Σς",
    "x" * 400, "가" * 300, "ab " * 200, "don't can't I'm we've he's they'd you'll", "3.14159 1,000,000 ١٢٣ 一二三", "▁a▁b", "▁", "##a", "Ġa", "a▁",
    "http://a.b/c?d=e&f#g", "\U0010ffff\ue000\ufdd0", "\u0e01\u0e33\u0e49", "நிநி", "क्षि", "ＡＢＣ", "中文字符日本語テスト",
]  # fmt: skip
RANGES = [
    (0, 0x80), (0x20, 0x7F), (0x20, 0x7F), (0x80, 0x250), (0x300, 0x370), (0x370, 0x600), (0x600, 0x780), (0x900, 0xE80), (0x1100, 0x1200),
    (0x2000, 0x2100), (0x3000, 0x3200), (0x4E00, 0x5000), (0xAC00, 0xD7A4), (0xAC00, 0xD7A4), (0xF900, 0xFB50), (0xFE00, 0x10000), (0x1D400, 0x1D500),
    (0x1F1E6, 0x1F200), (0x1F300, 0x1F700), (0xE0000, 0xE0080), (0, 0x110000),
]  # fmt: skip


def hostile_lines(n: int, seed: int = 3, special: bool = False) -> list[str]:
    """n lines, the same for a seed: real phrases bent, random Unicode, mixtures; `special` adds names of special tokens."""
    import unicodedata

    rng, phrases = random.Random(seed), corpus()
    lines = list(SEEDS)
    bend: list[Callable[[str], str]] = [
        str, str.upper, str.title, lambda s: s[::-1], lambda s: s.replace(" ", rng.choice(["", "  ", "\t", "\u3000", "\u00a0", "\u200b"])),
        lambda s: unicodedata.normalize("NFD", s), lambda s: unicodedata.normalize("NFKC", s), lambda s: unicodedata.normalize("NFD", s)[: len(s)],
        lambda s: "".join(c + chr(rng.randint(0x300, 0x36F)) * rng.choice((0, 0, 1, 3)) for c in s),
    ]  # fmt: skip

    def noise() -> str:
        low, high = rng.choice(RANGES)
        drawn = (rng.randrange(low, high) for _ in range(rng.randint(1, 12)))
        return "".join(chr(c) for c in drawn if not 0xD800 <= c < 0xE000)

    while len(lines) < n:
        parts = []
        for _ in range(rng.choice((1, 1, 2, 3))):
            what = rng.random()
            if what < 0.45:
                parts.append(rng.choice(bend)(rng.choice(phrases)))
            elif what < 0.8:
                parts.append(noise())
            elif what < 0.97 or not special:
                parts.append(rng.choice(SEEDS[:45]))
            else:
                parts.append(rng.choice(SPECIAL_TEXT))
        lines.append(rng.choice(("", " ", " ")).join(parts))
    if special:
        lines[:0] = SPECIAL_TEXT + [f"a{t}b {t} {t}" for t in SPECIAL_TEXT]
    else:
        lines = [x for x in lines if not any(t in x for t in SPECIAL_TEXT)]
    return lines[:n]


# ---- layouts: name -> files


def dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def spm(**options: Any) -> bytes:
    from sentencepiece import SentencePieceTrainer

    out = io.BytesIO()
    settings: dict[str, Any] = {
        "vocab_size": SIZE,
        "minloglevel": 2,
        "num_threads": 1,
        "hard_vocab_limit": False,
    }
    SentencePieceTrainer.train(
        sentence_iterator=iter(corpus()), model_writer=out, **{**settings, **options}
    )
    return out.getvalue()


@cache
def byte_level() -> tuple[dict[str, int], list[tuple[str, str]]]:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(corpus(), trainer)
    model = json.loads(made.to_str())["model"]
    return model["vocab"], [tuple(m) for m in model["merges"]]


def wordpiece_lines() -> list[str]:
    from tokenizers import BertWordPieceTokenizer

    made = BertWordPieceTokenizer(lowercase=True)
    made.train_from_iterator(corpus(), vocab_size=SIZE, show_progress=False)
    vocab = made.get_vocab()
    return sorted(vocab, key=vocab.__getitem__)


def merges_files(specials: list[str], config: dict[str, Any]) -> dict[str, bytes]:
    vocab, merges = byte_level()
    every = specials + sorted(vocab, key=vocab.__getitem__)
    text = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges)
    return {
        "vocab.json": dumped({p: i for i, p in enumerate(every)}),
        "merges.txt": text.encode(),
        "tokenizer_config.json": dumped(config),
    }


def bert(lower: bool = True) -> dict[str, bytes]:
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    return {
        "vocab.txt": "".join(f"{p}\n" for p in wordpiece_lines()).encode(),
        "tokenizer_config.json": dumped(config),
    }


def bert_cased_accents() -> dict[str, bytes]:
    files = bert(lower=False)
    config = json.loads(files["tokenizer_config.json"])
    config |= {"strip_accents": True, "tokenize_chinese_chars": False}
    return {**files, "tokenizer_config.json": dumped(config)}


def gpt2() -> dict[str, bytes]:
    return merges_files(["<|endoftext|>"], {"tokenizer_class": "GPT2Tokenizer"})


def gpt2_bos() -> dict[str, bytes]:
    return merges_files(
        ["<|endoftext|>"],
        {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "add_prefix_space": True},
    )


def roberta() -> dict[str, bytes]:
    files = merges_files(
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], {"tokenizer_class": "RobertaTokenizer"}
    )
    mask = {
        "content": "<mask>",
        "lstrip": True,
        "rstrip": False,
        "normalized": True,
        "single_word": False,
    }
    return {**files, "special_tokens_map.json": dumped({"mask_token": mask, "bos_token": "<s>"})}


def bart() -> dict[str, bytes]:
    return merges_files(
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], {"tokenizer_class": "BartTokenizer"}
    )


def t5() -> dict[str, bytes]:
    model = spm(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    return {
        "spiece.model": model,
        "tokenizer_config.json": dumped({"tokenizer_class": "T5Tokenizer"}),
    }


def bigbird(kind: str = "control_symbols") -> dict[str, bytes]:
    """`kind`: what its special tokens are to sentencepiece; "": they are added after its pieces."""
    names = {kind: "[CLS],[SEP],[MASK]"} if kind else {}
    return {
        "spiece.model": spm(pad_id=0, eos_id=1, bos_id=2, unk_id=3, **names),
        "tokenizer_config.json": dumped({"tokenizer_class": "BigBirdTokenizer"}),
    }


def bigbird_user() -> dict[str, bytes]:
    return bigbird("user_defined_symbols")


def bigbird_bare() -> dict[str, bytes]:
    return bigbird("")


def mbart() -> dict[str, bytes]:
    config = {"tokenizer_class": "MBartTokenizer", "src_lang": "ko_KR"}
    return {"sentencepiece.bpe.model": spm(), "tokenizer_config.json": dumped(config)}


def marian() -> dict[str, bytes]:
    from sentencepiece import SentencePieceProcessor

    sides = [spm(vocab_size=n, character_coverage=0.98) for n in (SIZE, SIZE - 200)]
    pieces = {"</s>": None, "<unk>": None}
    for side in sides:
        made = SentencePieceProcessor(model_proto=side)
        pieces |= dict.fromkeys(made.id_to_piece(i) for i in range(3, len(made)))
    names = [*list(pieces)[:-7], ">>ko<<", "<pad>"]  # some pieces have no id
    return {
        "source.spm": sides[0],
        "target.spm": sides[1],
        "vocab.json": dumped({p: i for i, p in enumerate(names)}),
        "tokenizer_config.json": dumped(
            {"tokenizer_class": "MarianTokenizer", "target_lang": "ko"}
        ),
    }


def saved(files: dict[str, bytes], folder: Path) -> dict[str, bytes]:
    """The same tokenizer as transformers saves it: tokenizer.json."""
    from transformers import AutoTokenizer

    write(folder, files)
    out = folder / "saved"
    AutoTokenizer.from_pretrained(folder).save_pretrained(out)
    return {p.name: p.read_bytes() for p in out.iterdir() if p.is_file()}


def llama_json() -> dict[str, bytes]:
    """BPE with byte fallback, cut by Metaspace, <s> in front."""
    from tokenizers import (
        AddedToken,
        Tokenizer,
        decoders,
        models,
        pre_tokenizers,
        processors,
        trainers,
    )

    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    alphabet = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE + 256,
        special_tokens=alphabet,
        show_progress=False,
        limit_alphabet=200,
        max_token_length=12,
    )
    made.train_from_iterator(corpus(), trainer)
    value = json.loads(made.to_str())
    value["added_tokens"] = value["added_tokens"][:3]
    made = Tokenizer.from_str(json.dumps(value))
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    made.add_tokens([AddedToken("coffeehouse", special=False), AddedToken("커피숍", special=False)])
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "legacy": False,
    }
    return {"tokenizer.json": made.to_str().encode(), "tokenizer_config.json": dumped(config)}


def qwen_json() -> dict[str, bytes]:
    """Byte-level BPE under NFC, cut by a regular expression, with chat marks as added special tokens."""
    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
    )

    vocab, merges = byte_level()
    made = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    made.normalizer = normalizers.NFC()
    pattern = Regex(r"""(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+""")  # fmt: skip
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    made.add_tokens([AddedToken("<think>", special=False)])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    return {"tokenizer.json": made.to_str().encode(), "tokenizer_config.json": dumped(config)}


LAYOUTS: dict[str, Callable[[], dict[str, bytes]]] = {
    "bert": bert, "bert-cased-accents": bert_cased_accents, "gpt2": gpt2, "gpt2-bos": gpt2_bos, "roberta": roberta, "bart": bart,
    "t5": t5, "mbart": mbart, "marian": marian, "bigbird": bigbird, "bigbird-user": bigbird_user, "bigbird-bare": bigbird_bare,
    "llama-json": llama_json, "qwen-json": qwen_json,
}  # fmt: skip
SAVED = ("bert", "gpt2", "roberta", "t5", "mbart", "bigbird")  # once more as tokenizer.json


@cache
def layout(name: str) -> dict[str, bytes]:
    return LAYOUTS[name]()


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder
