"""Which GPU a device is."""

from __future__ import annotations

import torch


def architecture_name(device: torch.device | int) -> str:
    """Name of a GPU's architecture, in the form that ``flash_attn.architectures.find`` takes."""
    properties = torch.cuda.get_device_properties(device)
    name = str(getattr(properties, "gcnArchName", "")) if torch.version.hip else ""
    return name or f"sm_{properties.major}{properties.minor}"


def compute_units(device: torch.device | int) -> int:
    """Compute units of an AMD GPU, streaming multiprocessors of an NVIDIA one."""
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
