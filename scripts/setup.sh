#!/usr/bin/env bash
# Everything `make demo` and `make test` need on a bare Debian or Ubuntu machine:
# system libraries (as root or through sudo), .venv, the package itself (editable).
# Runs again only when pyproject.toml, napari.yaml or this file has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/.setup-stamp
wanted=$(cat pyproject.toml napari.yaml scripts/setup.sh | sha256sum | cut -d' ' -f1)

# Qt's xcb plugin, software OpenGL for the canvas, a virtual display and a mouse for it.
libraries=(xvfb xauth xdotool libgl1-mesa-dri libgl1 libegl1 libopengl0 libglib2.0-0 libfontconfig1
  libdbus-1-3 libxkbcommon-x11-0 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0
  libxcb-render-util0 libxcb-shape0 libxcb-xinerama0 fonts-dejavu-core)

missing=()
if command -v dpkg-query >/dev/null; then
  for p in "${libraries[@]}"; do
    # Newer releases renamed some packages (libglib2.0-0t64): the alias counts as installed.
    # (dpkg-query fails when one of the two is unknown; what it printed of the other counts.)
    found=$(dpkg-query -W -f='${Status}\n' "$p" "${p}t64" 2>/dev/null || true)
    grep -q 'install ok installed' <<<"$found" || missing+=("$p")
  done
fi

python=""
for candidate in "${PYTHON:-}" python3.13 python3.12 python3.11 python3; do
  [ -n "$candidate" ] && command -v "$candidate" >/dev/null || continue
  "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { python=$candidate; break; }
done
if [ -z "$python" ] || ! "$python" -c 'import ensurepip' 2>/dev/null; then
  missing+=(python3 python3-venv python3-pip)
fi

if [ ${#missing[@]} -gt 0 ]; then
  as_root=""
  [ "$(id -u)" = 0 ] || as_root="sudo -n"
  if command -v apt-get >/dev/null && { [ -z "$as_root" ] || $as_root true 2>/dev/null; }; then
    echo "setup: installing system packages: ${missing[*]}"
    $as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
  else
    echo "setup: these system packages are missing and could not be installed without root:" >&2
    echo "  sudo apt-get install ${missing[*]}" >&2
    [ -n "$python" ] || exit 1
  fi
  [ -n "$python" ] || python=python3
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
  echo "setup: Python 3.11 or newer is needed; found $("$python" --version). Set PYTHON=/path/to/python3.11." >&2; exit 1; }

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "setup: installing Python packages into .venv (a few minutes the first time; torch alone is about 5 GB)"
.venv/bin/python -m pip install -q --upgrade "pip>=25.1"
# torch and torchvision named together, so that the resolver takes a pair that belongs together.
.venv/bin/python -m pip install -q torch torchvision -e ".[all]" --group dev
echo "$wanted" > "$stamp"
echo "setup: done. Try: .venv/bin/cellpath demo"
