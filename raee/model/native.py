"""The number formats that a machine's processors multiply natively."""

import logging
import platform
from typing import Literal

import torch

logger = logging.getLogger("raee")

Dtype = Literal["float32", "bfloat16", "float16", "int8"]


def can_pack() -> bool:
    """Whether oneDNN has an order of weights here."""
    return torch._C._has_mkldnn and platform.machine() in ("x86_64", "AMD64")


def native_formats() -> list[Dtype]:
    """The formats that this machine's processor multiplies natively, the most precise first.

    Not float16, which `auto` never takes on a CPU.
    """
    has = torch.cpu.get_capabilities()
    found: list[Dtype] = ["float32"]
    if any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
        found.append("bfloat16")
    if can_pack() and any(has.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        found.append("int8")
    return found


def is_native(dtype: str) -> bool:
    """Whether this machine's processor multiplies a format natively."""
    if dtype == "float16":
        return torch._C._has_mkldnn and torch.ops.mkldnn._is_mkldnn_fp16_supported()
    return dtype in native_formats()


def has_bfloat16(device: torch.device) -> bool:
    """Whether a device is a GPU that multiplies bfloat16 natively."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def warn_if_emulated(dtype: str, device: torch.device) -> None:
    """Warn of a number format that a processor, or a GPU, emulates in float32."""
    if dtype == "int8" and device.type != "cpu":
        who = f"{device} does not multiply int8 here"
    elif device.type == "cpu" and dtype != "auto" and not is_native(dtype):
        who = f"this processor does not multiply {dtype}"
    else:
        return
    logger.warning(
        "%s: products run in float32, and answers are rounded, which takes a little longer than "
        "float32",
        who,
    )
