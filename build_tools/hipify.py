"""Translate a CUDA source to HIP with PyTorch's hipify: ``python hipify.py TORCH_FOLDER SOURCE OUTPUT``.

Loads ``torch/utils/hipify`` by its path, because a build must not import torch.
"""

import importlib
import shutil
import sys
import tempfile
from pathlib import Path


def hipify(torch_folder: Path, source: Path, output: Path) -> None:
    """Write the HIP translation of ``source`` to ``output``.

    Raises:
        RuntimeError: a CUDA name is left over, so hipify does not know it.
    """
    sys.path.insert(0, str(torch_folder / "utils"))
    translator = importlib.import_module("hipify.hipify_python")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / "source"
        folder.mkdir()
        shutil.copy(source, folder)
        results = translator.hipify(str(folder), output_directory=str(folder), show_progress=False)
        copied = str(folder / source.name)
        translated = Path(results[copied].hipified_path or copied).read_text(encoding="utf-8")
    if "cuda_runtime" in translated:
        raise RuntimeError(f"hipify left CUDA names in {source}")
    output.write_text(translated, encoding="utf-8")


if __name__ == "__main__":
    hipify(*(Path(argument) for argument in sys.argv[1:4]))
