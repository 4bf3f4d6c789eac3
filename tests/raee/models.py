"""Tiny models with random weights, each made with a tokenizer of its own and saved to a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

from raee.config import Family
from raee.model.linears import Packed
from tests.texts import WORDS

LAYERS = 4
WIDTH = 32
POSITIONS = 64


@dataclass(frozen=True)
class Architecture:
    """How the small model of an architecture is made."""

    family: Family
    model: type[t.PreTrainedModel]
    settings: dict[str, Any]
    tokenizer: str = "wordpiece"
    untied: bool = False
    """Whether the head has weights of its own."""


_BERT = {
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 48,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.2,
}
# Positions of these start after the padding token's, which is 1.
_ROBERTA = _BERT | {"max_position_embeddings": POSITIONS + 2}
_DEBERTA = _BERT | {
    "relative_attention": True,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
_DISTILBERT = {
    "dim": WIDTH,
    "n_heads": 4,
    "n_layers": LAYERS,
    "hidden_dim": 48,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.2,
}
_MODERNBERT = {f"{role}_token_id": 1 for role in ("bos", "eos", "cls", "sep")}
_LLAMA = {
    "hidden_size": 40,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "intermediate_size": 56,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.2,
}
_GEMMA = _LLAMA | {"head_dim": 6, "num_key_value_heads": 1}
_T5 = {
    "d_model": 36,
    "d_kv": 10,
    "d_ff": 44,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
    "decoder_start_token_id": 1,
    "initializer_factor": 0.3,
}
_BART = {
    "d_model": 36,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 44,
    "decoder_ffn_dim": 40,
    "max_position_embeddings": POSITIONS,
    "decoder_start_token_id": 2,
    "init_std": 0.2,
}

_ENCODER, _MASKED, _CAUSAL, _SEQ2SEQ = "sentence-encoder", "masked-lm", "causal-lm", "seq2seq-lm"

ARCHITECTURES = {
    "bert": Architecture(_MASKED, t.BertForMaskedLM, _BERT),
    "roberta": Architecture(_MASKED, t.RobertaForMaskedLM, _ROBERTA, "byte-bpe"),
    "xlm-roberta": Architecture(_MASKED, t.XLMRobertaForMaskedLM, _ROBERTA, "unigram"),
    "electra": Architecture(_MASKED, t.ElectraForMaskedLM, _BERT | {"embedding_size": 24}),
    "albert": Architecture(_MASKED, t.AlbertForMaskedLM, _BERT | {"embedding_size": 24}, "unigram"),
    "distilbert": Architecture(_MASKED, t.DistilBertForMaskedLM, _DISTILBERT),
    # Version 2 has a convolution beside its first layer, version 3 a head of its own form.
    "deberta-v2": Architecture(
        _MASKED,
        t.DebertaV2ForMaskedLM,
        _DEBERTA | {"conv_kernel_size": 3, "conv_act": "gelu"},
        "unigram",
    ),
    "deberta-v3": Architecture(
        _MASKED, t.DebertaV2ForMaskedLM, _DEBERTA | {"legacy": False}, "unigram"
    ),
    "modernbert": Architecture(
        _MASKED,
        t.ModernBertForMaskedLM,
        _BERT | _MODERNBERT | {"local_attention": 8},
        "byte-bpe",
    ),
    "mobilebert": Architecture(
        _MASKED,
        t.MobileBertForMaskedLM,
        # Its own norm does not normalise: states of random weights would grow beyond float32.
        _BERT
        | {"embedding_size": 24, "intra_bottleneck_size": 16, "normalization_type": "layer_norm"}
        | {"num_feedforward_networks": 2},
    ),
    "bert-encoder": Architecture(_ENCODER, t.BertModel, _BERT),
    "mpnet-encoder": Architecture(_ENCODER, t.MPNetModel, _ROBERTA, "byte-bpe"),
    "llama": Architecture(_CAUSAL, t.LlamaForCausalLM, _LLAMA, "causal"),
    "mistral": Architecture(
        _CAUSAL, t.MistralForCausalLM, _LLAMA | {"sliding_window": 5}, "causal"
    ),
    "qwen2": Architecture(_CAUSAL, t.Qwen2ForCausalLM, _LLAMA, "causal"),
    "qwen3": Architecture(_CAUSAL, t.Qwen3ForCausalLM, _LLAMA | {"head_dim": 6}, "causal"),
    "gemma": Architecture(_CAUSAL, t.GemmaForCausalLM, _GEMMA, "causal"),
    "gemma2": Architecture(
        _CAUSAL,
        t.Gemma2ForCausalLM,
        _GEMMA | {"sliding_window": 5, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 6},
        "causal",
    ),
    "gemma3": Architecture(
        _CAUSAL,
        t.Gemma3ForCausalLM,
        _GEMMA
        | {"sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"] * 2}
        | {"num_hidden_layers": 4},
        "causal",
    ),
    # Of a model that reads images, too, what reads text.
    "gemma3-images": Architecture(
        _CAUSAL,
        t.Gemma3ForConditionalGeneration,
        {
            "text_config": _GEMMA | {"sliding_window": 5, "query_pre_attn_scalar": 6},
            "vision_config": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
            | {"intermediate_size": 24, "image_size": 28, "patch_size": 14},
            "mm_tokens_per_image": 4,
        },
        "causal",
    ),
    "phi3": Architecture(_CAUSAL, t.Phi3ForCausalLM, _LLAMA, "causal"),
    "gpt2": Architecture(
        _CAUSAL,
        t.GPT2LMHeadModel,
        {"n_embd": 36, "n_head": 3, "n_layer": 5, "n_positions": POSITIONS},
        "bare",
    ),
    "gpt-neox": Architecture(_CAUSAL, t.GPTNeoXForCausalLM, _BERT | {"hidden_size": 40}, "bare"),
    "opt": Architecture(
        _CAUSAL,
        t.OPTForCausalLM,
        _BERT | {"ffn_dim": 44, "word_embed_proj_dim": WIDTH},
        "causal",
    ),
    "opt-projected": Architecture(
        _CAUSAL,
        t.OPTForCausalLM,
        _BERT | {"ffn_dim": 44, "word_embed_proj_dim": 20, "do_layer_norm_before": False},
        "causal",
    ),
    "olmo2": Architecture(_CAUSAL, t.Olmo2ForCausalLM, _LLAMA, "bare"),
    "smollm3": Architecture(
        _CAUSAL, t.SmolLM3ForCausalLM, _LLAMA | {"no_rope_layer_interval": 2}, "bare"
    ),
    "granite": Architecture(
        _CAUSAL,
        t.GraniteForCausalLM,
        _LLAMA | {"logits_scaling": 2.5, "embedding_multiplier": 3.0, "residual_multiplier": 0.7},
        "bare",
    ),
    "mixtral": Architecture(
        _CAUSAL, t.MixtralForCausalLM, _LLAMA | {"num_local_experts": 5}, "causal"
    ),
    "bloom": Architecture(
        _CAUSAL, t.BloomForCausalLM, {"hidden_size": 36, "n_head": 3, "n_layer": 4}, "bare"
    ),
    "t5": Architecture(_SEQ2SEQ, t.T5ForConditionalGeneration, _T5, "t5"),
    "flan-t5": Architecture(
        _SEQ2SEQ,
        t.T5ForConditionalGeneration,
        _T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        "t5",
        untied=True,
    ),
    "mt5": Architecture(
        _SEQ2SEQ,
        t.MT5ForConditionalGeneration,
        _T5 | {"num_layers": 2, "feed_forward_proj": "gated-gelu"},
        "t5",
    ),
    "bart": Architecture(_SEQ2SEQ, t.BartForConditionalGeneration, _BART, "byte-bpe"),
}
"""All architectures that are tested: a line each."""

REFUSED = {
    "mamba": Architecture(
        _CAUSAL, t.MambaForCausalLM, {"hidden_size": 32, "num_hidden_layers": 3}, "bare"
    ),
    "rwkv": Architecture(
        _CAUSAL,
        t.RwkvForCausalLM,
        {"hidden_size": 32, "num_hidden_layers": 3, "attention_hidden_size": 32},
        "bare",
    ),
    "recurrent-gemma": Architecture(
        _CAUSAL,
        t.RecurrentGemmaForCausalLM,
        {"hidden_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4, "lru_width": 40}
        | {"intermediate_size": 60, "attention_window_size": 8},
        "bare",
    ),
}
"""Architectures that cannot be walked."""

MASKED_LMS = tuple(name for name, made in ARCHITECTURES.items() if made.family == _MASKED)
SENTENCE_ENCODERS = tuple(name for name, made in ARCHITECTURES.items() if made.family == _ENCODER)
"""These and the masked LMs have LAYERS layers and the width WIDTH."""
GENERATIVE_LMS = tuple(
    name for name, made in ARCHITECTURES.items() if made.family in (_CAUSAL, _SEQ2SEQ)
)
"""These do not."""

_LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?'0123456789"


def save_model(name: str, folder: Path) -> Path:
    """Make the model of a name of ARCHITECTURES or REFUSED and save it to a folder."""
    architecture = (ARCHITECTURES | REFUSED)[name]
    tokenizer = make_tokenizer(architecture.tokenizer)
    torch.manual_seed(0)
    made = architecture.model
    settings = {
        # Qwen's class of tokenizers adds a token.
        "vocab_size": len(tokenizer) + (architecture.family == _CAUSAL),
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        **architecture.settings,
    }
    if "text_config" in settings:
        own = ("vocab_size", "bos_token_id", "pad_token_id", "eos_token_id")
        settings["text_config"] = settings["text_config"] | {n: settings.pop(n) for n in own}
    model = made(made.config_class(**settings))
    with torch.no_grad():
        # Biases and norms too, so that none of them can be left out unnoticed; large enough for
        # the answers to differ between depths.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
        if architecture.model is t.BartForConditionalGeneration:
            model.final_logits_bias.normal_()
    model.tie_weights()
    if architecture.untied:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    t.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(kind: str) -> t.PreTrainedTokenizerFast:
    """A tokenizer that knows WORDS: one of _TOKENIZERS."""
    make, form = _TOKENIZERS[kind]
    tokenizer, special = make()
    start, end = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=form.format(start=start, end=end),
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    if form != _BOTH_ENDS:
        special = {"bos_token": start, "eos_token": end, "unk_token": special["unk_token"]}
    return t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=POSITIONS, **special
    )


def layer_modules(model: nn.Module) -> list[nn.Module]:
    """The module of each layer, by depth from 1 on; found by name, as a reader of the model would.

    model: without its head.
    """
    kind = type(model).__name__
    if hasattr(model, "decoder") and hasattr(model, "encoder"):
        both = (model.encoder, model.decoder)
        return [layer for part in both for layer in (part.block if "T5" in kind else part.layers)]
    if kind in ("GPT2Model", "BloomModel"):
        return list(model.h)
    if kind == "Gemma3Model":
        return list(model.language_model.layers)
    if kind == "OPTModel":
        return list(model.decoder.layers)
    if kind == "AlbertModel":  # one module, called once a layer
        return [model.encoder.albert_layer_groups[0]] * model.config.num_hidden_layers
    if kind == "DistilBertModel":
        return list(model.transformer.layer)
    return list(model.layers if hasattr(model, "layers") else model.encoder.layer)


def _wordpiece() -> tuple[Tokenizer, dict[str, str]]:
    special = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
    pieces = [*special, *WORDS, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer, _roles(special)


def _byte_bpe() -> tuple[Tokenizer, dict[str, str]]:
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    spaced = [f"Ġ{word}" for word in WORDS]
    merges = [(word[:i], word[i]) for word in spaced for i in range(1, len(word))]
    merges = list(dict.fromkeys(merges))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*special, *alphabet, *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, _roles(special)


def _unigram() -> tuple[Tokenizer, dict[str, str]]:
    special = ("[CLS]", "<pad>", "[SEP]", "<unk>", "[MASK]")
    pieces = [(piece, 0.0) for piece in special]
    pieces += [(f"▁{word}", -2.0 - i / 100) for i, word in enumerate(WORDS)]
    pieces += [(letter, -8.0) for letter in ("▁", *_LETTERS)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer, _roles(special)


def _roles(special: tuple[str, ...]) -> dict[str, str]:
    roles = ("cls_token", "pad_token", "sep_token", "unk_token", "mask_token")
    return dict(zip(roles, special, strict=True))


def unpack(model: nn.Module) -> None:
    """Give a loaded model PyTorch's own linear layers again, in place."""
    for parent in [*model.modules()]:
        for name, child in [*parent.named_children()]:
            if isinstance(child, Packed):
                weight = child.weight.to_dense()
                linear = nn.Linear(*reversed(weight.shape), bias=child.bias is not None)
                linear.weight, linear.bias = nn.Parameter(weight), child.bias
                setattr(parent, name, linear.requires_grad_(False))


_BOTH_ENDS = "{start} $A {end}"
_TOKENIZERS = {
    "wordpiece": (_wordpiece, _BOTH_ENDS),
    "byte-bpe": (_byte_bpe, _BOTH_ENDS),
    "unigram": (_unigram, _BOTH_ENDS),
    # These have no token to pad with: Llama's begins a text, GPT-2's adds nothing, T5's ends one.
    "causal": (_byte_bpe, "{start} $A"),
    "bare": (_byte_bpe, "$A"),
    "t5": (_unigram, "$A {end}"),
}
