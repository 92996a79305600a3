"""Sphinx configuration."""

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

from sphinx_astropy.conf.v3 import *  # noqa: F403 - the affiliated packages' common settings
from sphinx_astropy.conf.v3 import exclude_patterns, extensions, intersphinx_mapping
from sphinx_gallery.sorting import FileNameSortKey

# Gallery examples and doctests must not wait for a screen.
os.environ.setdefault("MPLBACKEND", "Agg")

project = "astrogan"
author = "The astrogan developers"
project_copyright = f"2026, {author}"
release = installed_version("astrogan")
version = ".".join(release.split(".")[:2])

root_doc = "index"
exclude_patterns += ["_build", "gallery", "**/README.rst", "generated/**/*.ipynb"]
default_role = "obj"
nitpicky = True
nitpick_ignore_regex = []
for line in Path(__file__).with_name("nitpick-exceptions.txt").read_text().splitlines():
    if line.strip() and not line.startswith("#"):
        domain, target = line.split(None, 1)
        nitpick_ignore_regex.append((domain, target.strip()))

# Copy buttons need a package that sphinx-astropy only brings with an extra of its own.
extensions = [name for name in extensions if name != "sphinx_copybutton"] + ["sphinx_gallery.gen_gallery"]

# Without a network the inventories of other projects cannot be had: their names are then plain text.
offline = os.environ.get("ASTROGAN_DOCS_OFFLINE", "") not in ("", "0")
if offline:
    intersphinx_mapping.clear()
    nitpick_ignore_regex += [
        (
            r"py:.*",
            r"(astropy|numpy|scipy|photutils|skimage|torch|matplotlib|galsim|pluggy|reproject|dask|distributed)(\..*)?",
        ),
        (
            r"py:.*",
            r"(True|False|None|AssertionError|LookupError|OSError|ValueError|len|(abc|concurrent|enum|pathlib)\..*)",
        ),
    ]
else:
    intersphinx_mapping |= {
        "photutils": ("https://photutils.readthedocs.io/en/stable/", None),
        "skimage": ("https://scikit-image.org/docs/stable/", None),
        "reproject": ("https://reproject.readthedocs.io/en/stable/", None),
        "pluggy": ("https://pluggy.readthedocs.io/en/stable/", None),
        "distributed": ("https://distributed.dask.org/en/stable/", None),
    }

# Needs the program dot, which not every machine has.
automodapi_inheritance_diagram = False
automodsumm_inherited_members = False
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
# The types stand in the docstrings, with shapes and units.
autodoc_typehints = "none"

html_theme = "pydata_sphinx_theme"
html_theme_options = {}
html_title = f"astrogan {release}"
html_static_path = []
html_context = {"default_mode": "light"}

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "generated/gallery",
    "filename_pattern": r"/plot_",
    "abort_on_example_error": True,
    "within_subsection_order": FileNameSortKey,
    "download_all_examples": False,
    "remove_config_comments": True,
    "min_reported_time": 5,
    "image_srcset": [],
    "show_signature": False,
    "capture_repr": (),
}
suppress_warnings = ["config.cache"]
sys.path.insert(0, str(Path(__file__).parent))
