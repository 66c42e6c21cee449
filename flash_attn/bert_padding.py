"""Between padded batches (batch, seqlen, ...) and packed tokens (total, ...), differentiable both ways."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _rearrange_without_einops(tensor: Any, pattern: str, **axes_lengths: int) -> Tensor:
    raise ImportError("rearrange comes from einops, which is not installed: pip install einops")


def _find_rearrange() -> Callable[..., Tensor]:
    try:
        rearrange: Callable[..., Tensor] = importlib.import_module("einops").rearrange
    except ModuleNotFoundError:
        return _rearrange_without_einops
    return rearrange


# Other projects import einops' function from here.
rearrange = _find_rearrange()


def _check_indices(indices: Tensor) -> None:
    if indices.ndim != 1:
        raise ValueError(f"indices has shape {tuple(indices.shape)}; accepted is one dimension")
    if indices.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"indices has dtype {indices.dtype}; accepted are int32 and int64")


class IndexFirstAxis(torch.autograd.Function):
    """Autograd form of `index_first_axis`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, indices: Tensor) -> Tensor:
        """Pick rows."""
        _check_indices(indices)
        ctx.save_for_backward(indices)
        ctx.first_axis_dim = input.shape[0]
        return input.index_select(0, indices)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        """Add each row's gradient where the row came from."""
        (indices,) = ctx.saved_tensors
        grad_input = grad_output.new_zeros((ctx.first_axis_dim, *grad_output.shape[1:]))
        return grad_input.index_add(0, indices, grad_output), None


def index_first_axis(input: Tensor, indices: Tensor) -> Tensor:
    """Rows of input (n, ...) at indices (m,), int32 or int64: (m, ...)."""
    out: Tensor = IndexFirstAxis.apply(input, indices)
    return out


class IndexPutFirstAxis(torch.autograd.Function):
    """Autograd form of `index_put_first_axis`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, first_axis_dim: int) -> Tensor:
        """Place rows."""
        _check_indices(indices)
        if values.ndim == 0 or values.shape[0] != indices.shape[0]:
            raise ValueError(
                f"values has shape {tuple(values.shape)}; accepted is ({indices.shape[0]}, ...) as indices"
            )
        ctx.save_for_backward(indices)
        return values.new_zeros((first_axis_dim, *values.shape[1:])).index_copy(0, indices.long(), values)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None]:
        """Pick the placed rows' gradients."""
        (indices,) = ctx.saved_tensors
        return grad_output.index_select(0, indices), None, None


def index_put_first_axis(values: Tensor, indices: Tensor, first_axis_dim: int) -> Tensor:
    """Zeros (first_axis_dim, ...) with the rows of values (m, ...) at indices (m,), which must not repeat."""
    out: Tensor = IndexPutFirstAxis.apply(values, indices, first_axis_dim)
    return out


class IndexFirstAxisResidual(torch.autograd.Function):
    """Autograd form of `index_first_axis_residual`."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Pick rows and pass the input on."""
        _check_indices(indices)
        ctx.save_for_backward(indices)
        return input.index_select(0, indices), input.detach()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, grad_residual: Tensor) -> tuple[Tensor, None]:
        """Add the picked rows' gradient to the residual's."""
        (indices,) = ctx.saved_tensors
        return grad_residual.index_add(0, indices, grad_output), None


def index_first_axis_residual(input: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of input (n, ...) at indices (m,), and input itself, whose gradients one backward sums."""
    out: tuple[Tensor, Tensor] = IndexFirstAxisResidual.apply(input, indices)
    return out


def _selected(name: str, mask: Tensor, hidden_states: Tensor) -> Tensor:
    """Boolean form of a mask (batch, seqlen) of zeros and ones."""
    if mask.ndim != 2 or mask.shape != hidden_states.shape[:2]:
        raise ValueError(
            f"{name} has shape {tuple(mask.shape)}; accepted is (batch, seqlen) of hidden_states, "
            f"{tuple(hidden_states.shape[:2])}"
        )
    selected = mask != 0
    # An additive mask (0 and -inf) would select exactly the wrong tokens.
    if mask.is_floating_point() and bool((selected & (mask != 1)).any()):
        raise ValueError(
            f"{name} is of {mask.dtype} with values other than 0 and 1; accepted are bool, int, or 0 and 1"
        )
    return selected


def _pack(hidden_states: Tensor, selected: Tensor, seqlens: Tensor) -> tuple[Tensor, Tensor, Tensor, int]:
    """Selected tokens, their indices, cu_seqlens, and the longest of seqlens (0 if there is none)."""
    indices = selected.flatten().nonzero().flatten()
    from_zero = functional.pad(seqlens.to(torch.int32), (1, 0))
    cu_seqlens = from_zero.cumsum(0, dtype=torch.int32)
    return (
        index_first_axis(hidden_states.flatten(0, 1), indices),
        indices,
        cu_seqlens,
        int(from_zero.max().item()),
    )


def unpad_input(
    hidden_states: Tensor, attention_mask: Tensor, unused_mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, int, Tensor]:
    """Pack the tokens of a padded batch. Reads lengths on the host.

    Args:
        hidden_states: (batch, seqlen, ...).
        attention_mask: (batch, seqlen), bool or int, nonzero for valid tokens.
        unused_mask: (batch, seqlen), bool or int, nonzero for tokens that are kept though not used.

    Returns:
        (hidden_states, indices, cu_seqlens, max_seqlen_in_batch, seqused): the tokens (total, ...) that a
        mask selects; their int64 positions (total,) in the flattened batch; int32 (batch + 1,); the longest
        sequence; int32 (batch,) tokens that attention_mask alone selects.

    Raises:
        ValueError: a mask's shape is not (batch, seqlen), or a floating mask holds more than 0 and 1.
    """
    used = _selected("attention_mask", attention_mask, hidden_states)
    kept = used if unused_mask is None else used | _selected("unused_mask", unused_mask, hidden_states)
    return *_pack(hidden_states, kept, kept.sum(-1)), used.sum(-1, dtype=torch.int32)


def unpad_input_for_concatenated_sequences(
    hidden_states: Tensor, attention_mask_in_length: Tensor
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Pack a padded batch whose rows each hold several sequences. Reads lengths on the host.

    Args:
        hidden_states: (batch, seqlen, ...).
        attention_mask_in_length: (batch, seqlen), int; the nonzero entries of a row are the lengths of its
            sequences in order. With seqlen 6, [2, 3, 0, 0, 0, 0] is two sequences and one padding token.

    Returns:
        (hidden_states, indices, cu_seqlens, max_seqlen_in_batch): the tokens (total, ...); their int64
        positions (total,) in the flattened batch; int32 (sequences + 1,); the longest sequence.

    Raises:
        ValueError: the shape is not (batch, seqlen), a length is negative, or a row exceeds seqlen tokens.
        TypeError: the lengths are not integers.
    """
    lengths = attention_mask_in_length
    if lengths.ndim != 2 or lengths.shape != hidden_states.shape[:2]:
        raise ValueError(
            f"attention_mask_in_length has shape {tuple(lengths.shape)}; accepted is (batch, seqlen) of "
            f"hidden_states, {tuple(hidden_states.shape[:2])}"
        )
    if lengths.is_floating_point() or lengths.is_complex():
        raise TypeError(f"attention_mask_in_length has dtype {lengths.dtype}; accepted are integers")
    row_totals = lengths.sum(-1)
    seqlen = lengths.shape[1]
    if bool((lengths < 0).any() | (row_totals > seqlen).any()):
        raise ValueError(
            f"attention_mask_in_length must be lengths of 0 or more, in all at most seqlen ({seqlen}) a row"
        )
    selected = torch.arange(seqlen, device=lengths.device) < row_totals.unsqueeze(-1)
    return _pack(hidden_states, selected, lengths[lengths != 0])


def pad_input(hidden_states: Tensor, indices: Tensor, batch: int, seqlen: int) -> Tensor:
    """Put packed tokens (total, ...) at indices of a zero (batch, seqlen, ...): undoes `unpad_input`."""
    flat = index_put_first_axis(hidden_states, indices, batch * seqlen)
    return flat.reshape(batch, seqlen, *hidden_states.shape[1:])
