# flash-attn on NVIDIA GPUs: the kernels that its sources have for CUDA, and the Triton that PyTorch brings.
#
# PyTorch's CUDA build carries its own CUDA libraries. BASE and TORCH_INDEX have to be of the same CUDA.
ARG BASE=nvidia/cuda:13.0.2-devel-ubuntu24.04
ARG RUNTIME_BASE=ubuntu:noble-20260610

FROM ${BASE} AS build
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cu130
COPY docker/steps.sh /opt/docker/steps.sh
RUN /opt/docker/steps.sh environment "${TORCH_VERSION}" "${TORCH_INDEX}"
ARG CUTLASS_WHEEL=nvidia-cutlass==4.2.0.0
RUN /opt/docker/steps.sh headers "${CUTLASS_WHEEL}"
# "Environment" in the README describes these.
ARG BUILD_TARGET=auto
ARG CUTLASS_DIR=/opt/headers/cutlass_library/source
ARG FLASH_ATTN_CUDA_ARCHS
ARG MAX_JOBS
ARG NVCC_THREADS
COPY . /opt/source
RUN /opt/docker/steps.sh package /opt/source

FROM ${RUNTIME_BASE} AS runtime
COPY docker/steps.sh /opt/docker/steps.sh
# Triton compiles its launchers where it runs.
RUN /opt/docker/steps.sh runtime gcc libc6-dev python3-dev
COPY --from=build /opt/flash-attn /opt/flash-attn
ENV PATH=/opt/flash-attn/bin:/usr/local/bin:/usr/bin:/bin
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001
WORKDIR /home/flash-attn
HEALTHCHECK --interval=1h --timeout=30m --start-period=30m CMD ["python", "-m", "flash_attn", "check", "--quick"]
CMD ["python"]
