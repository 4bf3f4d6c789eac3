"""Models load whole or are refused in one line."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

from raee.config import BackboneSpec
from raee.model.batches import pad
from raee.model.loading import device_of, load_backbone
from raee.model.walk import walk
from tests.raee.errors import refused
from tests.raee.models import LAYERS, MASKED_LMS, POSITIONS, WIDTH, make_tokenizer


def _load(folder, family="masked-lm", **settings):
    spec = BackboneSpec(family=family, model=str(folder), **settings)
    return load_backbone(spec, torch.device("cpu"))


@pytest.fixture
def copy_of(folder_of, tmp_path):
    """A model's folder that a test may spoil."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folder_of(name), tmp_path / name))

    return copy


def _change_json(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values))


def test_no_such_model_is_refused(tmp_path):
    for model in (str(tmp_path / "missing"), "nobody/nothing", "two\nlines", ""):
        with refused("cannot be loaded; give a local folder or a hub name"):
            _load(model)
        with refused("revision 'a\\\\nb'"):
            _load(model, revision="a\nb")


def test_a_folder_that_holds_no_model_is_refused(tmp_path):
    with refused("cannot be loaded"):
        _load(tmp_path)


def test_pickled_weights_are_refused(copy_of):
    folder = copy_of("bert")
    (folder / "model.safetensors").unlink()
    model = transformers.BertForMaskedLM(transformers.BertConfig.from_pretrained(folder))
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    with refused("safetensors"):
        _load(folder)


@pytest.mark.parametrize("size", [0, 4, 100, -1])
def test_truncated_weights_are_refused(copy_of, size):
    weights = copy_of("bert") / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with refused("cannot be loaded"):
        _load(weights.parent)


def test_weights_of_another_shape_are_refused(copy_of):
    folder = copy_of("bert")
    _change_json(folder / "config.json", intermediate_size=64)
    match = r"intermediate\.dense\.bias has the shape \[48\], and by its config\.json \[64\]"
    with refused(match):
        _load(folder)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_with_which_a_model_answers_no_numbers_are_refused(copy_of, dtype):
    # Either damaged, or what half precision cannot hold.
    weights = copy_of("bert-encoder") / "model.safetensors"
    values = safetensors.torch.load_file(weights)
    name = "encoder.layer.1.output.dense.weight"
    values[name] = values[name] * (float("nan") if dtype == "float32" else 1e6)
    safetensors.torch.save_file(values, weights, {"format": "pt"})
    with refused(f"answers with what are no numbers: .* leave the range of {dtype}"):
        _load(weights.parent, family="sentence-encoder", dtype=dtype)


def test_a_model_without_layers_is_refused(copy_of):
    folder = copy_of("bert-encoder")
    _change_json(folder / "config.json", num_hidden_layers=0)
    with refused("has no layers"):
        _load(folder, family="sentence-encoder")


def test_pickled_weights_are_loaded_if_the_job_says_so(copy_of):
    folder = copy_of("bert")
    whole = _load(folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    own = _load(folder, pickled_weights=True)
    batch = pad([[0, 9, 8, 2]], own.tokenizer.pad_token_id, own.device)
    assert torch.equal(own.model(**batch).logits, whole.model(**batch).logits)
    before = own.fingerprint["weights"]
    torch.save(weights | {"more": torch.ones(1)}, folder / "pytorch_model.bin")
    assert _load(folder, pickled_weights=True).fingerprint["weights"] != before


def test_code_that_comes_with_a_model_runs_if_the_job_says_so(copy_of):
    folder = copy_of("bert-encoder")
    own = "from transformers import BertConfig, BertModel\n"
    own += "class A(BertConfig):\n    model_type = 'own'\n"
    own += "class B(BertModel):\n    config_class = A\n"
    (folder / "own.py").write_text(own)
    kinds = {"AutoConfig": "own.A", "AutoModel": "own.B"}
    _change_json(folder / "config.json", model_type="own", auto_map=kinds)
    backbone = _load(folder, family="sentence-encoder", trust_remote_code=True)
    assert type(backbone.model).__name__ == "B"
    (folder / "own.py").write_text(f"{own}\n")
    after = _load(folder, family="sentence-encoder", trust_remote_code=True)
    assert after.fingerprint["config"] != backbone.fingerprint["config"]


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_the_job_may_name_the_attention(folder_of, name):
    spec = BackboneSpec(family="masked-lm", model=str(folder_of("bert")), attn_implementation=name)
    assert load_backbone(spec, torch.device("cpu")).model.config._attn_implementation == name


def test_an_attention_that_there_is_not_is_refused(folder_of):
    with refused("attn_implementation"):
        _load(folder_of("bert"), attn_implementation="nope")


def test_a_device_that_is_not_there_is_refused(folder_of, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    spec = BackboneSpec(family="masked-lm", model=str(folder_of("bert")))
    devices = {name: device_of(spec.model_copy(update={"device": name})) for name in _DEVICES}
    assert {name: str(found) for name, found in devices.items()} == _DEVICES
    for name in ("cuda:2", "mps"):
        with refused(f"backbone.device '{name}' is not there; this machine has cpu, cuda:0, cuda"):
            load_backbone(spec.model_copy(update={"device": name}))


_DEVICES = {"auto": "cuda", "cpu": "cpu", "cuda": "cuda", "cuda:1": "cuda:1"}


def test_int8_is_not_spread_over_devices(spec_of):
    with pytest.raises(ValueError, match="int8 is not for a model that is spread over devices"):
        BackboneSpec(family="masked-lm", model="m", device_map="auto", dtype="int8")
    # A version's number format and what a job says of this machine meet only here.
    spec = spec_of("bert", "float32").model_copy(update={"device_map": "auto", "dtype": "int8"})
    with refused("int8 is not for a model that is spread over devices: leave out `device_map`"):
        load_backbone(spec)


def test_a_device_map_without_its_package_is_refused(folder_of, monkeypatch):
    monkeypatch.setattr("raee.model.loading.find_spec", lambda name: None)
    with refused("backbone.device_map needs the package accelerate"):
        _load(folder_of("bert"), device_map="auto")


def test_a_model_that_the_library_places_walks_as_another(spec_of, backbone_of):
    pytest.importorskip("accelerate")  # an extra
    spec = spec_of("bert", "float32").model_copy(update={"device_map": "auto"})
    placed = load_backbone(spec)
    shown: list[torch.Tensor] = []
    for backbone in (placed, backbone_of("bert")):
        batch = pad([[0, 9, 8, 2], [0, 2]], 1, backbone.device)
        walk(backbone.stack, batch, lambda depth, states, rows: shown.append(states.cpu()))
    half = len(shown) // 2
    assert half == LAYERS + 1
    for own, right in zip(shown[:half], shown[half:], strict=True):
        torch.testing.assert_close(own, right)


def test_a_tokenizer_that_does_not_say_where_tokens_stand_is_refused(copy_of):
    folder = copy_of("t5")
    for file in folder.glob("*token*"):
        file.unlink()
    transformers.ByT5Tokenizer().save_pretrained(folder)
    with refused(r"its tokenizer \(ByT5Tokenizer\) is none of the library tokenizers"):
        _load(folder, family="seq2seq-lm")


def test_code_that_comes_with_a_model_never_runs_and_nobody_is_asked(copy_of, monkeypatch):
    folder, asked = copy_of("bert-encoder"), []
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    kinds = {"AutoConfig": "own.A", "AutoModel": "own.B"}
    _change_json(folder / "config.json", model_type="own", auto_map=kinds)
    monkeypatch.setattr("builtins.input", lambda said: asked.append(said) or "y")
    with refused("contains custom code"):
        _load(folder, family="sentence-encoder")
    assert not asked
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("sentence_bert_config.json", "[]", "sentence_bert_config.json is no JSON object"),
        ("sentence_bert_config.json", '{"max_seq_length": "32"}', "max_seq_length is '32', no num"),
        ("tokenizer_config.json", '{"model_max_length": "64"}', "model_max_length is '64', no num"),
        ("1_Pooling/config.json", "[]", "1_Pooling/config.json is no JSON object"),
    ],
)
def test_what_lies_beside_the_weights_is_refused_where_it_cannot_be(copy_of, name, content, match):
    folder = copy_of("bert-encoder")
    (folder / "1_Pooling").mkdir()
    if name == "tokenizer_config.json":
        _change_json(folder / name, **json.loads(content))
    else:
        (folder / name).write_text(content)
    with refused(match):
        _load(folder, family="sentence-encoder")


def test_of_whole_weights_and_parts_the_fingerprint_is_of_those_that_are_loaded(copy_of):
    folder = copy_of("bert-encoder")
    before = _load(folder, family="sentence-encoder").fingerprint
    (folder / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "gone.safetensors"}}'
    )
    assert _load(folder, family="sentence-encoder").fingerprint == before


def test_weights_that_are_missing_are_not_made_up(copy_of):
    folder = copy_of("bert")
    _change_json(folder / "config.json", num_hidden_layers=LAYERS + 1)
    with refused(r"has no weights for bert\.encoder\.layer\.4\."):
        _load(folder)


def test_a_folder_without_a_configuration_is_refused(copy_of):
    folder = copy_of("bert")
    (folder / "config.json").unlink()
    with refused(r"the folder has no config\.json: it holds no model"):
        _load(folder)


def test_a_masked_lm_without_its_head_is_refused(folder_of):
    with refused(r"has no weights for cls\.predictions.* is it a masked-lm model\?"):
        _load(folder_of("bert-encoder"))


def test_an_encoder_needs_no_pooler(folder_of):
    # A masked LM's folder has the encoder's weights and no pooler's.
    assert _load(folder_of("bert"), family="sentence-encoder").depth == LAYERS


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"added_tokens": [], "model": {}}'])
def test_spoiled_files_are_refused(copy_of, name, content):
    folder = copy_of("bert")
    (folder / name).write_text(content)
    with refused("backbone"):
        _load(folder)


def test_a_missing_tokenizer_is_refused(copy_of):
    folder = copy_of("bert")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with refused("its tokenizer has no words"):
        _load(folder)


@pytest.mark.parametrize(("role", "name"), [("pad_token", "padding"), ("mask_token", "mask")])
def test_a_tokenizer_without_a_token_that_is_needed_is_refused(copy_of, role, name):
    folder = copy_of("bert")
    tokenizer = make_tokenizer("wordpiece")
    tokenizer._special_tokens_map[role] = None
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").unlink()  # nobody waits for weights to be told
    with refused(f"its tokenizer has no {name} token"):
        _load(folder)


def test_a_sentence_encoder_that_reads_from_left_to_right_needs_no_padding_token(folder_of):
    backbone = _load(folder_of("llama"), family="sentence-encoder")
    assert backbone.tokenizer.pad_token_id is None
    assert backbone.depth == 3


def test_a_tokenizer_that_needs_a_package_is_refused_with_its_name(copy_of):
    folder = copy_of("llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with refused("sentencepiece"):
        _load(folder, family="causal-lm")


def test_a_model_of_another_kind_is_refused(copy_of):
    folder = copy_of("bert")
    _change_json(folder / "config.json", model_type="gpt2")
    with refused("AutoModelForMaskedLM"):
        _load(folder)


@pytest.mark.parametrize("kind", ["T5", "Bart"])
def test_an_encoder_with_a_decoder_is_refused(kind, copy_of):
    folder = copy_of("bert-encoder")
    few = {"num_layers": 1, "num_heads": 4, "encoder_layers": 1, "decoder_layers": 1}
    config = getattr(transformers, f"{kind}Config")(vocab_size=99, d_model=32, **few)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    with refused(f"{kind}Model is an encoder with a decoder"):
        _load(folder, "sentence-encoder")


def test_what_a_checkpoints_configuration_wants_returned_changes_nothing(copy_of, backbone_of):
    folder = copy_of("bert")
    _change_json(folder / "config.json", return_dict=False, output_hidden_states=True)
    backbone = _load(folder)
    batch = pad([[0, 9, 8, 2]], backbone.tokenizer.pad_token_id, backbone.device)
    output = backbone.model(**batch)
    assert output.hidden_states is None  # the walk holds no more than one depth's states
    assert torch.equal(output.logits, backbone_of("bert").model(**batch).logits)


def test_loading_leaves_the_progress_bars_and_the_logging_as_they_were(folder_of):
    logs = transformers.logging
    level, shown = logs.get_verbosity(), logs.is_progress_bar_enabled()
    try:
        for switch in (logs.enable_progress_bar, logs.disable_progress_bar):
            switch()
            before = logs.is_progress_bar_enabled()
            _load(folder_of("bert"))
            assert logs.is_progress_bar_enabled() == before
            assert logs.get_verbosity() == level
    finally:
        (logs.enable_progress_bar if shown else logs.disable_progress_bar)()


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        (None, "mean"),
        ({"pooling_mode": "mean", "embedding_dimension": 32}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["cls"]}, "cls"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        # sentence-transformers' own order: the named mode counts, and no mode is the mean.
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, "cls"),
        ({"word_embedding_dimension": 32}, "mean"),
        ({"pooling_mode": "lasttoken"}, "lasttoken"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_tokens": False}, "lasttoken"),
    ],
)
def test_pooling_is_what_the_encoders_configuration_says(copy_of, config, pooling):
    folder = copy_of("bert-encoder")
    if config is not None:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    assert _load(folder, family="sentence-encoder").pooling == pooling


@pytest.mark.parametrize(
    "config",
    [
        {"pooling_mode": "max"},
        {"pooling_mode": ["mean", "max"]},
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        {"pooling_mode_mean_sqrt_len_tokens": True},
    ],
)
def test_a_pooling_that_is_neither_mean_nor_cls_is_refused(copy_of, config):
    folder = copy_of("bert-encoder")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(config))
    with refused("is neither mean nor cls"):
        _load(folder, family="sentence-encoder")


def test_a_pooling_configuration_that_is_no_json_is_refused(copy_of):
    folder = copy_of("bert-encoder")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{")
    with refused("1_Pooling/config.json is no JSON"):
        _load(folder, family="sentence-encoder")


@pytest.mark.parametrize("name", [*MASKED_LMS, "bert-encoder", "mpnet-encoder"])
def test_the_longest_input_is_the_models_and_not_the_tokenizers(copy_of, name):
    folder = copy_of(name)
    _change_json(folder / "tokenizer_config.json", model_max_length=10**30)
    family = "masked-lm" if name in MASKED_LMS else "sentence-encoder"
    backbone = _load(folder, family=family)
    assert backbone.max_tokens == POSITIONS
    longest = pad([[5] * POSITIONS], 1, backbone.device)
    assert backbone.stack.model(**longest).last_hidden_state.shape == (1, POSITIONS, WIDTH)


def test_an_encoders_own_limit_counts(copy_of):
    folder = copy_of("bert-encoder")
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20}')
    assert _load(folder, family="sentence-encoder").max_tokens == 20


def test_a_row_never_leaves_the_first_of_two_ranges_of_positions(copy_of):
    folder = copy_of("phi3")
    assert _load(folder, family="causal-lm").max_tokens == POSITIONS
    ranges = {"short_factor": [1.0] * 5, "long_factor": [4.0] * 5}
    _change_json(
        folder / "config.json",
        original_max_position_embeddings=20,
        rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, **ranges},
    )
    assert _load(folder, family="causal-lm").max_tokens == 20


def test_the_fingerprint_changes_with_what_changes_answers(copy_of):
    folder = copy_of("bert-encoder")
    before = _load(folder, family="sentence-encoder").fingerprint
    assert _load(folder, family="sentence-encoder").fingerprint == before
    (folder / "README.md").write_text("words")
    assert _load(folder, family="sentence-encoder").fingerprint == before
    changes = {
        "config": lambda: _change_json(folder / "config.json", layer_norm_eps=1e-6),
        "tokenizer": lambda: _change_json(folder / "tokenizer_config.json", model_max_length=30),
        "weights": lambda: _add_one(folder / "model.safetensors"),
    }
    template = folder / "chat_template.jinja"
    for part, change in [*changes.items(), ("tokenizer", lambda: template.write_text("a chat"))]:
        change()
        after = _load(folder, family="sentence-encoder").fingerprint
        assert [key for key in before if before[key] != after[key]] == [part]
        before = after
    halved = _load(folder, family="sentence-encoder", dtype="bfloat16").identity
    assert halved == before | {"dtype": "bfloat16"}


def test_the_fingerprint_changes_with_the_token_that_a_decoder_starts_with(copy_of):
    folder = copy_of("t5")
    before = _load(folder, family="seq2seq-lm")
    _change_json(folder / "generation_config.json", decoder_start_token_id=2)
    after = _load(folder, family="seq2seq-lm")
    assert (before.stack.start, after.stack.start) == (1, 2)
    assert before.fingerprint["config"] != after.fingerprint["config"]


def _add_one(weights: Path) -> None:
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
