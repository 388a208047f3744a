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
    [ -f Makefile ] || ../../configure --quiet CC=gcc NVCC="${NVCC-no}"
    make -j"$(nproc)"
    cd ../..
} >build/demo.log 2>&1 || {
    tail -n 20 build/demo.log >&2
    exit 1
}
nearfield=build/gcc/nearfield
photo=/usr/share/xplanet/images/earth.jpg
scan=/usr/share/mricron/templates/inia19-t1-brain.nii.gz
out=demo-output

echo
echo "== A photograph, with noise of sigma 25/255"
$nearfield denoise "$photo" $out/earth-denoised.png --add-noise 25 --sigma 25 --noisy-out $out/earth-noisy.png \
    --picture $out/earth-before-after.png --progress

echo
echo "== A magnetic resonance image of a brain, with noise of sigma 25/255 of its range"
$nearfield denoise "$scan" $out/brain-denoised.nii.gz --add-noise 37.6 --sigma 37.6 \
    --noisy-out $out/brain-noisy.nii.gz --picture $out/brain-before-after.png --progress

echo
echo "== The first stage of NAT-Mini: 56x56 tokens, 2 heads, windows of 7x7"
$nearfield bench "na2d f32 b1 h2 d32 56x56 w7"

echo
echo "Pictures:"
ls -1 $out/*.png
