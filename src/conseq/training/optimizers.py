"""Adam and AdamW as torch has them, without the compiler that torch loads for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., Any])


def _plain(function: Function) -> Function:
    """Gives what a method of torch's optimizers does, without the wrappers around it."""
    return cast(Function, inspect.unwrap(function))


class _Plain(torch.optim.Optimizer):
    # Torch wraps these so that `torch.compile` leaves them alone, and the first call of any wrapper imports that
    # compiler with all of sympy: seconds of every training's start, for what is not used here.
    zero_grad = _plain(torch.optim.Optimizer.zero_grad)
    add_param_group = _plain(torch.optim.Optimizer.add_param_group)
    state_dict = _plain(torch.optim.Optimizer.state_dict)
    load_state_dict = _plain(torch.optim.Optimizer.load_state_dict)


class Adam(_Plain, torch.optim.Adam):
    """:class:`torch.optim.Adam`, step for step."""

    step = torch.no_grad()(_plain(torch.optim.Adam.step))  # the wrapper switches gradients off, too


class AdamW(_Plain, torch.optim.AdamW):
    """:class:`torch.optim.AdamW`, step for step."""

    step = torch.no_grad()(_plain(torch.optim.AdamW.step))
