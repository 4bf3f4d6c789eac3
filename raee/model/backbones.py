"""Frozen models: loading, fingerprint, and the label words' columns of a model's own head."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils.hub import cached_file

from raee.config import BackboneSpec, Family
from raee.errors import InputError, cut, listed
from raee.model.hub import quiet_libraries, without_a_dead_hub
from raee.model.walk import Inputs, Stack, find_stack

logger = logging.getLogger(__name__)

Pooling = Literal["mean", "cls"]

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "spm.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)

_PROBE_TEXTS = ("a", "a b c", "a b")
"""Three texts of different lengths, so that a batch of them needs a mask."""


@dataclass(frozen=True)
class Backbone:
    """A loaded model with everything that reading it needs."""

    family: Family
    model: nn.Module
    """The model with its head (a sentence encoder has none)."""
    stack: Stack
    tokenizer: Any
    device: torch.device
    max_tokens: int
    """Longest input in tokens, special ones included."""
    pooling: Pooling
    """How a sentence encoder makes one vector of its tokens."""
    fingerprint: dict[str, str]
    """SHA-256 of config, tokenizer and weights, and the dtype that the weights run in."""

    @property
    def depth(self) -> int:
        """How many layers there are: the last depth."""
        return self.stack.depth

    @property
    def hidden_size(self) -> int:
        """Width of a state."""
        return int(self.stack.model.config.hidden_size)  # type: ignore[union-attr,arg-type]

    @property
    def layer_parameters(self) -> int:
        """How many parameters a token meets in one full pass, embeddings left out."""
        one_pass = sum(p.numel() for p in self.stack.layers.parameters())
        return one_pass * self.depth // len(self.stack.layers)

    def normed(self, states: Tensor) -> Tensor:
        """States (.., hidden) as the head expects them: after the model's final norm, if any.

        The norm applies once, at every depth: the walk shows even the last depth's states from
        before it.
        """
        return states if self.stack.final_norm is None else self.stack.final_norm(states)


def default_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_backbone(spec: BackboneSpec, device: torch.device | None = None) -> Backbone:
    """Load a frozen model from the hub or a local folder, safetensors only.

    Raises InputError if there is no such model, its weights are in another format, damaged or
    incomplete, its other files contradict them, or its layers cannot be walked.
    """
    with quiet_libraries(), without_a_dead_hub(spec):
        return _load(spec, default_device() if device is None else device)


def _load(spec: BackboneSpec, device: torch.device) -> Backbone:
    dtype = _dtype(spec.dtype, device)
    try:
        # A model's own code never runs, and nobody is asked whether it may.
        tokenizer = AutoTokenizer.from_pretrained(
            spec.model, revision=spec.revision, trust_remote_code=False
        )
        auto = AutoModelForMaskedLM if spec.family == "masked-lm" else AutoModel
        model, loading = auto.from_pretrained(
            spec.model,
            revision=spec.revision,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # refused below, with their names
            dtype=dtype,
            output_loading_info=True,
            # The checkpoint's own configuration may want something else returned.
            return_dict=True,
            output_hidden_states=False,
        )
    except Exception as error:  # tokenizers raises bare Exceptions if files do not fit
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise InputError(
            f"backbone {spec.model!r} (revision {spec.revision!r}) cannot be loaded; give a "
            f"local folder or a hub name with safetensors weights ({reason})"
        ) from error
    if model.config.is_encoder_decoder:
        raise InputError(
            f"backbone {spec.model!r}: {type(model).__name__} is an encoder with a decoder; give a "
            "model that only encodes"
        )
    _check(spec, tokenizer, loading)
    model = model.eval().requires_grad_(False).to(device)
    base = model.base_model
    return Backbone(
        family=spec.family,
        model=model,
        stack=find_stack(base, *_probe_batches(tokenizer, device)),
        tokenizer=tokenizer,
        device=device,
        max_tokens=_max_tokens(spec, tokenizer, base),
        pooling=_pooling(spec) if spec.family == "sentence-encoder" else "mean",
        fingerprint=_fingerprint(spec) | {"dtype": str(dtype).removeprefix("torch.")},
    )


def pad(
    token_ids: Sequence[Sequence[int]], pad_token_id: int, device: torch.device
) -> dict[str, Tensor]:
    """Rows of token ids as `input_ids` and `attention_mask`, (n, longest) int64, padded right."""
    lengths = np.array([len(row) for row in token_ids])
    mask = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
    ids[mask] = np.concatenate(token_ids)
    both = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    return {name: torch.from_numpy(values).to(device) for name, values in both.items()}


def label_tokens(tokenizer: Any, words: Sequence[str]) -> list[int]:
    """The token of each label word as it is after a space, in the words' order.

    Raises InputError if a word is not one known token, or two words are the same one.
    """
    tokens: dict[int, str] = {}
    for word in words:
        ids = tokenizer(" " + word, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            pieces = tokenizer.convert_ids_to_tokens(ids)
            raise InputError(
                f"label word {cut(repr(word))} is {len(ids)} tokens for this tokenizer "
                f"({cut(pieces)}); "
                "choose a word that is one token"
            )
        if ids[0] == tokenizer.unk_token_id:
            raise InputError(
                f"label word {cut(repr(word))} is unknown to this tokenizer "
                f"({tokenizer.unk_token}); choose another word"
            )
        if ids[0] in tokens:
            raise InputError(
                f"label words {cut(repr(tokens[ids[0]]))} and {cut(repr(word))} are the same token "
                "for this tokenizer; choose different words"
            )
        tokens[ids[0]] = word
    return list(tokens)


class LabelColumns:
    """A masked LM's own head, cut down to the columns of the label words.

    The model's own forward runs with its base answering the given states and with every parameter
    that has a row for each word of the vocabulary reduced to the label words' rows.  So the head
    costs what its transform costs, whatever the size of the vocabulary, and no architecture is
    named.  Raises InputError if the reduced head answers other than the whole one.
    """

    def __init__(self, backbone: Backbone, tokens: Sequence[int]) -> None:
        self._model = backbone.model
        self._base = backbone.stack.model
        vocabulary = int(self._model.config.vocab_size)  # type: ignore[union-attr,arg-type]
        columns = torch.as_tensor(tokens, device=backbone.device)
        cut: dict[int, Tensor] = {}
        self._parameters = {
            name: cut.setdefault(id(parameter), parameter[columns])
            for name, parameter in self._model.named_parameters(remove_duplicate=False)
            if parameter.shape[:1] == (vocabulary,)
        }
        self._check(columns)

    def __call__(self, states: Tensor) -> Tensor:
        """Logits (n, labels) of states (n, hidden) that have gone through the final norm."""
        return self._head(states, self._parameters)

    def _head(self, states: Tensor, parameters: dict[str, Tensor]) -> Tensor:
        with _answering(self._base, BaseModelOutput(last_hidden_state=states.unsqueeze(1))):
            output = torch.func.functional_call(
                self._model, parameters, kwargs={"input_ids": None}, tie_weights=False
            )
        return output.logits.squeeze(1)

    @torch.inference_mode()
    def _check(self, columns: Tensor) -> None:
        weight = next(self._base.parameters())
        generator = torch.Generator().manual_seed(0)
        states = torch.randn(2, self._hidden_size(), generator=generator).to(weight)
        whole = self._head(states, {}).float()
        # Half-precision products differ a little with the matrices' shapes, wrong columns a lot.
        tolerance = 0.05 * float(whole.std())
        if not torch.allclose(self(states).float(), whole[:, columns], rtol=0, atol=tolerance):
            raise InputError(
                f"{type(self._model).__name__}: its head cannot be cut down to the label words"
            )

    def _hidden_size(self) -> int:
        return int(self._base.config.hidden_size)  # type: ignore[union-attr,arg-type]


@contextmanager
def _answering(module: nn.Module, output: Any) -> Iterator[None]:
    """Within, `module` answers `output` whatever it is given."""
    module.forward = lambda *args, **kwargs: output
    try:
        yield
    finally:
        del module.forward


def _check(spec: BackboneSpec, tokenizer: Any, loading: Mapping[str, Any]) -> None:
    """Raises InputError for what `transformers` loads without a word but cannot answer."""
    if other := sorted(loading["mismatched_keys"]):
        name, has, says = other[0]
        raise InputError(
            f"backbone {spec.model!r}: {name} has the shape {list(has)}, and by its config.json "
            f"{list(says)}; do its files belong together?"
        )
    # A pooler comes after the layers; no reader asks it.
    random = sorted(name for name in loading["missing_keys"] if "pooler" not in name)
    if random:
        raise InputError(
            f"backbone {spec.model!r} has no weights for {listed(random, 1)}; is it a "
            f"{spec.family} model?"
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no words; are files missing?")
    _check_limit(spec, "model_max_length", tokenizer.model_max_length)
    if tokenizer.pad_token_id is None:
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no padding token")
    if spec.family == "masked-lm" and tokenizer.mask_token_id is None:
        raise InputError(f"backbone {spec.model!r}: its tokenizer has no mask token")


def _check_limit(spec: BackboneSpec, name: str, value: Any) -> None:
    """Raises InputError if a limit of tokens in a model's files is no number."""
    if value is not None and not isinstance(value, int | float):
        raise InputError(f"backbone {spec.model!r}: its {name} is {cut(repr(value))}, no number")


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        native = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if native else torch.float32
    return getattr(torch, name)


def _probe_batches(tokenizer: Any, device: torch.device) -> tuple[Inputs, Inputs]:
    ids = [tokenizer(text)["input_ids"] for text in _PROBE_TEXTS]
    # A tokenizer that knows none of these letters still gives rows of different lengths.
    ids = [row + row[-1:] * i for i, row in enumerate(ids)]
    two = pad(ids[:2], tokenizer.pad_token_id, device)
    return two, pad(ids, tokenizer.pad_token_id, device)


def _max_tokens(spec: BackboneSpec, tokenizer: Any, base: nn.Module) -> int:
    limits = [tokenizer.model_max_length, getattr(base.config, "max_position_embeddings", None)]
    for name, module in base.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa's positions start after the padding token's.
            offset = 0 if module.padding_idx is None else module.padding_idx + 1
            limits.append(module.num_embeddings - offset)
    if spec.family == "sentence-encoder":
        settings = json_file(spec, "sentence_bert_config.json") or {}
        limits.append(settings.get("max_seq_length"))
        _check_limit(spec, "max_seq_length", limits[-1])
    return int(min(limit for limit in limits if limit is not None and limit > 0))


def _pooling(spec: BackboneSpec) -> Pooling:
    """What the encoder's own configuration says; else the mean over real tokens."""
    config = json_file(spec, "1_Pooling/config.json")
    if config is None:
        return "mean"
    # Newer configurations name the mode or list the modes, older ones have a switch for each.
    modes = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if modes in (["mean"], []):
        return "mean"
    if modes == ["cls"]:
        return "cls"
    raise InputError(f"backbone {spec.model!r}: pooling {modes} is neither mean nor cls")


def model_file(spec: BackboneSpec, name: str) -> Path | None:
    """A file of a model, by its name there; None if there is none."""
    try:
        path = cached_file(
            spec.model,
            name,
            revision=spec.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
    except OSError:
        return None
    return None if path is None else Path(path)


def json_file(spec: BackboneSpec, name: str) -> dict | None:
    """An object in a JSON file of a model; None if there is none.

    Raises InputError if the file holds anything else.
    """
    path = model_file(spec, name)
    try:
        found = None if path is None else json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"backbone {spec.model!r}: {name} is no JSON ({error})") from error
    if not isinstance(found, dict | None):
        raise InputError(f"backbone {spec.model!r}: {name} is no JSON object")
    return found


def _fingerprint(spec: BackboneSpec) -> dict[str, str]:
    """SHA-256 of what decides a model's answers: configuration, tokenizer and weights."""
    weights = ["model.safetensors"]
    # If both are there, it is the whole file that is loaded.
    if model_file(spec, weights[0]) is None:
        index = json_file(spec, "model.safetensors.index.json") or {"weight_map": {}}
        weights = sorted({*index["weight_map"].values()})
    parts = {
        "config": ["config.json", "1_Pooling/config.json", "sentence_bert_config.json"],
        "tokenizer": list(_TOKENIZER_FILES),
        "weights": weights,
    }
    result = {}
    for part, names in parts.items():
        digest = hashlib.sha256()
        for name in names:
            path = model_file(spec, name)
            if path is not None:
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        result[part] = digest.hexdigest()
    return result
