"""The catalog's benchmark counts rows, and says whether anything was lost."""

import numpy as np
import pytest

from astrogan.bench import catalog
from astrogan.exceptions import InputError


def test_a_row_a_backend_and_number_of_workers(monkeypatch):
    monkeypatch.setattr(catalog, "EDGE", 512)
    monkeypatch.setattr(catalog.simulated_mosaic, "__kwdefaults__", {"edge": 512, "seed": 0})
    table = catalog.run(rows=12, backends=("wiener",), workers=(1,))
    assert list(table["backend"]) == ["wiener"]
    assert table["without"][0] == 0
    np.testing.assert_allclose(table["ratio"], table["stamps_per_s"] / table["loop_per_s"])
    np.testing.assert_allclose(table["cpu_ratio"], table["stamps_per_cpu_s"] / table["loop_per_cpu_s"])


def test_wrong_arguments_are_named():
    with pytest.raises(InputError, match="rows=3"):
        catalog.run(rows=3)
    with pytest.raises(InputError, match="'lucy'"):
        catalog.run_killed(backend="lucy")
