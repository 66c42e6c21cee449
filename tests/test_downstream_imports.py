"""The import lines and the version gates of the projects that use flash-attn."""

import importlib.metadata
import importlib.util
import subprocess
import sys

import pytest
from packaging.version import Version

import flash_attn

LINES = {
    "transformers": """
from flash_attn import flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache
from flash_attn.bert_padding import pad_input, unpad_input""",
    "diffusers": """
from flash_attn import flash_attn_func, flash_attn_varlen_func
from flash_attn.flash_attn_interface import _wrapped_flash_attn_backward, _wrapped_flash_attn_forward""",
    "TransformerEngine": """
from flash_attn_2_cuda import varlen_bwd
from flash_attn.flash_attn_interface import flash_attn_func, flash_attn_varlen_func, flash_attn_with_kvcache
from flash_attn.flash_attn_interface import _flash_attn_forward, _flash_attn_backward
from flash_attn.flash_attn_interface import _flash_attn_varlen_forward, _flash_attn_varlen_backward""",
    "Megatron-LM": """
from flash_attn import flash_attn_varlen_func, flash_attn_with_kvcache
from flash_attn.layers.rotary import apply_rotary_emb""",
    "xformers": """
from flash_attn.flash_attn_interface import flash_attn_gpu
from flash_attn import flash_attn_interface
assert not hasattr(flash_attn_interface, "flash_attn_cuda")
flash_attn_gpu.fwd, flash_attn_gpu.varlen_fwd, flash_attn_gpu.bwd, flash_attn_gpu.varlen_bwd""",
    "unsloth": """
from flash_attn.flash_attn_interface import flash_attn_gpu
from flash_attn import flash_attn_func, flash_attn_varlen_func""",
    "ring-flash-attention": """
import inspect
from flash_attn.flash_attn_interface import _flash_attn_forward, _flash_attn_backward
from flash_attn.flash_attn_interface import _flash_attn_varlen_forward, _flash_attn_varlen_backward
assert inspect.isfunction(_flash_attn_forward)""",
    "verl": """
from flash_attn.bert_padding import index_first_axis, pad_input, rearrange, unpad_input
from flash_attn.layers.rotary import apply_rotary_emb""",
    "axolotl": """
from flash_attn.flash_attn_interface import flash_attn_func, flash_attn_varlen_qkvpacked_func
from flash_attn.bert_padding import pad_input""",
    "vLLM": """
from flash_attn import flash_attn_varlen_func
from flash_attn.ops.triton.rotary import apply_rotary
from importlib.util import find_spec
assert find_spec("flash_attn.flash_attn_triton_amd") is not None""",
}


@pytest.mark.parametrize("project", LINES)
def test_import_lines(project: str) -> None:
    exec(LINES[project], {})


def test_version_gates() -> None:
    version = Version(flash_attn.__version__)
    assert (
        importlib.metadata.version("flash-attn") == importlib.metadata.version("flash_attn") == flash_attn.__version__
    )
    assert Version("2.1.1") <= version < Version("2.8.4")  # TransformerEngine
    assert Version("2.7.3") <= version  # TransformerEngine on Blackwell, Megatron-LM
    assert Version("2.7.1") <= version <= Version("2.8.4")  # xformers
    assert "flash-attn" in importlib.metadata.packages_distributions()["flash_attn"]  # transformers


def test_no_cute_of_ours() -> None:
    assert importlib.util.find_spec("flash_attn.cute") is None


def test_import_brings_torch_and_nothing_else() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import flash_attn; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert set(printed.split()) - set(sys.stdlib_module_names) == {"flash_attn"}
