"""Command-line arguments of policies, and which kind of training arguments are of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from pyrogen import catalogue
from pyrogen.arguments import (
    add_settings,
    device_of,
    model_named,
    outcome_options,
    parse,
    parse_recipe,
    plain,
    prefer,
    train_parser,
    words_given,
)
from pyrogen.control_recipe import ControlRecipe
from pyrogen.control_settings import ControlSettings, learned_from
from pyrogen.errors import UsageError
from pyrogen.recipe import Named, Recipe

__all__ = ["parse_training"]


def parse_training(arguments: Sequence[str]) -> tuple[Recipe | ControlRecipe, dict[str, Any]]:
    """Read the arguments of ``pyrogen train``, of a policy where the model acts in environments, else of data.

    Returns:
        The recipe, and options, see :func:`~pyrogen.arguments.parse_recipe`.

    Raises:
        UsageError: for unknown names and options, with the nearest; for values of the wrong type; where model,
            objective and what is learned from do not go together.
    """
    arguments = model_named(arguments)
    given = words_given(arguments)
    model = str(given.get("model") or "")
    if model not in catalogue.names("model"):
        return parse_recipe(arguments)  # which says what there is
    acts = _acts(catalogue.find("model", model))
    _check(model, acts, given)
    return _parse_control(arguments, given, model) if acts else parse_recipe(arguments)


def _acts(model: Callable[..., Any]) -> bool:
    """Tell whether a model acts in environments, by what is noted on its entry."""
    return getattr(model, "acts", False)


def _check(model: str, acts: bool, given: Mapping[str, Any]) -> None:
    """Refuse a model with an objective of the other kind, and with what it cannot learn from."""
    objective = given.get("objective")
    if objective in catalogue.names("objective"):
        is_control = _is_control(catalogue.find("objective", objective))
        if acts and not is_control:
            raise UsageError(
                f"{objective} learns from data, and {model} acts: choose an --objective for control, "
                f"{', '.join(catalogue.those('objective', _is_control))}"
            )
        if is_control and not acts:
            raise UsageError(
                f"{objective} learns from what a policy does, and {model} learns from data: choose `pyrogen train "
                f"{' or '.join(catalogue.those('model', _acts))} --env ID`, or another --objective"
            )
    if acts and (wrong := [name for name in ("data", "data_b") if given.get(name)]):
        raise UsageError(f"{model} learns in an environment, and not from --{wrong[0]}: give --env ID in its place")
    if acts and not given.get("env"):
        raise UsageError(f"which environment shall {model} act in? Give --env ID, such as --env CartPole-v1")
    if acts and ":" in str(given["env"]):
        raise UsageError(
            f"--env {given['env']} names a module, and a run does not say what is to be imported: give the id alone, "
            f"and let a package install it as an entry point of pyrogen.environments"
        )
    if not acts and given.get("env"):
        raise UsageError(
            f"--env names an environment, and {model} learns from data: give --data, or act by "
            f"{' or '.join(catalogue.those('model', _acts))}"
        )


def _is_control(objective: Callable[..., Any]) -> bool:
    return learned_from(objective) is not None


def _parse_control(
    arguments: Sequence[str], given: Mapping[str, Any], model: str
) -> tuple[ControlRecipe, dict[str, Any]]:
    factory = catalogue.find("model", model)
    names = {"model": model, "objective": str(given.get("objective") or getattr(factory, "objective", "kl-control"))}
    parser = train_parser(names["objective"])
    parser.add_argument(
        "--env", type=str, help="an id of gymnasium, such as CartPole-v1, or an installed entry of pyrogen.environments"
    )
    parser.add_argument("--env_settings", type=dict[str, Any], default={}, help="of its making, as {NAME: VALUE}")
    parser.add_class_arguments(ControlSettings)
    keys = {kind: add_settings(parser, kind, catalogue.find(kind, name)) for kind, name in names.items()}
    preferred = prefer(parser, names, keys, ControlSettings)
    values = parse(parser, arguments)
    chosen = {kind: Named(names[kind], {n: plain(values[key]) for n, key in keys[kind].items()}) for kind in keys}
    training = ControlSettings(**{entry.name: values[entry.name] for entry in fields(ControlSettings)})
    env = Named(values["env"], dict(values["env_settings"]))
    recipe = ControlRecipe(
        **chosen, env=env, training=training, seed=values["seed"], device=device_of(values["device"])
    )
    return recipe, outcome_options(values, preferred, given)
