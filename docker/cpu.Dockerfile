# flash-attn on a machine without a GPU: PyTorch's CPU build and a pure-Python package.
ARG BASE=debian:bookworm-20260824-slim

FROM ${BASE} AS build
ARG TORCH_VERSION=2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY docker/steps.sh /opt/docker/steps.sh
RUN /opt/docker/steps.sh environment "${TORCH_VERSION}" "${TORCH_INDEX}"
COPY . /opt/source
RUN /opt/docker/steps.sh package /opt/source

FROM ${BASE} AS runtime
COPY docker/steps.sh /opt/docker/steps.sh
RUN /opt/docker/steps.sh runtime
COPY --from=build /opt/flash-attn /opt/flash-attn
ENV PATH=/opt/flash-attn/bin:/usr/local/bin:/usr/bin:/bin
USER 10001
WORKDIR /home/flash-attn
HEALTHCHECK --interval=1h --timeout=30m --start-period=30m CMD ["python", "-m", "flash_attn", "check", "--quick"]
CMD ["python"]
