"""The text of a new plugin's files; ``@WORD@`` stands for what `astrogan.plugins.template.new_plugin` fills in."""

from __future__ import annotations

__all__ = ["FILES", "LICENCES", "SUMMARIES", "USES"]

_PYPROJECT = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "@DISTRIBUTION@"
version = "0.1.0"
description = "A @ROLE@ for astrogan: @NAME@"
readme = "README.rst"
requires-python = ">=3.11"
@AUTHORS@
@LICENCE@
dependencies = ["astrogan", "numpy", "scipy"]

[project.optional-dependencies]
test = ["pytest"]

# This line is what astrogan looks for: the module whose hook lists the backends.
[project.entry-points.astrogan]
@PACKAGE@ = "@PACKAGE@.plugin"

[tool.setuptools.packages.find]
where = ["src"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

_README = """\
@TITLE@

A @ROLE@ for `astrogan <https://github.com/astrogan/astrogan>`_, as a plugin. It works as it is::

    python -m pip install -e ".[test]"
    astrogan backends --role @ROLE@
    python -m pytest

and in Python, without a change in astrogan:

.. code-block:: python

@USE@

Where to go on
--------------

``src/@PACKAGE@/@ROLE@.py``
    The method. Put your own in its place: the class gets clean arrays and returns arrays.
``src/@PACKAGE@/plugin.py``
    Name, summary and citation, as ``astrogan backends`` lists them. It is imported whenever backends are listed, so
    keep it light: nothing but ``astrogan.api``.
``tests/test_contract.py``
    Holds the method to astrogan's contract. Add tests of what the method is good for.
``pyproject.toml``
    What the package needs besides, its authors and its licence.

The chapter "Backend authors" of astrogan's documentation says what a backend may do besides.
"""

_INIT = '''\
"""@NAME@: a @ROLE@ for astrogan."""
'''

_PLUGIN = '''\
"""What astrogan imports when it lists backends: nothing heavy belongs here."""

from astrogan.api import BackendSpec, hookimpl

SPEC = BackendSpec(
    role="@ROLE@",
    name="@NAME@",
    target="@PACKAGE@.@ROLE@:@CLASS@",
    requires=("scipy",),
    api=@API@,
    summary="@SUMMARY@",
    citation="",
)


@hookimpl
def astrogan_backends():
    """The backends of this plugin, as many as there are."""
    return [SPEC]
'''

_TEST = '''\
"""The backend keeps astrogan's contract, and astrogan finds it by its name."""

from @PACKAGE@.plugin import SPEC

from astrogan.plugins import load_backend
from astrogan.testing import check_backend


def test_contract():
    check_backend(SPEC)


def test_found_by_name():
    backend, name, _ = load_backend(SPEC.role, SPEC.name)
    assert type(backend).__name__ == "@CLASS@"
    assert name == "@DISTRIBUTION@:@NAME@"
'''

_GITIGNORE = """\
__pycache__/
*.egg-info/
.pytest_cache/
.venv/
build/
dist/
"""

FILES = {
    "pyproject.toml": _PYPROJECT,
    "README.rst": _README,
    ".gitignore": _GITIGNORE,
    "src/@PACKAGE@/__init__.py": _INIT,
    "src/@PACKAGE@/plugin.py": _PLUGIN,
    "tests/test_contract.py": _TEST,
}
"""Text by path; the backend itself is one of the modules beside this one."""

USES = {
    "restorer": """\
from astrogan import Restorer

restored = Restorer("@NAME@", iterations=3)("image.fits")
""",
    "degrader": """\
from astrogan import Degrader

degraded = Degrader(backend="@NAME@", fwhm=4.0)("image.fits", rng=0)
""",
    "deblender": """\
from astrogan import Deblender

result = Deblender("@NAME@", radius=30)("image.fits")
""",
    "translator": """\
from astrogan import Translator

translated = Translator("@NAME@", target="sdss")("image.fits", rng=0)
""",
    "noise": """\
from astrogan import Degrader

degraded = Degrader(noise="@NAME@", noise_level=2.0)("image.fits", rng=0)  # twice the image's noise
""",
}
"""How a backend of each role is used."""

SUMMARIES = {
    "restorer": "Landweber iteration: a start for a method of your own",
    "degrader": "Gaussian blur and white noise: a start for a model of your own",
    "deblender": "round templates: a start for a method of your own",
    "translator": "smooth, interpolate, add noise: a start for a method of your own",
    "noise": "white noise and stripes: a start for a model of your own",
}
"""What the table of backends says of each."""

_BSD3 = """\
Copyright (c) @YEAR@, @AUTHOR@

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions and the following
   disclaimer.

2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
   disclaimer in the documentation and/or other materials provided with the distribution.

3. Neither the name of the copyright holder nor the names of its contributors may be used to endorse or promote
   products derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES,
INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY,
WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE OF
THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""

_MIT = """\
Copyright (c) @YEAR@ @AUTHOR@

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""

LICENCES = {"BSD-3-Clause": _BSD3, "MIT": _MIT}
"""Text by SPDX identifier."""
