"""
A backend of your own
=====================

A method from the literature becomes a backend: a skeleton from ``astrogan plugin new``, forty lines in the place of its
example, the conformance kit, and then ``Restorer("isra")`` like any other. Nothing in astrogan is edited. The package
lives in a temporary folder and is gone at the end of the page.
"""

# %%
# The skeleton
# ------------
# In a terminal: ``astrogan plugin new isra --role restorer``. It writes a package that works already.

import importlib
import sys
import tempfile
import warnings

import matplotlib.pyplot as plt
import numpy as np
from astropy.nddata import CCDData, StdDevUncertainty
from astropy.table import Table
from astropy.visualization import AsinhStretch, ImageNormalize

from astrogan import Degrader, Restorer, list_backends
from astrogan.exceptions import UncertaintyWarning
from astrogan.metrics import psnr
from astrogan.plugins import reload_plugins
from astrogan.plugins.template import new_plugin
from astrogan.simulate.field import simulate_field
from astrogan.testing import check_backend

folder = tempfile.TemporaryDirectory()
package = new_plugin("isra", folder.name, role="restorer", author="A. Author")
for path in sorted(package.rglob("*")):
    if path.is_file():
        print(path.relative_to(package.parent))

# %%
# The method
# ----------
# The image space reconstruction algorithm of Daube-Witherspoon & Muehllehner (1986): least squares for Gaussian noise,
# with a result that is nowhere negative. From the class the operator gets an `~astrogan.api.Estimate`, and gives it an
# `~astrogan.api.Observation`: clean float32 arrays with axes (band, y, x). ``valid`` is False where a pixel is masked;
# such pixels get no weight. ``halo_for`` is the number of pixels by which tiles of a large image have to overlap. (One
# line of this text is wrong, and will be found.)

(package / "src/astrogan_isra/restorer.py").write_text('''\
"""ISRA: multiplicative least squares."""

import numpy as np
from scipy.ndimage import convolve

from astrogan.api import Estimate
from astrogan.exceptions import InputError


class IsraRestorer:
    """x <- x K'(v d) / K'(v K x), beginning with K'(v d): K blurs with the PSF, v is 1 where a pixel is valid."""

    needs_psf = True
    halo = -1

    def __init__(self, iterations=8):
        if not isinstance(iterations, int) or iterations < 1:
            raise InputError(f"iterations={iterations!r} must be a positive integer, e.g. 8")
        self.iterations = iterations

    def halo_for(self, observation):
        return observation.psf.shape[-1] // 2

    def __call__(self, observation, *, rng):
        bands = zip(observation.data, observation.valid, observation.psf, strict=True)
        data = np.stack([self._restore(*band) for band in bands])
        return Estimate(data, info={"iterations": self.iterations})

    def _restore(self, data, valid, kernel):
        transposed = kernel[::-1, ::-1]
        above = np.maximum(convolve(data * valid, transposed, mode="reflect"), 0)
        estimate = above
        for _ in range(self.iterations):
            below = convolve(convolve(estimate, kernel, mode="reflect") * valid, transposed, mode="reflect")
            estimate = estimate * np.divide(above, below, out=np.zeros_like(below), where=below > 0)
        return estimate
''')
plugin = package / "src/astrogan_isra/plugin.py"
text = plugin.read_text().replace("Landweber iteration: a start for a method of your own", "positive least squares")
plugin.write_text(text.replace('citation=""', 'citation="Daube-Witherspoon & Muehllehner 1986, IEEE TMI 5, 61"'))
print(text[text.index("SPEC =") :])

# %%
# Install it
# ----------
# In a terminal, ``python -m pip install -e astrogan-isra``. What matters of that is two things: the modules can be
# imported, and the metadata have an entry point of the group ``astrogan``. A page must not install anything, so both
# are done by hand here, for this process alone.

site = package / "src"
metadata = site / "astrogan_isra-0.1.0.dist-info"
metadata.mkdir()
(metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: astrogan-isra\nVersion: 0.1.0\n")
(metadata / "entry_points.txt").write_text("[astrogan]\nastrogan_isra = astrogan_isra.plugin\n")
sys.path.insert(0, str(site))
reload_plugins()
table = list_backends("restorer")
table[[name in ("isra", "richardson-lucy") for name in table["name"]]][
    "name", "distribution", "version", "status"
].pprint()

# %%
# Hold it to the contract
# -----------------------
# `~astrogan.testing.check_backend` runs the checks that the test of the package runs, too. It finds the wrong line.

spec = importlib.import_module("astrogan_isra.plugin").SPEC
report = check_backend(spec, options={"iterations": 2}, raise_on_failure=False)
for name, reason in report.failed.items():
    print(f"{name}: {reason}")

# %%
# A pixel does not see one radius of the PSF far but two more with each iteration. With that mended, nothing is left to
# complain about. In a shell one would just run the test again; in a running process the module has to be read anew.

module = site / "astrogan_isra/restorer.py"
module.write_text(
    module.read_text().replace(
        "return observation.psf.shape[-1] // 2", "return (2 * self.iterations + 1) * (observation.psf.shape[-1] // 2)"
    )
)
importlib.invalidate_caches()
importlib.reload(sys.modules["astrogan_isra.restorer"])
report = check_backend(spec, options={"iterations": 2})
print("passed:", ", ".join(report.passed))
print("failed:", report.failed)

# %%
# Use it
# ------
# By its name, from Python or with ``astrogan restore -b isra``. Options, masks, WCS, tiles, units and provenance are
# the operator's affair. The field is blurred by 1 arcsec and has twice the noise; PSNR and flux are against the
# noise-free truth. The last column is what the method makes of an empty sky: its mean, in units of the noise.

field = simulate_field((160, 160), ("r",), seed=3, saturated_star=False, bad_column=False)
truth, blur = field.truth_images["r"].data, 5.0  # pixels
degraded = Degrader(psf=blur, noise=2.0, match=False)(field.images["r"], rng=1)
good = ~degraded.mask
sigma = float(np.sqrt(np.median(degraded.uncertainty.array[good])))
noise = np.random.default_rng(2).normal(0, sigma, truth.shape)
sky = CCDData(noise, unit="nmgy", uncertainty=StdDevUncertainty(np.full(truth.shape, sigma)))

warnings.simplefilter("ignore", UncertaintyWarning)  # neither method gives one, and the operator says so
options = {"identity": {}, "richardson-lucy": {"iterations": 8}, "isra": {"iterations": 8}}
restorers = {name: Restorer(name, psf=blur, **own) for name, own in options.items()}
restored = {name: restorer(degraded) for name, restorer in restorers.items()}
table = Table(names=("backend", "PSNR [dB]", "flux ratio", "reduced chi2", "empty sky"), dtype=(str, *[float] * 4))
for name, image in restored.items():
    score = psnr(truth, image.data, data_range=np.ptp(truth[good]), mask=~good)
    chi2 = restorers[name].diagnose(degraded, image).reduced_chi2
    light = image.data[good].sum() / truth[good].sum()
    table.add_row((name, score, light, chi2, restorers[name](sky).data.mean() / sigma))
for column in table.colnames[1:]:
    table[column].info.format = ".3f"
table.pprint(max_width=-1)

# %%
# The new method works, with a PSNR like that of ``richardson-lucy``, and is not one for faint galaxies: it cannot be
# negative, so that noise becomes light. That shows in the flux, in the empty sky, and at the bottom as red specks
# between the sources, which detection would take for sources. The kit says nothing about this. It finds what is wrong
# with the *code*; what a method is good for, tables like this one and :doc:`/user_guide/benchmarks` tell.

norm = ImageNormalize(vmin=-2 * sigma, vmax=truth.max() / 2, stretch=AsinhStretch(0.05))
figure, axes = plt.subplots(2, 4, figsize=(10.4, 5.2), layout="constrained")
panels = {"truth": truth, **{name: image.data for name, image in restored.items()}}
for (top, bottom), (name, data) in zip(axes.T, panels.items(), strict=True):
    flux = top.imshow(data, origin="lower", norm=norm)
    top.set_title(name)
    if name != "truth":
        left = bottom.imshow((data - truth) / sigma, origin="lower", vmin=-4, vmax=4, cmap="RdBu_r")
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[1, 0].set_axis_off()
figure.colorbar(flux, ax=axes[0], label="r flux [nmgy / pixel]", ticks=[0, 0.01, 0.03, 0.1, 0.3], format="%g")
figure.colorbar(left, ax=axes[1], label="(image $-$ truth) / $\\sigma$")

# %%
# What comes next: a README, tests of what the method is good for, perhaps weights. :doc:`/backend_authors` has the
# contract in full, and the same for the other roles.

sys.path[:] = [entry for entry in sys.path if entry != str(site)]
for name in [name for name in sys.modules if name.startswith("astrogan_isra")]:
    del sys.modules[name]
reload_plugins()
folder.cleanup()
