"""A call of a backward kernel: what BackwardParams asks for, and what the host makes of the results."""

from __future__ import annotations

import torch
from kernel_params import BackwardParams, fill, put, strides
from torch import Tensor

from flash_attn.attention_spec import AttentionSpec
from flash_attn.backends.base import AttentionInputs, ForwardResult, Gradients


class BackwardCall:
    """Parameters of a kernel whose tile has ``block_n`` keys; what it leaves of dk and dv is NaN, or 0 in varlen."""

    def __init__(
        self,
        spec: AttentionSpec,
        inputs: AttentionInputs,
        result: ForwardResult,
        dout: Tensor,
        dlse: Tensor,
        block_n: int,
    ) -> None:
        """``result`` is that of the forward; ``dout`` and ``dlse`` are the gradients of its tensors."""
        self._spec, self._inputs = spec, inputs
        self._softmax_d = (dout.float() * result.out.float()).sum(-1).transpose(-1, -2) - dlse
        scaled_d = (self._softmax_d * (1 - spec.dropout_p)).contiguous()
        splits = -(-inputs.max_seqlen_k // block_n) if spec.deterministic else 1
        self._dq = torch.zeros((splits, *inputs.q.shape))
        unwritten = 0.0 if spec.varlen_q else float("nan")
        self._dk, self._dv = (
            x.new_full((*x.shape[:-2], spec.nheads_q, x.shape[-1]), unwritten) for x in (inputs.k, inputs.v)
        )
        self.params = BackwardParams()
        fill(self.params, spec, inputs)
        put(self.params, dout=dout, softmax_lse=result.softmax_lse, softmax_d=scaled_d, dk=self._dk, dv=self._dv)
        put(self.params, dq_accumulator=self._dq)
        # as csrc_common/api.cpp has it
        self.params.dq_strides = strides(self._dq[0]) if splits else strides(inputs.q)
        self.params.dq_split_stride = self._dq.stride(0) if splits > 1 else 0
        given = tuple(value for value in inputs if isinstance(value, Tensor))
        self.tensors = (*given, dout, result.softmax_lse, scaled_d, self._dk, self._dv, self._dq)

    def gradients(self) -> Gradients:
        """Sums over splits and grouped heads, which the host adds."""
        grouped = (self._spec.nheads_k, self._spec.nheads_per_group)
        dk, dv = (x.float().unflatten(-2, grouped).sum(-2).to(x.dtype) for x in (self._dk, self._dv))
        return Gradients(self._dq.sum(0).to(self._inputs.q.dtype), dk, dv, self._softmax_d)
