"""The backend keeps astrogan's contract, and denoises. Skipped where deepinv is not installed."""

import numpy as np
import pytest
from astropy.nddata import CCDData, StdDevUncertainty

pytest.importorskip("deepinv")

from astrogan_deepinv.denoiser import DeepinvDenoiser
from astrogan_deepinv.plugin import SPEC

from astrogan import Restorer
from astrogan.exceptions import InputError
from astrogan.testing import check_backend

pytestmark = pytest.mark.filterwarnings("ignore::astrogan.exceptions.UncertaintyWarning")


def galaxy(noise=1.0, factor=1.0):
    y, x = np.mgrid[:48, :52]
    truth = 40 * np.exp(-np.hypot(y - 24, (x - 25) / 0.8) / 5)
    data = truth + noise * np.random.default_rng(1).normal(size=truth.shape)
    sigma = StdDevUncertainty(np.full(truth.shape, factor * noise))
    return factor * truth, CCDData(factor * data, unit="adu", uncertainty=sigma)


@pytest.mark.parametrize("options", [{}, {"strength": 0.5, "options": {"n_it_max": 50}}])
def test_contract(options):
    check_backend(SPEC, options={"options": {"n_it_max": 100}} | options)


def test_contract_with_a_network():
    models = pytest.importorskip("deepinv.models")
    network = models.DRUNet(in_channels=1, out_channels=1, nc=(8, 8, 8, 8), nb=1, pretrained=None)
    # What a network makes of empty sky depends on its training, and this one has none.
    check_backend(SPEC, options={"model": network}, skip=("zero_image",))


@pytest.mark.parametrize(("model", "strength"), [("TVDenoiser", 1.0), ("TGVDenoiser", 3.0), ("WaveletDenoiser", 1.5)])
def test_noise_goes_and_flux_stays(model, strength):
    if model == "WaveletDenoiser":
        pytest.importorskip("ptwt")
    truth, image = galaxy()
    restored = Restorer("deepinv-denoiser", model=model, strength=strength)(image)
    assert np.std(restored.data - truth) < 0.6 * np.std(image.data - truth)
    assert restored.data.sum() == pytest.approx(image.data.sum(), rel=0.02)
    assert restored.uncertainty is None
    assert restored.meta["AGBACK"] == "astrogan-deepinv:deepinv-denoiser"


def test_unit_of_flux_does_not_matter():
    one, other = (Restorer("deepinv-denoiser")(galaxy(factor=f)[1]).data for f in (1.0, 1e-6))
    np.testing.assert_allclose(other * 1e6, one, atol=1e-4)


def test_order_of_images_does_not_matter():
    backend = DeepinvDenoiser()
    first, second = galaxy()[1], galaxy(noise=3.0)[1]
    alone = Restorer(backend)(first).data
    Restorer(backend)(second)
    np.testing.assert_array_equal(Restorer(backend)(first).data, alone)


def test_weights_are_read_and_nothing_is_downloaded(tmp_path):
    models = pytest.importorskip("deepinv.models")
    from safetensors.torch import save_file

    options = {"nc": (8, 8, 8, 8), "nb": 1}
    network = models.DRUNet(in_channels=1, out_channels=1, pretrained=None, **options).eval()
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "net.safetensors")
    image = galaxy()[1]
    by_name = Restorer("deepinv-denoiser", model="DRUNet", weights=tmp_path / "net.safetensors", options=options)
    np.testing.assert_array_equal(by_name(image).data, Restorer(DeepinvDenoiser(network))(image).data)
    with pytest.raises(InputError, match="nothing is downloaded"):
        DeepinvDenoiser("DRUNet")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "Magic"}, "no denoiser"),
        ({"model": "Client"}, "no denoiser"),
        ({"strength": 0}, "strength=0"),
        ({"peak": np.inf}, "peak=inf"),
        ({"options": {"iterations": 3}}, "names iterations"),
    ],
)
def test_arguments_are_checked(options, message):
    with pytest.raises(InputError, match=message):
        DeepinvDenoiser(**options)
