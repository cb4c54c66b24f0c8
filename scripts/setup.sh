#!/usr/bin/env bash
# Makes a virtual environment with the package and its development tools.
#   PYTHON=python3.12 TRITON_VERSION=3.6.0 scripts/setup.sh FOLDER
# With a GPU the CUDA build of torch is taken, or the one that the system's Python already has.
set -euo pipefail
venv=${1:-.venv}
python=${PYTHON:-python3}
here=$(cd "$(dirname "$0")/.." && pwd)

if command -v nvidia-smi >/dev/null 2>&1 && "$python" -c 'import torch, triton; assert torch.cuda.is_available()' 2>/dev/null; then
  echo "Using the torch and triton that $python already has."
  "$python" -m venv --system-site-packages "$venv"
else
  "$python" -m venv "$venv"
fi
pip="$venv/bin/python -m pip --disable-pip-version-check install --quiet"

if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  $pip "torch==${TORCH_VERSION:-2.13.0}"
fi
if ! $pip -e "$here[dev]"; then
  # A GPU machine without a package registry: run with what is there.
  echo "Could not install every development package; going on with those that are here." >&2
  $pip --no-deps --no-build-isolation -e "$here"
fi
# Last, because a torch for GPUs asks for a Triton of its own.
if [ -n "${TRITON_VERSION:-}" ]; then
  $pip "triton==$TRITON_VERSION"
  case "$TRITON_VERSION" in
    3.[4-6].*) $pip "numpy<2.4" ;;  # newer ones refuse what these interpreters do with 1-element arrays
  esac
fi

# The text of the servers' kernels and loaders, for tests/serving: their wheels without what they need.
# vLLM's has 350 MB: SERVERS="sglang vllm" scripts/setup.sh
for server in ${SERVERS:-sglang}; do
  $pip --no-deps --target "$venv/servers" "$server" 2>/dev/null ||
    echo "$server has no wheel for this Python; the tests that read it are skipped." >&2
done
