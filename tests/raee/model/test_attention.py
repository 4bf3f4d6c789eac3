"""The attention of short rows is PyTorch's, to within what bfloat16 rounds."""

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from hypothesis import given
from hypothesis import strategies as st

from raee.model import attention as module
from raee.model.attention import ShortRows, attention


def _vectors(rows, heads, tokens, size, seed, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, tokens, heads, size, generator=generator, dtype=dtype).transpose(1, 2)


def _is_near(found, query, key, value, **options):
    """Whether it is as near to exact attention as PyTorch's own, but for half as much again."""
    exact = F.scaled_dot_product_attention(*(x.double() for x in (query, key, value)), **options)
    own = F.scaled_dot_product_attention(query, key, value, **options)
    assert found.shape == own.shape
    assert found.dtype == own.dtype
    allowed = 1.5 * float((own - exact).norm()) + 1e-3 * float(exact.norm())
    return float((found - exact).norm()) <= allowed


@given(
    rows=st.integers(1, 7),
    heads=st.integers(1, 3),
    tokens=st.integers(1, 9),
    others=st.integers(1, 9),
    at_once=st.sampled_from([1, 100, 1 << 18]),
    masked=st.sampled_from(["nothing", "keys", "each head", "all rows alike", "numbers"]),
    scale=st.sampled_from([None, 0.5]),
    seed=st.integers(0, 99),
)
def test_it_is_that_of_pytorch(rows, heads, tokens, others, at_once, masked, scale, seed):
    query = 2 * _vectors(rows, heads, tokens, 8, seed)
    key, value = (_vectors(rows, heads, others, 8, seed + i) for i in (100, 200))
    shape = {
        "keys": (rows, 1, 1, others),
        "each head": (rows, heads, tokens, others),
        "all rows alike": (tokens, others),
        "numbers": (rows, 1, tokens, others),
    }
    options = {"scale": scale}
    if masked in shape:
        mask = torch.rand(shape[masked], generator=torch.Generator().manual_seed(seed)) < 0.7
        mask[..., 0] = True  # a token that sees nothing has no attention
        if masked == "numbers":
            mask = torch.where(mask, 0.5, float("-inf"))
        options["attn_mask"] = mask
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SCORES_AT_ONCE", at_once)
        assert _is_near(attention(query, key, value, **options), query, key, value, **options)


def test_no_token_sees_those_after_it_if_it_is_causal():
    query, key, value = (_vectors(5, 2, 6, 8, seed) for seed in range(3))
    found = attention(query, key, value, is_causal=True)
    assert _is_near(found, query, key, value, is_causal=True)


@pytest.mark.parametrize(
    ("dtype", "tokens", "heads_of_keys"),
    [
        (torch.float32, 5, 4),
        (torch.bfloat16, 300, 4),
        (torch.bfloat16, 5, 2),
        (torch.bfloat16, 5, 1),
    ],
    ids=["float32", "long rows", "fewer heads of keys", "one head of keys for all"],
)
def test_what_it_is_not_for_stays_with_pytorch(dtype, tokens, heads_of_keys):
    query = _vectors(2, 4, tokens, 8, 0, dtype)
    key, value = (_vectors(2, heads_of_keys, tokens, 8, seed, dtype) for seed in (1, 2))
    options = {"enable_gqa": heads_of_keys == 2}
    with ShortRows():
        found = F.scaled_dot_product_attention(query, key, value, **options)
    assert torch.equal(found, F.scaled_dot_product_attention(query, key, value, **options))


def test_a_model_finds_it_by_the_function_that_it_calls(monkeypatch):
    query, key, value = (_vectors(2, 4, 5, 8, seed) for seed in range(3))
    asked = []
    monkeypatch.setattr(module, "attention", lambda *args, **kwargs: asked.append(args))
    with ShortRows():
        F.scaled_dot_product_attention(query, key, value)
    F.scaled_dot_product_attention(query, key, value)
    assert len(asked) == 1
