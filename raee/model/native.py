"""The number formats that a machine's processors multiply natively."""

import logging
from typing import Literal

import torch

from raee.errors import InputError
from raee.model.linears import can_pack

logger = logging.getLogger("raee")

Dtype = Literal["float32", "bfloat16", "float16", "int8"]


def native_formats() -> list[Dtype]:
    """The formats that this machine's processor multiplies natively, the most precise first."""
    has = torch.cpu.get_capabilities()
    found: list[Dtype] = ["float32"]
    if any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
        found.append("bfloat16")
    if can_pack() and any(has.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        found.append("int8")
    return found


def check_native(dtype: str, device: torch.device) -> None:
    """Raises InputError if a machine cannot read a model in its number format."""
    if dtype != "int8":
        if dtype == "bfloat16" and device.type == "cpu" and dtype not in native_formats():
            logger.warning(
                "this processor has no bfloat16 and emulates it, which may be a hundred times as "
                "slow as float32"
            )
        return
    if device.type != "cpu":
        raise InputError(
            f"backbone.dtype int8 is for CPUs, and this worker reads on {device}; give "
            "`device: cpu`, or build the database in another dtype"
        )
    if dtype not in native_formats():
        raise InputError(
            "backbone.dtype int8 needs a CPU with VNNI or AMX, which this machine has not; read "
            "the database on one that has it, or build it in another dtype"
        )
