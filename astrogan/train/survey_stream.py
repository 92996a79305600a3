"""Stamps of galaxies as two surveys see them, paired and not, for training translators."""

from __future__ import annotations

import numpy as np

from astrogan.backends.classic.psf_matching import psf_on_input
from astrogan.exceptions import InputError
from astrogan.simulate.surveys import get_survey

__all__ = ["SurveyStream"]

_SEEDS = {"train": 0, "validation": 1_000_003, "test": 2_000_003}
_KINDS = ("pair", "first", "second")
_PSF_HALF = 30


class SurveyStream:
    """Batches of simulated stamps of two surveys; a pure function of (seed, step).

    As in Lin et al. (2021) there are few galaxies that both surveys saw and many that only one did, and each stamp has
    one realisation of its noise for ever. Stamps are drawn when they are first needed
    (`astrogan.simulate.surveys.simulate_pair`) and kept in memory in half precision.

    Parameters
    ----------
    source : None
        Everything is simulated.
    recipe : `~astrogan.train.recipe.Recipe`
        Of its ``[degradation]``: ``pairs`` and ``unpaired``, how many galaxies both surveys and each of them saw;
        ``surveys``, two names; ``bands``; ``shapes``, (y, x) of each survey's stamps; all else is for
        `~astrogan.simulate.surveys.simulate_pair`.
    part : {'train', 'validation', 'test'}
        Parts share no galaxy. Only training is augmented.

    Raises
    ------
    InputError
        If a setting is out of range.
    """

    source = None

    def __init__(self, source, recipe, part):
        settings = dict(recipe.degradation)
        self.pairs = int(settings.pop("pairs", 400))
        self.unpaired = int(settings.pop("unpaired", 1200))
        self.surveys = tuple(settings.pop("surveys", ("sdss", "cfhtls")))
        self.bands = tuple(settings.pop("bands", "ugriz"))
        self.shapes = tuple(tuple(shape) for shape in settings.pop("shapes", ((64, 64), (136, 136))))
        self.settings, self.number = settings, recipe.batch
        if part != "train":
            self.pairs = self.unpaired = recipe.validation_images
        if self.pairs < 1 or self.unpaired < 1 or len(self.surveys) != 2 or len(self.shapes) != 2:
            raise InputError(
                f"recipe [degradation] pairs={self.pairs}, unpaired={self.unpaired}, surveys={self.surveys}, "
                f"shapes={self.shapes}: numbers must be positive, and surveys and shapes two"
            )
        self.numbers = [get_survey(survey) for survey in self.surveys]
        self.scales = tuple(survey.pixel_scale for survey in self.numbers)
        self.augment = part == "train"
        self.seed = recipe.seed + _SEEDS[part]
        self._kept = {}
        self._about = {"scales": np.array(self.scales, np.float32)}
        for name, survey, kernel in zip("xy", self.numbers, self._noise_kernels(), strict=True):
            slope = [1 / survey[band].electrons_per_nanomaggy for band in self.bands]
            self._about |= {f"{name}_kernel": kernel, f"{name}_slope": np.array(slope, np.float32)}

    def describe(self):
        """What a model card says of the data."""
        return {
            "kind": "surveys",
            "origin": "galaxies drawn by astrogan.simulate.surveys (GalSim; surveycodex's numbers of the surveys)",
            "licence": "BSD-3-Clause",
            "surveys": list(self.surveys),
            "pairs": self.pairs,
            "unpaired": self.unpaired,
        }

    def batch(self, step):
        """Batch ``step``.

        Returns
        -------
        dict of `numpy.ndarray`
            float32, fluxes in nanomaggies: ``x`` and ``y``, the same galaxies as the first and the second survey see
            them; ``u`` and ``v``, others that only the first, and only the second, saw; each (n, band, y, x). With each
            of the four, say ``x``, come ``x_at`` (n, 2), the place (y, x) of the galaxy from the stamp's centre in
            pixels, ``x_sigma`` (n, band), the noise of its sky, ``x_fwhm`` (n, band) in arcsec,
            ``x_psf`` (n, band, k, k), on the pixels of the survey with the smaller ones, and, for judging only,
            ``x_truth``, free of noise. Of the surveys there are ``scales`` (2,), arcsec per pixel; ``x_kernel`` and
            ``y_kernel`` (band, 7, 7), which correlate white noise as theirs is; and ``x_slope`` and ``y_slope``
            (band,), the variance of photon noise per flux.
        """
        rng = np.random.default_rng((self.seed, 7, step))
        batch = {}
        for kind, names in (("pair", ("x", "y")), ("first", ("u",)), ("second", ("v",))):
            numbers = self._numbers(kind, step)
            turns = rng.integers(0, 8 if self.augment else 1, len(numbers))
            stamps = [self._stamps(kind, number) for number in numbers]
            for place, name in enumerate(names):
                for key in ("", "_sigma", "_psf", "_fwhm", "_truth", "_at"):
                    turned = _turned_place if key == "_at" else _turned
                    values = [turned(s[place][key], turn) for s, turn in zip(stamps, turns, strict=True)]
                    batch[name + key] = np.stack(values).astype(np.float32)
        return batch | self._about

    def _numbers(self, kind, step):
        """Which galaxies a step takes: all of them before any comes again, each round in another order."""
        count = self.pairs if kind == "pair" else self.unpaired
        at = step * self.number + np.arange(self.number)
        order = {r: np.random.default_rng((self.seed, 3, _KINDS.index(kind), r)) for r in set(at // count)}
        order = {r: generator.permutation(count) for r, generator in order.items()}
        return [int(order[a // count][a % count]) for a in at]

    def _stamps(self, kind, number):
        key = kind, number
        if key not in self._kept:
            self._kept[key] = [_kept(stamp, min(self.scales)) for stamp in self._drawn(kind, number)]
        return self._kept[key]

    def _drawn(self, kind, number):
        from astrogan.simulate.surveys import simulate_pair, simulate_stamp

        # Seeds of the kinds and parts never meet: no galaxy is in two of them.
        seed = (self.seed * len(_KINDS) + _KINDS.index(kind)) * 10_000_000 + number
        options = {"bands": self.bands} | self.settings
        if kind == "pair":
            pair = simulate_pair(seed, *self.surveys, shapes=self.shapes, **options)
            return pair.first, pair.second
        place = _KINDS.index(kind) - 1
        return (simulate_stamp(seed, self.surveys[place], shape=self.shapes[place], **options),)

    def _noise_kernels(self, stamps=24):
        """Of both surveys, in closed form from the sky of stamps that are not paired."""
        from astrogan.backends.classic.correlated_noise import CorrelatedNoise

        kernels = []
        for kind in _KINDS[1:]:
            drawn = [self._stamps(kind, number)[0] for number in range(stamps)]
            images = np.stack([stamp[""] / stamp["_sigma"][:, None, None] for stamp in drawn]).astype(np.float64)
            fitted = CorrelatedNoise.fit(images, _sources(images))
            kernels.append(np.asarray(fitted.kernel, np.float32))
        return kernels


def _kept(stamp, scale):
    """What is kept of a stamp: thousands of images fit in a gigabyte."""
    ratio = stamp.pixel_scale / scale
    psf = np.stack([_sized(psf_on_input(band, np.eye(2) * ratio)) for band in stamp.psf])
    return {
        "": stamp.data.astype(np.float16),
        "_truth": stamp.truth.astype(np.float16),
        "_sigma": np.asarray(stamp.sigma, np.float32),
        "_psf": psf.astype(np.float32),
        "_fwhm": np.asarray(stamp.fwhm, np.float32),
        "_at": (stamp.wcs.wcs.crpix - (np.array(stamp.data.shape[:0:-1]) + 1) / 2)[::-1].astype(np.float32),
    }


def _sized(psf):
    """A PSF cut or padded to one size for all."""
    half = len(psf) // 2
    if half > _PSF_HALF:
        psf = psf[half - _PSF_HALF : half + _PSF_HALF + 1, half - _PSF_HALF : half + _PSF_HALF + 1]
        return psf / psf.sum()
    return np.pad(psf, _PSF_HALF - half)


def _turned(values, turn):
    """One of the eight turned and mirrored images; numbers by band stay."""
    if values.ndim == 1 or turn == 0:
        return values
    values = np.rot90(values, turn % 4, axes=(-2, -1))
    return values[..., ::-1] if turn >= 4 else values


def _turned_place(place, turn):
    """Where a place (y, x) from the centre goes in `_turned`."""
    y, x = place
    for _ in range(turn % 4):
        y, x = -x, y
    return np.array([y, -x if turn >= 4 else x])


def _sources(images):
    """Where sources are, in units of the noise: smoothed pixels far above it in any band, grown."""
    from scipy.ndimage import binary_dilation, gaussian_filter

    smooth = gaussian_filter(images, (0, 0, 2, 2)) * np.sqrt(4 * np.pi) * 2
    # Eight sigma of white noise, four of noise that resampling has correlated.
    bright = (smooth > 8).any(axis=1, keepdims=True)
    grown = binary_dilation(bright, np.ones((1, 1, 9, 9), bool))
    return np.broadcast_to(grown, images.shape)
