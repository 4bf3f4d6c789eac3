"""The sentence encoder at full depth in OpenVINO, 8-bit weights and activations."""

from collections.abc import Sequence
from typing import Any

import nncf
import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from benchmarks.peers.encoders import MAX_TOKENS, TOKEN_BUDGET, Pooled, batches
from benchmarks.peers.regression import fit_vectors
from benchmarks.peers.rows import Made, Task
from benchmarks.peers.table import THREADS

_CALIBRATING = 300


def openvino(task: Task) -> Made:
    """Quantized after training, calibrated on train rows; sorted, in batches of a token budget."""
    torch.set_num_threads(THREADS)
    tokenizer = AutoTokenizer.from_pretrained(task.model)
    encoder = Pooled(AutoModel.from_pretrained(task.model, dtype=torch.float32).eval())
    chosen = np.random.default_rng(0).permutation(len(task.train))[:_CALIBRATING]
    quantized = _quantized(encoder, tokenizer, [task.train.texts[i] for i in chosen])
    settings = {
        "INFERENCE_NUM_THREADS": THREADS,
        "NUM_STREAMS": THREADS,  # one of all cores is slower
        "INFERENCE_PRECISION_HINT": "f32",  # of what is not 8-bit; bf16 is no faster
    }
    queue = ov.AsyncInferQueue(ov.Core().compile_model(quantized, "CPU", settings))

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), encoder.width), np.float32)

        def keep(request: Any, rows: list[int]) -> None:
            found[rows] = request.get_output_tensor().data

        queue.set_callback(keep)
        for rows, ids, mask in batches(tokenizer, texts, TOKEN_BUDGET):
            queue.start_async({"input_ids": ids, "attention_mask": mask}, rows)
        queue.wait_all()
        return found

    model, notes = fit_vectors(embed(task.train.texts), task.train.labels)
    return Made(lambda texts: model.predict(embed(texts)), notes)


def _quantized(encoder: Pooled, tokenizer: Any, texts: Sequence[str]) -> Any:
    """OpenVINO's model of an encoder, for batches of any shape; texts calibrate its activations."""
    example = dict.fromkeys(("input_ids", "attention_mask"), torch.ones(2, 16, dtype=torch.long))
    model = ov.convert_model(encoder, example_input=example)
    model.reshape({entry.get_any_name(): [-1, -1] for entry in model.inputs})
    samples = [
        dict(tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="np"))
        for text in texts
    ]
    inputs = [{name: sample[name] for name in example} for sample in samples]
    return nncf.quantize(
        model,
        nncf.Dataset(inputs),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(inputs),
    )
