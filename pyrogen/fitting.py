"""Drive a training into a run directory: metrics, validation, checkpoints, early stopping, interruption, resume."""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from tqdm.auto import tqdm

from pyrogen.errors import NonFiniteError
from pyrogen.inference import Step, Training
from pyrogen.rehearsal import rehearsal
from pyrogen.runs import Run
from pyrogen.signals import Stop, stop_requests

__all__ = ["Outcome", "fit"]

Validate = Callable[[], tuple[str, float]]


class Outcome(NamedTuple):
    """How a fit ended.

    Attributes:
        step: the number of steps done.
        best: the best validation figure; ``None`` without validation.
        reason: ``"finished"``, ``"patience"`` or ``"interrupted"``.
        exit_code: 0, or 128 + the signal that interrupted it.
    """

    step: int
    best: float | None
    reason: str
    exit_code: int = 0


def fit(
    training: Training,
    run: Run,
    *,
    validate: Validate | None = None,
    evaluate_every: int = 500,
    log_every: int = 20,
    patience: int | None = None,
    per_datum: bool = False,
    resume: bool = False,
    show_progress: bool = False,
) -> Outcome:
    """Take a training to its end, and keep everything in a run directory.

    Every ``log_every`` steps a line goes to ``metrics.jsonl``; every ``evaluate_every`` steps the programs are
    validated and a checkpoint is written. SIGINT and SIGTERM finish the step and save. A run that was killed and
    resumed ends with the same figures, bit for bit, as one that was not.

    Args:
        training: from :func:`pyrogen.inference.train`.
        validate: returns a figure's name and value, higher is better; it may draw random numbers freely. With a moving
            average of the parameters, it sees the average.
        patience: stop after that many validations without a better one.
        per_datum: divide the logged loss by the rows of its batch (for programs whose plate is the batch).
        resume: go on from the newest checkpoint of the run, if there is one.
        show_progress: draw a progress bar on stderr.

    Returns:
        How it ended.

    Raises:
        NonFiniteError: as :func:`~pyrogen.inference.train`; the message names the last good checkpoint.
        InputOutputError: where the disk refuses; what was written before is unharmed.
        RunLockedError: where another process is writing to the run.
    """
    with run.writing(), stop_requests() as stop:
        driver = Driver(training, run, validate, evaluate_every, log_every, patience, per_datum)
        if resume and run.checkpoints():
            driver.restore()
        total = training.num_steps
        with tqdm(total=total, initial=driver.saved, disable=not show_progress, file=sys.stderr, unit="step") as bar:
            return driver.drive(stop, bar)


class Driver:
    """One fit: what has been reached, what has been saved."""

    def __init__(
        self,
        training: Training,
        run: Run,
        validate: Validate | None,
        evaluate_every: int,
        log_every: int,
        patience: int | None,
        per_datum: bool,
    ) -> None:
        self.training, self.run, self.validate = training, run, validate
        self.evaluate_every, self.log_every, self.patience = evaluate_every, log_every, patience
        self.per_datum = per_datum
        self.index = self.saved = 0
        self.best: float | None = None
        self.since_best = 0
        self.shown: dict[str, str] = {}

    def restore(self) -> None:
        """Go back to the newest good checkpoint."""
        checkpoint = self.run.restore()
        self.run.rewind(checkpoint)
        self.training.load_state_dict(checkpoint.tree["training"])
        self.best, self.since_best = checkpoint.tree["best"], checkpoint.tree["since_best"]
        self.index = self.saved = checkpoint.step

    def drive(self, stop: Stop, bar: Any) -> Outcome:
        """Take steps until the end, a signal, or the end of patience."""
        try:
            for step in self.training:
                self.index = step.index
                bar.update()
                is_last = step.index == self.training.num_steps
                if step.index % self.log_every == 0 or is_last:
                    self._log(step, bar)
                if step.index % self.evaluate_every == 0 or is_last:
                    self._evaluate_and_save()
                    if self.patience is not None and self.since_best >= self.patience:
                        return Outcome(step.index, self.best, "patience")
                if stop.signal is not None:
                    if self.saved != step.index:
                        self._save(is_best=False)
                    return Outcome(step.index, self.best, "interrupted", stop.exit_code)
        except NonFiniteError as error:
            kept = f"the last good checkpoint is of step {self.saved}" if self.saved else "there is no checkpoint yet"
            raise type(error)(f"{error}\nIn {self.run.path}, {kept}.") from error
        if self.saved != self.index:
            self._evaluate_and_save()
        return Outcome(self.index, self.best, "finished")

    def _log(self, step: Step, bar: Any) -> None:
        values = {"loss": float(step.loss) / (step.rows if self.per_datum else 1), "grad_norm": float(step.grad_norm)}
        if step.critic_loss is not None:
            values["critic_loss"] = float(step.critic_loss)
        self.run.log(step.index, epoch=step.epoch, **values)
        bar.set_postfix({"loss": f"{values['loss']:.4g}"} | self.shown)

    def _evaluate_and_save(self) -> None:
        is_best = False
        if self.validate is not None:
            # The same noise at each validation, and none of it taken from the training's.
            with rehearsal(), self.training.averaged():
                torch.manual_seed(0)
                name, value = self.validate()
            self.run.log(self.index, **{f"validation_{name}": value})
            self.shown = {name: f"{value:.4g}"}
            is_best = self.best is None or value > self.best
            self.best = value if is_best else self.best
            self.since_best = 0 if is_best else self.since_best + 1
        self._save(is_best)

    def _save(self, is_best: bool) -> None:
        tree = {"training": self.training.state_dict(), "best": self.best, "since_best": self.since_best}
        self.run.save(self.index, tree, best=is_best)
        self.saved = self.index
