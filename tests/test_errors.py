"""Every unsuitable argument raises a message that names it; nothing wrong gets as far as a backend."""

# Argument lists are unpacked and results indexed in ways that mypy cannot follow.
# mypy: disable-error-code="arg-type,call-arg,union-attr,return-value"

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from flash_attn import (
    flash_attn_3_interface,
    flash_attn_func,
    flash_attn_kvpacked_func,
    flash_attn_qkvpacked_func,
    flash_attn_varlen_func,
    flash_attn_with_kvcache,
    use_backend,
)
from flash_attn.flash_attn_interface import _flash_attn_backward, _flash_attn_varlen_forward, flash_attn_gpu

HALF, INT32 = torch.float16, torch.int32
F8, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def t(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


def ints(*values: int, dtype: torch.dtype = INT32) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def dense(**changed: Any) -> Any:
    return flash_attn_func(**({"q": t(2, 4, 4, 8), "k": t(2, 6, 2, 8), "v": t(2, 6, 2, 8)} | changed))


def varlen(**changed: Any) -> Any:
    lengths = {"cu_seqlens_q": ints(0, 2, 5), "cu_seqlens_k": ints(0, 3, 7), "max_seqlen_q": 3, "max_seqlen_k": 4}
    return flash_attn_varlen_func(**({"q": t(5, 4, 8), "k": t(7, 2, 8), "v": t(7, 2, 8)} | lengths | changed))


def paged(**changed: Any) -> Any:
    pages = {"k": t(6, 2, 2, 8), "v": t(6, 2, 2, 8), "block_table": ints(0, 1, 2, 3).view(2, 2)}
    return varlen(**(pages | changed))


def private_varlen(**changed: Any) -> Any:
    options = {"dropout_p": 0.0, "softmax_scale": 1.0, "causal": False}
    lengths = {"cu_seqlens_q": ints(0, 2, 5), "cu_seqlens_k": ints(0, 3, 7), "max_seqlen_q": 3, "max_seqlen_k": 4}
    tensors = {"q": t(5, 4, 8), "k": t(7, 2, 8), "v": t(7, 2, 8)}
    return _flash_attn_varlen_forward(**(tensors | lengths | options | changed))


def cache(**changed: Any) -> Any:
    return flash_attn_with_kvcache(
        **({"q": t(2, 1, 4, 8), "k_cache": t(2, 9, 2, 8), "v_cache": t(2, 9, 2, 8)} | changed)
    )


def append(**changed: Any) -> Any:
    return cache(**({"k": t(2, 3, 2, 8), "v": t(2, 3, 2, 8), "cache_seqlens": ints(1, 2)} | changed))


def rotary(**changed: Any) -> Any:
    return append(**({"rotary_cos": t(9, 4), "rotary_sin": t(9, 4)} | changed))


def paged_cache(**changed: Any) -> Any:
    pages = {"k_cache": t(6, 4, 2, 8), "v_cache": t(6, 4, 2, 8), "block_table": ints(0, 1, 2, 3).view(2, 2)}
    return cache(**(pages | changed))


def backward(**changed: Any) -> Any:
    tensors = {name: t(2, 4, 2, 8) for name in ("dout", "q", "k", "v", "out", "dq", "dk", "dv")}
    options = {
        "softmax_lse": t(2, 2, 4),
        "dropout_p": 0.0,
        "softmax_scale": 1.0,
        "causal": False,
        "window_size_left": -1,
        "window_size_right": -1,
        "softcap": 0.0,
        "alibi_slopes": None,
        "deterministic": False,
    }
    return _flash_attn_backward(**(tensors | options | changed))


@dataclass(frozen=True)
class Bad:
    """A call, what is changed in it, and how the message must begin and go on."""

    call: Callable[..., Any]
    changed: dict[str, Any]
    message: str
    error: type[Exception] = ValueError


def v3_dense(**changed: Any) -> Any:
    tensors = {"q": t(2, 4, 4, 8), "k": t(2, 6, 2, 8), "v": t(2, 6, 2, 8)}
    return flash_attn_3_interface.flash_attn_func(**(tensors | changed))


def v3_varlen(**changed: Any) -> Any:
    lengths = {"cu_seqlens_q": ints(0, 2, 5), "cu_seqlens_k": ints(0, 3, 7), "max_seqlen_q": 3, "max_seqlen_k": 4}
    tensors = {"q": t(5, 4, 8), "k": t(7, 2, 8), "v": t(7, 2, 8), "seqused_q": ints(1, 3)}
    return flash_attn_3_interface.flash_attn_varlen_func(**(tensors | lengths | changed))


def v3_cache(**changed: Any) -> Any:
    tensors = {"q": t(5, 4, 8), "k_cache": t(2, 9, 2, 8), "v_cache": t(2, 9, 2, 8), "cu_seqlens_q": ints(0, 2, 5)}
    return flash_attn_3_interface.flash_attn_with_kvcache(**(tensors | changed))


def v3_append(**changed: Any) -> Any:
    new = {"k": t(4, 2, 8), "v": t(4, 2, 8), "cu_seqlens_k_new": ints(0, 1, 4), "cache_seqlens": ints(1, 2)}
    return v3_cache(**(new | changed))


def v3_rotary(**changed: Any) -> Any:
    tables = {"rotary_cos": t(12, 4), "rotary_sin": t(12, 4), "rotary_seqlens": ints(3, 9)}
    return v3_append(**(tables | changed))


def v3_packed(**changed: Any) -> Any:
    return flash_attn_3_interface.flash_attn_qkvpacked_func(**({"qkv": t(2, 4, 8, 8), "num_heads_q": 4} | changed))


def v3_combine(**changed: Any) -> Any:
    tensors = {"out_partial": t(3, 2, 4, 2, 8), "lse_partial": t(3, 2, 4, 2)}
    return flash_attn_3_interface.flash_attn_combine(**(tensors | changed))


def v3_plan(**changed: Any) -> Any:
    sizes = {"max_seqlen_q": 1, "max_seqlen_k": 9, "num_heads_q": 4, "num_heads_kv": 2, "headdim": 8}
    plan = flash_attn_3_interface.get_scheduler_metadata
    return plan(**({"batch_size": 2, "cache_seqlens": ints(1, 2)} | sizes | changed))


META = torch.device("meta")
TABLE = {
    "q int": Bad(dense, {"q": t(2, 4, 4, 8, dtype=INT32)}, "q: got dtype torch.int32; accepted", TypeError),
    "k other dtype": Bad(dense, {"k": t(2, 6, 2, 8, dtype=HALF)}, "k: got dtype torch.float16; accepted", TypeError),
    "v other dtype": Bad(dense, {"v": t(2, 6, 2, 8, dtype=HALF)}, "v: got dtype torch.float16; accepted", TypeError),
    "q sparse": Bad(dense, {"q": t(2, 4, 4, 8).to_sparse()}, "q: got layout torch.sparse_coo; accepted", TypeError),
    "q without heads": Bad(dense, {"q": t(2, 4, 0, 8)}, "q: got 0 heads; accepted is 1 or more"),
    "q without dimensions": Bad(dense, {"q": torch.tensor(1.0)}, r"q: got shape \(\); accepted"),
    "q rank": Bad(dense, {"q": t(2, 4, 8)}, r"q: got shape \(2, 4, 8\); accepted"),
    "k rank": Bad(dense, {"k": t(2, 6, 8)}, r"k: got shape \(2, 6, 8\); accepted"),
    "v rank": Bad(dense, {"v": t(2, 6, 8)}, r"v: got shape \(2, 6, 8\); accepted"),
    "k batch": Bad(dense, {"k": t(3, 6, 2, 8), "v": t(3, 6, 2, 8)}, "k: got batch size 3; accepted"),
    "v length": Bad(dense, {"v": t(2, 5, 2, 8)}, r"v: got shape \(2, 5, 2, 8\); accepted"),
    "v heads": Bad(dense, {"v": t(2, 6, 1, 8)}, r"v: got shape \(2, 6, 1, 8\); accepted"),
    "k head dim": Bad(dense, {"k": t(2, 6, 2, 7)}, "k: got head_dim 7; accepted is that of q, 8"),
    "heads not divisible": Bad(dense, {"k": t(2, 6, 3, 8), "v": t(2, 6, 3, 8)}, "k: got 3 heads for 4 heads of q"),
    "no heads": Bad(dense, {"k": t(2, 6, 0, 8), "v": t(2, 6, 0, 8)}, "k: got 0 heads for 4 heads of q"),
    "head dim 513": Bad(
        dense, {"q": t(2, 4, 4, 513), "k": t(2, 6, 2, 513)}, "q: got head_dim 513; accepted is 1 to 512"
    ),
    "head dim 0": Bad(dense, {"q": t(2, 4, 4, 0), "k": t(2, 6, 2, 0)}, "q: got head_dim 0; accepted is 1 to 512"),
    "value head dim 600": Bad(dense, {"v": t(2, 6, 2, 600)}, "v: got head_dim 600; accepted is 1 to 512"),
    "k other device": Bad(dense, {"k": t(2, 6, 2, 8).to(META)}, "k: got device meta; accepted is that of q, cpu"),
    "sink other device": Bad(dense, {"learnable_sink": t(4).to(META)}, "learnable_sink: got device meta; accepted"),
    "dropout 1": Bad(dense, {"dropout_p": 1.0}, "dropout_p: got 1.0; accepted"),
    "dropout none": Bad(dense, {"dropout_p": None}, "flash_attn::forward.* for argument 'dropout_p'", RuntimeError),
    "dropout negative": Bad(dense, {"dropout_p": -0.1}, "dropout_p: got -0.1; accepted"),
    "dropout nan": Bad(dense, {"dropout_p": float("nan")}, "dropout_p: got nan; accepted"),
    "scale nan": Bad(dense, {"softmax_scale": float("nan")}, "softmax_scale: got nan; accepted"),
    "scale inf": Bad(dense, {"softmax_scale": float("inf")}, "softmax_scale: got inf; accepted"),
    "scale beyond fp32": Bad(dense, {"softmax_scale": 1e300}, r"softmax_scale: got 1e\+300; accepted"),
    "softcap tiny": Bad(dense, {"softcap": 1e-44}, "softcap: got 1e-44; accepted"),
    "softcap negative": Bad(dense, {"softcap": -1.0}, "softcap: got -1.0; accepted"),
    "softcap nan": Bad(dense, {"softcap": float("nan")}, "softcap: got nan; accepted"),
    "num_splits negative": Bad(dense, {"num_splits": -1}, "num_splits: got -1; accepted"),
    "window one number": Bad(dense, {"window_size": (1,)}, r"window_size: got \(1,\); accepted"),
    "window none": Bad(dense, {"window_size": None}, "window_size: got None; accepted"),
    "window int": Bad(dense, {"window_size": 3}, "window_size: got 3; accepted"),
    "window fractions": Bad(dense, {"window_size": (1.5, 0)}, r"window_size: got \(1.5, 0\); accepted"),
    "slopes dtype": Bad(dense, {"alibi_slopes": t(4, dtype=HALF)}, "alibi_slopes: got dtype torch.float16", TypeError),
    "slopes shape": Bad(
        dense, {"alibi_slopes": t(2)}, r"alibi_slopes: got shape \(2,\); accepted is \(4,\) or \(2, 4\)"
    ),
    "sink shape": Bad(dense, {"learnable_sink": t(2)}, r"learnable_sink: got shape \(2,\); accepted is \(4,\)"),
    "sink list": Bad(dense, {"learnable_sink": [1.0]}, "flash_attn::.* for argument 'learnable_sink'", RuntimeError),
    "sink dtype": Bad(dense, {"learnable_sink": ints(1, 2, 3, 4)}, "learnable_sink: got dtype torch.int32", TypeError),
    "qkv parts": Bad(
        flash_attn_qkvpacked_func, {"qkv": t(2, 4, 2, 4, 8)}, r"qkv: got shape \(2, 4, 2, 4, 8\); accepted"
    ),
    "kv parts": Bad(flash_attn_kvpacked_func, {"q": t(2, 4, 4, 8), "kv": t(2, 4, 4, 8)}, "kv: got shape"),
    "offsets dtype": Bad(
        varlen, {"cu_seqlens_q": ints(0, 2, 5, dtype=torch.int64)}, "cu_seqlens_q: got dtype", TypeError
    ),
    "offsets rank": Bad(varlen, {"cu_seqlens_k": ints(0, 3, 7).view(1, 3)}, r"cu_seqlens_k: got shape \(1, 3\)"),
    "offsets of another batch": Bad(
        varlen, {"cu_seqlens_k": ints(0, 7)}, r"cu_seqlens_k: got shape \(2,\); accepted is \(3,\)"
    ),
    "no offsets": Bad(varlen, {"cu_seqlens_q": ints(), "cu_seqlens_k": ints()}, "cu_seqlens_q: got no entry"),
    "offsets without dimensions": Bad(varlen, {"cu_seqlens_q": torch.tensor(0)}, r"cu_seqlens_q: got shape \(\)"),
    "max_seqlen_q none": Bad(varlen, {"max_seqlen_q": None}, "max_seqlen_q: got None; accepted", TypeError),
    "max_seqlen_k fraction": Bad(varlen, {"max_seqlen_k": 4.5}, "max_seqlen_k: got 4.5; accepted", TypeError),
    "max_seqlen_k tensor": Bad(varlen, {"max_seqlen_k": ints(4, 4)}, "max_seqlen_k: got tensor", TypeError),
    "offsets not from 0": Bad(varlen, {"cu_seqlens_q": ints(1, 2, 5)}, "cu_seqlens_q: got 1 as first entry"),
    "offsets decrease": Bad(varlen, {"cu_seqlens_k": ints(0, 5, 3)}, r"cu_seqlens_k: got \[0, 5, 3\]; accepted"),
    "offsets too far": Bad(
        varlen, {"cu_seqlens_k": ints(0, 4, 8)}, "cu_seqlens_k: got 8 as last entry; accepted is at most 7"
    ),
    "max_seqlen_q small": Bad(varlen, {"max_seqlen_q": 2}, "max_seqlen_q: got 2; accepted is the longest sequence, 3"),
    "max_seqlen_k negative": Bad(varlen, {"max_seqlen_k": -1}, "max_seqlen_k: got -1; accepted"),
    "varlen rank": Bad(varlen, {"q": t(1, 5, 4, 8)}, r"q: got shape \(1, 5, 4, 8\); accepted is \(total"),
    "table dtype": Bad(
        paged, {"block_table": ints(0, 1, 2, 3, dtype=torch.int64).view(2, 2)}, "block_table: got dtype", TypeError
    ),
    "table rank": Bad(
        paged, {"block_table": ints(0, 1)}, r"block_table: got shape \(2,\); accepted is \(2, max_pages\)"
    ),
    "table batch": Bad(paged, {"block_table": ints(0, 1).view(1, 2)}, r"block_table: got shape \(1, 2\); accepted"),
    "table page too high": Bad(
        paged, {"block_table": ints(0, 1, 2, 6).view(2, 2)}, r"block_table\[1\]: got 6; accepted is 0 to 5"
    ),
    "table page negative": Bad(
        paged, {"block_table": ints(0, -1, 2, 3).view(2, 2)}, r"block_table\[0\]: got -1; accepted"
    ),
    "table too narrow": Bad(
        paged, {"block_table": ints(0, 1).view(2, 1)}, "block_table: got 1 pages of 2 rows for sequence 0"
    ),
    "seqused too high": Bad(private_varlen, {"seqused_k": ints(3, 5)}, r"seqused_k\[1\]: got 5; accepted is 0 to 4"),
    "seqused negative": Bad(private_varlen, {"seqused_k": ints(-1, 4)}, r"seqused_k\[0\]: got -1; accepted"),
    "seqused shape": Bad(private_varlen, {"seqused_k": ints(3)}, r"seqused_k: got shape \(1,\); accepted is \(2,\)"),
    "leftpad negative": Bad(private_varlen, {"leftpad_k": ints(0, -2)}, "leftpad_k: got -2; accepted"),
    "leftpad dtype": Bad(private_varlen, {"leftpad_k": t(2)}, "leftpad_k: got dtype torch.float32", TypeError),
    "no cache": Bad(cache, {"k_cache": None}, "k_cache: got NoneType; accepted", TypeError),
    "cache batch": Bad(cache, {"q": t(3, 1, 4, 8)}, "k_cache: got batch size 2; accepted is that of q, 3"),
    "cache other dtype": Bad(
        cache, {"v_cache": t(2, 9, 2, 8, dtype=HALF)}, "v_cache: got dtype torch.float16", TypeError
    ),
    "cache stride": Bad(
        cache, {"k_cache": t(2, 9, 8, 2).transpose(2, 3)}, "k_cache: got stride 2 in the last dimension"
    ),
    "k without v": Bad(append, {"v": None}, "k, v: got only one of them"),
    "k without lengths": Bad(append, {"cache_seqlens": None}, "cache_seqlens: got None with new k and v"),
    "new k list": Bad(append, {"k": [1]}, "k: got list; accepted", TypeError),
    "append to an expanded cache": Bad(
        append, {"v_cache": t(1, 9, 2, 8).expand(2, 9, 2, 8)}, "v_cache: got an expanded view with new v; accepted"
    ),
    "new k shape": Bad(append, {"k": t(2, 3, 1, 8)}, r"k: got shape \(2, 3, 1, 8\); accepted is \(2, 3, 2, 8\)"),
    "new v length": Bad(append, {"v": t(2, 4, 2, 8)}, r"v: got shape \(2, 4, 2, 8\); accepted is \(2, 3, 2, 8\)"),
    "cache overflows": Bad(append, {"cache_seqlens": ints(1, 7)}, "cache_seqlens: got 7; accepted is 0 to 6"),
    "cache overflows by int": Bad(append, {"cache_seqlens": 8}, "cache_seqlens: got 8; accepted is 0 to 6"),
    "lengths dtype": Bad(
        cache, {"cache_seqlens": ints(1, 2, dtype=torch.int64)}, "cache_seqlens: got dtype", TypeError
    ),
    "lengths beyond int32": Bad(cache, {"cache_seqlens": 2**40}, "cache_seqlens: got 1099511627776; accepted"),
    "lengths too high": Bad(cache, {"cache_seqlens": ints(1, 10)}, "cache_seqlens: got 10; accepted is 0 to 9"),
    "row too high": Bad(cache, {"cache_batch_idx": ints(0, 2)}, "cache_batch_idx: got 2; accepted is 0 to 1"),
    "row and table": Bad(paged_cache, {"cache_batch_idx": ints(0, 1)}, "cache_batch_idx: got a tensor together with"),
    "cache leftpad": Bad(cache, {"cache_leftpad": ints(0, 10)}, "cache_leftpad: got 10; accepted is 0 to 9"),
    "cache table": Bad(paged_cache, {"block_table": ints(0, 9, 2, 3).view(2, 2)}, r"block_table\[0\]: got 9; accepted"),
    "rotary without k": Bad(cache, {"rotary_cos": t(9, 4), "rotary_sin": t(9, 4)}, "rotary_cos: got a tensor without"),
    "cos without sin": Bad(rotary, {"rotary_sin": None}, "rotary_cos, rotary_sin: got only one"),
    "rotary dtype": Bad(rotary, {"rotary_cos": t(9, 4, dtype=HALF)}, "rotary_cos: got dtype torch.float16", TypeError),
    "rotary short": Bad(
        rotary, {"rotary_cos": t(8, 4), "rotary_sin": t(8, 4)}, "rotary_cos: got 8 positions; accepted"
    ),
    "rotary wide": Bad(
        rotary, {"rotary_cos": t(9, 5), "rotary_sin": t(9, 5)}, "rotary_cos: got rotary_dim 10; accepted"
    ),
    "rotary unlike": Bad(rotary, {"rotary_sin": t(9, 3)}, r"rotary_sin: got shape \(9, 3\); accepted"),
    "dq device": Bad(backward, {"dq": t(2, 4, 2, 8).to(META)}, "dq: got device meta; accepted"),
    "dq list": Bad(backward, {"dq": [1]}, "dq: got list; accepted", TypeError),
    "backward without q": Bad(backward, {"q": None, "dq": None}, "q: got NoneType; accepted", TypeError),
    "dout shape": Bad(backward, {"dout": t(2, 4, 2, 7)}, "dout: got torch.float32 of shape"),
    "lse shape": Bad(backward, {"softmax_lse": t(2, 4, 2)}, r"softmax_lse: got torch.float32 of shape \(2, 4, 2\)"),
    "lse dtype": Bad(backward, {"softmax_lse": t(2, 2, 4, dtype=HALF)}, "softmax_lse: got torch.float16 of shape"),
    "dropout without state": Bad(backward, {"dropout_p": 0.5}, "rng_state: got None with dropout_p 0.5; accepted"),
    "state dtype": Bad(backward, {"dropout_p": 0.5, "rng_state": ints(1, 2)}, "rng_state: got torch.int32 of shape"),
    "fp8 v of another kind": Bad(
        dense,
        {"k": t(2, 6, 2, 8, dtype=F8), "v": t(2, 6, 2, 8, dtype=E5M2)},
        "v: got dtype torch.float8_e5m2",
        TypeError,
    ),
    "k wider than fp8 q": Bad(dense, {"q": t(2, 4, 4, 8, dtype=F8)}, "k: got dtype torch.float32; accepted", TypeError),
    "descale dtype": Bad(v3_dense, {"k_descale": t(2, 2, dtype=HALF)}, "k_descale: got dtype torch.float16", TypeError),
    "descale of query heads": Bad(
        v3_dense, {"q_descale": t(2, 4)}, r"q_descale: got shape \(2, 4\); accepted is \(batch"
    ),
    "descale device": Bad(v3_dense, {"v_descale": t(2, 2).to(META)}, "v_descale: got device meta; accepted"),
    "qv shape": Bad(v3_dense, {"qv": t(2, 4, 4, 6)}, r"qv: got shape \(2, 4, 4, 6\); accepted is \(2, 4, 4, 8\)"),
    "qv dtype": Bad(v3_dense, {"qv": t(2, 4, 4, 8, dtype=HALF)}, "qv: got dtype torch.float16; accepted", TypeError),
    "qv of fp8": Bad(
        v3_dense,
        {"q": t(2, 4, 4, 8, dtype=F8), "k": t(2, 6, 2, 8, dtype=F8), "v": t(2, 6, 2, 8, dtype=F8)}
        | {"qv": t(2, 4, 4, 8, dtype=F8)},
        "qv: got a tensor with q of torch.float8_e4m3fn; accepted",
        TypeError,
    ),
    "qv beside q too wide": Bad(
        v3_dense,
        {"q": t(2, 4, 4, 300).requires_grad_(), "k": t(2, 6, 2, 300), "v": t(2, 6, 2, 300), "qv": t(2, 4, 4, 300)},
        "qv: got head_dim 300 beside 300 of q where gradients are needed; accepted",
    ),
    "qv with gradients and other keys": Bad(
        v3_dense, {"q": t(2, 4, 4, 8).requires_grad_(), "v": t(2, 5, 2, 8), "qv": t(2, 4, 4, 8)}, "v: got shape"
    ),
    "chunk negative": Bad(v3_dense, {"attention_chunk": -1}, "attention_chunk: got -1; accepted is 0 or more"),
    "pack_gqa": Bad(v3_dense, {"pack_gqa": 1}, "pack_gqa: got int; accepted", TypeError),
    "sm_margin": Bad(v3_dense, {"sm_margin": -1}, "sm_margin: got -1; accepted is 0 or more"),
    "scale with gradients": Bad(
        v3_dense, {"q": t(2, 4, 4, 8).requires_grad_(), "q_descale": t(2, 2)}, "q_descale: got a tensor where gradients"
    ),
    "seqused_q too high": Bad(v3_varlen, {"seqused_q": ints(1, 4)}, r"seqused_q\[1\]: got 4; accepted is 0 to 3"),
    "seqused_q shape": Bad(v3_varlen, {"seqused_q": ints(1)}, r"seqused_q: got shape \(1,\); accepted is \(2,\)"),
    "ragged queries too far": Bad(v3_cache, {"cu_seqlens_q": ints(0, 2, 6)}, "cu_seqlens_q: got 6 as last entry"),
    "ragged queries too long": Bad(v3_cache, {"max_seqlen_q": 2}, "max_seqlen_q: got 2; accepted is the longest"),
    "plan list": Bad(v3_cache, {"scheduler_metadata": [1]}, "scheduler_metadata: got list; accepted", TypeError),
    "ragged queries without q": Bad(v3_cache, {"q": None}, "q: got NoneType; accepted", TypeError),
    "ragged queries as a list": Bad(
        v3_cache, {"cu_seqlens_q": [0, 5], "cache_seqlens": 3}, "cu_seqlens_q: got list; accepted", TypeError
    ),
    "plan dtype": Bad(v3_cache, {"scheduler_metadata": t(2)}, "scheduler_metadata: got dtype torch.float32", TypeError),
    "offsets without new tokens": Bad(v3_cache, {"cu_seqlens_k_new": ints(0, 1, 4)}, "cu_seqlens_k_new: got a tensor"),
    "ragged append too far": Bad(
        v3_append, {"cu_seqlens_k_new": ints(0, 1, 5)}, "cu_seqlens_k_new: got 5 as last entry; accepted is at most 4"
    ),
    "ragged append overflows": Bad(
        v3_append, {"cache_seqlens": ints(1, 7)}, "cache_seqlens: got 7; accepted is 0 to 6"
    ),
    "new tokens of another fp8": Bad(
        v3_append,
        {"k_cache": t(2, 9, 2, 8, dtype=F8), "v_cache": t(2, 9, 2, 8, dtype=F8), "k": t(4, 2, 8, dtype=E5M2)},
        "k: got dtype torch.float8_e5m2; accepted is that of k_cache, torch.float8_e4m3fn, or that of q",
        TypeError,
    ),
    "rotary of fp8": Bad(
        v3_rotary,
        {"k_cache": t(2, 9, 2, 8, dtype=F8), "v_cache": t(2, 9, 2, 8, dtype=F8)}
        | {"k": t(4, 2, 8, dtype=F8), "v": t(4, 2, 8, dtype=F8)},
        "k: got dtype torch.float8_e4m3fn with rotary_cos; accepted",
        TypeError,
    ),
    "rotary too far": Bad(v3_rotary, {"rotary_seqlens": ints(3, 10)}, "rotary_seqlens: got 10; accepted is 0 to 9"),
    "rotary positions without tables": Bad(
        v3_append, {"rotary_seqlens": ints(3, 9)}, "rotary_seqlens: got a tensor without rotary_cos"
    ),
    "packed heads": Bad(v3_packed, {"num_heads_q": 3}, "num_heads_q: got 3 for 8 heads of qkv; accepted"),
    "packed heads missing": Bad(v3_packed, {"num_heads_q": None}, "num_heads_q: got None for 8 heads of qkv"),
    "packed heads of five dimensions": Bad(v3_packed, {"qkv": t(2, 4, 3, 4, 8)}, "num_heads_q: got 4 with qkv of five"),
    "partial lse": Bad(
        v3_combine, {"lse_partial": t(3, 2, 2, 4)}, r"lse_partial: got torch.float32 of shape \(3, 2, 2"
    ),
    "partial rank": Bad(v3_combine, {"out_partial": t(2, 4, 2, 8)}, "out_partial: got torch.float32 of shape"),
    "combined shape": Bad(v3_combine, {"out": t(2, 4, 2, 7)}, r"out: got shape \(2, 4, 2, 7\); accepted"),
    "combined dtype": Bad(
        v3_combine, {"out": t(2, 4, 2, 8), "out_dtype": HALF}, "out_dtype: got torch.float16 with out", TypeError
    ),
    "plan lengths": Bad(v3_plan, {"cache_seqlens": ints(1)}, r"cache_seqlens: got shape \(1,\); accepted is \(2,\)"),
    "dq shape": Bad(backward, {"dq": t(2, 4, 4, 8)}, r"dq: got torch.float32 of shape \(2, 4, 4, 8\); accepted"),
}


@pytest.mark.parametrize("name", TABLE)
def test_message_names_the_argument(name: str) -> None:
    bad = TABLE[name]
    with pytest.raises(bad.error, match=rf"^{bad.message}"):
        bad.call(**bad.changed)


@pytest.mark.parametrize("call", [dense, varlen, paged, private_varlen, cache, append, rotary, paged_cache, backward])
def test_the_unchanged_calls_are_good(call: Callable[..., Any]) -> None:
    call()


@pytest.mark.parametrize("call", [v3_dense, v3_varlen, v3_cache, v3_append, v3_rotary, v3_packed, v3_combine, v3_plan])
def test_the_unchanged_v3_calls_are_good(call: Callable[..., Any]) -> None:
    call()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (t(3, 2, 4, 2, 8), r"out: got torch.float32 of shape \(3, 2, 4, 2, 8\); accepted"),
        (t(2, 4, 2, 8, dtype=HALF), "out: got torch.float16"),
        (t(2, 4, 2, 8).to(META), "out: got device meta"),
    ],
)
def test_an_unsuitable_buffer_is_refused(out: Tensor, message: str) -> None:
    q = t(2, 4, 2, 8)
    with pytest.raises(ValueError, match=rf"^{message}"):
        flash_attn_gpu.fwd(q, q, q, out, None, 0.0, 1.0, False, -1, -1)


@pytest.mark.parametrize("call", [dense, cache])
def test_a_tangent_is_refused(call: Callable[..., Any]) -> None:
    q = t(2, 4, 4, 8)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward mode AD"):
        call(q=forward_ad.make_dual(q, q))


@pytest.mark.parametrize("name", ["gpu", "", None, 1])
def test_an_unknown_backend_is_refused(name: Any) -> None:
    with pytest.raises(ValueError, match=rf"^backend name is {name!r}; accepted are auto"), use_backend(name):
        pass


def test_a_generator_is_refused() -> None:
    q = t(1, 2, 1, 8)
    with pytest.raises(ValueError, match=r"^gen: got a generator"):
        flash_attn_gpu.fwd(q, q, q, None, None, 0.1, 1.0, False, -1, -1, 0.0, False, torch.Generator())


def test_entries_of_a_table_behind_the_last_page_may_be_anything() -> None:
    paged(block_table=ints(0, 1, -1, 2, 3, 99).view(2, 3))


@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_missing_tensors_are_named(name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: got NoneType; accepted is a torch\.Tensor"):
        dense(**{name: None})
    with pytest.raises(TypeError, match=r"^qkv: got list; accepted"):
        flash_attn_qkvpacked_func([])
