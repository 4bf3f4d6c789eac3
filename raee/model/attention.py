"""Attention of short rows on a CPU.

PyTorch's own kernel there takes one head of one row at a time, and of a row of a few dozen tokens
it is busy with the start of each.  Two products of all heads at once, with scores and softmax in
float32 between them, take half to three quarters of its time in bfloat16.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everywhere
from torch import Tensor
from torch.overrides import TorchFunctionMode

from raee.model.native import is_native

_MOST_SCORES = 256 * 256
"""Scores of a head up to which a row is short; PyTorch's kernel never has all of them in memory."""

_SCORES_AT_ONCE = 1 << 18
"""Scores of some rows that stay in a processor's cache."""


class ShortRows(TorchFunctionMode):
    """Within, the attention of short rows in bfloat16 on a CPU is computed for all heads at once.

    All else is as it was, whatever the model is: models call one function of PyTorch's.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """What PyTorch asks of a mode."""
        given = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return attention(*args, **given)
        return func(*args, **given)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`scaled_dot_product_attention`, to within what bfloat16 rounds.

    query: (n, heads, tokens, size); key, value: (n, heads, others, size).  Returns (n, heads,
    tokens, size).
    """
    tokens, others = query.shape[-2], key.shape[-2]
    short = query.dim() == 4 and tokens * others <= _MOST_SCORES and not enable_gqa
    # One head of keys may be for all (Falcon).
    alike = query.shape[:2] == key.shape[:2] == value.shape[:2]
    if not short or not alike or query.dtype != torch.bfloat16 or query.device.type != "cpu":
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    rows, heads, _, size = query.shape
    factor = size**-0.5 if scale is None else scale
    if is_causal:
        attn_mask = torch.ones(tokens, others, dtype=torch.bool).tril()
    if attn_mask is not None:
        attn_mask = attn_mask.view((1,) * (4 - attn_mask.dim()) + attn_mask.shape)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        # Heads share a mask: it is made numbers once, and added to each.
        zeros = torch.zeros(attn_mask.shape)
        attn_mask = zeros.masked_fill_(~attn_mask, torch.finfo(torch.float32).min)
    width = value.shape[-1]
    # A model joins the heads of a token next.
    answer = query.new_empty(rows, tokens, heads, width).transpose(1, 2)
    step = max(1, _SCORES_AT_ONCE // (heads * tokens * others))
    for start in range(0, rows, step):
        some = slice(start, start + step)
        mask = attn_mask if attn_mask is None or len(attn_mask) == 1 else attn_mask[some]
        # In float32, as PyTorch's kernel has them: rounded scores are off by far more than states.
        products = torch.bmm(_flat(query[some].float()), _flat(key[some].float()).transpose(1, 2))
        scores = products.view(-1, heads, tokens, others).mul_(factor)
        if mask is not None:
            scores += mask
        weights = torch.softmax(scores, dim=-1).to(query.dtype)
        found = _product(_flat(weights), _flat(value[some]))
        answer[some] = found.view(-1, heads, tokens, width)
    return answer


def _product(weights: Tensor, values: Tensor) -> Tensor:
    """(n, tokens, others) times (n, others, size), in bfloat16."""
    if is_native("bfloat16"):
        return torch.bmm(weights, values)
    return torch.bmm(weights.float(), values.float()).to(weights.dtype)


def _flat(tensor: Tensor) -> Tensor:
    """(n, heads, tokens, size) as (n * heads, tokens, size)."""
    return tensor.reshape(-1, *tensor.shape[2:])
