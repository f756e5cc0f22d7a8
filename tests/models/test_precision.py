"""Number formats: what the hardware has, and what autocast then does."""

from __future__ import annotations

import pytest
import torch

from rag_experiments.core.errors import RequestError
from rag_experiments.models.shared import precision


@pytest.mark.parametrize(("flags", "dtype"), [({"avx512_bf16"}, torch.bfloat16), ({"avx2"}, torch.float32)])
def test_auto_follows_the_processor(monkeypatch: pytest.MonkeyPatch, flags: set[str], dtype: torch.dtype) -> None:
    precision._has_bf16.cache_clear()
    monkeypatch.setattr(precision, "_cpu_flags", lambda: flags)
    assert precision.resolve_precision("auto", "cpu") is dtype
    precision._has_bf16.cache_clear()


def test_what_is_asked_for_is_given() -> None:
    assert precision.resolve_precision("fp32", "cpu") is torch.float32
    assert precision.resolve_precision("bf16", "cpu") is torch.bfloat16
    assert precision.resolve_precision("fp16", "cuda") is torch.float16
    with pytest.raises(RequestError, match="fp16 needs a GPU"):
        precision.resolve_precision("fp16", "cpu")


def test_autocast_computes_in_the_dtype_and_fp32_means_fp32_inside_another() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with precision.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype is torch.bfloat16
        with precision.autocast("cpu", torch.float32):
            assert layer(x).dtype is torch.float32


def test_names_and_dtypes_are_one_to_one() -> None:
    assert [precision.precision_name(d) for d in (torch.float32, torch.bfloat16, torch.float16)] == [
        "fp32",
        "bf16",
        "fp16",
    ]
