#!/usr/bin/env bash
# Installs into an empty root and builds the example against what was installed, through pkg-config, as a stranger would.
. "$top_srcdir/tests/count.sh"
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
unset MAKEFLAGS MFLAGS MAKELEVEL
example=$top_srcdir/examples/attention.c
expected='row 0: 1.000  row 1: 1.000  row 4: 4.000  row 7: 6.000'
# Where the build has sanitizers, so needs the example.
flags=$(sed -n 's/^CFLAGS = //p' "$top_builddir/Makefile")

build() { # COMPILER OUTPUT FLAG...
    local compiler=$1 output=$2
    shift 2
    # shellcheck disable=SC2086
    $compiler $flags "$@" -o "$root/$output"
}

shared() { # COMPILER OUTPUT LANGUAGE
    # shellcheck disable=SC2046
    build "$1" "$2" -x "$3" "$example" -x none $(pkg-config --cflags --libs nearfield)
}

# All of Nearfield from its archive, what it depends on as it comes.
static() {
    local libs
    libs=$(pkg-config --static --libs nearfield) || return 1
    # shellcheck disable=SC2046,SC2086
    build "$CC" static $(pkg-config --cflags nearfield) "$example" ${libs/-lnearfield/$archive} &&
        ! ldd "$root/static" | grep libnearfield
}

prints_expected() { # PROGRAM
    local said
    said=$("$@") && echo "$said" && [ "$said" = "$expected" ]
}

nothing_left() {
    ! find "$root/" -type f -o -type l | grep nearfield
}

check 'make install' make -C "$top_builddir" install DESTDIR="$root"
pc=$(find "$root" -name nearfield.pc)
libdir=${pc%/pkgconfig/nearfield.pc}
archive=$libdir/libnearfield.a
# The root in front of every directory that nearfield.pc names.
export PKG_CONFIG_PATH=${pc%/*}${PKG_CONFIG_PATH:+:$PKG_CONFIG_PATH} PKG_CONFIG_SYSROOT_DIR=$root
export LD_LIBRARY_PATH=$libdir${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

header_version=$(sed -n 's/^#define NF_VERSION_[A-Z]* //p' "$top_srcdir/include/nearfield.h" | paste -sd.)
check 'version' test "$(pkg-config --modversion nearfield)" = "$header_version"
check 'installed tool' "$(find "$root" -path '*/bin/nearfield')" info
check 'C example builds' shared "$CC" c c
check 'C example runs' prints_expected "$root/c"
if [ -f "$archive" ]; then
    check 'static example builds' static
    check 'static example runs' prints_expected "$root/static"
else
    skip 'static example' 'configured with --disable-static'
fi
cxx=${CXX:-$(command -v g++ || command -v c++ || command -v clang++)}
if [ -n "$cxx" ]; then
    check 'C++ example builds' shared "$cxx" cxx c++
    check 'C++ example runs' prints_expected "$root/cxx"
else
    skip 'C++ example' 'there is no C++ compiler'
fi
# To run it takes a GPU, to build it the header of a toolkit.
if printf '#include <cuda.h>' | "$CC" -I/usr/local/cuda/include -fsyntax-only -x c - 2>/dev/null; then
    # shellcheck disable=SC2046
    check 'CUDA example compiles' "$CC" -Wall -Wextra -Werror -I/usr/local/cuda/include $(pkg-config --cflags nearfield) \
        -fsyntax-only "$top_srcdir/examples/cuda.c"
else
    skip 'CUDA example' 'there is no cuda.h'
fi
# On the first OpenCL device; drivers leak, which is not the example's fault.
opencl_example() {
    # shellcheck disable=SC2046
    build "$CC" opencl "$top_srcdir/examples/opencl.c" $(pkg-config --cflags --libs nearfield) -lOpenCL
}
opencl_device() {
    ! NEARFIELD_DEVICE= "$NEARFIELD" plan --backend opencl 'na1d d8 16 w3' 2>&1 | grep -E 'unavailable|cannot'
}
if ! printf '#include <CL/cl.h>\nint main(void) { return clGetPlatformIDs(0, 0, 0) == 0; }' |
    "$CC" -x c - -lOpenCL -o "$root/has_opencl" 2>/dev/null; then
    skip 'OpenCL example' 'there is no CL/cl.h or no libOpenCL.so'
elif ! opencl_device >/dev/null; then
    skip 'OpenCL example' 'there is no OpenCL device'
else
    check 'OpenCL example builds' opencl_example
    check 'OpenCL example runs' prints_expected \
        env ASAN_OPTIONS="detect_leaks=0${ASAN_OPTIONS:+:$ASAN_OPTIONS}" NEARFIELD_CACHE_DIR= "$root/opencl"
fi
check 'make uninstall' make -C "$top_builddir" uninstall DESTDIR="$root"
check 'uninstall leaves nothing' nothing_left
finish
