"""What the backward needs of every row: ``softmax_d = rowsum(dout * out) - dlse``, and the shift of its exponents."""

import triton
import triton.language as tl

from .softmax import recompute_shift
from .tiles import load_tile, tile_offsets
from .work_order import tile_of_program


@triton.jit
def attn_bwd_preprocess_kernel(
    out_ptr, dout_ptr, lse_ptr, dlse_ptr, softmax_d_ptr, shift_ptr,
    stride_ob, stride_os, stride_oh, stride_dob, stride_dos, stride_doh,
    stride_dlse_b, stride_dlse_h, stride_dlse_s, stride_lse_b, stride_lse_h,
    num_blocks, rows_q, nheads_q,
    HEAD_DIM_V: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_DV: tl.constexpr, WIDE_OFFSETS: tl.constexpr,
):  # fmt: skip
    """``softmax_d`` and shift of ``BLOCK_M`` rows of one head; packed sequences are the rows of one batch."""
    block, head, batch = tile_of_program(num_blocks, nheads_q, 1, False)
    batch_wide, head_wide = batch.to(tl.int64), head.to(tl.int64)
    first_row = (block * BLOCK_M).to(tl.int64)
    out_ptr += batch_wide * stride_ob + head_wide * stride_oh + first_row * stride_os
    dout_ptr += batch_wide * stride_dob + head_wide * stride_doh + first_row * stride_dos
    rows_left = rows_q - block * BLOCK_M
    out = load_tile(
        out_ptr,
        tile_offsets(stride_os, BLOCK_M, BLOCK_DV, WIDE_OFFSETS),
        rows_left,
        True,
        HEAD_DIM_V,
        BLOCK_M,
        BLOCK_DV,
    )
    dout = load_tile(
        dout_ptr,
        tile_offsets(stride_dos, BLOCK_M, BLOCK_DV, WIDE_OFFSETS),
        rows_left,
        True,
        HEAD_DIM_V,
        BLOCK_M,
        BLOCK_DV,
    )
    softmax_d = tl.sum(out.to(tl.float32) * dout.to(tl.float32), 1)
    rows = tl.arange(0, BLOCK_M)
    if dlse_ptr is not None:
        dlse_ptr += batch_wide * stride_dlse_b + head_wide * stride_dlse_h + first_row * stride_dlse_s
        softmax_d -= tl.load(dlse_ptr + rows.to(tl.int64) * stride_dlse_s, mask=rows < rows_left, other=0.0).to(
            tl.float32
        )
    row_numbers = batch_wide * stride_lse_b + head_wide * stride_lse_h + first_row
    lse = tl.load(lse_ptr + row_numbers + rows, mask=rows < rows_left, other=0.0)
    tl.store(shift_ptr + row_numbers + rows, recompute_shift(lse), mask=rows < rows_left)
    tl.store(softmax_d_ptr + row_numbers + rows, softmax_d, mask=rows < rows_left)
