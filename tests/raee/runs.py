"""What a model runs, however it is called."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from raee.model.backbones import Backbone

Rows = Counter[tuple[int, ...]]
"""How often each row runs, by its token ids."""


@contextmanager
def rows_run(backbone: Backbone) -> Iterator[Rows]:
    """Counts the rows that run through the model meanwhile."""
    seen: Rows = Counter()

    def note(_module, _args, inputs) -> None:
        if inputs.get("input_ids") is None:  # a masked LM's head is looked for without a row
            return
        both = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        seen.update(tuple(ids[is_token.bool()].tolist()) for ids, is_token in both)

    hook = backbone.stack.model.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield seen
    finally:
        hook.remove()


def rows_of(backbone: Backbone, texts: Sequence[str]) -> Rows:
    """Some texts, each as often as it is given."""
    return Counter(tuple(ids) for ids in backbone.tokenizer(list(texts))["input_ids"])
