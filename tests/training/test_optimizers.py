"""Adam and AdamW are torch's, and a training loads neither torch's compiler nor scipy's statistics for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conseq.training.optimizers import Adam, AdamW

KINDS = [
    pytest.param(Adam, torch.optim.Adam, {}, id="Adam"),
    pytest.param(AdamW, torch.optim.AdamW, {"weight_decay": 0.1}, id="AdamW"),
]


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2))


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        optimizer.zero_grad()
        model(torch.randn(3, 5, generator=generator)).square().sum().backward()
        optimizer.step()


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize(("ours", "torchs", "more"), KINDS)
def test_every_step_is_torchs_to_the_bit(ours: Any, torchs: Any, more: dict[str, float]) -> None:
    models = [net(), net()]
    kinds = zip((ours, torchs), models, strict=True)
    optimizers = [kind(model.parameters(), lr=0.01, fused=True, **more) for kind, model in kinds]

    for model, optimizer in zip(models, optimizers, strict=True):
        steps(model, optimizer, seed=2)

    assert not same(models[0].state_dict(), net().state_dict())
    assert same(models[0].state_dict(), models[1].state_dict())
    assert same(optimizers[0].state_dict(), optimizers[1].state_dict())


@pytest.mark.parametrize(("ours", "torchs", "more"), KINDS)
def test_each_goes_on_from_the_others_state(ours: Any, torchs: Any, more: dict[str, float]) -> None:
    ends = []
    for before, after in [(ours, torchs), (torchs, ours), (torchs, torchs)]:
        model = net()
        first = before(model.parameters(), lr=0.01, fused=True, **more)
        steps(model, first, seed=2)
        then = after(model.parameters(), lr=0.5, fused=True, **more)
        then.load_state_dict(first.state_dict())
        steps(model, then, seed=3)
        ends.append((model.state_dict(), then.state_dict()))

    assert same(ends[0], ends[2])
    assert same(ends[1], ends[2])


def test_a_step_leaves_gradients_switched_on() -> None:
    model = net()

    steps(model, Adam(model.parameters(), lr=0.01), seed=2)

    assert torch.is_grad_enabled()
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


def test_a_training_loads_no_compiler_and_no_statistics(tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    rows = [f"u{user},i{(user + step) % 9},{step}" for user in range(12) for step in range(6)]
    log.write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    code = (
        "import sys\n"
        "from conseq.cli.main import main\n"
        f"main(['prepare', {str(log)!r}, 'data'])\n"
        "for method in ('next_item', 'mclrec'):\n"
        "    main(['train', method, 'data', '--run', method, '--epochs', '2', '--quiet'])\n"
        "heavy = 'torch._dynamo', 'sympy', 'scipy.stats', 'scipy.sparse'\n"
        "print('LOADED', [name for name in heavy if name in sys.modules])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "LOADED []"
