"""The few array operations guerdon needs on NumPy arrays and torch tensors alike."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

Array = Any  # a NumPy array or a torch tensor; shapes are said in jaxtyping where it matters


def is_tensor(value: Any) -> bool:
    """True for a torch tensor; does not import torch (a tensor can only exist once torch is imported)."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def where(condition: Any, yes: Any, no: Any) -> Array:
    """Elementwise choice; the result is a tensor, with gradients, if either branch is one."""
    tensor = next((x for x in (yes, no) if is_tensor(x)), None)
    if tensor is None:
        return np.where(to_numpy(condition), yes, no)
    torch = sys.modules["torch"]
    yes, no = (x if is_tensor(x) else torch.as_tensor(x, dtype=tensor.dtype, device=tensor.device) for x in (yes, no))
    return torch.where(torch.as_tensor(condition, device=tensor.device), yes, no)


def to_numpy(value: Any) -> np.ndarray[Any, Any]:
    """The NumPy view (or copy) of an array; gradients are cut, and bfloat16, which NumPy lacks, becomes float32."""
    if is_tensor(value):
        value = value.detach().cpu()
        return np.asarray((value.float() if value.dtype is sys.modules["torch"].bfloat16 else value).numpy())
    return np.asarray(value)


def like(value: Any, reference: Any) -> Array:
    """`value` as the kind of array (NumPy, or tensor on the same device) that `reference` is."""
    if is_tensor(reference):
        return sys.modules["torch"].as_tensor(value, device=reference.device)
    return to_numpy(value)


def row_numbers(index: Any, n: int) -> np.ndarray[Any, Any]:
    """The rows that a slice, row numbers or a Boolean mask picks out of `n`, as numbers from 0."""
    if not isinstance(index, slice):
        index = to_numpy(index)
        index = index if index.size else index.reshape(-1).astype(np.int64)
    return np.asarray(np.arange(n)[index])


def flags(value: Any, reference: Any) -> Array:
    """Truth values, as the kind of array that `reference` is."""
    return like(value.bool() if is_tensor(value) else np.asarray(value, bool), reference)


def concatenate(arrays: list[Any]) -> Array:
    """Arrays joined along their first axis; a tensor if one of them is."""
    tensor = next((x for x in arrays if is_tensor(x)), None)
    if tensor is None:
        return np.concatenate(arrays)
    return sys.modules["torch"].cat([like(x, tensor) for x in arrays])


def pad(array: Array, width: int, fill: float = 0) -> Array:
    """`array` with `fill` behind it until its second axis is `width` long; as it is if that is long enough."""
    missing = width - array.shape[1]
    if missing <= 0:
        return array
    shape = (array.shape[0], missing, *array.shape[2:])
    if is_tensor(array):
        return sys.modules["torch"].cat([array, array.new_full(shape, fill)], 1)
    return np.concatenate([array, np.full(shape, fill, array.dtype)], 1)


def sum_by(values: Any, index: np.ndarray[Any, Any], n: int) -> Array:
    """Float["n"]: the sum of the values at each of the indices 0 to n − 1."""
    if is_tensor(values):
        return values.new_zeros(n).index_add(0, like(index, values), values)
    return np.bincount(index, weights=values, minlength=n)


def tanh(values: Any) -> Array:
    """Elementwise hyperbolic tangent."""
    return values.tanh() if is_tensor(values) else np.tanh(values)


def sigmoid(values: Any) -> Array:
    """Elementwise logistic function, 1/(1+e^−x), by way of tanh so that it never overflows."""
    return 0.5 * (1.0 + tanh(0.5 * values))


def clip(values: Any, low: float, high: float) -> Array:
    """Elementwise clamp to [low, high]."""
    return values.clamp(low, high) if is_tensor(values) else np.clip(values, low, high)
