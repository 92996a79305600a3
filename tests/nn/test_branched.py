"""The branched deblender's networks: their published size, two branches, and a loss against the textbook."""

import numpy as np
import pytest
import torch

from astrogan.exceptions import InputError
from astrogan.nn.branched import BranchedDiscriminator, BranchedGenerator, ms_ssim


def small(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return BranchedGenerator(**{"features": 8, "shared_blocks": 1, "branch_blocks": 1} | options)


def count(net):
    return sum(p.numel() for p in net.parameters())


def test_published_size_by_hand():
    conv3, norm = 64 * 64 * 9 + 64, 2 * 64
    block = 2 * (conv3 + norm) + 64
    stem, last = 81 * 3 * 64 + 64 + 64, 81 * 64 * 3 + 3
    net = BranchedGenerator()
    assert count(net) == stem + 10 * block + conv3 + norm + 2 * (6 * block + last)
    published = {"features": 64, "shared_blocks": 10, "branch_blocks": 6, "bands": 3}
    assert net.architecture == published | {"position": False, "dilation": 1}


def test_discriminator_by_hand():
    widths = (64, 64, 128, 128, 256, 256, 512, 512)
    convs = sum(9 * a * b + b for a, b in zip((3, *widths), widths, strict=False))
    assert count(BranchedDiscriminator()) == convs + 2 * sum(widths[1:]) + (5 * 5 * 512 + 1) * 1024 + 1025


def test_any_even_or_odd_size_and_range():
    images = torch.linspace(-1, 1, 2 * 3 * 41 * 30).reshape(2, 3, 41, 30)
    for image in small()(images):
        assert image.shape == images.shape
        assert image.abs().max() < 1


def test_branches_differ_and_have_their_own_weights():
    net = small().eval()
    images = torch.linspace(-1, 1, 3 * 80 * 80).reshape(1, 3, 80, 80)
    first, second = net(images)
    assert not torch.allclose(first, second, atol=1e-3)
    first.sum().backward()
    assert all(p.grad is not None for p in net.branches[0].parameters())
    assert all(p.grad is None for p in net.branches[1].parameters())
    assert net.stem[0].weight.grad.abs().sum() > 0


def test_evaluation_does_not_depend_on_the_rest_of_the_batch():
    net = small().eval()
    images = torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)
    torch.testing.assert_close(net(images)[0][:1], net(images[:1])[0], atol=1e-5, rtol=0)


def reach(net, size=41):
    """How far from the middle an input pixel still changes the middle of the output."""
    images = torch.zeros(1, 3, size, size, requires_grad=True)
    net.eval()(images)[0][0, :, size // 2, size // 2].sum().backward()
    rows = images.grad.abs().sum((0, 1, 3)).nonzero()
    return size // 2 - int(rows.min())


def test_how_far_it_sees():
    assert reach(small()) == 4 + 2 + 1 + 2 + 4
    assert reach(small(dilation=2)) == 4 + 4 + 1 + 2 + 4
    assert reach(small(shared_blocks=2, branch_blocks=0)) == 4 + 4 + 1 + 4


def test_only_position_tells_the_middle_from_other_places():
    images = torch.zeros(1, 3, 61, 61)
    for position in (False, True):
        first = small(position=position).eval()(images)[0][0, 0]
        assert torch.allclose(first[30, 30], first[30, 36], atol=1e-6) != position


def test_architecture_builds_the_network_again():
    net = small(bands=2, position=True, dilation=2)
    again = BranchedGenerator(**net.architecture)
    again.load_state_dict(net.state_dict())
    images = torch.zeros(1, 2, 16, 16)
    assert torch.equal(net.eval()(images)[0], again.eval()(images)[0])


def test_discriminator_judges_other_sizes():
    assert BranchedDiscriminator(width=2, size=33)(torch.zeros(3, 3, 33, 33)).shape == (3, 1)


def test_ms_ssim_of_one_scale_is_skimages_ssim(rng):
    from skimage.metrics import structural_similarity

    one = rng.random((24, 30))
    other = one + rng.normal(0, 0.1, one.shape)
    _, full = structural_similarity(
        one, other, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    images = [torch.from_numpy(image)[None, None] for image in (other, one)]
    assert float(ms_ssim(*images, scales=1)) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-5)


def test_ms_ssim_is_lower_for_worse_images_and_knows_the_range(rng):
    image = torch.from_numpy(rng.random((2, 3, 80, 80)))
    noise = torch.from_numpy(rng.normal(0, 1, image.shape))
    scores = [float(ms_ssim(image + s * noise, image)) for s in (0.0, 0.02, 0.1, 0.5)]
    assert scores[0] == pytest.approx(1)
    assert np.all(np.diff(scores) < -0.001)
    doubled = float(ms_ssim(2 * (image + 0.1 * noise), 2 * image, data_range=2.0))
    assert doubled == pytest.approx(scores[2], abs=1e-9)


def test_ms_ssim_has_a_gradient_where_images_are_opposite():
    image = torch.linspace(0, 1, 48 * 48, dtype=torch.float64).reshape(1, 1, 48, 48)
    other = (1 - image).requires_grad_()
    ms_ssim(other, image).backward()
    assert torch.isfinite(other.grad).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BranchedGenerator(features=0), "features=0"),
        (lambda: BranchedGenerator(shared_blocks=-1), "shared_blocks=-1"),
        (lambda: BranchedGenerator(branch_blocks=1.5), "branch_blocks=1.5"),
        (lambda: BranchedGenerator(dilation=0), "dilation=0"),
        (lambda: BranchedGenerator(position=1), "position=1"),
        (lambda: BranchedDiscriminator(width=True), "width=True"),
        (lambda: ms_ssim(torch.zeros(1, 1, 40, 80), torch.zeros(1, 1, 40, 80)), "3 scales need 44 pixels"),
        (lambda: ms_ssim(torch.zeros(1, 1, 40, 80), torch.zeros(1, 1, 40, 80), scales=6), "scales=6"),
    ],
)
def test_what_cannot_be_is_named(make, message):
    with pytest.raises(InputError, match=message):
        make()
