"""The deblending network: shares, symmetries, locality."""

import pytest
import torch

from astrogan.nn.naf import NAFBlock, naf_blocks, padded, u_shaped
from astrogan.nn.ratio_net import PLANES, RatioUNet, combined, distance_to_others, source_planes


def network(seed=0, trained=True):
    torch.manual_seed(seed)
    net = RatioUNet(stem=8, widths=(8, 12), blocks=(1, 1, 1))
    if trained:  # as after training: the layers that begin at zero are not
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def scene(sources=3, bands=2, height=20, width=26, seed=1):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.rand(sources, 2, generator=generator) * torch.tensor([width - 1.0, height - 1.0])
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    far = (x - positions[:, 0, None, None]) ** 2 + (y - positions[:, 1, None, None]) ** 2
    models = (
        50
        * torch.exp(-far / 12)[:, None].expand(-1, bands, -1, -1)
        * torch.rand(sources, bands, 1, 1, generator=generator)
    )
    image = models.sum(0) + torch.randn(bands, height, width, generator=generator)
    return image, models, positions


def planes_of(image, models, positions):
    others = distance_to_others(positions, *image.shape[-2:])
    ones = torch.ones_like(image)[None]
    fwhm = torch.full((1, len(image)), 3.0)
    return source_planes(image[None], ones, models, models.sum(0)[None], positions, others, ones, fwhm)


def shares(net, image, models, positions):
    with torch.no_grad():
        return net(planes_of(image, models, positions), models, torch.ones(len(models)))


def test_before_training_the_shares_are_those_of_the_models():
    image, models, positions = scene()
    ratio, template, _ = shares(network(trained=False), image, models, positions)
    expected = (models + 1e-5) / (models + 1e-5).sum(0)
    assert torch.allclose(ratio, expected, atol=1e-5)
    assert torch.allclose(template.sum(0), models.sum(0), atol=1e-3)


def test_shares_sum_to_one_and_templates_are_not_negative():
    image, models, positions = scene()
    ratio, template, spread = shares(network(), image, models, positions)
    assert torch.allclose(ratio.sum(0), torch.ones_like(image), atol=1e-5)
    assert (template >= 0).all()
    assert (spread >= 0).all()
    assert (spread > 0).any()
    assert not torch.allclose(ratio, (models + 1e-3) / (models + 1e-3).sum(0), atol=1e-2)


def test_the_order_of_sources_and_of_bands_does_not_matter():
    image, models, positions = scene(sources=4, bands=3)
    ratio, template, _ = shares(network(), image, models, positions)
    order = [2, 0, 3, 1]
    again, _, _ = shares(network(), image, models[order], positions[order])
    assert torch.allclose(again, ratio[order], atol=1e-5)
    swapped = [1, 2, 0]
    bands, other, _ = shares(network(), image[swapped], models[:, swapped], positions)
    assert torch.allclose(bands, ratio[:, swapped], atol=1e-5)
    assert torch.allclose(other, template[:, swapped], atol=1e-3)


def test_a_batch_is_its_images_one_by_one_and_an_absent_source_gets_nothing():
    one, other = scene(seed=1), scene(seed=2)
    net = network()
    planes = torch.stack([planes_of(*one), planes_of(*other)])
    models = torch.stack([one[1], other[1]])
    with torch.no_grad():
        ratio, _, _ = net(planes, models, torch.ones(2, 3))
        alone, _, _ = net(planes, models, torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]]))
    assert torch.allclose(ratio[1], shares(net, *other)[0], atol=1e-5)
    assert alone[0, 2].max() == 0
    assert torch.allclose(alone[0].sum(0), torch.ones_like(alone[0, 0]), atol=1e-5)


def test_corrections_of_a_source_do_not_need_the_others_beside_it():
    image, models, positions = scene()
    net = network()
    planes = planes_of(image, models, positions)
    with torch.no_grad():
        together = net.corrections(planes)
        apart = [net.corrections(planes[i : i + 1]) for i in range(3)]
    for i in range(3):
        for whole, part in zip(together, apart[i], strict=True):
            assert torch.allclose(whole[i], part[0], atol=1e-5)
    ratio, _, _ = combined(models, *together)
    assert torch.allclose(ratio, net(planes, models, torch.ones(3))[0])


def test_planes_are_finite_and_the_image_is_turned_about_the_source():
    image = torch.zeros(1, 9, 9)
    image[0, 2, 3] = 5.0
    models = torch.zeros(1, 1, 9, 9)
    positions = torch.tensor([[4.0, 4.0]])
    planes = planes_of(image, models, positions)
    assert planes.shape == (1, 1, PLANES, 9, 9)
    assert torch.isfinite(planes).all()
    turned = planes[0, 0, 6]
    assert turned[6, 5] > 0
    assert (turned != 0).sum() == 1
    # what has its partner beyond the edge stays as it is
    corner = planes_of(image, models, torch.tensor([[1.0, 0.5]]))[0, 0, 6]
    assert corner[2, 3] > 0


def test_a_source_lost_in_the_noise_of_a_band_keeps_its_share_there():
    _, models, _ = scene(sources=2, bands=2)
    models[0, 1] *= 1e-3 / models[0, 1].max()
    generator = torch.Generator().manual_seed(4)
    logit, other = (3 * torch.randn(models.shape, generator=generator) for _ in range(2))
    nothing = torch.zeros_like(models)
    ratio, again, before = (combined(models, value, nothing, nothing)[0] for value in (logit, other, nothing))
    # as bright as the other source in the first band, a thousandth of the noise in the second
    assert (ratio[0, 0] - before[0, 0]).abs().max() > 0.1
    lit = models[1, 1] > models[0, 1]
    assert (ratio[0, 1] - before[0, 1])[lit].abs().max() < 1e-3
    assert not torch.allclose(ratio[0, 0], again[0, 0], atol=1e-2)


def test_what_all_sources_have_in_common_changes_nothing():
    _, models, _ = scene()
    logit = torch.randn(models.shape, generator=torch.Generator().manual_seed(1))
    nothing = torch.zeros_like(models)
    one, other = (combined(models, value, nothing, nothing)[0] for value in (logit, logit + 5))
    assert torch.allclose(one, other, atol=1e-5)


def test_masked_pixels_are_not_looked_at():
    image, models, positions = scene(bands=1)
    others, ones = distance_to_others(positions, 20, 26), torch.ones(1, 1, 20, 26)
    valid = ones.clone()
    valid[..., 5:8, 9:12] = 0
    changed = image.clone()
    changed[:, 5:8, 9:12] = 1e4
    fwhm, total = torch.full((1, 1), 3.0), models.sum(0)[None]
    a, b = (source_planes(i[None], ones, models, total, positions, others, valid, fwhm) for i in (image, changed))
    assert torch.equal(a, b)


def test_distance_to_the_nearest_other_source():
    far = distance_to_others(torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 3.0]]), 4, 5)
    assert far[0, 0, 0] == 3
    assert far[1, 0, 4] == 4
    assert far[2, 0, 0] == 0
    assert (distance_to_others(torch.tensor([[1.0, 1.0]]), 4, 5) > 100).all()


def test_architecture_rebuilds_the_network():
    net = network()
    again = RatioUNet(**net.architecture)
    again.load_state_dict(net.state_dict())
    image, models, positions = scene()
    assert torch.equal(shares(again.eval(), image, models, positions)[0], shares(net, image, models, positions)[0])
    with pytest.raises(ValueError, match="blocks"):
        RatioUNet(widths=(8, 8), blocks=(1, 1))


def test_blocks_keep_the_shape():
    x = torch.rand(1, 4, 6, 8)
    assert naf_blocks(4, 2)(x).shape == x.shape
    assert torch.equal(NAFBlock(4)(x), x)  # a new block's weights of both branches are zero
    assert padded(x, 4).shape == (1, 4, 8, 8)
    assert torch.equal(padded(x, 4)[..., :6, :], x)
    assert torch.equal(padded(x, 4)[..., 6, :], x[..., 5, :])
    down = torch.nn.ModuleList([naf_blocks(4, 1), naf_blocks(6, 1)])
    out = u_shaped(x, down, [torch.nn.Conv2d(4, 6, 2, 2)], [torch.nn.Conv2d(6, 16, 1)], [naf_blocks(4, 1)])
    assert out.shape == x.shape
