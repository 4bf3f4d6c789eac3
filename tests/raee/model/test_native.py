"""What a machine cannot multiply natively is refused, or warned of."""

import logging

import pytest
import torch

from raee.model import native
from raee.model.native import check_native, native_formats
from tests.raee.errors import refused

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


def test_int8_is_refused_on_a_gpu():
    with refused("int8 is for CPUs, and this worker reads on cuda:1; give `device: cpu`"):
        check_native("int8", torch.device("cuda:1"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int8"])
def test_a_format_that_is_emulated_is_warned_of(monkeypatch, caplog, dtype):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(native, "is_native", lambda name: name == "float32")
    check_native("float32", CPU)
    check_native("auto", CPU)
    check_native("bfloat16", torch.device("cuda"))
    assert not caplog.records
    check_native(dtype, CPU)
    (said,) = caplog.records
    assert said.message == (
        f"this processor does not multiply {dtype}: products run in float32, and answers are "
        "rounded, which takes a little longer than float32"
    )
