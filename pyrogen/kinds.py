"""Which kind of recipe a run was made by: of a model of data, or of a policy."""

from collections.abc import Mapping
from typing import Any

from pyrogen.control_recipe import ControlRecipe
from pyrogen.recipe import Recipe

__all__ = ["recipe_of"]

RECIPES: dict[str, type[Recipe] | type[ControlRecipe]] = {"recipe": Recipe, "control": ControlRecipe}


def recipe_of(manifest: Mapping[str, Any]) -> Recipe | ControlRecipe:
    """Read the recipe from a run's manifest, of whichever kind.

    Raises:
        CorruptCheckpointError: where the manifest holds none.
    """
    return RECIPES.get(manifest.get("kind", ""), Recipe).from_json(manifest)  # which says what is wrong with no kind
