# flash-attn on AMD GPUs: CK kernels for GPU_ARCHS, compiled by ROCm's own compiler, and the Triton that PyTorch brings.
#
# PyTorch's ROCm build carries its own ROCm libraries. The runtime stage has no second ROCm beside them, whose HIP
# runtime would be another one than PyTorch's. BASE and TORCH_INDEX have to be of the same ROCm.
ARG BASE=rocm/dev-ubuntu-24.04:7.2.4
ARG RUNTIME_BASE=ubuntu:noble-20260610

FROM ${BASE} AS build
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/rocm7.2
COPY docker/steps.sh /opt/docker/steps.sh
RUN /opt/docker/steps.sh environment "${TORCH_VERSION}" "${TORCH_INDEX}"
ARG CK_WHEEL=amd-aiter==0.1.7.post2.dev18
RUN /opt/docker/steps.sh headers "${CK_WHEEL}"
# "Environment" in the README describes these. A build sees no card: without GPU_ARCHS it compiles for all that CK serves.
ARG BUILD_TARGET=rocm
ARG CK_DIR=/opt/headers/aiter_meta/3rdparty/composable_kernel
ARG GPU_ARCHS
ARG OPT_DIM
ARG FLASH_ATTENTION_CK_PRESET
ARG FLASH_ATTENTION_TRITON_AMD_ENABLE
ARG MAX_JOBS
COPY . /opt/source
RUN /opt/docker/steps.sh package /opt/source

FROM ${RUNTIME_BASE} AS runtime
COPY docker/steps.sh /opt/docker/steps.sh
# Triton compiles its launchers where it runs.
RUN /opt/docker/steps.sh runtime gcc libc6-dev python3-dev
COPY --from=build /opt/flash-attn /opt/flash-attn
ENV PATH=/opt/flash-attn/bin:/usr/local/bin:/usr/bin:/bin
USER 10001
WORKDIR /home/flash-attn
HEALTHCHECK --interval=1h --timeout=30m --start-period=30m CMD ["python", "-m", "flash_attn", "check", "--quick"]
CMD ["python"]
