"""What a machine cannot multiply natively is refused, or warned of."""

import logging

import pytest
import torch

from raee.model import linears, native
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
    monkeypatch.setattr(linears.platform, "machine", lambda: machine)
    assert native_formats() == formats


def test_int8_is_refused_where_it_would_be_wrong_or_slow(monkeypatch):
    with refused("int8 is for CPUs, and this worker reads on cuda:1; give `device: cpu`"):
        check_native("int8", torch.device("cuda:1"))
    monkeypatch.setattr(native, "native_formats", lambda: ["float32"])
    with refused("int8 needs a CPU with VNNI or AMX, which this machine has not"):
        check_native("int8", CPU)


def test_emulated_bfloat16_is_warned_of(monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(native, "native_formats", lambda: ["float32"])
    check_native("float32", CPU)
    check_native("auto", CPU)
    check_native("bfloat16", torch.device("cuda"))
    assert not caplog.records
    check_native("bfloat16", CPU)
    (said,) = caplog.records
    assert "no bfloat16 and emulates it" in said.message
