"""Where to compute."""

import torch

__all__ = ["choose_device"]


def choose_device(device: str | None = None) -> torch.device:
    """The device called `device`, or the first GPU, or the CPU.

    Raises:
        ValueError: an unknown device, or a GPU where there is none.
    """
    if device in (None, ""):
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device={device!r}: expected 'cpu', 'cuda', 'cuda:0', 'mps', ... or None") from error
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device={device!r}: this machine has no Apple GPU that torch can use. Use 'cpu' or None")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r}: this machine has {torch.cuda.device_count()} usable GPUs. "
            "Use device='cpu' or None; on Colab choose Runtime > Change runtime type > GPU"
        )
    return chosen
