"""The training loop: updates in the method's order, validation, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from conseq.data.train_set import TrainSet
from conseq.encoders.encoder import Encoder
from conseq.evaluation.ranks import ScoreError
from conseq.methods.method import Method, Terms
from conseq.objectives import next_item
from conseq.training import checkpoint
from conseq.training.config import TrainingConfig
from conseq.training.early_stop import EarlyStop
from conseq.training.optimizers import Adam, AdamW

Validate = Callable[[Encoder], dict[str, float]]


class Stopped(KeyboardInterrupt):  # no error: loops that go on after any error must not go on after Ctrl-C
    """Training was interrupted and its state is saved.

    Args:
        epoch: The epoch it was in.
        batch: Batches of that epoch that are done.
    """

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__(f"stopped in epoch {epoch} after batch {batch}")
        self.epoch = epoch
        self.batch = batch


class Watcher(Protocol):
    """Is told how training goes. Everything it does is for the eye or the record, never for the result."""

    def batch_done(self, epoch: int, batch: int, n_batches: int) -> None:
        """A batch's updates are made."""

    def epoch_done(self, record: dict[str, Any]) -> None:
        """An epoch is over; ``record`` holds its number, terms, metrics and seconds.

        Where a term had no gradient so far, ``without_gradient`` names it: it is added to the loss and moves nothing.
        """

    def rewind(self, epoch: int) -> None:
        """Training goes on from the end of ``epoch`` (0: it begins): forget later records."""


class Trainer:
    """Trains a method.

    Everything that decides the result is in the checkpoint: weights, buffers, optimizers, the state of every
    random generator, the place in the epoch. A killed run that is resumed ends as if it had not been killed.

    Args:
        method: On its device, with its train set.
        config: The settings.
        validate: Gives validation metrics of the encoder; must hold ``config.metric``.
        folder: Where checkpoints go; None: nowhere.
        watcher: Is told how training goes.

    Raises:
        ValueError: if a group of the method has no parameters.
    """

    def __init__(
        self,
        method: Method[Any],
        config: TrainingConfig,
        validate: Validate,
        *,
        folder: Path | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.method = method
        self.config = config
        self.validate = validate
        self.folder = folder
        self.watcher = watcher
        self.train: TrainSet = method.train_set
        self.parameters = {name: _parameters(name, part) for name, part in method.groups().items()}
        self.optimizers = {name: _adam(config, group) for name, group in self.parameters.items()}
        self.rng = torch.Generator().manual_seed(config.seed)
        self.stopping = EarlyStop(config.patience, config.not_before)
        self.best: dict[str, Tensor] = {}
        self.epoch, self.done, self.seconds = 1, 0, 0.0
        self.sums: dict[str, float] = {}
        self.moving: set[str] = set()
        self.interrupted = False
        self.saved_at = time.monotonic()

    @property
    def checkpoint_path(self) -> Path | None:
        """The file that holds the run's state."""
        return None if self.folder is None else self.folder / "checkpoint.pt"

    def fit(self) -> None:
        """Trains until the last epoch or until validation stops improving; leaves the best weights in place.

        Raises:
            FloatingPointError: if a term of the loss, which it names, a weight, or a score in validation is not finite.
            Stopped: if :attr:`interrupted` was set; the state is saved first.
        """
        while self._goes_on():
            self._run_epoch()
            if self.interrupted and self._goes_on():
                raise Stopped(self.epoch, self.done)
        if self.best:
            self.method.load_state_dict(self.best)
        self.method.eval()

    def resume(self) -> bool:
        """Takes over the state of an earlier process from the checkpoint.

        Returns:
            True where there was one.

        Raises:
            ValueError: if the checkpoint is damaged or belongs to another configuration.
        """
        if self.checkpoint_path is None or not self.checkpoint_path.exists():
            if self.watcher is not None:
                self.watcher.rewind(0)
            return False
        state = checkpoint.load(self.checkpoint_path)
        try:
            self.method.load_state_dict(state["method"])
        except RuntimeError as error:
            raise ValueError(f"{self.checkpoint_path}: belongs to another configuration: {error}") from None
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        self.best = state["best"]
        self.stopping.restore(state["stopping"])
        self.epoch, self.done = state["epoch"], state["done"]
        self.sums, self.seconds = state["sums"], state["seconds"]
        self.rng.set_state(state["rng"])
        _restore_random(state["random"], self.train.device)
        if self.watcher is not None:
            self.watcher.rewind(self.epoch - 1)
        return True

    def _goes_on(self) -> bool:
        """Whether there is an epoch to train: the last one is not over, nor has patience run out."""
        if self.epoch > self.config.epochs:
            return False
        # A first stage trains something else than what validation judges: it is never too long for that.
        return self.epoch <= self._first or not self.stopping.should_stop(self.epoch - 1)

    @property
    def _first(self) -> int:
        """Epochs of a first stage that a second one follows."""
        first = self.method.first_epochs
        return first if first < self.config.epochs else 0

    def _save(self) -> None:
        self.saved_at = time.monotonic()
        if self.checkpoint_path is None:
            return
        state = {
            "method": self.method.state_dict(),
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
            "best": self.best,
            "stopping": self.stopping.state(),
            "epoch": self.epoch,
            "done": self.done,
            "sums": self.sums,
            "seconds": self.seconds,
            "rng": self.rng.get_state(),
            "random": _random_state(self.train.device),
        }
        checkpoint.save(state, self.checkpoint_path)

    def _run_epoch(self) -> None:
        begun = time.monotonic()
        if self.done == 0:
            self.sums = {}
            with evaluating(self.method):
                self.method.begin_epoch(self.epoch, self.rng)
        self.method.train()
        n_batches = self.train.n_batches(self.config.batch_size)
        # The order depends on nothing but seed and epoch, so that a run resumed inside an epoch finds its place.
        order = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.epoch)
        for number, batch in enumerate(self.train.batches(self.config.batch_size, order)):
            if number < self.done:
                continue
            self._set_rate(number, n_batches)
            with self._precision():
                for group, terms in self.method.updates(batch, self.rng):
                    self._step(group, terms)
            self.done = number + 1
            if self.watcher is not None:
                self.watcher.batch_done(self.epoch, self.done, n_batches)
            self._pause(begun, self.done == n_batches)
        self.seconds += time.monotonic() - begun
        self._close_epoch(n_batches)

    def _close_epoch(self, n_batches: int) -> None:
        terms = {name: total / n_batches for name, total in self.sums.items()}
        record: dict[str, Any] = {"epoch": self.epoch, "terms": terms, "seconds": round(self.seconds, 3)}
        if still := sorted(self.sums.keys() - self.moving):
            record["without_gradient"] = still
        _check_finite(terms, self.epoch)
        self._check_weights()
        if self.epoch % self.config.every == 0 or self.epoch == self.config.epochs:
            begun = time.monotonic()
            metrics = self._validated()
            record["validation_seconds"] = round(time.monotonic() - begun, 3)
            value = metrics[self.config.metric]
            if self.stopping.update(self.epoch, value):
                self.best = {name: one.detach().cpu().clone() for name, one in self.method.state_dict().items()}
            record["metrics"] = metrics
        record["best_epoch"] = self.stopping.best_epoch
        if self.watcher is not None:
            self.watcher.epoch_done(record)
        if self.epoch == self._first:
            # What validation saw in the first stage neither is the model nor counts into the patience of the second.
            self.stopping, self.best = EarlyStop(self.config.patience, self.config.not_before), {}
        self.epoch, self.done, self.seconds = self.epoch + 1, 0, 0.0
        self._save()

    def _check_weights(self) -> None:
        """Lets no weights into a checkpoint that nothing could be trained from."""
        for name, one in self.method.named_parameters():
            if not bool(torch.isfinite(one).all()):
                raise FloatingPointError(
                    f"training diverged in epoch {self.epoch}: {name} holds NaN or infinite numbers; the last "
                    "checkpoint is whole. Lower the learning rate, or set clip"
                )

    def _validated(self) -> dict[str, float]:
        try:
            with evaluating(self.method):
                return self.validate(self.method.encoder)
        except ScoreError as error:
            # Where an epoch is one batch, no loss has been computed yet with the weights that are judged here.
            raise FloatingPointError(
                f"training diverged in epoch {self.epoch}: in validation, scores are NaN or infinite. Lower the "
                "learning rate, or set clip"
            ) from error

    def _pause(self, begun: float, last: bool) -> None:
        """Saves inside a long epoch, or where the run was asked to stop."""
        due = time.monotonic() - self.saved_at > 60 * self.config.checkpoint_minutes
        if last or not (self.interrupted or due):
            return
        self._check_weights()
        spent = time.monotonic() - begun
        self.seconds += spent
        self._save()
        self.seconds -= spent
        if self.interrupted:
            raise Stopped(self.epoch, self.done)

    def _step(self, group: str, terms: Terms) -> None:
        _check_terms(terms, type(self.method).__name__)
        optimizer, parameters = self.optimizers[group], self.parameters[group]
        _check_gradient(terms, group, type(self.method).__name__)
        values = {name: float(term.detach()) for name, term in terms.items()}
        _check_finite(values, self.epoch)
        for name, value in values.items():
            key = name if len(self.optimizers) == 1 else f"{group}.{name}"
            self.sums[key] = self.sums.get(key, 0.0) + value
            if terms[name].requires_grad:
                self.moving.add(key)
        optimizer.zero_grad(set_to_none=True)
        # Gradients go to the group's parameters and nowhere else.
        torch.autograd.backward(torch.stack(list(terms.values())).sum(), inputs=parameters)
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_([one for one in parameters if one.grad is not None], self.config.clip)
        optimizer.step()

    def _precision(self) -> AbstractContextManager[None]:
        if self.config.precision == "float32":
            return nullcontext()
        if self.train.device.type == "cpu":
            return next_item.lowered_softmax(torch.bfloat16)
        # A cached copy of lowered weights would outlive the step between two updates of a batch.
        return torch.autocast(self.train.device.type, dtype=torch.bfloat16, cache_enabled=False)

    def _set_rate(self, number: int, n_batches: int) -> None:
        rate = learning_rate(self.config, (self.epoch - 1) * n_batches + number, n_batches)
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = rate


def learning_rate(config: TrainingConfig, step: int, n_batches: int) -> float:
    """Gives the step size of Adam at a batch.

    Args:
        config: Gives schedule, warm-up and epochs.
        step: Batches before this one since the start, from 0.
        n_batches: Batches of an epoch.

    Returns:
        The step size; rises over the warm-up, then falls to 0 at the end of the last epoch.
    """
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    total = config.epochs * n_batches
    share = (step - config.warmup) / max(1, total - config.warmup)
    if config.schedule == "linear":
        return config.learning_rate * (1 - share)
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * share))
    return config.learning_rate


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Holds ``module`` in evaluation mode, without gradients; restores the mode it was in."""
    mode = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(mode)


def _parameters(name: str, part: nn.Module) -> list[nn.Parameter]:
    found = [one for one in part.parameters() if one.requires_grad]
    if not found:
        raise ValueError(f"the group {name!r} has no parameters to train")
    return found


def _adam(config: TrainingConfig, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    kind = AdamW if config.weight_decay else Adam
    return kind(
        parameters,
        lr=config.learning_rate,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def _check_terms(terms: object, method: str) -> None:
    """Refuses what is no table of losses, which a method of the user's own may give."""
    if not isinstance(terms, dict) or not terms:
        found = f"a tensor of shape {list(terms.shape)}" if isinstance(terms, Tensor) else repr(terms)[:80]
        raise TypeError(
            f"{method}: a loss must be a dict of scalar tensors by name, such as {{'next_item': loss}}; found {found}"
        )
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.numel() != 1:
            found = f"shape {list(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            raise TypeError(f"{method}: the term {name!r} of the loss must be a scalar tensor, found {found}")


def _check_gradient(terms: Terms, group: str, method: str) -> None:
    """Refuses a loss that moves nothing."""
    if not any(term.requires_grad for term in terms.values()):
        raise ValueError(
            f"{method}: the loss of the group {group!r} has no gradient: none of its terms "
            f"({', '.join(map(repr, terms))}) depends on a parameter that is trained; expected scalars that are "
            "neither detached nor made under torch.no_grad"
        )


def _check_finite(terms: dict[str, float], epoch: int) -> None:
    for name, value in terms.items():
        if not math.isfinite(value):
            raise FloatingPointError(
                f"the term {name!r} is {value} in epoch {epoch}; training stopped before the step, and the last "
                "checkpoint is whole. Lower the learning rate, or set clip"
            )


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Gives the state of the generators that dropout draws from."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def _restore_random(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
