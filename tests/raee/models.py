"""Tiny models with random weights, each made with a tokenizer of its own and saved to a folder."""

from pathlib import Path

import torch
import transformers as t
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn

from tests.texts import WORDS

LAYERS = 4
WIDTH = 32
POSITIONS = 64

MASKED_LMS = (
    "bert",
    "roberta",
    "electra",
    "albert",
    "distilbert",
    "deberta-v2",
    "deberta-v3",
    "modernbert",
)
SENTENCE_ENCODERS = ("bert-encoder", "mpnet-encoder")

_LETTERS = "abcdefghijklmnopqrstuvwxyz.,!?'0123456789"

_TOKENIZER_OF = {
    "roberta": "byte-bpe",
    "modernbert": "byte-bpe",
    "mpnet-encoder": "byte-bpe",
    "albert": "unigram",
    "deberta-v2": "unigram",
    "deberta-v3": "unigram",
}


def save_model(name: str, folder: Path) -> Path:
    """Make the model of a name of MASKED_LMS or SENTENCE_ENCODERS and save it to a folder."""
    tokenizer = make_tokenizer(_TOKENIZER_OF.get(name, "wordpiece"))
    torch.manual_seed(0)
    model = _make_model(name, len(tokenizer), tokenizer.pad_token_id)
    with torch.no_grad():
        # Biases and norms too, so that none of them can be left out unnoticed; large enough for
        # the answers to differ between depths.
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.15)
    model.tie_weights()
    t.logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_tokenizer(kind: str) -> t.PreTrainedTokenizerFast:
    """A tokenizer that knows WORDS: `wordpiece`, `byte-bpe` or `unigram`."""
    make = {"wordpiece": _wordpiece, "byte-bpe": _byte_bpe, "unigram": _unigram}[kind]
    tokenizer, special = make()
    start, end = special["cls_token"], special["sep_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (start, end)],
    )
    return t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=POSITIONS, **special
    )


def layer_modules(model: nn.Module) -> list[nn.Module]:
    """The module of each layer, by depth from 1 on; found by name, as a reader of the model would.

    model: without its head.
    """
    kind = type(model).__name__
    if kind == "AlbertModel":  # one module, called once a layer
        return [model.encoder.albert_layer_groups[0]] * model.config.num_hidden_layers
    if kind == "DistilBertModel":
        return list(model.transformer.layer)
    return list(model.layers if kind == "ModernBertModel" else model.encoder.layer)


def _make_model(name: str, vocabulary: int, pad: int) -> t.PreTrainedModel:
    common = {
        "vocab_size": vocabulary,
        "pad_token_id": pad,
        "hidden_size": WIDTH,
        "num_attention_heads": 4,
        "num_hidden_layers": LAYERS,
        "intermediate_size": 48,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.2,
    }
    # Positions of these two start after the padding token's.
    offset = common | {"max_position_embeddings": POSITIONS + pad + 1}
    deberta = common | {
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    }
    distilbert = {
        "vocab_size": vocabulary,
        "pad_token_id": pad,
        "dim": WIDTH,
        "n_heads": 4,
        "n_layers": LAYERS,
        "hidden_dim": 48,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.2,
    }
    special = {f"{role}_token_id": pad for role in ("bos", "eos", "cls", "sep")}
    makes = {
        "bert": lambda: t.BertForMaskedLM(t.BertConfig(**common)),
        "roberta": lambda: t.RobertaForMaskedLM(t.RobertaConfig(**offset)),
        "electra": lambda: t.ElectraForMaskedLM(t.ElectraConfig(**common, embedding_size=24)),
        "albert": lambda: t.AlbertForMaskedLM(t.AlbertConfig(**common, embedding_size=24)),
        "distilbert": lambda: t.DistilBertForMaskedLM(t.DistilBertConfig(**distilbert)),
        # Version 2 has a convolution beside its first layer, version 3 a head of its own form.
        "deberta-v2": lambda: t.DebertaV2ForMaskedLM(
            t.DebertaV2Config(**deberta, conv_kernel_size=3, conv_act="gelu")
        ),
        "deberta-v3": lambda: t.DebertaV2ForMaskedLM(t.DebertaV2Config(**deberta, legacy=False)),
        "modernbert": lambda: t.ModernBertForMaskedLM(
            t.ModernBertConfig(**common | special, local_attention=8)
        ),
        "bert-encoder": lambda: t.BertModel(t.BertConfig(**common)),
        "mpnet-encoder": lambda: t.MPNetModel(t.MPNetConfig(**offset)),
    }
    return makes[name]()


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
