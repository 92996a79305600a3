"""The plugin that brings astrogan's own backends. Light: the classes are imported when they are used."""

from __future__ import annotations

from astrogan.api import BackendSpec, hookimpl

_CLASSIC = "astrogan.backends.classic"
_GAN = "astrogan.backends.gan"

# Their transforms are torch's. It is a core dependency; where it is missing all the same, the table says so.
_WITH_TORCH = (
    "blind_richardson_lucy",
    "richardson_lucy",
    "tikhonov",
    "tv",
    "unsupervised_wiener",
    "wavelet",
    "wiener",
)

_REQUIRES = {"galsim_noise": ("galsim",)}


def _spec(role, name, module, cls, summary, citation="", package=_CLASSIC):
    return BackendSpec(
        role=role,
        name=name,
        target=f"{package}.{module}:{cls}",
        summary=summary,
        citation=citation,
        requires=_REQUIRES.get(module, ("torch",) if module in _WITH_TORCH or package == _GAN else ()),
    )


@hookimpl
def astrogan_backends():
    """astrogan's own backends."""
    return [
        _spec(
            "restorer",
            "nafnet",
            "nafnet",
            "NAFNet",
            "the default: a small network that mixes Wiener estimates, any noise, PSF and bands; uncertainty",
            "Chen et al. 2022, ECCV, arXiv:2204.04676",
            package=_GAN,
        ),
        _spec(
            "restorer",
            "galaxygan2017",
            "galaxygan2017",
            "GalaxyGAN2017",
            "GalaxyGAN as published, for three-band stamps; train its weights first",
            "Schawinski et al. 2017, MNRAS 467, L110",
            package=_GAN,
        ),
        _spec("restorer", "identity", "identity", "Identity", "the image as it is: the baseline of every table"),
        _spec(
            "restorer",
            "gaussian",
            "gaussian",
            "Gaussian",
            "Gaussian smoothing, its width tuned on the data",
            "Stein 1981, Ann. Stat. 9, 1135",
        ),
        _spec(
            "restorer",
            "wiener",
            "wiener",
            "Wiener",
            "Wiener deconvolution, its balance tuned on the data",
            "Wiener 1949; Hunt 1973, IEEE Trans. Comput. C-22, 805",
        ),
        _spec(
            "restorer",
            "unsupervised-wiener",
            "unsupervised_wiener",
            "UnsupervisedWiener",
            "Wiener-Hunt deconvolution, hyperparameters sampled (scikit-image)",
            "Orieux et al. 2010, JOSA A 27, 1593",
        ),
        _spec(
            "restorer",
            "tikhonov",
            "tikhonov",
            "Tikhonov",
            "weighted least squares with a smoothness penalty",
            "Tikhonov & Arsenin 1977",
        ),
        _spec(
            "restorer",
            "tv",
            "tv",
            "TotalVariation",
            "weighted least squares with a total-variation penalty",
            "Rudin, Osher & Fatemi 1992, Physica D 60, 259",
        ),
        _spec(
            "restorer",
            "wavelet",
            "wavelet",
            "Wavelet",
            "starlet denoising, and deconvolution with a multiresolution support",
            "Starck & Murtagh 1994, A&A 288, 342",
        ),
        _spec(
            "restorer",
            "richardson-lucy",
            "richardson_lucy",
            "RichardsonLucy",
            "Richardson-Lucy, weighted and masked, safe on sky-subtracted images",
            "Richardson 1972, JOSA 62, 55; Lucy 1974, AJ 79, 745",
        ),
        _spec(
            "restorer",
            "blind-richardson-lucy",
            "blind_richardson_lucy",
            "BlindRichardsonLucy",
            "Richardson-Lucy with the PSF estimated alongside",
            "Fish et al. 1995, JOSA A 12, 58",
        ),
        _spec(
            "degrader",
            "physical",
            "physical_degrader",
            "PhysicalDegrader",
            "PSF, pixels, Poisson, sky, read and correlated noise",
        ),
        _spec(
            "degrader",
            "galaxygan2017",
            "galaxygan2017_degrader",
            "GalaxyGAN2017Degrader",
            "the degradation of the GalaxyGAN paper, step by step",
            "Schawinski et al. 2017, MNRAS 467, L110",
        ),
        _spec(
            "deblender",
            "watershed",
            "watershed",
            "Watershed",
            "multi-threshold detection and watershed, hard labels (photutils)",
            "Bertin & Arnouts 1996, A&AS 117, 393",
        ),
        _spec(
            "deblender",
            "symmetric",
            "symmetric",
            "Symmetric",
            "symmetric monotone templates, flux shared between them",
            "Lupton 2005 (SDSS photo); Melchior et al. 2018, A&C 24, 129",
        ),
        _spec(
            "deblender",
            "profile-fit",
            "profile_fit",
            "ProfileFit",
            "joint fit of PSF-convolved profiles, flux shared between them",
        ),
        _spec(
            "deblender",
            "hybrid",
            "ratio_net",
            "Hybrid",
            "the default: profile fits, whose shares a small network corrects",
            package=_GAN,
        ),
        _spec(
            "deblender",
            "ratio-net",
            "ratio_net",
            "RatioNet",
            "symmetric templates, whose shares a small network corrects",
            package=_GAN,
        ),
        _spec(
            "deblender",
            "branched-gan",
            "branched_gan",
            "BranchedGAN",
            "three bands: a network that draws the galaxy at the centre without the others",
            "Reiman & Goehre 2019, MNRAS 485, 2617",
            package=_GAN,
        ),
        _spec(
            "deblender",
            "usaid2019",
            "usaid2019",
            "Usaid2019",
            "three bands: a DCGAN completes what the inverse of the blend leaves",
            "Usaid, Ahmed & Jamal 2019, Deblending Galaxies Using Generative Adversarial Networks",
            package=_GAN,
        ),
        _spec(
            "translator",
            "surveynet",
            "surveynet",
            "SurveyNetTranslator",
            "the default: PSF matching, and a network where the target is sharper; any bands, grid and noise",
            "Lin et al. 2021, arXiv:2101.07389 (the task); Chen et al. 2022, arXiv:2204.04676 (the blocks)",
            package=_GAN,
        ),
        _spec(
            "translator",
            "lin2020",
            "lin2020",
            "Lin2020",
            "Lin et al. as published, SDSS <-> CFHTLS stamps in u g r i z, with noise emulation",
            "Lin et al. 2021, arXiv:2101.07389",
            package=_GAN,
        ),
        _spec(
            "translator",
            "psf-matching",
            "psf_matching",
            "PSFMatching",
            "PSF matching, resampling through the WCS, noise to the target's level",
            "Boucaud et al. 2016, A&A 596, A63",
        ),
        _spec("noise", "white", "white_noise", "WhiteNoise", "independent Gaussian noise"),
        _spec(
            "noise",
            "correlated",
            "correlated_noise",
            "CorrelatedNoise",
            "Gaussian noise with a correlation, given or learned from sky",
        ),
        _spec(
            "noise",
            "galsim",
            "galsim_noise",
            "GalSimNoise",
            "correlated noise that turns and scales with the WCS; needs GalSim",
            "Rowe et al. 2015, A&C 10, 121",
        ),
        _spec(
            "noise",
            "gan",
            "gan_noise",
            "GANNoise",
            "a noise emulator trained against a discriminator, from a closed-form start",
            "Lin et al. 2021, arXiv:2101.07389",
            package=_GAN,
        ),
    ]
