"""Host programs built by nvcc run whole, their launches executed as PTX."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ptx_sim

pytestmark = pytest.mark.cuda


def _nvcc() -> str:
    found = shutil.which("nvcc") or str(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc")
    assert Path(found).is_file(), "nvcc is neither in PATH nor in $CUDA_HOME"
    return found


@pytest.fixture(scope="module", params=["compressed", "plain"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    target = tmp_path_factory.mktemp("program") / "program.so"
    options = ["--no-compress"] if request.param == "plain" else []
    source = Path(__file__).with_name("program.cu")
    architecture = "-gencode=arch=compute_80,code=compute_80"
    command = [_nvcc(), "-shared", "-Xcompiler", "-fPIC", "--cudart", "shared", "-std=c++17", *options, architecture]
    subprocess.run([*command, str(source), "-o", str(target)], check=True)
    with ptx_sim.cuda_device("sm_80"):
        yield ctypes.CDLL(str(target))


@pytest.fixture
def device() -> Iterator[ptx_sim.cuda_device]:
    with ptx_sim.cuda_device("sm_80") as device:
        yield device


def _address(array: np.ndarray[Any, Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _exchanged(data: np.ndarray[Any, Any]) -> list[float]:
    places = np.arange(len(data))
    padded = np.concatenate([data, np.zeros(-len(data) % 128, np.float32)])
    return [float(2 * padded[place ^ 32] + (1.5 if place % 2 else 0.5)) for place in places]


@pytest.mark.parametrize("shared", [512, 100 << 10])
def test_launches_with_structures_and_variables(library: Any, device: ptx_sim.cuda_device, shared: int) -> None:
    data, out = np.arange(300, dtype=np.float32), np.full(300, np.nan, np.float32)
    with device.allow(data, out):
        assert library.run_exchange(_address(data), _address(out), 300, shared) == 0
    assert out.tolist() == _exchanged(data)
    assert len(device.launches) == 1
    assert device.last_report is not None
    assert device.last_report.thread_blocks == 3


def test_too_much_shared_memory_is_refused(library: Any, device: ptx_sim.cuda_device) -> None:
    data = np.zeros(300, np.float32)
    with device.allow(data):
        assert library.run_exchange(_address(data), _address(data), 300, 200 << 10) == 1
    assert not device.launches


def test_device_memory(library: Any, device: ptx_sim.cuda_device) -> None:
    data, out = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    assert library.run_on_device_memory(_address(data), _address(out), 128) == 0
    assert out.tolist() == _exchanged(data)


def test_launches_by_configuration_and_the_mathematics_of_nvcc(library: Any, device: ptx_sim.cuda_device) -> None:
    data, out = np.linspace(-3, 3, 32, dtype=np.float32), np.zeros(1, np.float32)
    with device.allow(data, out):
        assert library.run_sum(_address(data), _address(out)) == 0
    lanes = np.arange(32)
    exact = (np.exp(data.astype(np.float64)) + np.log(1.0 + lanes) + np.sqrt(lanes) / 3).sum()
    # 31 sums, and a few units in the last place of each term, of which none is negative
    assert abs(out[0] - exact) <= (31 + 8) * 2.0**-24 * exact


def test_faults_reach_python(library: Any, device: ptx_sim.cuda_device) -> None:
    data, out = np.zeros(64, np.float32), np.zeros(64, np.float32)
    with device.allow(data, out):
        assert library.run_too_early(_address(data), _address(out)) == 719
        # the device is lost until the error is raised
        assert library.run_sum(_address(data), _address(out)) == 719
        with pytest.raises(ptx_sim.SharedRaceError):
            device.raise_pending()
        assert library.run_sum(_address(data), _address(out)) == 0
    assert library.run_too_early(_address(data), _address(out)) == 719
    with pytest.raises(ptx_sim.OutOfBoundsError, match="global load of 4 bytes"):
        device.raise_pending()


def test_queries(library: Any, device: ptx_sim.cuda_device) -> None:
    values = np.zeros(3, np.int32)
    assert library.query(_address(values)) == 0
    assert values.tolist() == [108, 163 << 10, 4]
    library.name_of.restype = ctypes.c_char_p
    assert library.name_of(719) == b"cudaErrorLaunchFailure"
