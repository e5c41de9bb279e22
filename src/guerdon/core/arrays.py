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
    """The NumPy view (or copy) of an array; gradients are cut."""
    if is_tensor(value):
        return np.asarray(value.detach().cpu().numpy())
    return np.asarray(value)


def like(value: Any, reference: Any) -> Array:
    """`value` as the kind of array (NumPy, or tensor on the same device) that `reference` is."""
    if is_tensor(reference):
        return sys.modules["torch"].as_tensor(value, device=reference.device)
    return to_numpy(value)


def stack(columns: list[Any]) -> Array:
    """Arrays of one shape, stacked along a new first axis."""
    tensor = next((x for x in columns if is_tensor(x)), None)
    if tensor is None:
        return np.stack(columns)
    return sys.modules["torch"].stack([like(x, tensor) for x in columns])


def concatenate(arrays: list[Any]) -> Array:
    """Arrays joined along their first axis."""
    if any(is_tensor(x) for x in arrays):
        return sys.modules["torch"].cat(arrays)
    return np.concatenate(arrays)


def total(values: Any) -> Any:
    """Sum over the last axis."""
    return values.sum(-1)


def exp(values: Any) -> Array:
    """Elementwise e^x."""
    return values.exp() if is_tensor(values) else np.exp(values)


def log(values: Any) -> Array:
    """Elementwise natural logarithm."""
    return values.log() if is_tensor(values) else np.log(values)


def tanh(values: Any) -> Array:
    """Elementwise hyperbolic tangent."""
    return values.tanh() if is_tensor(values) else np.tanh(values)


def sigmoid(values: Any) -> Array:
    """Elementwise logistic function, 1/(1+e^−x), by way of tanh so that it never overflows."""
    return 0.5 * (1.0 + tanh(0.5 * values))


def clip(values: Any, low: float, high: float) -> Array:
    """Elementwise clamp to [low, high]."""
    return values.clamp(low, high) if is_tensor(values) else np.clip(values, low, high)
