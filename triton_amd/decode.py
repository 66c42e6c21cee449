"""Attention of few rows to many keys: query heads packed into rows, keys split over programs (split-KV).

A tile's rows are the tokens of a sequence times the query heads that share a KV head, so that the group reads K and V
once. A program takes a part of the keys; :mod:`.combine` joins the parts (Dao et al., "Flash-Decoding for
long-context inference", 2023). With one part a program writes the result itself.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from .append import NewTokens, append_launch
from .combine import combine_launch
from .decode_config import DecodeConfig
from .forward import attend_blocks, fp8_arguments, new_results, result_arguments
from .launch import Launch
from .logits import alibi_slope
from .masks import band_blocks
from .operands import descaled, load_queries, point_to_keys, score_scales
from .problem import Problem
from .sequences import key_sequence, query_sequence
from .softmax import initial_state, normaliser
from .split_plan import choose_num_splits, most_keys_of_tile
from .tiles import packed_offsets, store_tile, tile_offsets
from .work_order import tile_of_program


@triton.jit
def _attn_split_kernel(
    out_ptr, lse_ptr, sink_ptr, stride_ob, stride_os, stride_oh, stride_lse_b, stride_lse_h,
    stride_out_split, stride_lse_split, num_splits, num_blocks,
    q_ptr, qv_ptr, k_ptr, v_ptr, stride_qvb, stride_qvs, stride_qvh,
    stride_qb, stride_qs, stride_qh, stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh,
    cu_seqlens_q, cu_seqlens_k, seqused_q, seqused_k, leftpad_k, block_table, stride_table, cache_batch_idx,
    rows_q, rows_k, sequences_k, nheads_k, nheads_per_group,
    alibi_slopes, stride_alibi, scale_log2, softcap_log2, window_left, window_right,
    q_descale, k_descale, v_descale,
    stride_q_descale_b, stride_q_descale_h, stride_k_descale_b, stride_k_descale_h,
    stride_v_descale_b, stride_v_descale_h,
    HEAD_DIM: tl.constexpr, HEAD_DIM_V: tl.constexpr, PAGE_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    HAS_WINDOW_LEFT: tl.constexpr, HAS_WINDOW_RIGHT: tl.constexpr, CHUNK: tl.constexpr, HAS_SOFTCAP: tl.constexpr,
    NEGATIVE_SCALE: tl.constexpr, WIDE_OFFSETS: tl.constexpr, NUM_XCDS: tl.constexpr,
    ROUND_BY_ADD: tl.constexpr, HEADROOM: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of ``BLOCK_M`` packed rows of one KV head over one part of the keys."""
    tile, head_k, batch = tile_of_program(num_blocks * num_splits, nheads_k, NUM_XCDS, False)
    split = tile // num_blocks
    first_row = tile % num_blocks * BLOCK_M
    query_start, seqlen_q = query_sequence(batch, cu_seqlens_q, seqused_q, rows_q)
    num_rows = seqlen_q * nheads_per_group
    if first_row >= num_rows:
        return
    key_index, key_start, seqlen_k = key_sequence(
        batch, cu_seqlens_k, seqused_k, leftpad_k, cache_batch_idx, rows_k, sequences_k, PAGE_SIZE
    )
    batch_wide, head_k_wide, split_wide = batch.to(tl.int64), head_k.to(tl.int64), split.to(tl.int64)
    k_ptr, v_ptr = point_to_keys(
        k_ptr, v_ptr, key_index, key_start, head_k_wide,
        stride_kb, stride_ks, stride_kh, stride_vb, stride_vs, stride_vh, PAGE_SIZE,
    )  # fmt: skip
    table_ptr = block_table
    if PAGE_SIZE > 0:
        table_ptr += batch_wide * stride_table

    rows = first_row + tl.arange(0, BLOCK_M)
    tokens = rows // nheads_per_group
    members = rows % nheads_per_group
    heads = head_k * nheads_per_group + members
    first_head = head_k_wide * nheads_per_group
    q_ptr += batch_wide * stride_qb + query_start * stride_qs + first_head * stride_qh
    q_offsets = packed_offsets(tokens, members, stride_qs, stride_qh, BLOCK_D)
    q = load_queries(q_ptr, q_offsets, num_rows - first_row, HEAD_DIM, BLOCK_M, BLOCK_D, UPCAST, NEGATIVE_SCALE)
    qv = None
    if qv_ptr is not None:
        qv_ptr += batch_wide * stride_qvb + query_start * stride_qvs + first_head * stride_qvh
        qv_offsets = packed_offsets(tokens, members, stride_qvs, stride_qvh, BLOCK_DV)
        qv = load_queries(
            qv_ptr, qv_offsets, num_rows - first_row, HEAD_DIM_V, BLOCK_M, BLOCK_DV, UPCAST, NEGATIVE_SCALE
        )
    scale_log2, qk_scale, qv_scale = score_scales(
        scale_log2, q_descale, k_descale, v_descale, stride_q_descale_b, stride_q_descale_h,
        stride_k_descale_b, stride_k_descale_h, stride_v_descale_b, stride_v_descale_h, batch, head_k,
        qv_ptr is not None,
    )  # fmt: skip
    k_offsets = tile_offsets(stride_ks, BLOCK_N, BLOCK_D, WIDE_OFFSETS)
    v_offsets = tile_offsets(stride_vs, BLOCK_N, BLOCK_DV, WIDE_OFFSETS)
    slope = None
    if alibi_slopes is not None:
        slope = alibi_slope(alibi_slopes, stride_alibi, batch, heads)[:, None]

    row_max, row_sum = initial_state(sink_ptr, heads, BLOCK_M)
    if sink_ptr is not None:
        # The sink counts in one part only.
        row_sum = tl.where(split == 0, row_sum, 0.0)
    acc = tl.zeros((BLOCK_M, BLOCK_DV), tl.float32)
    last_token = (tl.minimum(first_row + BLOCK_M, num_rows) - 1) // nheads_per_group
    begin, full_begin, full_end, end = band_blocks(
        first_row // nheads_per_group, last_token, seqlen_k - seqlen_q, seqlen_k,
        window_left, window_right, 0, BLOCK_N, HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK,
    )  # fmt: skip
    # The keys of this split: an equal share of the blocks that the tile meets.
    share = tl.cdiv(tl.cdiv(end - begin, BLOCK_N), num_splits) * BLOCK_N
    low = begin + split * share
    high = tl.minimum(low + share, end)
    # Left edge of a window or chunk, blocks without a mask, right edge.
    for part in tl.static_range(0 if HAS_WINDOW_LEFT or CHUNK > 0 else 1, 3):
        acc, row_max, row_sum = attend_blocks(
            acc, row_max, row_sum, q, qv, qk_scale, qv_scale,
            tl.maximum(low, begin if part == 0 else full_begin if part == 1 else full_end),
            tl.minimum(high, full_begin if part == 0 else full_end if part == 1 else end),
            tokens, first_row, seqlen_q, seqlen_k,
            k_ptr, v_ptr, k_offsets, v_offsets, key_start if leftpad_k is not None else None,
            stride_kb, stride_ks, stride_vb, stride_vs, table_ptr, sequences_k,
            slope, scale_log2, softcap_log2, window_left, window_right,
            None, 0, 0,
            HEAD_DIM, HEAD_DIM_V, PAGE_SIZE, BLOCK_M, BLOCK_N, BLOCK_D, BLOCK_DV,
            HAS_WINDOW_LEFT, HAS_WINDOW_RIGHT, CHUNK, HAS_SOFTCAP, ROUND_BY_ADD, HEADROOM, part != 1,
        )  # fmt: skip

    reciprocal, lse = normaliser(row_max, row_sum)
    reciprocal = descaled(reciprocal, v_descale, stride_v_descale_b, stride_v_descale_h, batch, head_k)
    out = (acc * reciprocal[:, None]).to(out_ptr.dtype.element_ty)
    out_ptr += split_wide * stride_out_split + batch_wide * stride_ob + query_start * stride_os + first_head * stride_oh
    out_offsets = packed_offsets(tokens, members, stride_os, stride_oh, BLOCK_DV)
    store_tile(out_ptr, out_offsets, out, num_rows - first_row, HEAD_DIM_V, BLOCK_M, BLOCK_DV)
    lse_ptr += split_wide * stride_lse_split + batch_wide * stride_lse_b + query_start
    lse_offsets = heads.to(tl.int64) * stride_lse_h + tokens
    tl.store(lse_ptr + lse_offsets, lse, mask=rows < num_rows)


# Tokens of a sequence up to which a call is one of decoding: what speculative decoding verifies at once.
_FEW_TOKENS = 16


@dataclass(frozen=True)
class _Split:
    """How the rows and keys of a problem are cut: rows of a tile, tiles of a KV head, parts of the keys."""

    block_m: int
    num_blocks: int
    num_splits: int


def _split(problem: Problem, config: DecodeConfig, compute_units: int, num_splits: int) -> _Split:
    packed_rows = problem.max_seqlen_q * problem.nheads_per_group
    block_m = min(config.block_m, max(16, triton.next_power_of_2(packed_rows)))
    num_blocks = triton.cdiv(packed_rows, block_m)
    if num_splits == 0:
        tokens = min(problem.max_seqlen_q, triton.cdiv(block_m, problem.nheads_per_group) + 1)
        programs = num_blocks * problem.nheads_k * problem.batch_size
        slots = compute_units * config.programs_per_unit
        num_splits = choose_num_splits(programs, most_keys_of_tile(problem, tokens), slots)
    return _Split(block_m, num_blocks, num_splits)


def has_few_rows(problem: Problem) -> bool:
    """Whether this kernel serves a call better than that of :mod:`.forward`."""
    return problem.max_seqlen_q <= _FEW_TOKENS and problem.dropout_p == 0


def workspace_size(problem: Problem, config: DecodeConfig, compute_units: int, num_splits: int = 0) -> int:
    """fp32 elements that :func:`decode` needs for partial results; 0 when the keys are not split."""
    parts = _split(problem, config, compute_units, num_splits).num_splits
    rows = problem.q.shape[:-1].numel()
    return 0 if parts == 1 else parts * rows * (problem.head_dim_v + 1)


def decode_launches(
    problem: Problem,
    config: DecodeConfig,
    compute_units: int,
    new_tokens: NewTokens | None = None,
    num_splits: int = 0,
    workspace: Tensor | None = None,
) -> tuple[Tensor, Tensor, list[Launch]]:
    """Output, log-sum-exp, and the launches that fill them; arguments as :func:`decode`."""
    launches = []
    if new_tokens is not None:
        problem, launch = append_launch(problem, new_tokens)
        launches.append(launch)
    if problem.max_seqlen_q == 1 and problem.window_right >= 0:
        # The only row is the last one, which a right bound hides nothing from.
        problem = dataclasses.replace(problem, window_right=-1)
    split = _split(problem, config, compute_units, num_splits)
    out, softmax_lse = new_results(problem)
    target, target_lse = out, softmax_lse
    if split.num_splits > 1:
        target, target_lse = _partial_results(out, softmax_lse, split.num_splits, workspace)
    arguments = {
        **result_arguments(problem, out, softmax_lse),
        "out_ptr": target,
        "lse_ptr": target_lse,
        "sink_ptr": problem.learnable_sink,
        "stride_out_split": out.numel(),
        "stride_lse_split": softmax_lse.numel(),
        "num_splits": split.num_splits,
        "num_blocks": split.num_blocks,
        **problem.kernel_arguments(),
        "BLOCK_M": split.block_m,
        "BLOCK_N": config.block_n,
        "ROUND_BY_ADD": config.round_by_add,
        **fp8_arguments(problem, config),
        "NUM_XCDS": config.num_xcds,
    }
    grid = (split.num_blocks * split.num_splits * problem.nheads_k * problem.batch_size,)
    launches.append(Launch(_attn_split_kernel, grid, arguments, config.options()))
    if split.num_splits > 1:
        launches.append(combine_launch(problem, out, softmax_lse, target, target_lse))
    return out, softmax_lse, launches


def decode(
    problem: Problem,
    config: DecodeConfig,
    compute_units: int,
    new_tokens: NewTokens | None = None,
    num_splits: int = 0,
    workspace: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Append, rotate and attend; nothing waits for the GPU, and nothing allocated depends on what lies on it.

    Args:
        problem: the call, without dropout. With ``new_tokens`` its ``seqused_k`` are the lengths before them.
        config: tiles and compiler options.
        compute_units: compute units (SMs) of the GPU.
        new_tokens: keys and values to append in place, and the rotary table.
        num_splits: parts into which the keys are split; 0 chooses.
        workspace: fp32, contiguous, of at least :func:`workspace_size` elements, for partial results; by default
            allocated. What it held is lost, and the caller keeps calls that share it in one stream.

    Returns:
        Output in the layout of q, and fp32 log-sum-exp ``(batch, nheads_q, seqlen_q)`` or ``(nheads_q, total_q)``.

    Raises:
        ValueError: the workspace is too small or no fp32 vector.
    """
    out, softmax_lse, launches = decode_launches(problem, config, compute_units, new_tokens, num_splits, workspace)
    for launch in launches:
        launch.run()
    return out, softmax_lse


def _partial_results(
    out: Tensor, softmax_lse: Tensor, num_splits: int, workspace: Tensor | None
) -> tuple[Tensor, Tensor]:
    """fp32 ``(num_splits, *out.shape)`` and ``(num_splits, *softmax_lse.shape)``."""
    sizes = [num_splits * out.numel(), num_splits * softmax_lse.numel()]
    if workspace is None:
        workspace = out.new_empty(sum(sizes), dtype=torch.float32)
    if workspace.dtype != torch.float32 or workspace.dim() != 1 or workspace.numel() < sum(sizes):
        raise ValueError(
            f"workspace is {workspace.dtype} of shape {tuple(workspace.shape)}; "
            f"this call takes torch.float32 of shape ({sum(sizes)},) or longer"
        )
    partial_out, partial_lse = workspace[: sum(sizes)].split(sizes)
    return partial_out.view(num_splits, *out.shape), partial_lse.view(num_splits, *softmax_lse.shape)
