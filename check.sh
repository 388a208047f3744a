#!/usr/bin/env bash
# Builds Nearfield in build/ and runs its tests; the last line counts them. Installs missing Debian packages.
#   ./check.sh          gcc, make check
#   ./check.sh --full   also clang, sanitizers, every ISA and backend, fuzzing, make distcheck, a cross build for aarch64
set -u
cd "$(dirname "$0")" || exit
. build-aux/packages.sh
jobs=$(nproc)
# CUDA kernels take nvcc minutes; tests run them on the host. --full compiles them once, by the nvcc that configure finds.
nvcc=${NVCC-$(PATH=$PATH:/usr/local/cuda/bin command -v nvcc)}
export NVCC=${NVCC-no}
passed=0 failed=0 skipped=0

add() { # PASSED FAILED SKIPPED
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
}

# Builds in build/NAME with the given arguments of configure.
build() { # NAME ARGUMENT...
    local folder=build/$1
    shift
    [ -x configure ] || ./autogen.sh >/dev/null || return
    mkdir -p "$folder" && (cd "$folder" && ../../configure --quiet "$@" && make -j"$jobs")
}

# Runs make check in build/NAME and adds its totals to ours.
run_tests() { # NAME
    local summary totals
    make -C "build/$1" -j"$jobs" -k check
    summary=$(make -s --no-print-directory -C "build/$1" check-summary 2>/dev/null)
    totals=$(echo "$summary" | sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p')
    echo "$summary"
    # shellcheck disable=SC2086
    add ${totals:-0 1 0}
}

build_and_test() { # NAME ARGUMENT...
    local begin=$SECONDS
    echo "---- $*"
    if build "$@"; then
        run_tests "$1"
    else
        echo "FAIL $1: the build failed"
        add 0 1 0
    fi
    echo "---- $1 took $((SECONDS - begin)) s"
}

# Runs a command as one test.
step() { # NAME COMMAND...
    local name=$1 begin=$SECONDS verdict
    shift
    echo "---- $name"
    if "$@"; then
        verdict=PASS
        add 1 0 0
    else
        verdict=FAIL
        add 0 1 0
    fi
    echo "$verdict $name"
    echo "---- $name took $((SECONDS - begin)) s"
}

skip() { # NAME REASON
    echo "SKIP $1: $2"
    add 0 0 1
}

case ${1-} in
'' | --full) ;;
*)
    echo "usage: ./check.sh [--full]" >&2
    exit 2
    ;;
esac
# shellcheck disable=SC2086
install_packages $build_packages $test_packages || exit
build_and_test gcc CC=gcc
if [ "${1-}" = --full ]; then
    # shellcheck disable=SC2086
    install_packages $full_packages || exit
    . build-aux/check-full.sh
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
