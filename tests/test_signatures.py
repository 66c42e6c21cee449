"""Signatures that other projects introspect or call by position, written out; ours only append keywords."""

import importlib
import inspect

import pytest
import torch

import flash_attn
from flash_attn import flash_attn_3_interface, flash_attn_interface

TAIL = (
    "dropout_p=0.0, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0, alibi_slopes=None, "
    "deterministic=False, return_attn_probs=False"
)
SEQLENS = "cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k"
APPENDED = "num_splits=0, learnable_sink=None"
PUBLIC = {
    "flash_attn_func": f"q, k, v, {TAIL}, {APPENDED}",
    "flash_attn_kvpacked_func": f"q, kv, {TAIL}, {APPENDED}",
    "flash_attn_qkvpacked_func": f"qkv, {TAIL}, {APPENDED}",
    "flash_attn_varlen_func": f"q, k, v, {SEQLENS}, {TAIL}, block_table=None, {APPENDED}",
    "flash_attn_varlen_kvpacked_func": f"q, kv, {SEQLENS}, {TAIL}, {APPENDED}",
    "flash_attn_varlen_qkvpacked_func": f"qkv, cu_seqlens, max_seqlen, {TAIL}, {APPENDED}",
    "flash_attn_with_kvcache": (
        "q, k_cache, v_cache, k=None, v=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, "
        "cache_batch_idx=None, cache_leftpad=None, block_table=None, softmax_scale=None, causal=False, "
        "window_size=(-1, -1), softcap=0.0, rotary_interleaved=True, alibi_slopes=None, num_splits=0, "
        "return_softmax_lse=False, learnable_sink=None"
    ),
}
MASK = "dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap"
GRADIENTS = "dout, q, k, v, out, softmax_lse, dq, dk, dv"
PRIVATE = {
    "_flash_attn_forward": f"q, k, v, {MASK}, alibi_slopes, return_softmax",
    "_flash_attn_varlen_forward": (
        f"q, k, v, {SEQLENS}, dropout_p, softmax_scale, causal, window_size_left=-1, window_size_right=-1, "
        "softcap=0.0, alibi_slopes=None, return_softmax=False, block_table=None, leftpad_k=None, seqused_k=None, "
        "zero_tensors=False, num_splits=0"
    ),
    "_flash_attn_backward": f"{GRADIENTS}, {MASK}, alibi_slopes, deterministic, rng_state=None",
    "_flash_attn_varlen_backward": (
        f"{GRADIENTS}, {SEQLENS}, {MASK}, alibi_slopes, deterministic, rng_state=None, zero_tensors=False"
    ),
    "maybe_contiguous": "x",
    "round_multiple": "x, m",
    "_get_block_size_n": "device, head_dim, is_dropout, is_causal",
}
DESCALES = "q_descale=None, k_descale=None, v_descale=None"
V3_TAIL = (
    f"softmax_scale=None, causal=False, qv=None, {DESCALES}, window_size=(-1, -1), attention_chunk=0, softcap=0.0, "
    "num_splits=1, pack_gqa=None, deterministic=False, sm_margin=0, return_attn_probs=False"
)
V3 = {
    "flash_attn_func": f"q, k, v, {V3_TAIL}",
    "flash_attn_varlen_func": f"q, k, v, {SEQLENS}, seqused_q=None, seqused_k=None, {V3_TAIL}",
    "flash_attn_qkvpacked_func": (
        f"qkv, softmax_scale=None, causal=False, {DESCALES}, window_size=(-1, -1), attention_chunk=0, softcap=0.0, "
        "deterministic=False, num_heads_q=None, sm_margin=0, return_attn_probs=False"
    ),
    "flash_attn_with_kvcache": (
        "q, k_cache, v_cache, k=None, v=None, qv=None, rotary_cos=None, rotary_sin=None, cache_seqlens=None, "
        "cache_batch_idx=None, cache_leftpad=None, page_table=None, cu_seqlens_q=None, cu_seqlens_k_new=None, "
        f"max_seqlen_q=None, rotary_seqlens=None, {DESCALES}, softmax_scale=None, causal=False, "
        "window_size=(-1, -1), attention_chunk=0, softcap=0.0, rotary_interleaved=True, scheduler_metadata=None, "
        "num_splits=0, pack_gqa=None, sm_margin=0, return_softmax_lse=False"
    ),
    "flash_attn_combine": "out_partial, lse_partial, out=None, out_dtype=None",
    "get_scheduler_metadata": (
        "batch_size, max_seqlen_q, max_seqlen_k, num_heads_q, num_heads_kv, headdim, cache_seqlens, "
        "qkv_dtype=torch.bfloat16, headdim_v=None, cu_seqlens_q=None, cu_seqlens_k_new=None, cache_leftpad=None, "
        "page_size=None, max_seqlen_k_new=0, causal=False, window_size=(-1, -1), attention_chunk=0, "
        "has_softcap=False, num_splits=0, pack_gqa=None, sm_margin=0"
    ),
}
V3_PRIVATE = {
    "_flash_attn_forward": (
        "q, k, v, k_new=None, v_new=None, qv=None, out_=None, cu_seqlens_q=None, cu_seqlens_k=None, "
        "cu_seqlens_k_new=None, seqused_q=None, seqused_k=None, max_seqlen_q=None, max_seqlen_k=None, "
        "page_table=None, kv_batch_idx=None, leftpad_k=None, rotary_cos=None, rotary_sin=None, seqlens_rotary=None, "
        f"{DESCALES}, softmax_scale=None, causal=False, window_size_left=-1, window_size_right=-1, "
        "attention_chunk=0, softcap=0.0, rotary_interleaved=True, scheduler_metadata=None, num_splits=1, "
        "pack_gqa=None, sm_margin=0"
    ),
    "_flash_attn_backward": (
        "dout, q, k, v, out, softmax_lse, cu_seqlens_q=None, cu_seqlens_k=None, sequed_q=None, sequed_k=None, "
        "max_seqlen_q=None, max_seqlen_k=None, dq=None, dk=None, dv=None, softmax_scale=None, is_causal=False, "
        "window_size_left=-1, window_size_right=-1, softcap=0.0, deterministic=False, sm_margin=0"
    ),
}
RAW_ARGUMENTS = {"fwd": 13, "varlen_fwd": 22, "bwd": 19, "varlen_bwd": 24, "fwd_kvcache": 20}
OPERATORS = ("_flash_attn_forward", "_flash_attn_varlen_forward", "_flash_attn_backward", "_flash_attn_varlen_backward")


def _plain(function: object) -> str:
    """Names and defaults of a function, without annotations."""
    parameters = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    assert all(p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters)


@pytest.mark.parametrize(("name", "expected"), PUBLIC.items())
def test_public_functions(name: str, expected: str) -> None:
    assert _plain(getattr(flash_attn, name)) == expected
    assert getattr(flash_attn_interface, name) is getattr(flash_attn, name)


@pytest.mark.parametrize(("name", "expected"), PRIVATE.items())
def test_private_functions(name: str, expected: str) -> None:
    function = getattr(flash_attn_interface, name)
    assert inspect.isfunction(function)
    assert _plain(function) == expected
    assert inspect.getfullargspec(function).args == [
        part.split("=")[0] for part in expected.split(", ") if part[0].isalpha() or part[0] == "_"
    ]


@pytest.mark.parametrize(("name", "expected"), (V3 | V3_PRIVATE).items())
def test_v3_functions(name: str, expected: str) -> None:
    top_level = importlib.import_module("flash_attn_interface")
    package = importlib.import_module("flash_attn_3.flash_attn_interface")
    assert _plain(getattr(top_level, name)) == expected
    assert getattr(package, name) is getattr(top_level, name)
    if name in V3:
        assert getattr(flash_attn_3_interface, name) is getattr(top_level, name)


@pytest.mark.parametrize(("name", "arguments"), RAW_ARGUMENTS.items())
def test_raw_functions(name: str, arguments: int) -> None:
    import flash_attn_2_cuda

    for module in (flash_attn_interface.flash_attn_gpu, flash_attn_2_cuda):
        assert len(inspect.signature(getattr(module, name)).parameters) == arguments
        assert module.__backend__ == "cpu"


@pytest.mark.parametrize("name", OPERATORS)
def test_wrapped_functions_are_operators(name: str) -> None:
    operator = getattr(torch.ops.flash_attn, name)
    assert getattr(flash_attn_interface, f"_wrapped{name}") is operator
    schema = operator.default._schema
    assert [argument.name for argument in schema.arguments] == list(
        inspect.signature(getattr(flash_attn_interface, name)).parameters
    )
    written = [argument.name for argument in schema.arguments if argument.is_write]
    assert written == (["dq", "dk", "dv"] if "backward" in name else [])


def test_names_that_others_import() -> None:
    assert isinstance(flash_attn_interface.USE_TRITON_ROCM, bool)
    assert flash_attn_interface._torch_custom_op_wrapper is torch.library.custom_op
    assert flash_attn_interface._torch_register_fake_wrapper is torch.library.register_fake
