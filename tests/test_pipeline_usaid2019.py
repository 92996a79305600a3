"""The pipeline of Usaid et al. (2019) from two pictures to the figure."""

import numpy as np
import pytest
import torch
from astropy.table import Table

from astrogan import demo_usaid2019, read_image
from astrogan.demo_usaid2019 import run_pipeline
from astrogan.exceptions import ImageReadError, ImageWriteError, InputError, MissingDependencyError
from astrogan.nn.dcgan import CompletionGAN
from astrogan.simulate.paper_blends import paper_blend
from astrogan.weights import save_weights

STEPS = ("preblended_1", "preblended_2", "blended", "segmented_1", "segmented_2", "deblended_1", "deblended_2")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, encoder in (("small", 8), ("published", 0)):
            gan = CompletionGAN(width=8, latent=10, encoder=encoder)
            card = {"name": name, "backend": "usaid2019", "role": "deblender", "architecture": gan.architecture}
            save_weights(folder / f"{name}.safetensors", gan.state_dict(), card)
    return folder


def galaxy(size=100, colour=(0.9, 0.6, 0.3), width=9.0):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.multiply.outer(colour, np.exp(-0.5 * (x**2 + y**2) / width**2)).astype(np.float32)


def test_two_simulated_galaxies_go_all_the_way(weights, tmp_path):
    said = []
    result = run_pipeline(out=tmp_path / "run", weights=weights / "small.safetensors", progress=said.append)
    assert tuple(result.images) == STEPS
    assert [path.name for path in result.files] == [f"{s}.fits" for s in STEPS] + ["usaid2019.ecsv", "usaid2019.png"]
    for step in STEPS:
        kept = read_image(tmp_path / "run" / f"{step}.fits")
        np.testing.assert_array_equal(kept.data, result.images[step])
        assert kept.meta["AGLINEAR"] is False
    assert result.images["blended"].shape == (3, 424, 424)
    assert result.images["deblended_2"].shape == (3, 64, 64)
    assert result.figure.read_bytes().startswith(b"\x89PNG")
    assert len(said) == 4
    table = Table.read(tmp_path / "run" / "usaid2019.ecsv")
    assert list(table["galaxy"]) == [1] * 4 + [2] * 4
    assert list(table["method"][:4]) == ["segmented", "mean fill", "deblended", "deblended + known"]


def test_steps_are_those_of_the_paper(weights, tmp_path):
    first, second = galaxy(), np.moveaxis((255 * galaxy(colour=(0.3, 0.5, 0.8))).astype(np.uint8), 0, -1)
    result = run_pipeline(
        first, second, tmp_path, shift=14, noise=0.0, rule="maximum", weights=weights / "small.safetensors"
    )
    images = result.images
    second = np.moveaxis(second, -1, 0) / np.float32(255)
    np.testing.assert_allclose(images["blended"], paper_blend(first, second, shift=14, rule="maximum"))
    # The segments share the blend out, whole.
    np.testing.assert_allclose(images["segmented_1"] + images["segmented_2"], images["blended"])
    assert images["segmented_2"][2].argmax() % 100 == pytest.approx(63.5, abs=1)
    rows = {(row["galaxy"], row["method"]): row for row in result.table}
    # Without noise, what is known is right, but for pixels of which a part is hidden.
    assert rows[1, "segmented"]["psnr"] > rows[1, "segmented"]["psnr_hidden"]
    assert rows[2, "deblended + known"]["psnr"] > rows[2, "deblended"]["psnr"]


def test_the_same_seed_gives_the_same_files_and_pictures_are_not_changed(weights, tmp_path):
    first, second = galaxy(), galaxy(width=6.0)
    copies = first.copy(), second.copy()
    options = {"weights": weights / "published.safetensors", "completion": "inversion", "steps": 2, "shift": 10}
    runs = [run_pipeline(first, second, tmp_path / str(k), seed=seed, **options) for k, seed in enumerate((1, 1, 2))]
    for one, other in zip(runs[0].files, runs[1].files, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert not np.array_equal(runs[0].images["segmented_1"], runs[2].images["segmented_1"])
    np.testing.assert_array_equal(first, copies[0])
    np.testing.assert_array_equal(second, copies[1])


def test_pictures_and_fits_files_are_read(weights, tmp_path):
    from astropy.io import fits
    from PIL import Image

    levels = (255 * galaxy(120)).astype(np.uint8)
    Image.fromarray(np.moveaxis(levels, 0, -1)).save(tmp_path / "one.png")
    noise = np.random.default_rng(0).normal(0, 0.5, (3, 90, 90))
    fits.writeto(tmp_path / "two.fits", (100 * galaxy(90) + noise).astype(np.float32))
    result = run_pipeline(
        tmp_path / "one.png", tmp_path / "two.fits", tmp_path / "out", shift=9, weights=weights / "small.safetensors"
    )
    np.testing.assert_allclose(result.images["preblended_1"], levels[:, 15:105, 15:105] / np.float32(255), atol=1e-6)
    stretched = result.images["preblended_2"]
    assert 0.85 < stretched[0].max() < 0.95
    assert stretched[:, :10].max() < 0.1


def test_nothing_is_overwritten_unasked(weights, tmp_path):
    options = {"weights": weights / "small.safetensors", "shift": 9}
    run_pipeline(galaxy(), galaxy(), tmp_path, **options)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ImageWriteError, match="already holds preblended_1.fits"):
        run_pipeline(galaxy(width=3.0), galaxy(), tmp_path, **options)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    run_pipeline(galaxy(width=3.0), galaxy(), tmp_path, overwrite=True, **options)
    assert before["preblended_1.fits"] != (tmp_path / "preblended_1.fits").read_bytes()


def test_faults_are_named(weights, tmp_path):
    own = {"out": tmp_path / "out", "weights": weights / "small.safetensors"}
    with pytest.raises(InputError, match="go together"):
        run_pipeline(galaxy(), **own)
    with pytest.raises(InputError, match="completion='magic'"):
        run_pipeline(completion="magic", **own)
    with pytest.raises(InputError, match="seed=-1"):
        run_pipeline(seed=-1, **own)
    with pytest.raises(InputError, match="rule='sum'"):
        run_pipeline(galaxy(), galaxy(), rule="sum", **own)
    with pytest.raises(InputError, match=r"first has shape \(5, 5\)"):
        run_pipeline(np.zeros((5, 5)), galaxy(), **own)
    with pytest.raises(InputError, match="second has values"):
        run_pipeline(galaxy(), 3 * galaxy(), **own)
    with pytest.raises(InputError, match="at least 64"):
        run_pipeline(galaxy(40), galaxy(), **own)
    with pytest.raises(ImageReadError):
        run_pipeline(tmp_path / "none.png", galaxy(), **own)
    with pytest.raises(InputError, match="no encoder"):
        run_pipeline(galaxy(), galaxy(), tmp_path / "out", weights=weights / "published.safetensors")


def test_without_matplotlib_nothing_is_begun(weights, tmp_path, monkeypatch):
    import builtins

    found = builtins.__import__

    def blocked(name, *arguments, **options):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return found(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", blocked)
    with pytest.raises(MissingDependencyError, match=r"astrogan\[plot\]"):
        demo_usaid2019.run_pipeline(out=tmp_path / "out", weights=weights / "small.safetensors")
    assert not (tmp_path / "out").exists()
