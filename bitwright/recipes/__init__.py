"""Recipes that ship with bitwright: one TOML file each in this folder; a user's own file works the same way."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from bitwright.core.catalog import unknown_name
from bitwright.core.recipe import Recipe, load_recipe, parse_recipe


@cache
def shipped_recipes() -> dict[str, Recipe]:
    """Every recipe in this folder by name, in alphabetical order."""
    files = sorted((f for f in resources.files(__name__).iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    found = [parse_recipe(file.read_text("utf-8"), origin=file.name) for file in files]
    return {recipe.name: recipe for recipe in found}


def find_recipe(name: str, *, known: Mapping[str, Collection[str]] | None = None) -> Recipe:
    """A shipped recipe by name, or a TOML file by its path (a name that ends in `.toml`); known: see parse_recipe."""
    if name.endswith(".toml"):
        return load_recipe(Path(name), known=known)
    recipes = shipped_recipes()
    if name not in recipes:
        raise unknown_name("recipe", name, tuple(recipes))
    return recipes[name]
