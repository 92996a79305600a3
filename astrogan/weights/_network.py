"""From a card and its tensors to the network that they belong to."""

from __future__ import annotations

from astrogan.exceptions import CheckpointError

__all__ = ["fitted"]

# What networks and torch raise for arguments that make no sense.
_FAULTS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
_NAMED = 3


def fitted(build, architecture, tensors, name):
    """The network that a card describes, with its tensors.

    The card may be a stranger's, and a line of it can describe a network of any size. So the network is built without
    memory first, and gets what the file holds once it is known to be as large. Nothing is drawn at random.

    Parameters
    ----------
    build : callable
        ``build(**architecture)`` gives the network; all that it holds must be in its ``state_dict``.
    architecture : dict
        As the card has it.
    tensors : mapping of str to torch.Tensor
        As `astrogan.weights.load_weights` gives them; copied.
    name : str or path
        How the user named the weights, for errors.

    Returns
    -------
    torch.nn.Module
        On the CPU.

    Raises
    ------
    CheckpointError
        If the architecture makes no sense, or the tensors are not those of it.
    """
    import torch

    try:
        with torch.device("meta"):
            network = build(**architecture)
        own = network.state_dict()
        _compare(own, tensors)
        copies = {key: tensors[key].to(value.dtype, copy=True) for key, value in own.items()}
        network.load_state_dict(copies, assign=True)
    except _FAULTS as error:
        reason = str(error).partition("\n")[0][:300]  # torch may add a trace of its own
        raise CheckpointError(
            f"weights={str(name)!r} do not fit the card's architecture: {reason}; get the pair of files again, or "
            "train with this version"
        ) from error
    return network


def _compare(own, tensors):
    """Refuse tensors of other names or shapes than a network's."""
    faults = [f"the network has no tensor {key!r}" for key in tensors if key not in own]
    faults += [f"tensor {key!r} is missing" for key in own if key not in tensors]
    for key in own:
        if key in tensors and own[key].shape != tensors[key].shape:
            faults.append(f"tensor {key!r} has shape {tuple(tensors[key].shape)}, not {tuple(own[key].shape)}")
    if faults:
        more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
        raise ValueError("; ".join(faults[:_NAMED]) + more)
