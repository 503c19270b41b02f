"""A GPU for machines without one: tensors that say ``cuda:0``, compute on the host and refuse what a GPU refuses.

What is made for, or moved to, ``cuda`` inside ``Elsewhere`` is a ``Far``. A ``Far`` meets no tensor of the host, is not read by
numpy, is drawn by no generator of the host, and indexes nothing there: the same errors that torch raises with a GPU. So a
run inside shows whether everything lies where it has to, branches for GPUs are taken, and numbers can be held against the
host's. Not shown: kernels, precision, speed, and what a backward pass of our own mixes, where torch adds zeros of the host.
"""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map

HOST, CUDA = torch.device("cpu"), torch.device("cuda:0")
TWO_PLACES = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({})"
_aten = torch.ops.aten
_INDEXED = {_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}
"""Take indices from the host, too."""
_COPIES = {_aten.copy_.default, _aten._to_copy.default}


class Far(Tensor):
    """A tensor that lies elsewhere."""

    held: Tensor
    """What it computes with."""

    @staticmethod
    def __new__(cls, held: Tensor) -> Far:
        """Hold a tensor of the host."""
        like: dict[str, Any] = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype, device=HOST, **like)  # type: ignore[attr-defined]
        made.held = held
        return made

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]

    def __repr__(self) -> str:  # type: ignore[override]
        """As on a GPU."""
        return f"{self.held!r} at {CUDA}"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What reads a device from Python."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        x = args[0] if args else None
        if name == "to":
            return _moved(x, *args[1:], **kwargs)
        if isinstance(x, Far):
            if name in ("numpy", "__array__"):
                raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
            if name == "cpu":
                return _Home.apply(x)
            if name == "tolist":
                return x.held.tolist()
            if name == "new_tensor" and kwargs.get("device") is not None:
                return x.held.new_tensor(*args[1:], **kwargs)
            if name == "quantile":  # makes tensors of its own
                return Far(x.held.quantile(*args[1:], **kwargs))
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute on the host, once it is sure that all lies elsewhere."""
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            return func.decompose(*args, **kwargs or {})  # in inference mode torch leaves it to us
        wrappers: dict[int, Far] = {}  # so that what is changed in place stays itself

        def opened(x: Any) -> Any:
            if isinstance(x, Far):
                wrappers[id(x.held)] = x
                return x.held
            return HOST if isinstance(x, torch.device) else x

        def closed(x: Any) -> Any:
            if type(x) is not Tensor:
                return x
            return wrappers[id(x)] if id(x) in wrappers else Far(x)

        at_work = torch._C._current_graph_task_id() != -1  # backward, where torch adds zeros of its own
        if not at_work:
            _refuse_two_places(func, args, kwargs or {})
        with torch.inference_mode(False):
            return tree_map(closed, func(*tree_map(opened, args), **tree_map(opened, kwargs or {})))


def _refuse_two_places(func: Any, args: Any, kwargs: Any) -> None:
    if func in _COPIES:
        return
    flat: list[Tensor] = []
    tree_map(
        lambda x: flat.append(x) if isinstance(x, Tensor) and (isinstance(x, Far) or x.dim()) else None, (args, kwargs)
    )
    if func in _INDEXED:
        if not isinstance(args[0], Far):
            raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
        flat = [x for x in (args[0], *args[2:3]) if isinstance(x, Far) or x.dim()]
    if len({isinstance(x, Far) for x in flat}) > 1:
        raise RuntimeError(TWO_PLACES.format(func))


class _Away(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return Far(x.detach().clone())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return grads[0].held.clone()  # type: ignore[no-any-return]


class _Home(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Far) -> Tensor:
        return x.held.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        return Far(grads[0].clone())


def _moved(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """``x.to(...)``."""
    device, dtype = kwargs.get("device"), kwargs.get("dtype")
    for told in args:
        if isinstance(told, Tensor):
            device, dtype = told.device, told.dtype
        elif isinstance(told, torch.dtype):
            dtype = told
        elif isinstance(told, torch.device | str):
            device = told
    if device is not None and _away(device) != isinstance(x, Far):
        x = (_Away if _away(device) else _Home).apply(x)
    return x if dtype in (None, x.dtype) else _aten._to_copy.default(x, dtype=dtype)


def _away(device: Any) -> bool:
    return device is not None and torch.device(device).type == "cuda"


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Torch's own makes tensors of its own."""
    scores = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = Far(torch.ones(scores.shape[-2:], dtype=torch.bool).tril())
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return torch.dropout(scores.softmax(-1), dropout_p, True) @ v


class _Drawing(torch.Generator):
    """Knows for which device it draws."""

    place: torch.device

    def __new__(cls, device: Any = HOST) -> Self:
        made = super().__new__(cls)
        made.place = CUDA if _away(device) else HOST
        return made

    device = property(lambda self: self.place)  # type: ignore[assignment]


class Elsewhere(TorchFunctionMode):
    """Inside, ``cuda`` is at hand."""

    def __enter__(self) -> Self:
        """Generators know their place, and modules are moved parameter by parameter."""
        self.before = torch.Generator, torch.__future__.get_overwrite_module_params_on_conversion()
        torch.Generator = _Drawing  # type: ignore[misc]
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """As before."""
        super().__exit__(*error)
        torch.Generator = self.before[0]  # type: ignore[misc]
        torch.__future__.set_overwrite_module_params_on_conversion(self.before[1])

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """What is made for ``cuda`` is far; what is drawn there is drawn by its own generator."""
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        far = any(isinstance(x, Far) for x in args)
        if name == "to":
            return _moved(*args, **kwargs)
        if func is F.scaled_dot_product_attention and far:
            return _attention(*args, **kwargs)
        away = _away(kwargs.get("device"))
        generator = kwargs.get("generator")
        if generator is not None and _away(generator.device) != (away or far):
            raise RuntimeError(
                f"Expected a 'cuda' device type for generator, or a 'cpu' one, but found the other ({name})"
            )
        if not away or far:
            return func(*args, **kwargs)
        with torch.inference_mode(False):
            return tree_map(lambda x: Far(x) if isinstance(x, Tensor) else x, func(*args, **kwargs | {"device": HOST}))
