"""Trains the small causal model that benchmarks use, so that figures are not of random numbers.

`make train-small-causal MINUTES=50` makes a Llama of 6 layers, 256 wide, with 8,192 byte-level BPE
tokens, on next-token loss over the texts in RAEE_DATA: all train splits and the unlabelled reviews,
less every text that stands in a test or dev split.  It measures what a step takes, in float32 and
in bfloat16, takes as many steps as fit into the minutes, and prints the perplexity of held-out
texts.  If it is killed, the same command goes on from the last checkpoint.  It is small: for an
hour on 2 cores, not for use.

RAEE_DATA: the folder of the data sets, TASK/train.parquet and imdb/unlabelled.parquet.
RAEE_CAUSAL: the folder that the weights, the tokenizer and the configuration are written to.
"""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

RESULTS = Path(__file__).parent / "results"
MINUTES = 50
START, END, PAD = "<s>", "</s>", "<pad>"
VOCABULARY = 8_192
LAYERS, WIDTH, HEADS, INNER = 6, 256, 4, 704
LENGTH = 256
"""Tokens of a sequence; longer texts go on in the next one."""
BATCH, PIECE = 16, 4
"""Sequences of a step, and those that one thread takes at once: their states fit its cache."""
PEAK, LAST, WARM_UP = 1e-3, 0.1, 0.05
"""Learning rate; what is left of it at the end; the share of the steps in which it rises."""
BETAS, DECAY, CLIP = (0.9, 0.95), 0.1, 1.0
HELD_OUT = 400
"""Texts that are not trained on."""
TRIED = 3
"""Steps that are timed in each precision."""
TOLD, KEPT = 20.0, 120.0
"""Seconds between two lines of progress, and between two checkpoints."""


@dataclass(frozen=True)
class Tokens:
    """Sequences of tokens, (sequences, LENGTH)."""

    training: NDArray[np.uint16]
    held_out: NDArray[np.uint16]


@dataclass
class Run:
    """What a checkpoint holds."""

    model: LlamaForCausalLM
    optimizer: torch.optim.Optimizer
    bfloat16: bool
    steps: int
    step: int = 0


def main(minutes: float = MINUTES) -> None:
    """Train what is left to train, and write the model.  minutes: from now to its end."""
    begun = time.monotonic()
    missing = [name for name in ("RAEE_DATA", "RAEE_CAUSAL") if name not in os.environ]
    if missing:
        sys.exit(f"small_causal: set {' and '.join(missing)}")
    folder = Path(os.environ["RAEE_CAUSAL"])
    unfinished = folder / "training"
    if (folder / "config.json").exists() and not unfinished.exists():
        sys.exit(f"small_causal: {folder} has a model; remove it to train another")
    unfinished.mkdir(parents=True, exist_ok=True)
    tokens = tokens_of(Path(os.environ["RAEE_DATA"]), folder, unfinished)
    torch.set_num_threads(1)  # pieces of a batch run beside each other instead
    run = resumed(unfinished / "checkpoint.pt")
    if run is None:
        run = planned(tokens, begun + 60 * minutes)
    tell(f"{run.steps:,} steps in {'bfloat16' if run.bfloat16 else 'float32'}")
    train(run, tokens.training, unfinished / "checkpoint.pt")
    perplexity = math.exp(mean_loss(run, tokens.held_out))
    logging.disable_progress_bar()
    run.model.save_pretrained(folder)
    seen = run.steps * BATCH * LENGTH
    figures = {"steps": run.steps, "tokens": seen, "perplexity": perplexity}
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "small_causal.json").write_text(json.dumps(figures))
    shutil.rmtree(unfinished)
    print(
        f"{folder}: {run.model.num_parameters() / 1e6:.1f} million parameters, {seen:,} tokens of "
        f"{tokens.training.size:,} read; perplexity of held-out texts {perplexity:.1f} a token"
    )


def tokens_of(data: Path, folder: Path, unfinished: Path) -> Tokens:
    """The texts in tokens, out of the unfinished run if it has them.

    The tokenizer is made and saved to the folder before.
    """
    paths = {part: unfinished / f"{part}.npy" for part in ("training", "held_out")}
    if not all(path.exists() for path in paths.values()):
        texts = texts_of(data)
        tell(f"{len(texts):,} texts")
        tokenizer = make_tokenizer(texts)
        tokenizer.save_pretrained(folder)
        parts = {"held_out": texts[:HELD_OUT], "training": texts[HELD_OUT:]}
        for part, some in parts.items():
            with replaced(paths[part]) as path, path.open("wb") as file:
                np.save(file, packed(tokenizer, some))
    return Tokens(**{part: np.load(path) for part, path in paths.items()})


def texts_of(data: Path) -> list[str]:
    """Every text to learn from, once, in random order; none that is in a test or dev split."""
    train = [*sorted(data.glob("*/train.parquet")), data / "imdb" / "unlabelled.parquet"]
    judging = [*data.glob("*/test.parquet"), *data.glob("*/dev.parquet")]
    texts, kept_away = (
        pl.concat(pl.read_parquet(path, columns=["text"]) for path in paths)
        for paths in (train, judging)
    )
    left = texts.unique(maintain_order=True).join(
        kept_away, on="text", how="anti", maintain_order="left"
    )
    written = left.filter(pl.col("text").str.strip_chars() != "")
    return written.sample(fraction=1.0, shuffle=True, seed=0)["text"].to_list()


def make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE of the texts, which begins every text with its start token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[START, END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", special_tokens=[(START, tokenizer.token_to_id(START))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=PAD,
        model_max_length=LENGTH,
    )


def packed(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> NDArray[np.uint16]:
    """The texts one after another, each with its start and end, in sequences, (.., LENGTH)."""
    end = [tokenizer.eos_token_id]
    encoded = tokenizer.backend_tokenizer.encode_batch_fast(texts)
    flat = np.concatenate([np.array(one.ids + end, np.uint16) for one in encoded])
    return flat[: len(flat) // LENGTH * LENGTH].reshape(-1, LENGTH)


def planned(tokens: Tokens, end: float) -> Run:
    """A run from nothing in the faster precision, of as many steps as fit before the end.

    end: in seconds of `time.monotonic`.
    """
    seconds = {bfloat16: seconds_a_step(tokens, bfloat16) for bfloat16 in (False, True)}
    tell(f"a step takes {seconds[False]:.2f} s in float32, {seconds[True]:.2f} s in bfloat16")
    fastest = min(seconds, key=lambda bfloat16: seconds[bfloat16])
    # Without gradients, a held-out token costs a third.
    judging = seconds[fastest] * len(tokens.held_out) / BATCH / 3
    left = end - time.monotonic() - judging
    return begin(fastest, max(1, int(left / seconds[fastest])))


def seconds_a_step(tokens: Tokens, bfloat16: bool) -> float:
    """What a step takes, measured on a model that is thrown away."""
    run = begin(bfloat16, 1 + TRIED)
    with threads() as each:
        advance(run, tokens.training, each)
        begun = time.monotonic()
        for _ in range(TRIED):
            advance(run, tokens.training, each)
    return (time.monotonic() - begun) / TRIED


def begin(bfloat16: bool, steps: int) -> Run:
    """A run from nothing: the same weights each time."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            intermediate_size=INNER,
            max_position_embeddings=LENGTH,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
    )
    norms = [p for p in model.parameters() if p.ndim == 1]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": matrices, "weight_decay": DECAY}, {"params": norms, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=BETAS, fused=True)
    return Run(model, optimizer, bfloat16, steps)


def resumed(checkpoint: Path) -> Run | None:
    """The run as its last checkpoint has it, or None if there is none."""
    if not checkpoint.exists():
        return None
    held = torch.load(checkpoint, weights_only=True)
    run = begin(held["bfloat16"], held["steps"])
    run.model.load_state_dict(held["model"])
    run.optimizer.load_state_dict(held["optimizer"])
    run.step = held["step"]
    tell(f"goes on from step {run.step:,}")
    return run


def keep(run: Run, checkpoint: Path) -> None:
    """Write a checkpoint: the whole one or none."""
    held = {
        "model": run.model.state_dict(),
        "optimizer": run.optimizer.state_dict(),
        "bfloat16": run.bfloat16,
        "steps": run.steps,
        "step": run.step,
    }
    with replaced(checkpoint) as path:
        torch.save(held, path)


def train(run: Run, training: NDArray[np.uint16], checkpoint: Path) -> None:
    """Take the steps that are left; a line of progress and a checkpoint every now and then."""
    begun = told = kept = time.monotonic()
    first = run.step
    losses: list[float] = []
    with threads() as each:
        while run.step < run.steps:
            losses.append(advance(run, training, each))
            now = time.monotonic()
            if now - told > TOLD or run.step == run.steps:
                left = (now - begun) / (run.step - first) * (run.steps - run.step)
                loss = sum(losses) / len(losses)
                tell(f"step {run.step:,} of {run.steps:,}, loss {loss:.3f}, {left:,.0f} s left")
                told, losses = now, []
            if now - kept > KEPT or run.step == run.steps:
                keep(run, checkpoint)
                kept = now


Each = Callable[[Callable[[Tensor], Any], Sequence[Tensor]], Iterator[Any]]
"""Applies a function to pieces of a batch, beside each other; the answers are in their order."""


@contextmanager
def threads() -> Iterator[Each]:
    """Threads for the pieces of a batch.

    Threads that split each operation would wait for each other a thousand times a step, which
    stands still as soon as anything else runs on a core.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield pool.map


def advance(run: Run, training: NDArray[np.uint16], each: Each) -> float:
    """Take one step; returns the loss before it."""
    parameters = list(run.model.parameters())

    def gradients(piece: Tensor) -> tuple[float, tuple[Tensor, ...]]:
        loss = loss_of(run, piece)
        return loss.item(), torch.autograd.grad(loss, parameters)

    pieces = batch_of(training, run.step).split(PIECE)
    losses, by_piece = zip(*each(gradients, pieces), strict=True)
    for parameter, *found in zip(parameters, *by_piece, strict=True):
        parameter.grad = torch.stack(found).mean(dim=0)
    torch.nn.utils.clip_grad_norm_(parameters, CLIP)
    for group in run.optimizer.param_groups:
        group["lr"] = rate_at(run.step, run.steps)
    run.optimizer.step()
    run.step += 1
    return sum(losses) / len(losses)


def batch_of(training: NDArray[np.uint16], step: int) -> Tensor:
    """The sequences of a step, (BATCH, LENGTH): each once before any comes again."""
    positions = step * BATCH + np.arange(BATCH)
    rounds, within = np.divmod(positions, len(training))
    orders = {n: np.random.default_rng(n).permutation(len(training)) for n in set(rounds.tolist())}
    chosen = [orders[n][i] for n, i in zip(rounds.tolist(), within, strict=True)]
    return torch.from_numpy(training[chosen].astype(np.int64))


def rate_at(step: int, steps: int) -> float:
    """The learning rate of a step: it rises in a line, and falls as a cosine does."""
    rising = max(1, int(WARM_UP * steps))
    if step < rising:
        return PEAK * (step + 1) / rising
    fallen = (step - rising) / max(1, steps - rising)
    return PEAK * (LAST + (1 - LAST) * (1 + math.cos(math.pi * fallen)) / 2)


def loss_of(run: Run, sequences: Tensor) -> Tensor:
    """The mean next-token loss of sequences, (.., LENGTH)."""
    with torch.autocast("cpu", torch.bfloat16, enabled=run.bfloat16, cache_enabled=False):
        logits = run.model(input_ids=sequences, use_cache=False).logits
    return cross_entropy(logits[:, :-1].float().flatten(0, 1), sequences[:, 1:].flatten())


def mean_loss(run: Run, sequences: NDArray[np.uint16]) -> float:
    """The mean next-token loss of sequences, (sequences, LENGTH), without a gradient."""

    def summed(piece: Tensor) -> float:
        with torch.inference_mode():
            return loss_of(run, piece).item() * len(piece)

    with threads() as each:
        pieces = torch.from_numpy(sequences.astype(np.int64)).split(PIECE)
        return sum(each(summed, pieces)) / len(sequences)


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the file's name once it is written."""
    beside = path.with_name(f"{path.name}.new")
    yield beside
    os.replace(beside, path)


def tell(message: str) -> None:
    """Print a line of progress."""
    print(f"small_causal: {message}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*map(float, sys.argv[1:2]))
