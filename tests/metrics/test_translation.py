"""Metrics of translation, where the right answer is known."""

import numpy as np
import pytest
from scipy import stats
from scipy.ndimage import convolve

from astrogan.exceptions import InputError
from astrogan.metrics import (
    NoiseStatistics,
    chi2_coverage,
    compare_fourier_maps,
    compare_noise,
    energy_score,
    flux_distribution_error,
    magnitude_difference,
    noise_autocorrelation,
    noise_statistics,
    power_spectrum_2d,
    radial_flux_fractions,
    radial_wasserstein,
    ring_weights,
    stacked_fourier_map,
    variance_slope,
)


def gaussian(sigma, centre=(30.3, 29.6), size=61):
    y, x = np.mgrid[:size, :size]
    return np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))


class TestLight:
    @pytest.mark.parametrize(("radius", "tolerance"), [(1.0, 0.03), (2.0, 0.005), (7.3, 0.001)])
    def test_ring_areas(self, radius, tolerance, rng):
        for centre in rng.uniform(19.5, 20.5, (10, 2)):
            area = ring_weights((41, 41), centre, [0, radius]).sum()
            assert area == pytest.approx(np.pi * radius**2, rel=tolerance)

    def test_rings_fill_the_circle_and_no_more(self):
        parts = ring_weights((41, 41), (20.2, 19.7), [0, 1.5, 4, 9])
        assert parts.min() >= 0
        assert parts.sum(axis=0).max() <= 1
        assert parts.sum(axis=0) == pytest.approx(ring_weights((41, 41), (20.2, 19.7), [0, 9])[0])

    def test_fractions_of_a_gaussian(self):
        edges = np.array([0, 3, 6, 9, 20.0])
        inside = 1 - np.exp(-(edges**2) / (2 * 16))
        found = radial_flux_fractions(gaussian(4), (30.3, 29.6), edges)
        assert found == pytest.approx(np.diff(inside) / inside[-1], abs=2e-3)

    def test_error_and_distance_of_two_gaussians(self):
        edges = np.arange(0, 25, 1.0)
        a, b = gaussian(3), gaussian(4)
        error = flux_distribution_error(a, 7 * b, (30.3, 29.6), edges)
        f, g = (radial_flux_fractions(i, (30.3, 29.6), edges) for i in (a, b))
        assert error == pytest.approx(np.abs(f - g).mean())
        # A Gaussian's mean radius is sigma sqrt(pi / 2), and a wider one is farther out everywhere.
        assert radial_wasserstein(f, g, edges) == pytest.approx(np.sqrt(np.pi / 2), rel=0.02)

    def test_distance_agrees_with_scipy(self, rng):
        f, g = rng.dirichlet(np.ones(8), 2)
        edges = np.array([0, 0.5, 1, 2, 3, 5, 6, 8, 9])
        middle = (edges[1:] + edges[:-1]) / 2
        assert radial_wasserstein(f, g, edges) == pytest.approx(stats.wasserstein_distance(middle, middle, f, g))

    def test_no_light_is_nan(self):
        assert np.isnan(radial_flux_fractions(-gaussian(3), (30, 30), [0, 2, 4])).all()
        assert np.isnan(magnitude_difference(gaussian(3), -gaussian(3), (30, 30), 4))

    def test_masked_pixels_count_as_nothing(self):
        image, mask = gaussian(3), np.zeros((61, 61), bool)
        mask[10:14, 20:24] = True
        spoilt = np.where(mask, 1e6, image)
        assert magnitude_difference(image, spoilt, (30.3, 29.6), 25, mask=mask) == 0

    def test_bands_are_apart(self):
        cube = np.stack([gaussian(3), gaussian(5)])
        shift = magnitude_difference(cube, cube * [[[2.0]], [[0.5]]], (30.3, 29.6), 8)
        assert shift == pytest.approx([-2.5 * np.log10(2), 2.5 * np.log10(2)])

    def test_bad_arguments(self):
        with pytest.raises(InputError, match="edges="):
            ring_weights((9, 9), (4, 4), [0, 2, 1])
        with pytest.raises(InputError, match="position"):
            ring_weights((9, 9), [(4, 4), (5, 5)], [0, 2])
        with pytest.raises(InputError, match="edges has 3 values"):
            radial_wasserstein([1, 0], [0, 1, 0], [0, 1, 2])


class TestFourier:
    def test_stack_is_the_mean_of_single_spectra(self, rng):
        cubes = rng.normal(size=(3, 2, 16, 20))
        expected = np.mean([power_spectrum_2d(cube) for cube in cubes], axis=0)
        assert stacked_fourier_map(cubes) == pytest.approx(expected)

    def test_masked_pixels_do_not_matter(self, rng):
        images = rng.normal(size=(4, 16, 16))
        mask = np.zeros((16, 16), bool)
        mask[3:6, 4:9] = True
        spoilt = np.where(mask, np.nan, images)
        assert stacked_fourier_map(spoilt, mask=mask) == pytest.approx(stacked_fourier_map(images, mask=mask))

    def test_stripes_show_on_one_axis_only(self, rng):
        noise = rng.normal(size=(200, 32, 32))
        rows = noise + 0.5 * rng.normal(size=(200, 32, 1))  # constant along x: power at kx = 0
        found = compare_fourier_maps(stacked_fourier_map(noise, window=None), stacked_fourier_map(rows, window=None))
        assert found.axes[0] > 5
        assert found.axes[1] == pytest.approx(1, abs=0.05)
        assert np.isnan(found.log_ratio[16, 16])
        assert np.nanmean(np.abs(found.log_ratio), axis=0).argmax() == 16

    def test_same_maps_do_not_differ_and_factors_do(self, rng):
        power = stacked_fourier_map(rng.normal(size=(3, 2, 16, 16)))
        assert compare_fourier_maps(power, power).error == pytest.approx([0, 0])
        assert compare_fourier_maps(power, power / np.e).profile == pytest.approx(1)

    def test_bad_arguments(self):
        with pytest.raises(InputError, match="image has shape"):
            compare_fourier_maps(np.ones((4, 4)), np.ones((5, 5)))
        with pytest.raises(InputError, match="nowhere negative"):
            compare_fourier_maps(np.ones((4, 4)), -np.ones((4, 4)))
        with pytest.raises(InputError, match="images has shape"):
            stacked_fourier_map(np.ones((4, 4)))
        with pytest.raises(InputError, match="mask has shape"):
            stacked_fourier_map(np.ones((2, 4, 4)), mask=np.zeros((3, 3), bool))


def sets(rng, number=120, scatter=0.2, kernel=None, size=32):
    """Noise in three bands whose levels go together."""
    level = np.exp(scatter * (0.9 * rng.normal(size=(number, 1)) + 0.4 * rng.normal(size=(number, 3))))
    noise = rng.normal(size=(number, 3, size, size)) * level[:, :, None, None]
    return noise if kernel is None else convolve(noise, kernel[None, None], mode="wrap")


class TestNoise:
    def test_one_image_agrees_with_the_plain_metric(self, rng):
        image = convolve(rng.normal(size=(200, 200)), np.ones((2, 2)) / 2, mode="wrap")
        mask = np.zeros(image.shape, bool)
        mask[50:80, 60:120] = True
        found = noise_statistics(image[None], mask=mask)
        assert found.std[0, 0] == pytest.approx(image[~mask].std(ddof=1))
        assert found.autocorrelation[0, 0] == pytest.approx(noise_autocorrelation(image, mask=mask), abs=2e-3)

    def test_what_lies_on_sources_does_not_matter(self, rng):
        images = sets(rng, 4)
        mask = np.zeros((32, 32), bool)
        mask[8:20, 8:20] = True
        spoilt = np.where(mask, np.inf, images)
        for a, b in zip(*(vars(noise_statistics(i, mask=mask)).values() for i in (images, spoilt)), strict=True):
            assert np.array_equal(a, b, equal_nan=True)

    def test_equal_noise_is_as_near_as_two_samples_are(self, rng):
        found = compare_noise(*(noise_statistics(sets(rng)) for _ in range(2)))
        assert found.ks_std.max() < 1.95 * np.sqrt(2 / 120)  # the 0.1 % point
        assert np.abs(found.autocorrelation).max() < 0.02
        assert found.ks_pixels.max() < 0.03
        assert np.abs(found.correlation).max() < 0.01
        assert np.abs(found.amplitude_correlation).max() < 0.15

    def test_distances_agree_with_scipy(self, rng):
        a, b = (noise_statistics(sets(rng, 40, s)) for s in (0.2, 0.4))
        found = compare_noise(a, b)
        for band in range(3):
            first, second = a.std[:, band], b.std[:, band]
            assert found.ks_std[band] == pytest.approx(stats.ks_2samp(first, second).statistic)
            distance = stats.wasserstein_distance(first, second) / np.median(first)
            assert found.w1_std[band] == pytest.approx(distance)

    def test_each_difference_is_seen_where_it_belongs(self, rng):
        real = noise_statistics(sets(rng))
        kernel = np.array([[0, 0, 0], [0.3, 1, 0.3], [0, 0, 0]]) / np.sqrt(1.18)
        correlated = compare_noise(real, noise_statistics(sets(rng, kernel=kernel)))
        assert correlated.autocorrelation[:, 0] == pytest.approx(0.6 / 1.18, abs=0.02)
        assert np.abs(correlated.autocorrelation[:, 3]).max() < 0.02
        heavy = sets(rng) * 0 + rng.standard_t(3, (120, 3, 32, 32))
        assert compare_noise(real, noise_statistics(heavy)).ks_pixels.min() > 0.05
        shared = sets(rng)
        shared[:, 1] = shared[:, 0]
        assert compare_noise(real, noise_statistics(shared)).correlation[0, 1] == pytest.approx(1, abs=0.02)
        apart = rng.normal(size=(120, 3, 32, 32)) * np.exp(0.2 * rng.normal(size=(120, 3, 1, 1)))
        assert compare_noise(real, noise_statistics(apart)).amplitude_correlation[0, 1] < -0.5

    def test_joined_sets_are_one_set(self, rng):
        images = sets(rng, 6)
        whole = noise_statistics(images)
        parts = NoiseStatistics.joined([noise_statistics(images[:2]), noise_statistics(images[2:])])
        assert np.array_equal(whole.std, parts.std)
        assert np.array_equal(whole[1::2].pixels, parts[1::2].pixels)

    def test_image_without_sky_is_nan(self, rng):
        images, mask = sets(rng, 2), np.zeros((2, 3, 32, 32), bool)
        mask[0] = True
        found = noise_statistics(images, mask=mask)
        assert np.isnan(found.std[0]).all()
        assert np.isfinite(found.std[1]).all()

    def test_variance_that_grows_with_the_signal(self, rng):
        signal = rng.uniform(0, 50, 100_000)
        for slope in (0.0, 0.02, 0.3):
            residual = rng.normal(size=signal.size) * np.sqrt(1 + slope * signal)
            assert variance_slope(signal, residual, sigma=1.0) == pytest.approx(slope, abs=0.002 + 0.03 * slope)
        assert np.isnan(variance_slope(signal[:30], residual[:30], sigma=1.0))

    def test_bad_arguments(self, rng):
        with pytest.raises(InputError, match="lag"):
            noise_statistics(np.ones((2, 8, 8)), lags=[(0, 9)])
        with pytest.raises(InputError, match="stride=0"):
            noise_statistics(np.ones((2, 8, 8)), stride=0)
        with pytest.raises(InputError, match="band, lag"):
            compare_noise(noise_statistics(sets(rng, 3)), noise_statistics(sets(rng, 3)[:, :2]))
        with pytest.raises(InputError, match="residual has shape"):
            variance_slope(np.ones(3), np.ones(4), sigma=1)


class TestScatter:
    def test_energy_score_prefers_the_right_scatter(self, rng):
        truth = rng.normal(size=(40, 40))
        right, narrow, wide, off = (
            energy_score(rng.normal(size=(8, 40, 40)) * scale + shift, truth)
            for scale, shift in ((1, 0), (0.3, 0), (3, 0), (1, 1))
        )
        assert right < min(narrow, wide, off)
        assert right == pytest.approx(np.sqrt(2) / 2, abs=0.02)

    def test_coverage_of_wrong_variances(self, rng):
        image = rng.normal(size=(2, 150, 150)) * np.array([1.0, 2.0])[:, None, None]
        found = chi2_coverage(0 * image, image, np.ones(image.shape))
        assert found.chi2 == pytest.approx([1, 4], rel=0.05)
        assert found.within_1 == pytest.approx([0.683, 0.383], abs=0.01)
        assert found.within_2 == pytest.approx([0.954, 0.683], abs=0.01)

    def test_pixels_without_variance_are_left_out(self):
        variance = np.array([[1.0, 0.0], [1.0, 1.0]])
        assert chi2_coverage(np.zeros((2, 2)), np.array([[1.0, 99.0], [1.0, 1.0]]), variance).chi2 == 1

    def test_bad_arguments(self):
        with pytest.raises(InputError, match="samples has shape"):
            energy_score(np.ones((1, 4, 4)), np.ones((4, 4)))


def test_inputs_are_not_changed(rng):
    images = rng.normal(size=(3, 2, 16, 16))
    kept = images.copy()
    noise_statistics(images)
    stacked_fourier_map(images)
    radial_flux_fractions(images[0], (8, 8), [0, 2, 4])
    assert np.array_equal(images, kept)
