"""If no exit above a layer is in use, no more is loaded, and what is read is the same."""

import logging
import subprocess
import sys

import pytest
import torch
import transformers

from raee.config import BackboneSpec
from raee.model.loaded import backbone_of as held
from raee.model.loading import load_backbone
from raee.model.walk import walk
from tests.raee.databases import whole_batch
from tests.raee.models import (
    GENERATIVE_LMS,
    LAYERS,
    MASKED_LMS,
    SENTENCE_ENCODERS,
    make_tokenizer,
    save_model,
)

CPU = torch.device("cpu")
ONE_MODULE = ("albert",)
"""Models that run one module several times: there are no upper layers."""


def _states(backbone, deepest=None):
    by_depth = []
    walk(
        backbone.stack,
        whole_batch(backbone).inputs,
        lambda depth, states, rows: by_depth.append((states, backbone.normed(states, depth))),
        deepest,
    )
    return by_depth


@pytest.mark.parametrize("deepest", [0, 2, LAYERS - 1])
@pytest.mark.parametrize("name", [*MASKED_LMS, *SENTENCE_ENCODERS])
def test_the_lower_layers_alone_answer_as_they_do_in_the_whole(spec_of, backbone_of, name, deepest):
    whole = backbone_of(name)
    part = load_backbone(spec_of(name, "float32"), CPU, deepest)
    # Two at least: what comes between layers is seen as in the whole.
    assert part.stack.depth == (LAYERS if name in ONE_MODULE else max(deepest, 2))
    assert part.deepest >= deepest
    assert part.depth == whole.depth == LAYERS
    assert part.fingerprint == whole.fingerprint
    assert part.layer_parameters == pytest.approx(whole.layer_parameters, rel=0.2)
    assert len(part.stack.parts) == len(whole.stack.parts)
    for one, other in zip(_states(part)[: part.deepest + 1], _states(whole), strict=False):
        for own, full in zip(one, other, strict=True):
            assert torch.equal(own, full)


@pytest.mark.parametrize("name", GENERATIVE_LMS)
def test_so_do_those_of_decoders_and_of_encoders_with_one(spec_of, backbone_of, name):
    whole = backbone_of(name)
    for deepest in (1, whole.depth // 2 + 1, whole.depth - 1):
        part = load_backbone(spec_of(name, "float32"), CPU, deepest)
        assert part.depth == whole.depth
        assert deepest <= part.deepest
        for one, other in zip(_states(part, deepest), _states(whole, deepest), strict=True):
            for own, full in zip(one, other, strict=True):
                torch.testing.assert_close(own, full)


@pytest.mark.parametrize("name", ["bert", "albert"])
def test_the_log_says_what_is_loaded(spec_of, caplog, name):
    with caplog.at_level(logging.INFO, "raee"):
        load_backbone(spec_of(name, "float32"), CPU, deepest=1)
    (line,) = caplog.messages
    loaded = "all" if name in ONE_MODULE else "the lowest 2"
    assert f": {loaded} of {LAYERS} layers loaded, float32 on cpu, in " in line


def test_what_is_above_the_deepest_layer_need_not_be_there(tmp_path):
    # It is not even read: the weights of the last layer are of another shape.
    folder = save_model("bert-encoder", tmp_path / "model")
    whole = transformers.AutoModel.from_pretrained(folder)
    whole.encoder.layer[-1].output.dense.bias = torch.nn.Parameter(torch.zeros(1))
    whole.save_pretrained(folder)
    spec = BackboneSpec(family="sentence-encoder", model=str(folder))
    assert load_backbone(spec, CPU, LAYERS - 1).deepest == LAYERS - 1
    with pytest.raises(ValueError, match="has the shape"):
        load_backbone(spec, CPU, LAYERS)


def test_a_model_is_loaded_anew_only_if_more_of_it_is_needed(tmp_path):
    folder = save_model("bert-encoder", tmp_path / "model")
    spec = BackboneSpec(family="sentence-encoder", model=str(folder), dtype="float32")
    two = held(spec, 2)
    assert held(spec, 1) is two
    assert held(spec, 2) is two
    whole = held(spec)
    assert whole.stack.depth == LAYERS
    assert held(spec, 1) is whole


_PEAKS = """
import os, re, sys
from raee.config import BackboneSpec
from raee.model.batches import pad
from raee.model.loading import load_backbone
from raee.model.walk import walk
import transformers.models.bert.modeling_bert

def kilobytes(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1])

for deepest in map(int, sys.argv[2:]):
    if not os.fork():
        open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
        libraries = kilobytes("VmRSS")
        spec = BackboneSpec(family="sentence-encoder", model=sys.argv[1], device="cpu")
        backbone = load_backbone(spec, deepest=deepest)
        batch = pad([[5] * 16] * 4, 1, backbone.device)
        walk(backbone.stack, batch, lambda depth, states, rows: None, deepest)
        print(kilobytes("VmHWM") - libraries, flush=True)
        os._exit(0)
    os.wait()
"""


def test_a_quarter_of_the_layers_takes_less_than_half_of_the_memory(tmp_path):
    # Beyond what the libraries take, which is more than this model does.
    tokenizer = make_tokenizer("wordpiece")
    config = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=512,
        num_hidden_layers=24,
        num_attention_heads=8,
        intermediate_size=2_048,
        max_position_embeddings=64,
    )
    with torch.device("meta"):
        model = transformers.BertModel(config)
    model = model.to_empty(device="cpu")
    for each in model.state_dict().values():
        each.fill_(0.01) if each.is_floating_point() else each.zero_()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    command = [sys.executable, "-c", _PEAKS, str(tmp_path), "6", "24"]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    part, whole = map(int, found.stdout.split())
    assert whole > 300_000
    assert part <= 0.45 * whole
