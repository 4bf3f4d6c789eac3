"""What a sentence encoder's own configuration does beside its transformer.

It is read as sentence-transformers writes it: `modules.json` names the modules in order, and
`config_sentence_transformers.json` what stands before each text; `sentence_bert_config.json` has
the longest text and whether all are lower-cased.
"""

from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from raee.config import BackboneSpec
from raee.errors import InputError, cut
from raee.model.backbones import POOLINGS, Pooling
from raee.model.files import MODULES, POOLING, SETTINGS, json_file, model_file

_PROMPTS = "config_sentence_transformers.json"


@dataclass(frozen=True)
class SentenceParts:
    """How a sentence encoder makes one vector of a text's states."""

    pooling: Pooling
    after_pooling: nn.Sequential | None
    """Modules that follow the pooling and change more than a vector's length, in float32."""
    prefix: str
    """What stands before every text; often nothing."""
    lower_case: bool
    """Whether texts are lower-cased before they are tokenized."""
    configs: tuple[str, ...]
    """Files of the model that say so, for the fingerprint, in order."""
    weights: tuple[str, ...]
    """Files with the weights of these modules, in order."""

    def pooled_size(self, width: int) -> int:
        """Width of a text's vector.  width: of a state."""
        modules = [m for m in self.after_pooling or () for m in m.modules()]
        sizes = [m.out_features for m in modules if isinstance(m, nn.Linear)]
        return sizes[-1] if sizes else width


def sentence_parts(spec: BackboneSpec) -> SentenceParts:
    """What the configuration of a sentence encoder says; without one, the mean over real tokens.

    Raises InputError if it names a module, a pooling or an activation that is not known, or lacks
    a module's weights.
    """
    pooling, *others = _modules(spec)
    after: list[nn.Module] = []
    configs, weights = [f"{pooling}/config.json"], []
    for kind, path in others:
        if kind == "Normalize":
            after.append(_Normalize())
            continue
        module, file = _dense(spec, path)
        after.append(module)
        configs.append(f"{path}/config.json")
        weights.append(file)
    while after and isinstance(after[-1], _Normalize):
        after.pop()  # vectors are made of length 1 in any case
    prefix = _prefix(spec)
    settings = json_file(spec, configs[0]) or {}
    if prefix:
        configs.append(_PROMPTS)
        if settings.get("include_prompt") is False:
            raise InputError(
                f"backbone {spec.model!r}: its pooling leaves out the prompt (include_prompt: "
                f"false) that {_PROMPTS} puts before every text; this is not known"
            )
    return SentenceParts(
        pooling=_pooling(spec, settings),
        after_pooling=nn.Sequential(*after).eval().requires_grad_(False) if after else None,
        prefix=prefix,
        lower_case=bool((json_file(spec, SETTINGS) or {}).get("do_lower_case", False)),
        configs=tuple(configs),
        weights=tuple(weights),
    )


def _modules(spec: BackboneSpec) -> list[Any]:
    """The folder of the pooling, and then (kind, folder) of each module that follows it.

    Raises InputError if there is another module than these, or another order.
    """
    listed = json_file(spec, MODULES, list)
    if listed is None:
        return [POOLING]
    found = []
    for module in listed:
        if not isinstance(module, dict) or not isinstance(module.get("type"), str):
            raise InputError(f"backbone {spec.model!r}: {MODULES} names a module without a type")
        package, _, kind = module["type"].rpartition(".")
        # The kinds have moved between modules of that package, and kept their names.
        known = package.partition(".")[0] == "sentence_transformers"
        found.append((kind if known else module["type"], str(module.get("path", ""))))
    if [kind for kind, _ in found[:2]] != ["Transformer", "Pooling"]:
        raise InputError(
            f"backbone {spec.model!r}: {MODULES} begins with "
            f"{cut(' and '.join(kind for kind, _ in found[:2]) or 'nothing')}; it must begin with "
            "Transformer and Pooling"
        )
    for kind, _ in found[2:]:
        if kind not in ("Dense", "Normalize"):
            raise InputError(
                f"backbone {spec.model!r}: {MODULES} names the module {cut(kind)} after the "
                "pooling; only Dense and Normalize are known"
            )
    return [found[1][1], *found[2:]]


def _pooling(spec: BackboneSpec, config: dict[str, Any]) -> Pooling:
    """What a pooling's configuration says; without one, the mean."""
    # Newer configurations name the mode or list the modes, older ones have a switch for each.
    modes = config.get("pooling_mode") or [
        key.removeprefix("pooling_mode_").removesuffix("_token").removesuffix("_tokens")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on
    ]
    modes = [modes] if isinstance(modes, str) else modes
    if not modes:
        return "mean"
    for known in POOLINGS:
        if modes == [known]:
            return known
    raise InputError(
        f"backbone {spec.model!r}: pooling {cut(modes)} is neither mean nor cls nor lasttoken"
    )


def _prefix(spec: BackboneSpec) -> str:
    """What the encoder's configuration puts before a text by default.

    Raises InputError if the configuration names a prompt that it has not.
    """
    config = json_file(spec, _PROMPTS) or {}
    name, prompts = config.get("default_prompt_name"), config.get("prompts") or {}
    if name is None:
        return ""
    found = prompts.get(name) if isinstance(prompts, dict) else None
    if not isinstance(found, str):
        raise InputError(
            f"backbone {spec.model!r}: {_PROMPTS} has no prompt {cut(repr(name))}, its default"
        )
    return found


def _dense(spec: BackboneSpec, path: str) -> tuple[nn.Module, str]:
    """A Dense module, and the file of its weights.

    Raises InputError if it is of a kind that is not known, or its weights are missing or others.
    """
    config = json_file(spec, f"{path}/config.json") or {}
    for key, usual in (("module_input_name", "sentence_embedding"), ("use_residual", False)):
        if config.get(key, usual) != usual:
            raise InputError(
                f"backbone {spec.model!r}: {path} has {key} {cut(repr(config[key]))}; only "
                f"{usual!r} is known"
            )
    try:
        linear = nn.Linear(config["in_features"], config["out_features"], config.get("bias", True))
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputError(f"backbone {spec.model!r}: {path} has no sizes in config.json") from error
    activation = _activation(spec, path, config.get("activation_function", "torch.nn.Tanh"))
    weights, file = _weights(spec, path)
    try:
        linear.load_state_dict({n.removeprefix("linear."): each for n, each in weights.items()})
    except RuntimeError as error:
        raise InputError(
            f"backbone {spec.model!r}: {file} has not the weights that {path}/config.json says"
        ) from error
    return nn.Sequential(linear, activation), file


def _activation(spec: BackboneSpec, path: str, name: Any) -> nn.Module:
    package, _, kind = str(name).rpartition(".")
    found = getattr(nn, kind, None) if package.startswith("torch.nn") else None
    try:
        if isinstance(found, type) and issubclass(found, nn.Module):
            return found()
    except TypeError:  # a module that needs arguments
        pass
    raise InputError(
        f"backbone {spec.model!r}: {path} has the activation {cut(repr(name))}, which is none of "
        "PyTorch's own"
    )


def _weights(spec: BackboneSpec, path: str) -> tuple[dict[str, Tensor], str]:
    name = f"{path}/model.safetensors"
    file = model_file(spec, name)
    try:
        if file is not None:
            return safetensors.torch.load_file(file), name
        name = f"{path}/pytorch_model.bin"
        file = model_file(spec, name)
        if file is not None and spec.pickled_weights:
            return torch.load(file, map_location="cpu", weights_only=True), name
    except Exception as error:  # each format has its own
        raise InputError(f"backbone {spec.model!r}: {name} cannot be read; is it whole?") from error
    if file is None:
        raise InputError(f"backbone {spec.model!r}: {path} has no weights")
    raise InputError(
        f"backbone {spec.model!r}: the weights of {path} are no safetensors; "
        "`pickled_weights: true` loads them"
    )


class _Normalize(nn.Module):
    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, dim=-1)
