"""Point-spread functions: every form that users have them in, on the pixel grid, normalised, centred and checked.

`as_psf` takes any form to a `PSFModel`; `psf_from_header` and `estimate_psf` find a PSF where the user gives none.
Kernels are odd, their middle pixel is the centre, they sum to one and include the response of the pixel.
"""

from astrogan.image._convolve import convolve, matching_kernel
from astrogan.image._kernels import gaussian_psf, moffat_psf, psf_fwhm, resample_psf, trim_psf
from astrogan.image._psf_forms import as_psf
from astrogan.image._psf_header import psf_from_header, without_psf_keywords
from astrogan.image._psf_model import GridPSF, PSFModel
from astrogan.image._psf_stars import estimate_psf

__all__ = [
    "GridPSF",
    "PSFModel",
    "as_psf",
    "convolve",
    "estimate_psf",
    "gaussian_psf",
    "matching_kernel",
    "moffat_psf",
    "psf_from_header",
    "psf_fwhm",
    "resample_psf",
    "trim_psf",
    "without_psf_keywords",
]

# They live in private modules, one for each task, and belong to this one.
for _name in __all__:
    globals()[_name].__module__ = __name__
