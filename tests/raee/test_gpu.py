"""On a GPU, too, rows get what plain `transformers` calls say, whichever rows are still there.

In bfloat16, which a GPU runs by default, nothing is exact: there a reading may be as far from
float64's as one by plain calls is.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import transformers as t

from raee.classify import classify
from raee.config import (
    BackboneSpec,
    CascadePolicy,
    De3Policy,
    FixedPolicy,
    FullPolicy,
    KernelPolicy,
    KeySpec,
    RaeePolicy,
    RetrievalPolicy,
)
from raee.model.backbones import Backbone
from raee.model.batches import Batches, encode
from raee.model.loading import load_backbone
from raee.sweep import Labelled, sweep
from tests.raee.databases import (
    LABELS,
    TEXTS,
    UNSEEN,
    build,
    head_for,
    is_masked_lm,
    prompt_for,
    prompt_of,
    whole_batch,
)
from tests.raee.model.test_walk import ALL, check_states, leave, where_they_leave
from tests.raee.models import make_tokenizer
from tests.raee.plain import Plain

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use")

CLOSE = 1e-4
"""How near float32 comes to float32 where kernels and batches differ."""


@pytest.fixture(scope="session")
def on_gpu(spec_of) -> Callable[..., Backbone]:
    return cache(lambda name, dtype="auto": load_backbone(spec_of(name, dtype)))


@pytest.fixture(scope="session")
def plain_on_gpu(folder_of) -> Callable[[str, torch.dtype], Plain]:
    return cache(lambda name, dtype: Plain(folder_of(name), is_masked_lm(name), dtype, "cuda"))


@pytest.fixture(scope="session")
def wide_encoder(tmp_path_factory) -> Callable[[int], Backbone]:
    """Layers as wide as those of BERT large, so many of them."""

    @cache
    def load(layers: int) -> Backbone:
        folder = tmp_path_factory.mktemp("wide") / str(layers)
        tokenizer = make_tokenizer("wordpiece")
        config = t.BertConfig(
            vocab_size=len(tokenizer),
            pad_token_id=tokenizer.pad_token_id,
            hidden_size=1_024,
            num_attention_heads=16,
            num_hidden_layers=layers,
            intermediate_size=4_096,
        )
        with torch.device("cuda"):
            t.AutoModel.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return load_backbone(BackboneSpec(family="sentence-encoder", model=str(folder)))

    return load


@pytest.mark.parametrize("name", ALL)
def test_states_at_every_depth_are_the_models_hidden_states(on_gpu, plain_on_gpu, name):
    backbone = on_gpu(name, "float32")
    assert backbone.device.type == "cuda"
    check_states(backbone, plain_on_gpu(name, torch.float32), name, CLOSE)


@pytest.mark.parametrize("name", ALL)
def test_rows_that_left_run_no_layer_and_keep_the_reading_of_a_full_pass(
    on_gpu, plain_on_gpu, name
):
    backbone = on_gpu(name, "float32")
    read, rows = leave(backbone), whole_batch(backbone).rows
    expected = where_they_leave(plain_on_gpu(name, torch.float32), name, rows)
    np.testing.assert_allclose(read, expected, atol=CLOSE)


@pytest.mark.parametrize("name", ALL)
def test_by_default_rows_are_read_in_bfloat16_as_well_as_plain_calls_do(
    on_gpu, plain_on_gpu, exact_plain_of, name
):
    backbone = on_gpu(name)
    assert {p.dtype for p in backbone.model.parameters()} == {torch.bfloat16}
    assert backbone.dtype == "bfloat16"
    read, rows = leave(backbone), whole_batch(backbone).rows
    exact = where_they_leave(exact_plain_of(name), name, rows)
    plain = where_they_leave(plain_on_gpu(name, torch.bfloat16), name, rows)
    # A reading of a neighbouring depth or row is off by ten times as much.
    assert np.abs(plain - exact).mean() < 0.03
    assert np.abs(read - exact).mean() < 1.5 * np.abs(plain - exact).mean() + 0.002


@pytest.mark.parametrize("name", ALL)
def test_a_sweep_reads_what_it_reads_on_the_cpu(on_gpu, backbone_of, name):
    labelled = Labelled(
        np.arange(len(TEXTS), dtype=np.uint16) % len(LABELS),
        len(LABELS),
        np.arange(len(TEXTS)) % 4 > 0,
    )
    gpu, cpu = (
        sweep(b, prompt_of(name), head_for(b), KeySpec(layers=(0, 2)), None, TEXTS, labelled)
        for b in (on_gpu(name, "float32"), backbone_of(name))
    )
    np.testing.assert_allclose(gpu.confidences, cpu.confidences, atol=CLOSE)
    # Where two labels are equally likely, either is right.
    assert (gpu.answers == cpu.answers)[cpu.confidences > 0.5 + CLOSE].all()
    np.testing.assert_allclose(np.stack(gpu.keys), np.stack(cpu.keys), atol=CLOSE)
    assert tuple(gpu.states) == tuple(cpu.states)
    for state in cpu.states:
        np.testing.assert_allclose(gpu.states[state], cpu.states[state], atol=CLOSE)
        for field in ("rows", "first", "second"):
            own, expected = getattr(gpu.sums[state], field), getattr(cpu.sums[state], field)
            np.testing.assert_allclose(own, expected, atol=len(TEXTS) * CLOSE)


@pytest.mark.parametrize(
    "spec",
    [
        FullPolicy(),
        FixedPolicy(exit="head@1"),
        RetrievalPolicy(exit="vote@2"),
        RaeePolicy(threshold=0.7, k=4),
        KernelPolicy(k=4, cost=0.01),
        CascadePolicy(readers=("vote", "pool", "head"), threshold=0.7),
        De3Policy(threshold=0.4),
    ],
    ids=lambda spec: spec.name,
)
@pytest.mark.parametrize("name", ["bert", "modernbert", "mpnet-encoder"])
def test_every_policy_answers_as_on_the_cpu(on_gpu, backbone_of, name, spec):
    labels = [i % len(LABELS) for i in range(len(TEXTS))]
    cpu = build(backbone_of(name), TEXTS, labels, KeySpec(layers=(0, 2))).database
    backbone = on_gpu(name, "float32")
    gpu = replace(cpu, backbone=backbone, head=head_for(backbone))
    own, expected = (classify(database, spec, UNSEEN) for database in (gpu, cpu))
    np.testing.assert_array_equal(own.exits, expected.exits)
    np.testing.assert_array_equal(own.labels, expected.labels)
    np.testing.assert_allclose(own.confidences, expected.confidences, atol=10 * CLOSE)
    np.testing.assert_allclose(own.nearest, expected.nearest, atol=CLOSE)
    assert own.layers_run == expected.layers_run


@pytest.mark.parametrize("name", ["bert", "bert-encoder"])
def test_a_second_sweep_gives_the_same_bytes(on_gpu, name):
    backbone = on_gpu(name)
    head = head_for(backbone)
    first, second = (
        sweep(backbone, prompt_for(backbone), head, KeySpec(), None, TEXTS) for _ in range(2)
    )
    assert first.answers.tobytes() == second.answers.tobytes()
    assert first.confidences.tobytes() == second.confidences.tobytes()
    assert first.keys[0].tobytes() == second.keys[0].tobytes()


def _peak_memory(backbone: Backbone) -> int:
    """Bytes that a sweep of full batches takes at most, beside the model."""
    encoded = encode(backbone, prompt_for(backbone), MANY)
    assert max(batch.inputs["input_ids"].numel() for batch in Batches(backbone, encoded)) > (
        0.9 * 65_536
    )
    head = head_for(backbone)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    sweep(backbone, prompt_for(backbone), head, KeySpec(), None, MANY)
    return torch.cuda.max_memory_allocated() - before


MANY = tuple(f"the film {'was great ' * (30 + i % 10)}" for i in range(2_500))
"""More than one batch of a GPU's tokens, all of them cut to the model's 64."""


def test_full_batches_fit_a_small_gpu_however_many_layers_there_are(wide_encoder):
    shallow, deep = _peak_memory(wide_encoder(2)), _peak_memory(wide_encoder(8))
    assert deep < 1.02 * shallow
    assert shallow < 4 * 2**30


def test_with_too_little_memory_batches_are_smaller_and_readings_the_same(wide_encoder, caplog):
    backbone = wide_encoder(2)
    prompt, head = prompt_for(backbone), head_for(backbone)
    before = sweep(backbone, prompt, head, KeySpec(), None, MANY)
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 2**28
    done: list[int] = []
    torch.cuda.set_per_process_memory_fraction(
        room / torch.cuda.get_device_properties(backbone.device).total_memory
    )
    try:
        after = sweep(backbone, prompt, head, KeySpec(), None, MANY, on_rows=done.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert "has no room for a larger batch" in caplog.text
    assert sum(done) == len(MANY)
    np.testing.assert_array_equal(after.answers, before.answers)
    np.testing.assert_allclose(after.confidences, before.confidences, atol=1e-5)
