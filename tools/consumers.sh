#!/bin/sh
# .venv-consumers with requirements/consumers.txt. llama-cpp-python is built once, and its wheel kept.
set -eu
cd "$(dirname "$0")/.."
venv=.venv-consumers
stamp=$venv/.made-from-requirements
if [ -e "$stamp" ] && [ "$stamp" -nt requirements/consumers.txt ]; then exit 0; fi
test -x $venv/bin/python || "${PYTHON:-python3}" -m venv $venv
pip="$venv/bin/python -m pip"
mkdir -p $venv/wheels
llama=$(grep '^llama-cpp-python==' requirements/consumers.txt)
if ! $venv/bin/python -c "import importlib.metadata as m; raise SystemExit(m.version('llama-cpp-python') != '${llama#*==}')" 2>/dev/null; then
    if ! ls $venv/wheels/llama_cpp_python-"${llama#*==}"-*.whl >/dev/null 2>&1; then
        echo "building $llama (about 11 minutes of one core)"
        CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF" \
            nice -n 19 $pip wheel --disable-pip-version-check -q ${PIP_FLAGS:-} --no-deps -w $venv/wheels "$llama"
    fi
fi
$pip install --disable-pip-version-check -q ${PIP_FLAGS:-} --find-links $venv/wheels -r requirements/consumers.txt
# The age of compressed-tensors before the dense layout, beside the present one.
$pip install --disable-pip-version-check -q ${PIP_FLAGS:-} --no-deps --upgrade --target $venv/compressed-tensors-0.17 compressed-tensors==0.17.0
touch $stamp
