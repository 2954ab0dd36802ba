"""All that is needed to build a fit again: names and plain settings."""

import json
import platform
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from inspect import signature
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import pyro
import torch
from torch import Tensor

from pyrogen import catalogue
from pyrogen.card import accepted_columns
from pyrogen.counts import is_csr, take
from pyrogen.data import Batches, Dataset, Unpaired, UnpairedBatches, from_path, mutated
from pyrogen.errors import CorruptCheckpointError, ProgramError, UsageError
from pyrogen.inference import Autocast, Objective, Training, is_worth_compiling, train
from pyrogen.models import Incomplete
from pyrogen.parameters import owners
from pyrogen.rehearsal import rehearsal
from pyrogen.schedule import schedules
from pyrogen.sites import Program
from pyrogen.spec import DataSpec
from pyrogen.stepping import check_settings, has_critic, optimizers

__all__ = ["Named", "Programs", "Recipe", "Settings", "read_settings", "shell_command", "versions"]

Chosen = TypeVar("Chosen")


class Programs(NamedTuple):
    """A model and its guide."""

    model: Program
    guide: Program | None


@dataclass(frozen=True)
class Named:
    """Something of the catalogue (or, for data, a path) and its settings."""

    name: str
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        steps: number of steps; overrides epochs.
        epochs: number of passes over the training data; 20 if neither is given.
        batch_size: data in a batch.
        optimizer: adam, adamw or sgd; the objective's usual one (adam, or sgd for natural gradients) if not given.
        learning_rate: its learning rate; the objective's usual one (0.001, or 1 for natural gradients) if not given.
        critic_learning_rate: that of the critic, where the objective has one; the same if not given.
        critic_steps: steps of the critic for each of the programs.
        beta1: how far Adam's gradient looks back: 0.9, or 0 with a critic, if not given.
        schedule: constant, or cosine: down to zero at the end.
        clip_norm: scale gradients down to this norm.
        ema: decay of a moving average of the parameters, which is then what is evaluated.
        evaluate_every: steps between evaluations and checkpoints; an epoch, and at least a hundred, if not given.
        log_every: steps between lines of metrics.jsonl.
        patience: stop after that many evaluations without a better one.
        compile: on, off, or auto: if an estimate says that the run is long enough to pay for it.
        autocast: bfloat16 for linear layers and convolutions; densities stay in float32.
        mutate: replace values of training batches with this probability, for a background model of outliers.
    """

    steps: int | None = None
    epochs: int | None = None
    batch_size: int = 128
    optimizer: Literal["adam", "adamw", "sgd"] | None = None
    learning_rate: float | None = None
    critic_learning_rate: float | None = None
    critic_steps: int = 1
    beta1: float | None = None
    schedule: Literal["constant", "cosine"] = "constant"
    clip_norm: float | None = None
    ema: float | None = None
    evaluate_every: int | None = None
    log_every: int = 20
    patience: int | None = None
    compile: Literal["auto", "on", "off"] = "auto"
    autocast: Literal["off", "bfloat16"] = "off"
    mutate: float | None = None

    def __post_init__(self) -> None:
        check_settings(
            self,
            at_least_one=("steps", "epochs", "batch_size", "critic_steps", "evaluate_every", "log_every", "patience"),
            positive=("learning_rate", "critic_learning_rate", "clip_norm"),
            fraction=("ema", "beta1"),
        )


@dataclass(frozen=True)
class Recipe:
    """Names, settings and a seed, which together determine a fit on one kind of machine.

    Attributes:
        model: a name of the catalogue, with settings.
        objective: likewise.
        data: likewise; a name that holds a path separator, or exists, is a path.
        training: how to train.
        seed: of the data's splits, the initial values and the noise.
        device: where to run: cpu, cuda, mps.
        data_b: likewise as ``data``: the other domain of a translation; ``None`` for one data set.
    """

    model: Named
    objective: Named
    data: Named
    training: Settings = Settings()
    seed: int = 0
    device: str = "cpu"
    data_b: Named | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, found {self.seed}")

    def title(self) -> str:
        """Call the run, where it has no other name."""
        return f"{self.model.name}-{'-'.join(Path(name).stem for name in self.data_names())}"

    def dataset(self) -> Dataset | Unpaired:
        """Load the data, those of both domains where there are two.

        Raises:
            PyrogenError: where they are unknown, missing or unfit, or do not go together.
        """
        data = self._loaded(self.data)
        return data if self.data_b is None else Unpaired(data, self._loaded(self.data_b))

    def _loaded(self, data: Named) -> Dataset:
        settings = {"seed": self.seed} | data.settings
        return from_path(data.name, **settings) if is_path(data.name) else catalogue.find("data", data.name)(**settings)

    def dataset_of(self, manifest: Mapping[str, Any]) -> Dataset | Unpaired:
        """Load the data that a run was fitted to, and refuse others.

        Raises:
            ProgramError: where they changed, with what they were and are.
        """
        dataset = self.dataset()
        fingerprint = dataset.fingerprint()
        if fingerprint != manifest["fingerprint"]:
            names = " and ".join(map(repr, self.data_names()))
            raise ProgramError(
                f"the data {names} are not those that the run was fitted to: their fingerprint was "
                f"{manifest['fingerprint'][:16]}… with {manifest['spec']}, and is {fingerprint[:16]}… with "
                f"{dataset.spec.to_json()}. Bring the old data back, or start a new run."
            )
        return dataset

    def data_names(self) -> list[str]:
        """List the names or paths of the data."""
        return [data.name for data in (self.data, self.data_b) if data is not None]

    def command(self, out: Path) -> str:
        """Return the command that makes the run again."""
        words = ["--data", self.data.name, "--objective", self.objective.name]
        words += [] if self.data_b is None else ["--data-b", self.data_b.name]
        options = asdict(self.training) | {"seed": self.seed, "device": self.device}
        for kind in ("model", "objective", "data"):
            for name, value in getattr(self, kind).settings.items():
                # As in the parser: what is called like something before it goes by its kind.
                taken = "data_seed" if (kind, name) == ("data", "seed") else f"{kind}_settings.{name}"
                options[taken if name in options else name] = value
        return shell_command(self.model.name, words, options, out)

    def on(self, device: str) -> "Recipe":
        """Return the recipe for another device."""
        return replace(self, device=device)

    def programs(self, spec: DataSpec) -> Programs:
        """Build the model and its guide with fresh parameters, by the seed, on the device.

        Raises:
            UsageError: where data lack values, and the model does not read such.
        """
        pyro.set_rng_seed(self.seed)
        model, guide = catalogue.find("model", self.model.name)(spec, **self.model.settings)
        if self.data.settings.get("missing") and not isinstance(model, Incomplete):
            raise UsageError(f"{self.model.name} reads no data that lack values: take miwae, or leave --missing out")
        for module in owners(model, guide).values():
            module.to(self.device)
        return Programs(model, guide)

    def programs_of(self, manifest: Mapping[str, Any]) -> Programs:
        """Build them for what a run was fitted to."""
        return self.programs(DataSpec.from_json(manifest["spec"]))

    def objective_of(self, dataset: Dataset | Unpaired, programs: Programs) -> Objective:
        """Build the objective for programs and the first batch of data, on the device."""
        if isinstance(dataset, Unpaired) and self.objective.name != "cyclegan":
            raise UsageError(
                f"two data sets without pairs, --data and --data-b, are for --objective cyclegan, found --objective "
                f"{self.objective.name}"
            )
        factory = catalogue.find("objective", self.objective.name)
        example = self._example(dataset, programs)
        objective = factory(programs.model, programs.guide, example, **self.objective.settings)
        if self.training.autocast != "off":
            objective = Autocast(objective, getattr(torch, self.training.autocast))
        return objective.to(self.device)

    def fit(self, dataset: Dataset | Unpaired, programs: Programs) -> Training:
        """Prepare the training of programs on data."""
        settings = self.training
        objective = self.objective_of(dataset, programs)
        batches = self._batches(dataset, programs, objective)
        num_steps = self.num_steps(len(batches))
        for growth in schedules([*owners(programs.model, programs.guide).values(), objective]):
            if num_steps < growth.length:
                raise UsageError(
                    f"{num_steps:,} steps end before the model has grown, which takes {growth.length:,}: give more "
                    f"--steps, or a shorter --phase"
                )
        betas = (0.0, 0.99) if has_critic(objective) else (0.9, 0.999)
        return train(
            objective,
            programs.model,
            programs.guide,
            batches,
            **optimizers(settings, objective, num_steps, betas),
            steps=(1, settings.critic_steps),
            num_steps=num_steps,
            device=self.device,
            validate=False,
            compile=settings.compile == "on",
        )

    def decided(self, dataset: Dataset | Unpaired, programs: Programs) -> "Recipe":
        """Return the recipe with ``compile="auto"`` decided, once for the run and all that resume it.

        Raises:
            UsageError: where the model takes none of the data.
        """
        self._columns(dataset, programs)
        if self.training.compile != "auto":
            return self
        example = self._example(dataset, programs)
        with rehearsal():  # a critic that is made here draws its weights, and is another one than the fit's
            objective = self.objective_of(dataset, programs)
            steps = self.num_steps(len(self._batches(dataset, programs, objective)))
            growing = schedules([*owners(*programs).values(), objective])
            for schedule in growing:
                schedule.at(schedule.length)  # most steps are those of the grown networks
            is_dense = not any(map(is_csr, example.values()))  # graphs are of dense tensors
            pays = is_dense and is_worth_compiling(objective, *programs, example, steps)
            for schedule in growing:
                schedule.refresh()
        return replace(self, training=replace(self.training, compile="on" if pays else "off"))

    def _batches(
        self, dataset: Dataset | Unpaired, programs: Programs, objective: Objective
    ) -> Batches | UnpairedBatches:
        """Return the batches that the model accepts; all of one size for an objective that compares whole batches."""
        columns = self._columns(dataset, programs)
        batch_size = self.training.batch_size
        drop_last = not objective.sums_over_data and dataset.num_data("train") > batch_size
        if self.training.mutate is not None:
            if isinstance(dataset, Unpaired):
                raise UsageError("mutate is for one data set, and a translation has two: leave --mutate out")
            dataset = mutated(dataset, self.training.mutate)
        return dataset.batches(batch_size, only=columns, drop_last=drop_last)

    def _example(self, dataset: Dataset | Unpaired, programs: Programs) -> dict[str, Tensor]:
        """Take the first batch, on the device."""
        values = dataset.eval_columns("train")
        columns = self._columns(dataset, programs)
        rows = torch.arange(min(self.training.batch_size, *(len(values[name]) for name in columns)))
        return {name: take(values[name], rows).to(self.device) for name in columns}

    def _columns(self, dataset: Dataset | Unpaired, programs: Programs) -> list[str]:
        """List the columns of the data that the model takes.

        Raises:
            UsageError: where it takes none.
        """
        found = list(dataset.split("train"))
        columns = accepted_columns(programs.model, found)
        if columns:
            return columns
        if self.data_b is not None:
            raise UsageError(
                f"--data-b makes two domains of the data, a and b, and {self.model.name} takes neither: leave it out, "
                f"or translate between the two by --model cyclegan"
            )
        if accepted_columns(programs.model, ["a", "b"]) == ["a", "b"]:
            raise UsageError(
                f"{self.model.name} translates between two domains, and --data {self.data.name} is one: give the other "
                f"by --data-b NAME_OR_PATH"
            )
        raise UsageError(f"{self.model.name} takes none of the data's columns, {', '.join(found)}")

    def num_steps(self, batches_per_epoch: int) -> int:
        """Return how many steps the training takes: by steps, by epochs, or else twenty epochs."""
        if self.training.steps is not None:
            return self.training.steps
        return (self.training.epochs or 20) * batches_per_epoch

    def to_json(self, dataset: Dataset | Unpaired) -> dict[str, Any]:
        """Return the manifest of a run: the recipe, what the data were found to be, and the versions in use."""
        return asdict(self) | {
            "kind": "recipe",
            "spec": dataset.spec.to_json(),
            "fingerprint": dataset.fingerprint(),
            "versions": versions(),
        }

    @classmethod
    def from_json(cls, manifest: Mapping[str, Any]) -> "Recipe":
        """Read a recipe from a run's manifest.

        Raises:
            CorruptCheckpointError: where the manifest holds none.
            UsageError: where it holds one of a policy.
        """
        if manifest.get("kind") == "control":
            raise UsageError(
                "this run holds a policy, which acts and draws no data: resume, evaluate, report and compare are for it"
            )
        if manifest.get("kind") != "recipe":
            raise CorruptCheckpointError(
                "this run was made by a program of its own, not by `pyrogen train`: load it with "
                "pyrogen.load(run, model=..., guide=...)"
            )
        model, objective, data = (Named(**manifest[key]) for key in ("model", "objective", "data"))
        settings = read_settings(Settings, manifest["training"])
        other = manifest.get("data_b")  # it has come later than the format
        data_b = None if other is None else Named(**other)
        return cls(model, objective, data, settings, manifest["seed"], manifest["device"], data_b)


def is_path(name: str) -> bool:
    """Tell whether a data name is a path: not of the catalogue, and there, or with a separator or a suffix."""
    return name not in catalogue.names("data") and (Path(name).exists() or any(mark in name for mark in "/\\.~"))


def shell_command(model: str, words: Iterable[str], options: Mapping[str, Any], out: Path) -> str:
    """Write the command that trains a model, as a shell reads it; options that are ``None`` are left out.

    Example:
        >>> shell_command("vae", ["--data", "digits"], {"beta": 2.0, "hidden": [8, 8], "ema": None}, Path("runs/vae"))
        "pyrogen train vae --data digits --beta 2.0 --hidden '[8,8]' --out runs/vae"
    """
    words = ["pyrogen", "train", model, *words]
    for name, value in options.items():
        if value is not None:
            written = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
            words += [f"--{name.replace('_', '-')}", written]
    return shlex.join([*words, "--out", str(out)])


def read_settings(kind: type[Chosen], found: Mapping[str, Any]) -> Chosen:
    """Read training settings from a manifest.

    Raises:
        CorruptCheckpointError: where some are not known.
    """
    if unknown := set(found) - set(signature(kind).parameters):
        raise CorruptCheckpointError(f"the manifest has unknown training settings: {', '.join(sorted(unknown))}")
    return kind(**found)


def versions(*further: str) -> dict[str, str]:
    """Return the versions that a figure may depend on: of what every fit uses, and of further packages."""
    packages = ("pyrogen-ppl", "torch", "pyro-ppl", "numpy", "zuko", "scikit-learn", *further)
    return {"python": platform.python_version(), "platform": sys.platform} | {p: version(p) for p in packages}
