#!/usr/bin/env bash
# Builds Nearfield, denoises a photograph and a brain scan with it, and times an attention problem of a real model.
# Installs missing Debian packages. Pictures go to demo-output/.
set -eu
cd "$(dirname "$0")"
. build-aux/packages.sh
# shellcheck disable=SC2086
install_packages $build_packages $demo_packages

echo "Building (log: build/demo.log) ..."
mkdir -p build/gcc demo-output
{
    [ -x configure ] || ./autogen.sh
    cd build/gcc
    [ -f Makefile ] || ../../configure --quiet CC=gcc
    make -j"$(nproc)"
    cd ../..
} >build/demo.log 2>&1 || {
    tail -n 20 build/demo.log >&2
    exit 1
}
nearfield=build/gcc/nearfield
photo=/usr/share/xplanet/images/earth.jpg
scan=/usr/share/mricron/templates/ch2bet.nii.gz
$nearfield info
