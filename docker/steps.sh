#!/usr/bin/env bash
# The steps that the images share; the Dockerfiles call them.
#
#   steps.sh environment TORCH_VERSION TORCH_INDEX   Python and PyTorch, in a virtual environment
#   steps.sh headers REQUIREMENT                     a header-only package that kernels are compiled with
#   steps.sh package SOURCE                          flash-attn from its sources, into that environment
#   steps.sh runtime [DEBIAN_PACKAGE...]             what the environment needs to run, and a user without rights
set -euo pipefail

environment=/opt/flash-attn # all that a runtime stage takes from its build stage
headers=/opt/headers

install_debian() {
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y -o Dpkg::Use-Pty=0 --no-install-recommends "$@"
    rm -rf /var/lib/apt/lists/*
}

step=${1:?"a step: environment, headers, package or runtime"}
shift
case $step in
    environment)
        install_debian python3 python3-venv
        python3 -m venv "$environment"
        "$environment/bin/pip" install --no-cache-dir --index-url "$2" "torch==$1"
        ;;
    headers) "$environment/bin/pip" install --no-cache-dir --no-deps --pre --target "$headers" "$1" ;;
    package) "$environment/bin/pip" install --no-cache-dir "$1" ;;
    runtime)
        install_debian python3 "$@"
        useradd --create-home --uid 10001 flash-attn
        ;;
    *)
        echo "steps.sh: $step is no step; accepted: environment, headers, package, runtime" >&2
        exit 1
        ;;
esac
