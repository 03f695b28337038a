"""config.json and generation_config.json: strict JSON, no code, and settings of the right kind."""

import json
import os

import pytest

from qkv.config import MAX_CONFIG_BYTES
from qkv.errors import QkvError
from qkv.weights.strict import CONFIG, GENERATION, KNOWN, generation, read_config


def wrong(call, code: str, *words: str) -> QkvError:
    with pytest.raises(QkvError) as e:
        call()
    line = str(e.value)
    assert e.value.code == code, line
    assert e.value.place and e.value.fix and "\n" not in line
    for word in words:
        assert word in line, (word, line)
    return e.value


def put(folder, name=CONFIG, **values):
    (folder / name).write_text(json.dumps(values), "utf-8")
    return folder


def nested(depth: int) -> str:
    return '{"model_type": "gpt2", "a": ' + "[" * depth + "]" * depth + "}"


# --- config.json ---------------------------------------------------------------------------------


def test_what_transformers_writes_is_read(tmp_path):
    from transformers import (
        BertConfig,
        GPT2Config,
        LlamaConfig,
        MarianConfig,
        MBartConfig,
        T5Config,
    )

    for kind in (BertConfig, GPT2Config, LlamaConfig, MarianConfig, MBartConfig, T5Config):
        kind().save_pretrained(tmp_path)
        assert read_config(tmp_path) == json.loads((tmp_path / CONFIG).read_text("utf-8"))
        assert read_config(tmp_path)["model_type"] == kind.model_type


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "3", '"gpt2"', "null", '{"model_type": "gpt2"', '{"model_type": "gpt2", "a": NaN}', '{"a": Infinity}', '{"a": -Infinity}',
        '{"model_type": "gpt2", "model_type": "bert"}', '{"a": {"b": 1, "b": 2}}', "{'model_type': 'gpt2'}", '{"model_type": "gpt2", "a": 1e999}', '{"a": 1,}', nested(17), nested(100_000),
        '{"model_type": "gpt2", "a": ' + "9" * 5000 + "}",
    ],
)  # fmt: skip
def test_what_is_not_a_strict_object_is_refused(tmp_path, text):
    (tmp_path / CONFIG).write_text(text, "utf-8")
    wrong(lambda: read_config(tmp_path), "QKV-014", CONFIG)


def test_bounds_are_where_they_are_said_to_be(tmp_path):
    (tmp_path / CONFIG).write_text(nested(15), "utf-8")
    assert read_config(tmp_path)["model_type"] == "gpt2"
    for filling, code in ((0, ""), (1, "QKV-014")):
        text = '{"model_type": "gpt2"}'
        (tmp_path / CONFIG).write_text(text + " " * (MAX_CONFIG_BYTES - len(text) + filling))
        if code:
            wrong(lambda: read_config(tmp_path), code, "at most 1,048,576")
        else:
            assert read_config(tmp_path)
    os.truncate(tmp_path / CONFIG, 200 << 30)  # takes no disk, and may take no memory
    wrong(lambda: read_config(tmp_path), "QKV-014", "214,748,364,800 bytes")
    (tmp_path / CONFIG).write_bytes(b'{"model_type": "\xff"}')
    wrong(lambda: read_config(tmp_path), "QKV-014")
    (tmp_path / CONFIG).write_bytes(b'\xef\xbb\xbf{"model_type": "bert"}')
    assert read_config(tmp_path)["model_type"] == "bert"


@pytest.mark.parametrize("value", [None, 3, "", "x" * 65, "a\nb", ["gpt2"]])
def test_a_model_without_a_type_is_named(tmp_path, value):
    put(tmp_path, architectures=["GPT2LMHeadModel"])
    wrong(lambda: read_config(tmp_path), "QKV-055", "no 'model_type'", "GPT2LMHeadModel")
    put(tmp_path, model_type=value)
    wrong(lambda: read_config(tmp_path), "QKV-055", "model_type")


@pytest.mark.parametrize(
    "more",
    [
        {"auto_map": {"AutoModel": "modeling.Mine"}},
        {"trust_remote_code": True},
        {"custom_pipelines": {"x": {}}},
        {"text_config": {"auto_map": {"AutoConfig": "org/other--configuration.Mine"}}},
        {"parts": [{"_target_": "os.system"}]},
        {"_attn_implementation_internal": "org/kernel"},
        {"_attn_implementation": "org/kernel"},
    ],
)
def test_a_folder_that_asks_for_code_is_refused(tmp_path, more):
    put(tmp_path, model_type="gpt2", **more)
    wrong(lambda: read_config(tmp_path), "QKV-055", "code")
    put(tmp_path, GENERATION, **more)
    wrong(lambda: generation(tmp_path), "QKV-055", "code", GENERATION)


def test_a_wish_for_a_kernel_is_no_code(tmp_path):
    values = {
        "model_type": "gpt2",
        "_attn_implementation": "sdpa",
        "auto_map": None,
        "trust_remote_code": False,
    }
    assert read_config(put(tmp_path, **values)) == values


def test_a_missing_file_and_a_link_are_named(tmp_path):
    wrong(lambda: read_config(tmp_path), "QKV-020", CONFIG)
    put(tmp_path, "real.json", model_type="gpt2")
    (tmp_path / CONFIG).symlink_to("real.json")
    wrong(lambda: read_config(tmp_path), "QKV-060", "symbolic link")


# --- generation_config.json ----------------------------------------------------------------------

GOOD = {
    "num_beams": 4, "num_return_sequences": 2, "length_penalty": -0.5, "early_stopping": "never", "max_length": 512, "max_new_tokens": 20,
    "min_length": 0, "min_new_tokens": 1, "no_repeat_ngram_size": 3, "repetition_penalty": 1.2, "do_sample": True, "temperature": 0.7, "top_k": 50,
    "top_p": 0.9, "bos_token_id": 0, "eos_token_id": [1, 2], "pad_token_id": -1, "decoder_start_token_id": 2, "forced_bos_token_id": 250004,
    "forced_eos_token_id": 2, "suppress_tokens": [1, 2], "begin_suppress_tokens": [], "bad_words_ids": [[5], [6, 7]],
}  # fmt: skip


def test_every_known_setting_is_read(tmp_path):
    assert set(GOOD) == set(KNOWN)
    assert generation(put(tmp_path, GENERATION, **GOOD)) == (GOOD, {})
    assert generation(put(tmp_path, GENERATION, **dict.fromkeys(GOOD))) == ({}, {})


def test_what_transformers_writes_says_nothing_unknown(tmp_path):
    from transformers import GenerationConfig

    GenerationConfig().save_pretrained(tmp_path)
    assert generation(tmp_path) == ({}, {})
    GenerationConfig(
        num_beams=6, bad_words_ids=[[59513]], max_length=512, forced_eos_token_id=0
    ).save_pretrained(tmp_path)
    known = {
        "num_beams": 6,
        "bad_words_ids": [[59513]],
        "max_length": 512,
        "forced_eos_token_id": 0,
    }
    assert generation(tmp_path) == (known, {})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_beams", 0), ("num_beams", 2.0), ("num_beams", True), ("length_penalty", "1"), ("early_stopping", "always"), ("max_length", -1),
        ("repetition_penalty", 0), ("do_sample", 1), ("temperature", -0.1), ("top_p", 1.5), ("top_k", 1.5), ("eos_token_id", "</s>"),
        ("eos_token_id", [1, "2"]), ("bad_words_ids", [5]), ("bad_words_ids", [[]]), ("suppress_tokens", 5), ("pad_token_id", -2), ("bos_token_id", 1 << 60),
        ("no_repeat_ngram_size", -1), ("length_penalty", True),
    ],
)  # fmt: skip
def test_a_setting_of_the_wrong_kind_is_named(tmp_path, key, value):
    put(tmp_path, GENERATION, **{key: value})
    wrong(lambda: generation(tmp_path), "QKV-011", key, GENERATION)


def test_settings_that_are_not_known_are_handed_on_unless_they_are_off(tmp_path):
    off = {
        "transformers_version": "4.30.0",
        "_from_model_config": True,
        "diversity_penalty": 0.0,
        "num_beam_groups": 1,
        "typical_p": 1.0,
        "max_time": None,
    }
    assert generation(put(tmp_path, GENERATION, **off)) == ({}, {})
    on = {
        "diversity_penalty": 0.5,
        "num_beam_groups": 2,
        "penalty_alpha": 0.6,
        "renormalize_logits": True,
    }
    assert generation(put(tmp_path, GENERATION, **{**off, **on}, top_k=4)) == ({"top_k": 4}, {**on})


def test_an_older_folder_has_its_settings_in_config_json(tmp_path):
    put(
        tmp_path,
        model_type="marian",
        num_beams=6,
        max_length=512,
        bad_words_ids=[[58100]],
        d_model=512,
        num_beam_groups=2,
        typical_p=1.0,
        exponential_decay_length_penalty=[3, 1.5],
    )
    known = {"num_beams": 6, "max_length": 512, "bad_words_ids": [[58100]]}
    others = {"num_beam_groups": 2, "exponential_decay_length_penalty": [3, 1.5]}
    assert generation(tmp_path) == (known, others)
    put(tmp_path, GENERATION, num_beams=2)
    assert generation(tmp_path) == ({"num_beams": 2}, {})
