"""Where to compute, and how much room there is."""

import torch

__all__ = ["choose_device", "free_memory", "widest_float"]


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


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated on a GPU; None where there is no such limit of its own, as on the CPU."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return None


def widest_float(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have nothing wider."""
    return torch.float32 if device.type == "mps" else torch.float64
