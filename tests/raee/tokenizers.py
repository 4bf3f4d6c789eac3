"""Small tokenizers of the kinds that models which write have; they know WORDS.

Each begins words by rules of its own: after a space, with a mark, or with a mark that it puts in
front of a text.  Some add special tokens, some have no padding token, some a chat template.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import transformers as t
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from tests.texts import WORDS

KINDS = ("gpt2", "llama3", "llama2", "gemma", "t5", "closing", "wordpiece")
"""`closing` puts an end token after a text, as tokenizers of embedding models made of causal ones
do."""

CHATTING = ("llama3", "llama2", "gemma")

LLAMA3_CHAT = (
    "{{ bos_token }}<|start|>system<|end|>\n\nToday: {{ strftime_now('%d %b %Y') }}<|eot|>"
    "{% for m in messages %}<|start|>{{ m.role }}<|end|>\n\n{{ m.content | trim }}<|eot|>"
    "{% endfor %}{% if add_generation_prompt %}<|start|>assistant<|end|>\n\n{% endif %}"
)
LLAMA2_CHAT = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA_CHAT = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}"
    "\n{{ m.content | trim }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_LETTERS = "".join(map(chr, range(0x21, 0x7F))) + "\n"
_MORE = ("is", "answer", "text", "Review", "Sentiment", "very")


def make(kind: str, pad: bool = False) -> t.PreTrainedTokenizerFast:
    """A tokenizer of one of KINDS.  pad: whether it has a padding token (t5, wordpiece: always)."""
    tokenizer, start, end, chat, special = {
        "gpt2": lambda: (_byte_bpe(), None, None, None, ("<|endoftext|>",)),
        "llama3": lambda: (
            _byte_bpe(_LLAMA3_WORDS),
            "<s>",
            None,
            LLAMA3_CHAT,
            ("<|start|>", "<|end|>", "<|eot|>"),
        ),
        "llama2": lambda: (_marked("first"), "<s>", None, LLAMA2_CHAT, ("</s>",)),
        "gemma": lambda: (_gemma(), "<s>", None, GEMMA_CHAT, ("<turn>", "<end>")),
        "t5": lambda: (_unigram(), None, "</s>", None, ("<pad>",)),
        "closing": lambda: (_marked("first"), "<s>", "</s>", None, ()),
        "wordpiece": lambda: (_wordpiece(), "[CLS]", "[SEP]", None, ("[PAD]", "[MASK]")),
    }[kind]()
    own = [token for token in (start, end, *special) if token is not None]
    if pad and kind not in ("t5", "wordpiece"):
        own.append("<pad>")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in own])
    pieces = [*filter(None, (start, "$A", end))]
    added = [(token, tokenizer.token_to_id(token)) for token in (start, end) if token]
    if added:
        tokenizer.post_processor = TemplateProcessing(single=" ".join(pieces), special_tokens=added)
    roles = {"bos_token": start, "eos_token": end or ("</s>" if "</s>" in own else None)}
    roles["unk_token"] = "[UNK]" if kind == "wordpiece" else "<unk>"
    if kind in ("gpt2", "llama3"):
        del roles["unk_token"]  # bytes are never unknown
    if "<pad>" in own or kind == "wordpiece":
        roles["pad_token"] = "<pad>" if "<pad>" in own else "[PAD]"
    if kind == "wordpiece":
        roles |= {"mask_token": "[MASK]", "cls_token": start, "sep_token": end}
    made = t.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **{k: v for k, v in roles.items() if v is not None}
    )
    made.chat_template = chat
    return made


def save_causal_lm(folder: Path, kind: str = "gpt2") -> Path:
    """A small causal LM with random weights, and the tokenizer of a kind, in a folder."""
    tokenizer = make(kind, pad=True)
    tokenizer.model_max_length = 128
    config = t.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=128,
    )
    torch.manual_seed(0)
    t.logging.disable_progress_bar()
    t.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _merged(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """The merges that make words out of their letters, from the left."""
    return [*dict.fromkeys((word[:i], word[i]) for word in words for i in range(1, len(word)))]


def _vocabulary(pieces: Iterator[str] | list[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}


def _byte_bpe(words: str | None = None) -> Tokenizer:
    """Bytes in words, which a regular expression finds: by default GPT-2's."""
    merges = [*_merged(tuple(f"Ġ{word}" for word in (*WORDS, *_MORE))), ("Ċ", "Ċ")]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = _vocabulary([*alphabet, *("".join(pair) for pair in merges)])
    tokenizer = Tokenizer(models.BPE(pieces, merges))
    own = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    if words is not None:
        split = pre_tokenizers.Split(Regex(words), "isolated")
        own = pre_tokenizers.Sequence([split, own])
    tokenizer.pre_tokenizer = own
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _pieces_with_bytes(words: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    merges = [*_merged(words), ("▁", "▁")]
    base = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *_LETTERS]
    return _vocabulary([*base, *("".join(pair) for pair in merges)]), merges


def _marked(scheme: str) -> Tokenizer:
    """Words are marked, and a text's first word is too, although no space precedes it."""
    pieces, merges = _pieces_with_bytes(tuple(f"▁{word}" for word in (*WORDS, *_MORE)))
    tokenizer = Tokenizer(models.BPE(pieces, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = _decoder()
    return tokenizer


def _gemma() -> Tokenizer:
    """Spaces are marks, and none is added."""
    words = tuple(w for word in (*WORDS, *_MORE) for w in (f"▁{word}", word))
    pieces, merges = _pieces_with_bytes(words)
    tokenizer = Tokenizer(models.BPE(pieces, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = _decoder()
    return tokenizer


def _decoder() -> decoders.Decoder:
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence(steps)


def _unigram() -> Tokenizer:
    words = [(f"▁{word}", -2.0 - i / 100) for i, word in enumerate((*WORDS, *_MORE))]
    letters = [(letter, -8.0) for letter in ("▁", *_LETTERS)]
    tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *words, *letters], unk_id=0))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("\n", " "), normalizers.Strip(), normalizers.Replace("  ", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def _wordpiece() -> Tokenizer:
    words = [*WORDS, *(word.lower() for word in _MORE), *_LETTERS.lower()]
    pieces = _vocabulary(["[UNK]", *words, *(f"##{letter}" for letter in _LETTERS.lower())])
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer
