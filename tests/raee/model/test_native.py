"""What a machine multiplies natively is known, and what it emulates is warned of."""

import logging
from contextlib import nullcontext

import pytest
import torch

from raee.model import native
from raee.model.native import has_bfloat16, native_formats, warn_if_emulated

CPU = torch.device("cpu")

_X86 = {"architecture": "x86_64"}


@pytest.mark.parametrize(
    ("machine", "has", "formats"),
    [
        ("x86_64", _X86 | {"avx2": True, "avx512_bf16": False}, ["float32"]),
        ("x86_64", _X86 | {"avx512_vnni": True}, ["float32", "int8"]),
        ("AMD64", _X86 | {"avx_vnni": True}, ["float32", "int8"]),
        ("x86_64", _X86 | {"amx_bf16": True, "amx_int8": True}, ["float32", "bfloat16", "int8"]),
        ("x86_64", _X86 | {"avx512_bf16": True}, ["float32", "bfloat16"]),
        ("aarch64", {"bf16": True, "dot": True}, ["float32", "bfloat16"]),
        ("arm64", {"bf16": False}, ["float32"]),
    ],
)
def test_formats_are_those_of_the_processor(monkeypatch, machine, has, formats):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    monkeypatch.setattr(native.platform, "machine", lambda: machine)
    assert native_formats() == formats


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_a_format_that_is_emulated_is_warned_of(monkeypatch, caplog, dtype):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(native, "is_native", lambda name: name == "float32")
    warn_if_emulated("float32", CPU)
    warn_if_emulated("auto", CPU)
    warn_if_emulated("bfloat16", torch.device("cuda"))
    assert not caplog.records
    warn_if_emulated(dtype, CPU)
    warn_if_emulated("int8", torch.device("cuda:1"))
    assert [record.message for record in caplog.records] == [
        f"{who}: products run in float32, and answers are rounded, which takes a little longer "
        "than float32"
        for who in (
            f"this processor does not multiply {dtype}",
            "cuda:1 does not multiply int8 here",
        )
    ]


@pytest.mark.parametrize("native_too", [True, False])
def test_a_gpu_that_emulates_bfloat16_does_not_have_it(monkeypatch, native_too):
    def supported(including_emulation=True):
        return native_too or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    assert has_bfloat16(torch.device("cuda:1")) == native_too
    assert not has_bfloat16(CPU)
