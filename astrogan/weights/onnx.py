"""Networks as ONNX files, for programs that have no torch."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from pathlib import Path

from astrogan.exceptions import InputError, MissingDependencyError
from astrogan.weights._network import fitted
from astrogan.weights._pair import checked_target, write_alone
from astrogan.weights.store import load_weights

__all__ = ["export_onnx"]

_SUFFIX = ".onnx"


def export_onnx(weights, path, *, overwrite=False):
    """Write the network of weights as an ONNX model, of images of any size and in batches of any length.

    The network alone is exported: what surrounds it (levels of sky and noise, the Wiener estimates, tiles, calibration)
    is the caller's; see the notes.

    Parameters
    ----------
    weights : str, path or `Weights`
        For the backend ``nafnet``: a name (``astrogan weights list``), a file, or what `load_weights` gives.
    path : path
        ``NAME.onnx``. It is written whole or not at all.
    overwrite : bool, optional
        Whether an existing file is replaced.

    Returns
    -------
    `pathlib.Path`
        The file.

    Raises
    ------
    InputError
        If the path does not end in ``.onnx`` or the weights are for another backend.
    CheckpointError
        If the weights are damaged.
    ImageWriteError
        If the file exists and ``overwrite`` is false, or cannot be written.
    MissingDependencyError
        If ``onnx`` or ``onnxscript`` is not installed.

    Notes
    -----
    Inputs, float32, n images of y x pixels: ``data`` (n, band, y, x), the image above its sky in units of the sky's
    noise; ``noise``, each pixel's standard deviation, of the same shape and unit; ``fwhm`` (n, band) of the PSF, in
    pixels; ``estimates`` (n, band, filter, y, x), ``data`` through the filters of `astrogan.nn.filters.wiener_bank`
    with the card's ``balances`` and ``radius``. Outputs: ``mean`` and ``spread`` (n, band, y, x), the restored image
    and the 68.3 % width of its error before calibration, both in units of the noise.

    The card is in the model's ``metadata_props``: ``astrogan.card`` as JSON, and ``name``, ``backend``, ``sha256`` and
    ``licence`` by themselves.

    Examples
    --------
    >>> from astrogan.weights import export_onnx
    >>> export_onnx("nafnet-linear", "nafnet-linear.onnx")  # doctest: +SKIP
    PosixPath('nafnet-linear.onnx')
    """
    path = Path(path).expanduser()
    if path.suffix != _SUFFIX:
        raise InputError(f"path={str(path)!r} must end with {_SUFFIX}")
    if not hasattr(weights, "tensors"):
        weights = load_weights(weights)
    build = _NETWORKS.get(weights.card["backend"])
    if build is None:
        raise InputError(
            f"weights={weights.name!r} are for the backend {weights.card['backend']!r}; those for "
            f"{', '.join(_NETWORKS)} can be exported"
        )
    checked_target(path, overwrite)  # before the work
    write_alone(path, _model(weights, *build(weights)), overwrite=overwrite)
    return path


def _model(weights, network, inputs, axes, outputs):
    """The bytes of the model with its metadata."""
    import torch

    try:
        import onnx  # noqa: F401 - torch needs both
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("ONNX export needs: pip install 'astrogan[onnx]'") from error
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network,
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=tuple(dict.fromkeys(free, torch.export.Dim.DYNAMIC) for free in axes),
            dynamo=True,
            verbose=False,
        )
    model = program.model_proto
    card = weights.card
    texts = {name: str(card[name]) for name in ("name", "backend", "sha256", "licence")}
    for key, value in (texts | {"astrogan.card": json.dumps(card, sort_keys=True)}).items():
        model.metadata_props.add(key=key, value=value)
    model.producer_name = "astrogan"
    model.doc_string = f"{card['name']}, {card['role']} network of astrogan; inputs and outputs: see export_onnx"
    return model.SerializeToString()


def _nafnet(weights):
    """The network, an example of its inputs, which of their axes are free, and the outputs' names."""
    import torch

    from astrogan.nn.nafnet import RestorationNAFNet

    network = fitted(RestorationNAFNet, weights.card["architecture"], weights.tensors, weights.name)
    image = torch.ones(2, network.bands, 9 * network.stride, 11 * network.stride)  # no two axes alike
    inputs = {
        "data": image,
        "noise": image.clone(),
        "fwhm": torch.full(image.shape[:2], 3.0),
        "estimates": image[:, :, None].repeat(1, 1, len(network.balances), 1, 1),
    }
    return network.eval().requires_grad_(False), inputs, [(0, 2, 3), (0, 2, 3), (0,), (0, 3, 4)], ["mean", "spread"]


_NETWORKS = {"nafnet": _nafnet}


@contextlib.contextmanager
def _quiet():
    """What the exporter says of packages that it would not use anyhow is not for users."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
