"""What every linear kernel for processors has in common: its interface and its checks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from hwsim.errors import InputError
from hwsim.kernels.cpu.threads import thread_count
from hwsim.mask import Mask

PHASES = ("forward", "grad_input", "grad_weight")


class Layer:
    """One masked weight, packed for one kernel.

    All arrays are float32 and C-contiguous; sizes, types and layouts are checked before any
    memory is touched. Only active weights are read: what lies under the mask's zeros, in the
    weights as well as in the inputs that no weight uses, may be NaN.

    Args:
        mask: (n_out, n_in).
        weights: the same shape; only active ones are read.
        threads: used by the kernel's own loops, 1 by default.

    Raises:
        InputError: wrong type, layout or shape; a mask that the kernel cannot run.
    """

    name: ClassVar[str] = ""
    phases: ClassVar[tuple[str, ...]] = PHASES

    def __init__(self, mask: Mask, weights: np.ndarray, threads: int = 1) -> None:
        if not isinstance(mask, Mask):
            raise InputError(f"mask: type is {type(mask).__name__}; allowed is hwsim.Mask")
        reason = self.unsuitable(mask)
        if reason:
            raise InputError(f"mask: kernel {self.name!r} cannot run it: {reason}")
        self.mask = mask
        self.n_out, self.n_in = mask.shape
        self.threads = thread_count(threads, 1, 1)
        checked("weights", weights, mask.shape)
        self._build()
        self._repack(weights)

    @classmethod
    def unsuitable(cls, mask: Mask) -> str:
        """Why the kernel cannot run the mask; empty if it can."""
        return ""

    def repack(self, weights: np.ndarray) -> None:
        """Takes over new values under the same mask."""
        self._repack(checked("weights", weights, self.mask.shape))

    def forward(self, x: np.ndarray) -> np.ndarray:
        """y = x·Wᵀ: x (batch, n_in) → (batch, n_out)."""
        return self._forward(self._batch("forward", "x", x, self.n_in))

    def grad_input(self, dy: np.ndarray) -> np.ndarray:
        """dx = dy·W: dy (batch, n_out) → (batch, n_in)."""
        return self._grad_input(self._batch("grad_input", "dy", dy, self.n_out))

    def grad_weight(self, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        """dW = dyᵀ·x under the mask: (n_out, n_in), zero where there is no weight."""
        self._batch("grad_weight", "dy", dy, self.n_out)
        self._batch("grad_weight", "x", x, self.n_in)
        if len(x) != len(dy):
            raise InputError(f"x: batch is {len(x)}; allowed is that of dy, {len(dy)}")
        return self._grad_weight(dy, x)

    def _build(self) -> None:
        """Lays out the structure of the mask."""

    def _repack(self, weights: np.ndarray) -> None:
        raise TypeError(f"{type(self).__name__} must define _repack(weights)")

    def _forward(self, x: np.ndarray) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} must define _forward(x)")

    def _grad_input(self, dy: np.ndarray) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} must define _grad_input(dy)")

    def _grad_weight(self, dy: np.ndarray, x: np.ndarray) -> np.ndarray:
        raise TypeError(f"{type(self).__name__} must define _grad_weight(dy, x)")

    def _batch(self, phase: str, name: str, array: np.ndarray, features: int) -> np.ndarray:
        if phase not in self.phases:
            raise InputError(
                f"phase: {phase!r} is not in kernel {self.name!r}; allowed: "
                f"{', '.join(self.phases)}"
            )
        return checked(name, array, (None, features))


def checked(name: str, array: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """The array; an InputError if it is not float32, C-contiguous and of that shape."""
    if not isinstance(array, np.ndarray) or array.dtype != np.float32:
        kind = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
        raise InputError(f"{name}: type is {kind}; allowed is a numpy array of float32")
    fits = array.ndim == len(shape) and array.size > 0 and array.shape[1:] == shape[1:]
    if not fits or shape[0] not in (None, array.shape[0]):
        wanted = ", ".join("batch" if s is None else str(s) for s in shape)
        raise InputError(f"{name}: shape is {array.shape}; allowed is ({wanted})")
    if not array.flags.c_contiguous:
        raise InputError(f"{name}: strides are {array.strides}; allowed is C-contiguous")
    return array


def aligned(size: int, dtype: Any = np.float32) -> np.ndarray:
    """An uninitialised one-dimensional array that starts on a 64-byte boundary.

    Vectors that straddle two cache lines cost about a third of the speed.
    """
    itemsize = np.dtype(dtype).itemsize
    room = np.empty(size * itemsize + 64, np.uint8)
    skip = -room.ctypes.data % 64
    return room[skip : skip + size * itemsize].view(dtype)


def masked(mask: Mask, weights: np.ndarray) -> np.ndarray:
    """The weights with zeros where the mask has them, also where the weight was NaN."""
    # On the bits: a product of numbers would keep the NaN, and a choice takes three times as long.
    bits = np.ascontiguousarray(weights).view(np.uint32)
    return np.multiply(bits, mask.array.view(np.uint8), dtype=np.uint32).view(np.float32)
