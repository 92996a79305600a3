"""Translation of galaxy stamps between two surveys by the networks of Lin et al. (2021)."""

from __future__ import annotations

import math
import re

import numpy as np

from astrogan.api import Estimate
from astrogan.backends.gan._device import exact_matmul
from astrogan.backends.gan._network import LazyNetwork
from astrogan.exceptions import CheckpointError, InputError

__all__ = ["Lin2020"]

_SHIPPED = "lin2020-narrow"

_SHAPES = {"x": (64, 64), "y": (136, 136)}
_BANDS = ("u", "g", "r", "i", "z")
_SCALES = {"x": 0.396, "y": 0.187}

_SCALE_TOLERANCE = 0.02  # of the pixel scales: a stamp's edge is then off by a pixel at most
_OFF_CENTRE = 1.0  # pixels of the input
_OFF_AXIS = 0.05  # of the directions of the axes

# An image whose sky scatters more than that, in units of the noisiest of the training, is in other units.
_MOST_NOISE = 30.0


class Lin2020:
    """Translate a galaxy's stamp from one survey to another with the networks of Lin et al. (2021), both ways.

    The published networks take stamps of fixed size: 64 x 64 pixels of 0.396 arcsec (SDSS, here X) become 136 x 136
    pixels of 0.187 arcsec (CFHTLS, Y), or the other way round, in five bands u, g, r, i and z together, in nanomaggies
    a pixel. The direction follows from the shapes of image and target. The generator makes a stamp without noise, to
    which a noise emulator adds noise of the other survey; the stamp's own flux has no part in that noise.

    Parameters
    ----------
    weights : str or path, optional
        Name or path of weights for this backend; "auto" takes those that come with the package.
    noise : bool, optional
        Whether noise is added, by the emulator. The target's own noise and PSF are not looked at.
    nanomaggies : float or sequence of float, optional
        What one unit of the image's flux is in nanomaggies, for all bands or for each: 10^(0.4 (22.5 - zero point)).
    device : str, optional
        "auto" (CUDA where there is one, else the CPU) or a device of torch.

    Raises
    ------
    InputError
        If an option is out of range, and at the call, if shapes, pixel scales, grids, bands or fluxes are not those of
        the training, or the weights are for another backend.
    CheckpointError
        At the call, if the weights are damaged.

    Notes
    -----
    It is here to be compared with. It knows no WCS: the target must be the image's grid but for the pixels' size, with
    the same centre and axes. It knows neither PSF nor seeing, and its noise does not grow with the flux. Fluxes are
    absolute: multiplying the image by a number does not multiply the result. No variance is estimated. Where invalid
    pixels of the image lie, and two pixels about them, the result is flagged.

    Weights of the paper's variants (g) and (h) see stamps of 64 x 64 pixels of both surveys, to which those of Y are
    brought, and from which they are brought back, by bilinear interpolation: that is our way to compare them.

    The noise, and the latent code of (h), come from ``rng``.

    References
    ----------
    Lin et al. 2021, "Galaxy Image Translation with Semi-supervised Noise-reconstructed Generative Adversarial
    Networks", ICPR 2020, arXiv:2101.07389.
    """

    needs_psf = False
    needs_variance = False
    match = False
    min_size = 64

    def __init__(self, weights="auto", *, noise=True, nanomaggies=1.0, device="auto"):
        if not isinstance(noise, bool | np.bool_):
            raise InputError(f"noise={noise!r} must be True or False")
        unit = np.asarray(nanomaggies, dtype=object if isinstance(nanomaggies, str) else None)
        if unit.dtype.kind not in "iuf" or unit.ndim > 1 or not (np.isfinite(unit).all() and (unit > 0).all()):
            raise InputError(f"nanomaggies={nanomaggies!r} must be a positive number, or one a band, e.g. 1.0")
        self.weights, self.device = weights, device
        self.noise = bool(noise)
        self.nanomaggies = unit.astype(np.float64)
        self._network = LazyNetwork(_SHIPPED if weights == "auto" else weights, "lin2020", _build, device, _check)

    def __repr__(self):
        return f"Lin2020(weights={str(self.weights)!r}, noise={self.noise})"

    def __call__(self, observation, target, *, rng):
        """Translate one stamp.

        Parameters
        ----------
        observation : `~astrogan.api.Observation`
            Five bands of 64 x 64 or 136 x 136 pixels. Bands with names may come in any order; without, the order is u,
            g, r, i, z.
        target : `~astrogan.api.Target`
            136 x 136 or 64 x 64 pixels.
        rng : `numpy.random.Generator`

        Returns
        -------
        `~astrogan.api.Estimate`
            In the image's unit and with its order of bands. ``info``: ``weights``, ``sha256``, ``direction``
            (``x_to_y`` or ``y_to_x``), and ``out_of_range``, the logarithm of the factor by which the noise or the
            brightest pixel lies outside what the weights were trained on.
        """
        direction = _direction(observation, target)
        network, weights = self._network.get()
        order = _order(observation.bands, weights.card["band_names"] or _BANDS)
        unit = self._unit(len(observation.data))
        flux = (observation.data * unit[:, None, None])[order]
        distance = _out_of_range(flux, direction[0], weights.card["ranges"])
        made = self._translated(network, flux, direction, rng)
        data = np.empty_like(made)
        data[order] = made
        return Estimate(
            data=(data / unit[:, None, None]).astype(np.float32),
            flags=_flags(observation, target),
            info={
                "weights": weights.name,
                "sha256": weights.sha256[:12],
                "direction": direction,
                "out_of_range": round(distance, 3),
            },
        )

    def _unit(self, bands):
        """Nanomaggies of one unit, (band,)."""
        if self.nanomaggies.ndim and len(self.nanomaggies) != bands:
            raise InputError(
                f"nanomaggies={self.nanomaggies.tolist()!r} has {len(self.nanomaggies)} values; the image has {bands} "
                "bands"
            )
        return np.broadcast_to(self.nanomaggies, bands)

    def _translated(self, network, flux, direction, rng):
        import torch

        device = next(network.parameters()).device
        generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
        with torch.inference_mode(), exact_matmul(device):
            seen = torch.from_numpy(np.ascontiguousarray(flux, np.float32))[None].to(device)
            made = network.translated(seen, direction, generator=generator, noise=self.noise)
        return made[0].cpu().numpy().astype(np.float64)


def _build(**architecture):
    from astrogan.nn.lin2020 import Lin2020Translator

    return Lin2020Translator(**architecture)


def _check(network, card, weights):
    bands, names = network.architecture["bands"], card["band_names"] or _BANDS
    if bands != len(names):
        raise CheckpointError(
            f"weights={weights!r}: the network has {bands} bands, and its card names {len(names)} ({', '.join(names)})"
        )


# ---- what can be translated -----------------------------------------------------------------------------------------


def _direction(observation, target):
    """The direction that shapes and pixel scales say, or an error that says what would do."""
    shapes = {shape: name for name, shape in _SHAPES.items()}
    before, after = shapes.get(observation.shape[1:]), shapes.get(tuple(target.shape))
    if before is None:
        raise InputError(
            f"image has {_size(observation.shape[1:])} pixels; lin2020 takes stamps of 64 x 64 (0.396 arcsec a pixel) "
            "or 136 x 136 (0.187): cut one out around the galaxy, or use another backend (surveynet, psf-matching)"
        )
    if after is None or after == before:
        wanted = "y" if before == "x" else "x"
        edge = _SHAPES[wanted][0]
        raise InputError(
            f"target has {_size(target.shape)} pixels; lin2020 makes {_size(_SHAPES[wanted])} of "
            f"{_size(observation.shape[1:])}: give target=TargetSpec(pixel_scale={_SCALES[wanted]}, shape=({edge}, "
            f"{edge})), or use another backend (surveynet, psf-matching)"
        )
    for what, scale, survey in (("image", observation.pixel_scale, before), ("target", target.pixel_scale, after)):
        if scale is not None and abs(scale / _SCALES[survey] - 1) > _SCALE_TOLERANCE:
            raise InputError(
                f"{what} has a pixel scale of {scale:.4g} arcsec; lin2020 knows {_SCALES[survey]} for "
                f"{_size(_SHAPES[survey])} pixels: resample it, or use another backend (surveynet, psf-matching)"
            )
    _check_grid(observation, target)
    return f"{before}_to_{after}"


def _check_grid(observation, target):
    """The target's grid has the image's centre, and its axes, which are all that the networks can make."""
    (height, width), (rows, columns) = observation.shape[1:], target.shape
    half = 0.4 * rows
    middle = np.array([(columns - 1) / 2, (rows - 1) / 2])
    places = middle + np.array([[0, 0], [half, 0], [0, half]])
    x, y = target.to_input(*places.T)
    at = np.stack([x, y], -1) - np.array([(width - 1) / 2, (height - 1) / 2])
    axes = (at[1:] - at[0]) / (half * height / rows)
    off = np.abs(at[0]).max()
    if not np.isfinite(at).all() or off > _OFF_CENTRE or np.abs(axes - np.eye(2)).max() > _OFF_AXIS:
        raise InputError(
            f"target: its centre is {off:.3g} pixels off the image's, or its axes are turned or mirrored; lin2020 only "
            "changes the size of pixels: give target=TargetSpec(pixel_scale=..., shape=...), or use another backend "
            "(surveynet, psf-matching)"
        )


def _size(shape):
    return " x ".join(str(int(n)) for n in shape)


def _order(names, wanted):
    """Indices of an image's bands in the order of the network."""
    if len(names) == len(wanted) and all(name.isdigit() for name in names):
        return np.arange(len(wanted))
    found = {}
    for number, name in enumerate(names):
        words = {word for word in re.split(r"[^a-z0-9]+", name.casefold()) if word in wanted}
        words = {name.casefold()} if name.casefold() in wanted else words
        if len(words) == 1:
            found.setdefault(words.pop(), []).append(number)
    missing = [band for band in wanted if band not in found]
    twice = [band for band, numbers in found.items() if len(numbers) > 1]
    if missing or twice or len(names) != len(wanted):
        why = f"without {', '.join(missing)}" if missing else f"with {', '.join(twice) or 'others'} too many"
        raise InputError(
            f"bands: the image has {', '.join(names)}, {why}; lin2020 needs {', '.join(wanted)}, each once, in any "
            "order (or five bands without names, in that order)"
        )
    return np.array([found[band][0] for band in wanted])


def _out_of_range(flux, survey, ranges):
    """Logarithm of the factor by which noise or brightness lie outside the training; an error where units differ."""
    distances = [0.0]
    edge = flux.shape[-1] // 8
    border = np.ones(flux.shape[1:], bool)
    border[edge:-edge, edge:-edge] = False
    for number, plane in enumerate(flux):
        low, high = ranges.get(f"noise_{survey}_{number}", (0.0, 0.0))
        sky = plane[border]
        noise = 1.4826 * float(np.median(np.abs(sky - np.median(sky))))
        if 0 < high * _MOST_NOISE < noise:
            raise InputError(
                f"image: the sky of band {_BANDS[number] if number < len(_BANDS) else number} scatters by {noise:.3g} "
                f"nanomaggies, {high:.3g} at most in the training of lin2020; is the unit another? Give nanomaggies= "
                "what one unit of the image is, 10**(0.4 * (22.5 - zero point))"
            )
        if noise > 0 and low > 0:
            distances += [math.log(noise / high), math.log(low / noise)]
    peak, brightest = float(flux.max()), ranges.get(f"peak_{survey}", (0.0, 0.0))[1]
    if peak > 0 and brightest > 0:
        distances.append(math.log(peak / brightest))
    return max(distances)


def _flags(observation, target):
    """True where the nearest pixel of the image, or one within two pixels of it, is not valid."""
    from scipy.ndimage import binary_dilation

    flags = np.zeros((len(observation.data), *target.shape), bool)
    if observation.valid.all():
        return flags
    y, x = np.indices(target.shape)
    at = (np.floor(np.asarray(p) + 0.5).astype(int) for p in target.to_input(x, y))
    column, row = (np.clip(p, 0, n - 1) for p, n in zip(at, observation.shape[:0:-1], strict=True))
    for plane, valid in zip(flags, observation.valid, strict=True):
        plane[...] = binary_dilation(~valid, iterations=2)[row, column]
    return flags
