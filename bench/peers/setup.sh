#!/usr/bin/env bash
# Installs what bench/run.sh peers compares with, into a virtual environment of its own. Nothing else needs it.
# The environment is nearfield-peers in the user's cache directory (XDG_CACHE_HOME moves that).
# Python packages come from PyPI (torch alone is gigabytes); oneDNN, photograph and scan from Debian if apt-get works.
set -u
cd "$(dirname "$0")" || exit
. ./where.sh
. ../../build-aux/packages.sh
failed=0

skip() { # WHAT REASON
    echo "SKIP $1: $2"
    failed=1
}

# One package after another, so that one that does not install leaves the rest usable.
python_packages="numpy torch scikit-image opencv-python-headless nibabel dipy"
install_python() {
    command -v python3 >/dev/null || { skip Python 'there is no python3'; return; }
    [ -x "$peers_dir/bin/python" ] || python3 -m venv "$peers_dir" ||
        { skip Python 'python3 -m venv failed (Debian: python3-venv)'; return; }
    local package
    for package in $python_packages; do
        echo "Installing $package into $peers_dir ..."
        "$peers_dir/bin/pip" install --quiet --disable-pip-version-check "$package" || skip "$package" 'pip could not install it'
    done
    "$peers_dir/bin/pip" list --disable-pip-version-check 2>/dev/null |
        grep -i -E '^(numpy|torch|scikit-image|opencv-python-headless|nibabel|dipy) '
    command -v g++ >/dev/null || skip 'compiled FlexAttention' 'torch.compile needs g++'
    [ -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" ] ||
        install_packages python3-dev || skip 'compiled FlexAttention' 'torch.compile needs Python.h (Debian: python3-dev)'
}

# The roof: matrix products by oneDNN.
install_onednn() {
    local header='#include <dnnl.hpp>'
    echo "$header" | g++ -E -x c++ - >/dev/null 2>&1 || install_packages libdnnl-dev ||
        { skip oneDNN 'there is no dnnl.hpp (Debian: libdnnl-dev)'; return; }
    mkdir -p "$peers_dir/bin"
    g++ -O2 -std=c++17 -fopenmp onednn.cpp -o "$peers_dir/bin/onednn" -ldnnl || skip oneDNN 'onednn.cpp does not compile'
}

install_pictures() {
    install_packages xplanet-images mricron-data || skip pictures 'Debian: xplanet-images, mricron-data'
}

install_python
install_onednn
install_pictures
[ "$failed" -eq 0 ] && echo "Everything is there. Run: bench/run.sh peers"
exit "$failed"
