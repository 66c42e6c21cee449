import struct

from build_tools.kernel_report import code_objects, read_remarks

REMARKS = """Function Name: kernel [-Rpass-analysis=kernel-resource-usage]
VGPRs: 198 [-Rpass-analysis=kernel-resource-usage]
ScratchSize [bytes/lane]: 16 [-Rpass-analysis=kernel-resource-usage]
VGPRs Spill: 4 [-Rpass-analysis=kernel-resource-usage]
Function Name: kernel [-Rpass-analysis=kernel-resource-usage]
VGPRs: 200 [-Rpass-analysis=kernel-resource-usage]
CPU seconds: 31.5
Peak KiB: 800000
"""


def test_remarks_of_two_architectures() -> None:
    kernels, seconds = read_remarks(REMARKS)
    assert [kernel["VGPRs"] for kernel in kernels] == ["198", "200"]
    assert kernels[0]["ScratchSize [bytes/lane]"] == "16"
    assert kernels[0]["VGPRs Spill"] == "4"
    assert seconds == "31.5"


def test_code_objects_of_a_bundle_inside_a_file() -> None:
    images = {
        "host-x86_64-unknown-linux-gnu-": b"",
        "hipv4-amdgcn-amd-amdhsa--gfx942": b"one",
        "hipv4--gfx90a": b"two!",
    }
    header, body = b"__CLANG_OFFLOAD_BUNDLE__" + struct.pack("<Q", len(images)), b""
    start = len(header) + sum(24 + len(name) for name in images)
    for name, image in images.items():
        header += struct.pack("<3Q", start + len(body), len(image), len(name)) + name.encode()
        body += image
    assert dict(code_objects(b"object file" + header + body)) == {"gfx942": b"one", "gfx90a": b"two!"}
    assert list(code_objects(b"no bundle")) == []
