"""What a batch's way through a model is, and which models are refused since it has none."""

import pytest
import torch
import transformers as t

from raee.model.batches import pad
from raee.model.structure import find_stack, walkable_stack
from tests.raee.errors import refused
from tests.raee.models import ARCHITECTURES

CPU = torch.device("cpu")


def batches():
    rows = [[3, 9, 8, 4], [3, 7, 9, 9, 5, 4], [3, 4]]
    return pad(rows[:2], 1, CPU), pad(rows, 1, CPU)


def made(name: str) -> t.PreTrainedModel:
    kind = ARCHITECTURES[name].model
    torch.manual_seed(0)
    return kind(kind.config_class(**ARCHITECTURES[name].settings, vocab_size=20)).eval().base_model


def test_the_norm_is_what_turns_the_last_states_into_the_answer_not_the_dropout_after_it():
    encoder = t.T5EncoderModel(t.T5Config(**ARCHITECTURES["t5"].settings, vocab_size=20)).eval()
    stack = walkable_stack(encoder, *batches())
    assert [part.norm for part in stack.parts] == [(encoder.encoder.final_layer_norm,)]


def test_an_encoder_with_a_decoder_has_two_parts_each_with_its_norm():
    model = made("t5")
    stack = walkable_stack(model, *batches(), start=1)
    assert [part.module for part in stack.parts] == [model.encoder, model.decoder]
    assert [part.norm for part in stack.parts] == [
        (model.encoder.final_layer_norm,),
        (model.decoder.final_layer_norm,),
    ]
    assert stack.ends == (3, 5)
    assert [stack.part_at(depth) is stack.parts[1] for depth in range(6)] == [False] * 4 + [
        True
    ] * 2


def test_arguments_with_a_batch_may_have_several_entries_a_row():
    stack = find_stack(made("bloom"), *batches())
    assert {each for (_, path), each in stack.batched.items() if path == ("alibi",)} == {3}


def test_a_list_within_a_layer_is_not_taken_for_the_layers():
    model = made("mobilebert")
    (part,) = find_stack(model, *batches()).parts
    assert part.layers is model.encoder.layer


def test_a_model_whose_rows_meet_is_refused_by_name():
    model = made("llama")
    model.layers[1].register_forward_hook(lambda m, args, out: out + out.mean(dim=0, keepdim=True))
    with refused("LlamaModel cannot be walked: its states at depth 2 depend on the other rows"):
        walkable_stack(model, *batches())


def test_a_model_that_fails_if_rows_leave_is_refused_by_name():
    model = made("llama")

    def count(module, args, out):
        if len(out) == 1:
            raise RuntimeError("a row is missing")

    model.layers[2].register_forward_hook(count)
    with refused(
        r"LlamaModel cannot be walked: a small pass ends in an error \(a row is missing\)"
    ):
        walkable_stack(model, *batches())


def test_an_encoder_and_a_decoder_of_different_widths_are_refused():
    model = made("bart")
    model.decoder.register_forward_hook(
        lambda m, args, out: type(out)(last_hidden_state=out.last_hidden_state[..., :20])
    )
    with refused("BartModel cannot be walked: its encoder and its decoder are of different widths"):
        find_stack(model, *batches(), start=2)


@pytest.mark.parametrize("name", ["mamba2", "falcon_mamba", "jamba", "zamba"])
def test_what_the_library_calls_stateful_is_refused(name):
    """Their classes say so; no model of theirs is made."""
    module = getattr(t.models, name)
    kinds = [
        getattr(module, each)
        for each in dir(module)
        if each.endswith("Model") and not each.endswith("PreTrainedModel")
    ]
    for kind in kinds:
        with refused(f"{kind.__name__} cannot be walked: .* recurrent"):
            walkable_stack(kind.__new__(kind), *batches())
