"""GELU by torch's own kernel, whatever library the CPU build prefers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def gelu(x: Tensor) -> Tensor:
    """Gives ``x`` times the standard normal distribution function of ``x``, elementwise.

    On a CPU torch hands float32 GELU to oneDNN, which compiles and keeps a kernel for every number of tokens it
    meets. Jagged batches hardly ever repeat one: memory grew by about 140 MiB per epoch of Beauty, and the
    kernels were slower than torch's own.

    Args:
        x: float, any shape.

    Returns:
        Of the same shape.
    """
    if x.device.type != "cpu":
        return F.gelu(x)
    out: Tensor = _Gelu.apply(x)  # type: ignore[no-untyped-call]
    return out


class _Gelu(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        with _own_kernels():
            return F.gelu(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _second_order(x, gradient)
        with _own_kernels():
            out: Tensor = torch.ops.aten.gelu_backward(gradient, x)
        return out


def _second_order(x: Tensor, gradient: Tensor) -> Tensor:
    """Gives the gradient in operators that can be differentiated again."""
    density = torch.exp(-0.5 * x * x) * 0.3989422804014327
    return gradient * (0.5 * (1 + torch.erf(x * 0.7071067811865476)) + x * density)


@contextmanager
def _own_kernels() -> Iterator[None]:
    """Keeps torch from handing operators to oneDNN."""
    flags: Any = torch.backends.mkldnn
    before = flags.enabled
    flags.enabled = False
    try:
        yield
    finally:
        flags.enabled = before
