"""An accelerator that is none: tensors that say they are elsewhere, refuse to be mixed, and count what is waited for.

A pretend tensor holds its values on the CPU and reports the device `meta:0`, which torch's own libraries let pass. Ops
between it and a CPU tensor raise as they would on a GPU, float64 is refused as Apple's GPUs refuse it, and what would
have to be waited for is counted.
"""

import traceback
from collections import Counter
from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

DEVICE = torch.device("meta")  # as a reader writes "cuda"
_PLACED = torch.device("meta", 0)  # as a tensor there says "cuda:0"
aten = torch.ops.aten

COPIES = (aten._to_copy, aten.copy_, aten.lift_fresh, aten.detach)
TAKE_CPU_INDICES = (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_)
NEED_ALL_THERE = (aten.cat, aten.stack, aten.index_select, aten.gather, aten.scatter, aten.mm, aten.bmm, aten.addmm)
# A GPU must finish before the host knows how large the result is, or what is in it.
WAITS = {
    aten._local_scalar_dense: "item", aten.nonzero: "nonzero", aten.masked_select: "masked_select",
    aten._unique2: "unique", aten.unique_dim: "unique", aten.unique_consecutive: "unique", aten.equal: "equal",
    aten.bincount: "bincount", aten.histc: "histc",
}  # fmt: skip


class PretendTensor(torch.Tensor):
    """`raw`, a CPU tensor, as if it lay on another device."""

    raw: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, raw):
        return torch.Tensor._make_wrapper_subclass(
            cls, raw.size(), strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            layout=raw.layout, device=_PLACED,
        )  # fmt: skip

    def __init__(self, raw):
        self.raw = raw

    def __repr__(self, **_options):
        return f"PretendTensor({self.raw!r})"

    def __reduce_ex__(self, protocol):
        raise TypeError("a tensor on the pretend device was pickled: move it to the CPU first")

    def __deepcopy__(self, memo):
        with torch.no_grad():
            copied = self.detach().clone()
        copied.requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            copied = torch.nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, Counter())


class _There(TorchDispatchMode):
    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self.waits)


class _Made(TorchFunctionMode):
    """`torch.tensor(..., device=there)` would make a real meta tensor, without values."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.asarray) and _is_there(kwargs.get("device")):
            device = kwargs.pop("device")
            return func(*args, **kwargs).to(device)
        if func is torch.Tensor.tolist and isinstance(args[0], PretendTensor):  # torch refuses it for subclasses
            return args[0].cpu().tolist()
        if func is torch.Tensor.__format__ and isinstance(args[0], PretendTensor) and args[0].dim() == 0:
            return format(args[0].item(), args[1])
        if func == torch.Tensor.data.__set__ and isinstance(args[0], PretendTensor):
            args[0].raw = args[1].raw
            return None
        if func is torch.Tensor.pin_memory:  # as CUDA says it
            if isinstance(args[0], PretendTensor):
                raise RuntimeError("cannot pin a tensor of the device: only dense CPU tensors can be pinned")
            return args[0]
        return func(*args, **kwargs)


@contextmanager
def pretend_device():
    """`DEVICE` can be used inside; gives a Counter of (what, file, line) that a device would have been waited for."""
    waits: Counter = Counter()
    swaps = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)  # `.to()` keeps parameters the same objects
    try:
        with _Made(), _There(waits):
            yield waits
    finally:
        torch.__future__.set_swap_module_params_on_conversion(swaps)


def _is_there(device) -> bool:
    return device is not None and torch.device(device).type == "meta"


def _run(func, args, kwargs, waits):
    flat, spec = tree_flatten((args, kwargs))
    there = [x for x in flat if isinstance(x, PretendTensor)]
    here = [x for x in flat if isinstance(x, torch.Tensor) and not isinstance(x, PretendTensor)]
    packet = func.overloadpacket
    if there:
        _refuse_mixed(func, packet, args, here)
    target = kwargs.get("device")
    goes_there = _is_there(target) if target is not None else bool(there)
    if packet is aten.copy_:
        goes_there = isinstance(args[0], PretendTensor)
    if there and not goes_there:
        _wait(waits, "copy to the CPU")
    elif there and packet in WAITS:
        _wait(waits, WAITS[packet])
    elif there and packet in TAKE_CPU_INDICES and any(x is not None and x.dtype == torch.bool for x in args[1]):
        _wait(waits, "boolean index")
    elif there and func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None:
        _wait(waits, "repeat_interleave")

    wrappers = {id(x.raw): x for x in there}
    raw_args, raw_kwargs = tree_unflatten([x.raw if isinstance(x, PretendTensor) else x for x in flat], spec)
    if _is_there(raw_kwargs.get("device")):
        raw_kwargs["device"] = torch.device("cpu")
    found = func(*raw_args, **raw_kwargs)

    def placed(x):
        if not isinstance(x, torch.Tensor):
            return x
        if id(x) in wrappers:
            assert wrappers[id(x)].shape == x.shape, f"{func} changed a shape in place, which is not pretended"
            return wrappers[id(x)]
        if not goes_there:  # never the held values themselves
            return x.clone() if any(x is y for y in (w.raw for w in there)) else x
        if x.dtype == torch.float64:
            raise TypeError(f"{func}: the device has no float64, as Apple's GPUs have none; use float32")
        return PretendTensor(x)

    flat, spec = tree_flatten(found)
    return tree_unflatten([placed(x) for x in flat], spec)


def _refuse_mixed(func, packet, args, here):
    if packet in COPIES:
        return
    if packet in TAKE_CPU_INDICES and isinstance(args[0], PretendTensor):
        here = [x for x in args[2:3] if isinstance(x, torch.Tensor) and not isinstance(x, PretendTensor)]
    strict = packet in NEED_ALL_THERE
    wrong = [x for x in here if strict or x.dim()]
    if wrong:
        raise RuntimeError(
            f"{func}: expected all tensors to be on the same device, but found one of shape {tuple(wrong[0].shape)} on "
            f"the CPU beside one on {_PLACED}"
        )


def _wait(waits, what):
    frames = [f for f in traceback.extract_stack() if "/vpkit/" in f.filename or f.filename.startswith("0")]
    where = (frames[-1].filename.rpartition("/vpkit/")[2], frames[-1].lineno) if frames else ("elsewhere", 0)
    waits[what, *where] += 1
