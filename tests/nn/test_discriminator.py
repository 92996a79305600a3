"""The patch discriminator with spectral normalisation."""

import torch

from astrogan.nn.discriminator import SpectralPatchGAN


def discriminator(bands=2, width=4):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SpectralPatchGAN(bands, width)


def test_a_score_sees_70_pixels():
    net = discriminator(bands=1).eval()
    image = torch.randn(1, 1, 128, 128, generator=torch.Generator().manual_seed(1), requires_grad=True)
    scores = net(image)
    middle = scores.shape[-1] // 2
    scores[0, 0, middle, middle].backward()
    seen = image.grad[0, 0].abs() > 0
    assert (int(seen.any(0).sum()), int(seen.any(1).sum())) == (70, 70)


def test_layers_have_a_norm_of_one():
    net = discriminator()
    for _ in range(100):  # each call in training mode is a step of the power iteration
        net(torch.zeros(1, 2, 64, 64))
    for layer in net.layers:
        if hasattr(layer, "weight"):
            norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
            assert abs(float(norm) - 1) < 0.02


def test_scores_do_not_change_the_network_in_evaluation_mode():
    net = discriminator().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    image = torch.ones(1, 2, 64, 64)
    assert torch.equal(net(image), net(image))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_it_learns_to_tell():
    net = discriminator(bands=1)
    optimiser = torch.optim.Adam(net.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(2)

    def gap():
        smooth = torch.zeros(4, 1, 48, 48) + torch.rand(4, 1, 1, 1, generator=generator)
        rough = torch.randn(4, 1, 48, 48, generator=generator)
        return net(rough).mean() - net(smooth).mean()

    before = float(gap().detach())
    for _ in range(15):
        optimiser.zero_grad()
        (-gap()).backward()
        optimiser.step()
    assert float(gap().detach()) > before + 0.2
