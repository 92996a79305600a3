"""Training: recipes, data sources, streams of pairs, Lightning modules and run directories."""

from __future__ import annotations

__all__ = ["Recipe", "cross_validate", "fit", "list_recipes", "overrides_of", "read_recipe"]


def __getattr__(name):
    if name == "fit":
        from astrogan.train._fit import fit

        return fit
    if name == "cross_validate":
        from astrogan.train._folds import cross_validate

        return cross_validate
    if name in ("Recipe", "list_recipes", "overrides_of", "read_recipe"):
        from astrogan.train import recipe

        return getattr(recipe, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
