"""Command-line arguments; those of a model, an objective and data are read off their factories' signatures."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentError, ArgumentParser

from pyrogen import catalogue
from pyrogen.data import from_path
from pyrogen.errors import DataError, MissingInputError, UsageError
from pyrogen.recipe import Named, Recipe, Settings, is_path

__all__ = [
    "add_settings",
    "device_of",
    "make_parser",
    "model_named",
    "outcome_options",
    "parse",
    "parse_recipe",
    "plain",
    "prefer",
    "prepared_alike",
    "train_parser",
    "words_given",
]

GIVEN = {"model": 1, "objective": 3, "data": 0}
"""How many leading parameters of a factory are not the user's to set: the spec; model, guide and example batch."""


def make_parser(command: str, description: str) -> ArgumentParser:
    """Make a parser that raises what is wrong instead of leaving the process."""
    return ArgumentParser(prog=f"pyrogen {command}", description=description, exit_on_error=False)


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> dict[str, Any]:
    """Read arguments; ``--batch-size`` and ``--batch_size`` are the same.

    Raises:
        UsageError: for unknown options, with the nearest, and for values of the wrong type.
    """
    arguments = [re.sub(r"^--[\w.-]+", lambda m: "--" + m[0][2:].replace("-", "_"), word) for word in arguments]
    try:
        return dict(parser.parse_args(arguments).items())
    except ArgumentError as error:
        message = re.sub(r'Parser key "(\w+)":', r"--\1:", " ".join(str(error).split()))
        unknown = re.findall(r"--([\w.]+)", message) if "nrecognized arguments" in message else []
        known = [option.lstrip("-") for option in parser._option_string_actions]
        hints = [catalogue.suggestion(name, known) for name in unknown]
        raise UsageError(f"{message}{''.join(hints)} (`{parser.prog} --help` lists all options)") from error


def parse_recipe(arguments: Sequence[str]) -> tuple[Recipe, dict[str, Any]]:
    """Read the arguments of ``pyrogen train`` of a model of data; which there are depends on the model, the objective
    and the data.

    Returns:
        The recipe, and the options ``out``, ``overwrite``, ``json``, ``track`` and ``strict``; ``note``, where
        something was chosen that is worth saying.

    Raises:
        UsageError: for unknown names and options, with the nearest, and for values of the wrong type.
    """
    arguments = model_named(arguments)
    given = words_given(arguments)
    names = _names(given)
    parser = train_parser(names["objective"])
    parser.add_argument("--data", type=str, default=names["data"], help="a data set of `pyrogen list`, or a path")
    parser.add_argument("--data_b", type=str, default=None, help="likewise: the other domain of a translation")
    parser.add_argument("--data_seed", type=int, default=None, help="of the splits, where it is not --seed")
    parser.add_class_arguments(Settings)
    keys = (
        {kind: add_settings(parser, kind, factory) for kind, factory in _factories(names).items()}
        if names["model"]
        else {}
    )
    preferred = prefer(parser, names, keys, Settings)
    values = parse(parser, arguments)
    if not keys:
        raise UsageError(f"which model? Choose from {', '.join(catalogue.names('model'))}")
    chosen = {kind: Named(names[kind], {n: plain(values[key]) for n, key in keys[kind].items()}) for kind in keys}
    cut = {} if values["data_seed"] is None else {"seed": values["data_seed"]}
    chosen["data"] = Named(_located(names["data"]), chosen["data"].settings | cut)
    data_b = prepared_alike(names["data_b"], chosen["data"].settings) if names["data_b"] else None
    training = Settings(**{entry.name: values[entry.name] for entry in fields(Settings)})
    device = device_of(values["device"])
    recipe = Recipe(**chosen, training=training, seed=values["seed"], device=device, data_b=data_b)
    return recipe, outcome_options(values, preferred, given)


def model_named(arguments: Sequence[str]) -> list[str]:
    """Read a first word as that of the model."""
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("-"):
        arguments[0:1] = ["--model", arguments[0]]
    return arguments


def train_parser(objective: str) -> ArgumentParser:
    """Make a parser of what every training can be told.

    Args:
        objective: which one it is, if no other is named.
    """
    parser = make_parser(
        "train", "Fit a model to data, or a policy in an environment, and keep all in a run directory."
    )
    parser.add_argument("--config", action="config", help="a file of settings, as --print-config prints them")
    parser.add_argument("--model", type=str, help="a model of `pyrogen list`; may come first, without --model")
    parser.add_argument("--objective", type=str, default=objective, help="an objective of `pyrogen list`")
    parser.add_argument("--out", type=str, default=None, help="the run directory (default: runs/MODEL-DATA)")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is there")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON object on stdout")
    parser.add_argument("--track", type=str, default=None, help="tensorboard: write its files into the run, too")
    parser.add_argument("--strict", action="store_true", help="end where an adversarial fit comes to nothing")
    parser.add_argument("--seed", type=int, default=0, help="of splits or environments, initial values and noise")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda or mps")
    return parser


def outcome_options(
    values: Mapping[str, Any], preferred: Mapping[str, Mapping[str, Any]], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options that are no part of a recipe, and a ``note`` of what was chosen that is worth saying."""
    options = {name: values[name] for name in ("out", "overwrite", "json", "track", "strict")}
    notes = []
    for reason, preference in preferred.items():
        if chosen_so := [f"--{key.replace('_', '-')} {value}" for key, value in preference.items() if key not in given]:
            notes.append(f"{reason}: chose {' '.join(chosen_so)}")
    return options | ({"note": "\n".join(notes)} if notes else {})


def prefer(
    parser: ArgumentParser, names: Mapping[str, str], keys: Mapping[str, Mapping[str, str]], training: type
) -> dict[str, dict[str, Any]]:
    """Set what an objective prefers of a model, of data and of training, and a model of the latter two, as defaults.

    Args:
        names: of the model and the objective.
        keys: of the settings of each kind, the option's.
        training: the class of the settings of training.

    Returns:
        Values by option, by the reason for them.
    """
    found = {}
    options_of = {**keys, "training": {entry.name: entry.name for entry in fields(training)}}
    for kind, others in (("objective", ("model", "data", "training")), ("model", ("data", "training"))):
        preference = getattr(catalogue.find(kind, names[kind]), "prefers", None) if keys else None
        if preference is None:
            continue
        found[f"{names[kind]} {preference.because}"] = {
            options_of[other][name]: value
            for other in others
            if other in options_of
            for name, value in preference.settings.items()
            if name in options_of[other]
        }
    for options in found.values():
        parser.set_defaults(options)
    return found


def device_of(name: str) -> str:
    """Return a device that is there; ``"auto"`` is the fastest kind.

    Raises:
        UsageError: where it is not there, with those that are.
    """
    found = ["cuda"] * torch.cuda.is_available() + ["mps"] * torch.backends.mps.is_available() + ["cpu"]
    if name == "auto":
        return found[0]
    if name.partition(":")[0] not in found:
        raise UsageError(f"device {name!r} is not there; choose from auto, {', '.join(found)}")
    return name


def _names(given: Mapping[str, Any]) -> dict[str, str]:
    """Find out which model, objective and data are meant, before all options can be known."""
    defaults = {"model": "", "data": "digits", "data_b": "", "objective": ""}
    names = {kind: str(given.get(kind) or default) for kind, default in defaults.items()}
    # An algorithm that is a model and an objective of one name goes by that name; else a model may have a usual one.
    usual = names["model"] if names["model"] in catalogue.names("objective") else "elbo"
    if names["model"] in catalogue.names("model"):
        factory = catalogue.find("model", names["model"])
        usual = getattr(factory, "objective", usual)
        names["data"] = str(given.get("data") or getattr(factory, "data", names["data"]))
    return names | {"objective": names["objective"] or usual}


def words_given(arguments: Sequence[str]) -> dict[str, Any]:
    """Read what is set on the command line, or in the file that it names, as it stands there."""
    found = {}
    for i, word in enumerate(arguments):
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--") and (equals or i + 1 < len(arguments)):
            found[name.replace("-", "_")] = value if equals else arguments[i + 1]
    config = _config(found["config"]) if "config" in found else {}
    return {key: value for key, value in config.items() if value is not None} | found


def _located(name: str) -> str:
    """Return a path as it is seen from anywhere, and a name of the catalogue as it is."""
    return str(Path(name).expanduser().resolve()) if is_path(name) else name


def prepared_alike(name: str, settings: Mapping[str, Any]) -> Named:
    """Name another data set, which is prepared as the first, as far as that was set and it has the same settings."""
    known = signature(_source(name)).parameters
    return Named(_located(name), {key: value for key, value in settings.items() if key in known and value is not None})


def _source(name: str) -> Callable[..., Any]:
    return from_path if is_path(name) else catalogue.find("data", name)


def _config(path: str) -> Mapping[str, Any]:
    try:
        config = yaml.safe_load(Path(path).read_text())
    except FileNotFoundError as error:
        raise MissingInputError(f"there is no configuration file {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a configuration file: {error}") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: expected settings as `name: value` lines, found {type(config).__name__}")
    return config


def _factories(names: Mapping[str, str]) -> dict[str, Callable[..., Any]]:
    return {
        "model": catalogue.find("model", names["model"]),
        "objective": catalogue.find("objective", names["objective"]),
        "data": _source(names["data"]),
    }


def add_settings(parser: ArgumentParser, kind: str, factory: Callable[..., Any]) -> dict[str, str]:
    """Add a factory's settings as options; one whose name is taken is called ``--KIND_settings.NAME``.

    Returns:
        Each setting's key among the parsed values.
    """
    parameters = list(signature(factory).parameters.values())
    given = {p.name for p in parameters[: GIVEN[kind]]} | ({"path", "seed"} if kind == "data" else set())
    settings = [p.name for p in parameters if p.name not in given and p.kind is not Parameter.VAR_KEYWORD]
    taken = {name for name in settings if f"--{name}" in parser._option_string_actions}
    parser.add_function_arguments(factory, as_positional=False, skip=given | taken)
    # A model and an objective may go by one name, and groups of options go by that of their function.
    parser.groups[kind] = parser.groups.pop(factory.__name__)
    group = f"{kind}_settings"
    if taken:
        free = set(settings) - taken
        parser.add_function_arguments(factory, group, as_positional=False, skip=given | free)
    return {name: f"{group}.{name}" if name in taken else name for name in settings}


def plain(value: Any) -> Any:
    """Write tuples as lists, as JSON has them."""
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value
