"""Whether a run's folder is of the recipe and the data that it is to go on with."""

from __future__ import annotations

from pathlib import Path

from astrogan.exceptions import InputError

__all__ = ["check_same"]


def check_same(recipe, run, data, argument):
    """Refuse what was trained by another recipe or on other data: it would be measured as if it were by these.

    Parameters
    ----------
    recipe : Recipe
        With all overrides.
    run : path
        Folder of a run; one without a recipe in it passes.
    data : path or None
        The folder of the recipe's files.
    argument : str
        The caller's argument, for the message.

    Raises
    ------
    InputError
        If the run's recipe differs in anything, or its files were others.
    """
    from astrogan.train._data_digest import check_data

    path = Path(run) / "recipe.toml"
    if path.exists() and path.read_text(encoding="utf-8") != recipe.to_toml():
        raise InputError(
            f"{argument}: {str(path)!r} is another recipe than {recipe.name!r} as given; name another folder, or give "
            "the recipe and overrides that this one has"
        )
    check_data(Path(run), recipe, None if data is None else Path(data))
