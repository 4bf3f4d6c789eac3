"""What a backbone says of itself."""

from tests.raee.models import LAYERS


def test_layer_parameters_count_every_call_of_a_layer(backbone_of):
    # ALBERT's one layer is called at each depth, so a token meets its parameters that often.
    own = backbone_of("albert")
    one = sum(p.numel() for p in own.model.base_model.encoder.albert_layer_groups.parameters())
    assert own.layer_parameters == LAYERS * one
    bert = backbone_of("bert")
    assert bert.layer_parameters == sum(p.numel() for p in bert.model.bert.encoder.parameters())
