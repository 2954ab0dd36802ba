"""Drive a training into a run directory: metrics, validation, checkpoints, early stopping, interruption, resume."""

import warnings
from collections.abc import Callable, Mapping
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

import pyro
from tqdm.auto import tqdm

from pyrogen.alarm import Alarm
from pyrogen.errors import CollapseError, CollapseWarning, NonFiniteError, UsageError
from pyrogen.exhibits import loss_curves
from pyrogen.inference import Step, Training
from pyrogen.rehearsal import rehearsal
from pyrogen.runs import Run
from pyrogen.signals import Stop, stop_requests

__all__ = ["Outcome", "fit", "tensorboard"]

Validate = Callable[[], tuple[str, float]]
Inspect = Callable[[], Mapping[str, float]]
Track = Callable[[int, Mapping[str, float]], None]


class Outcome(NamedTuple):
    """How a fit ended.

    Attributes:
        run: the run directory.
        step: the number of steps done.
        best: the best validation figure; ``None`` without validation.
        reason: ``"finished"``, ``"patience"`` or ``"interrupted"``.
        exit_code: 0, or 128 + the signal that interrupted it.
        figure: what the best one is called.
        unit: what a step is called.
    """

    run: Run
    step: int
    best: float | None
    reason: str
    exit_code: int = 0
    figure: str | None = None
    unit: str = "step"

    def __str__(self) -> str:
        best = "" if self.best is None else f", best validation {self.figure} {self.best:.4f}"
        return f"{self.run.path}: {self.reason} at {self.unit} {self.step:,}{best}"

    def _repr_html_(self) -> str:
        """Show the fit in a notebook: how it ended, and its curves."""
        figures = "".join(
            f'<figure style="margin:.5em 0"><img alt="{exhibit.title}. {exhibit.caption}" width="560" '
            f'src="{exhibit.drawing.data()}"><figcaption>{exhibit.caption}</figcaption></figure>'
            for exhibit in loss_curves(self.run.metrics())
        )
        return f"<p><b>{escape(str(self))}</b></p>{figures}"


def fit(
    training: Training,
    run: Run,
    *,
    validate: Validate | None = None,
    inspect: Inspect | None = None,
    figures: Inspect | None = None,
    evaluate_every: int = 500,
    log_every: int = 20,
    patience: int | None = None,
    per_datum: bool | int = False,
    resume: bool = False,
    strict: bool = False,
    show_progress: bool = False,
    track: Track | None = None,
    unit: str = "step",
) -> Outcome:
    """Take a training to its end, and keep everything in a run directory.

    Every ``log_every`` steps a line goes to ``metrics.jsonl``; every ``evaluate_every`` steps the programs are
    validated and a checkpoint is written. While networks grow, no checkpoint is the best one, and neither patience nor
    strictness counts. SIGINT and SIGTERM finish the step and save. A run that was killed and
    resumed ends with the same figures, bit for bit, as one that was not.

    Args:
        training: from :func:`pyrogen.inference.train`.
        validate: returns a figure's name and value, higher is better; it may draw random numbers freely. With a moving
            average of the parameters, it sees the average.
        inspect: returns further figures for the metrics at each validation: none, or ``spacing`` and ``coverage`` of
            draws (:func:`~pyrogen.evaluation.spacing`), which are looked at for collapse.
        figures: returns further figures for each line of metrics.
        patience: stop after that many validations without a better one.
        per_datum: divide the logged loss by the rows of its batch (for programs whose plate is the batch), or by a
            number (of data, for programs whose plate scales a batch up to all of them).
        resume: go on from the newest checkpoint of the run, if there is one.
        strict: end where an adversarial fit comes to nothing, instead of a warning.
        show_progress: draw a progress bar: on stderr, or in a notebook.
        track: called with the step and its figures whenever a line of metrics is written, see :func:`tensorboard`.
        unit: what a step is called, where steps are also something else, as those of environments.

    Returns:
        How it ended.

    Raises:
        CollapseError: where ``strict``, and a critic has won or the draws are all alike; a checkpoint was written.
        NonFiniteError: as :func:`~pyrogen.inference.train`; the message names the last good checkpoint.
        InputOutputError: where the disk refuses; what was written before is unharmed.
        RunLockedError: where another process is writing to the run.
    """
    with run.writing(), stop_requests() as stop:
        looks = validate, inspect, figures
        driver = Driver(training, run, looks, evaluate_every, log_every, patience, per_datum, strict, track)
        if resume and run.checkpoints():
            driver.restore()
        elif resume:
            run.rewind(None)  # what was killed before its first checkpoint left metrics that will be logged again
        total = training.num_steps
        with tqdm(total=total, initial=driver.saved, disable=not show_progress, unit=unit) as bar:
            return driver.drive(stop, bar)._replace(unit=unit)


class Driver:
    """One fit: what has been reached, what has been saved."""

    def __init__(
        self,
        training: Training,
        run: Run,
        looks: tuple[Validate | None, Inspect | None, Inspect | None],
        evaluate_every: int,
        log_every: int,
        patience: int | None,
        per_datum: bool | int,
        strict: bool,
        track: Track | None,
    ) -> None:
        self.training, self.run = training, run
        self.validate, self.inspect, self.figures = looks
        self.evaluate_every, self.log_every, self.patience = evaluate_every, log_every, patience
        self.per_datum = per_datum
        self.track = track
        self.alarm = Alarm(strict)
        self.index = self.saved = 0
        self.best: float | None = None
        self.figure: str | None = None
        self.since_best = 0
        self.shown: dict[str, str] = {}

    def restore(self) -> None:
        """Go back to the newest good checkpoint."""
        checkpoint = self.run.restore()
        self.run.rewind(checkpoint)
        self.training.load_state_dict(checkpoint.tree["training"])
        self.best, self.since_best = checkpoint.tree["best"], checkpoint.tree["since_best"]
        self.figure = checkpoint.tree["figure"]
        if "alarm" in checkpoint.tree:  # it has come later than the format
            self.alarm.load_state_dict(checkpoint.tree["alarm"])
        self.index = self.saved = checkpoint.step

    def drive(self, stop: Stop, bar: Any) -> Outcome:
        """Take steps until the end, a signal, or the end of patience."""
        if self._is_out_of_patience():
            return self._outcome("patience")
        try:
            for step in self.training:
                self.index = step.index
                bar.update()
                is_last = step.index == self.training.num_steps
                if step.index % self.log_every == 0 or is_last:
                    self._log(step, bar)
                    self._heed(self.alarm.of_critic(self.training.objective))
                if step.index % self.evaluate_every == 0 or is_last:
                    self._evaluate_and_save(is_last)
                    if self._is_out_of_patience():
                        return self._outcome("patience")
                if stop.signal is not None and not is_last:
                    if self.saved != step.index:
                        self._save(is_best=False)
                    return self._outcome("interrupted", stop.exit_code)
        except NonFiniteError as error:
            kept = f"the last good checkpoint is of step {self.saved}" if self.saved else "there is no checkpoint yet"
            raise type(error)(f"{error}\nIn {self.run.path}, {kept}.") from error
        if self.saved != self.index:
            self._evaluate_and_save(True)
        return self._outcome("finished")

    def _heed(self, message: str | None) -> None:
        """Warn of a fit that comes to nothing, or end it."""
        if message is None:
            return
        if self.alarm.strict:
            if self.saved != self.index:
                self._save(is_best=False)
            raise CollapseError(f"step {self.index}: {message} The fit is ended, as asked for by strict.")
        warnings.warn(f"step {self.index}: {message}", CollapseWarning, stacklevel=2)

    def _is_out_of_patience(self) -> bool:
        return self.patience is not None and self.since_best >= self.patience

    def _outcome(self, reason: str, exit_code: int = 0) -> Outcome:
        return Outcome(self.run, self.index, self.best, reason, exit_code, self.figure)

    def _log(self, step: Step, bar: Any) -> None:
        values = {
            "loss": float(step.loss) / (step.rows if self.per_datum is True else self.per_datum or 1),
            "grad_norm": float(step.grad_norm),
        }
        for name in ("critic_loss", "critic_grad_norm"):
            if (value := getattr(step, name)) is not None:
                values[name] = float(value)
        values |= {name: float(value) for name, value in self.training.objective.monitored().items()}
        for schedule in self.training.schedules:
            values |= schedule.figures()
        if self.figures is not None:
            values |= self.figures()
        self._note(epoch=step.epoch, **values)
        bar.set_postfix({"loss": f"{values['loss']:.4g}"} | self.shown)

    def _evaluate_and_save(self, is_last: bool) -> None:
        is_best = False
        if self.validate is not None:
            # The same noise at each validation, and none of it taken from the training's.
            with rehearsal(), self.training.averaged():
                pyro.set_rng_seed(0)
                name, value = self.validate()
            self._note(**{f"validation_{name}": value})
            self.shown = {name: f"{value:.4g}"}
            self.figure = name
            if not isfinite(value):
                warnings.warn(f"step {self.index}: the validation {name} is {value}", stacklevel=2)
            if self.training.is_grown:
                is_best = isfinite(value) and (self.best is None or value > self.best)
                self.best = value if is_best else self.best
                self.since_best = 0 if is_best else self.since_best + 1
        found: Mapping[str, float] = {}
        if self.inspect is not None:
            with rehearsal(), self.training.averaged():
                pyro.set_rng_seed(0)
                found = self.inspect()
            self._note(**found)
        self._save(is_best)
        self._heed(self.alarm.of_draws(found if self.training.is_grown else {}, is_last))

    def _note(self, **values: float) -> None:
        self.run.log(self.index, **values)
        if self.track is not None:
            self.track(self.index, values)

    def _save(self, is_best: bool) -> None:
        progress = {"best": self.best, "since_best": self.since_best, "figure": self.figure}
        tree = {"training": self.training.state_dict(), "alarm": self.alarm.state_dict(), **progress}
        self.run.save(self.index, tree, best=is_best)
        self.saved = self.index


def tensorboard(folder: str | Path) -> Track:
    """Return a tracker for :func:`fit` that writes what TensorBoard reads.

    Raises:
        UsageError: where TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError("TensorBoard is not installed: pip install 'pyrogen-ppl[track]'") from error
    writer = SummaryWriter(str(folder))

    def track(step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return track
