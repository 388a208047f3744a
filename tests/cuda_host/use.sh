# Builds the mock CUDA driver into $work/mock and runs things on it; sourced after count.sh by tests that set $work.
# CUDA_MODULES: a folder of kernels other than those of the build; CUDA_PRELOAD: libraries that they need
# (cuda_instrumented.sh).
# Finishes the test with a reason where that cannot be.
mock_sources=("$top_srcdir"/tests/cuda_host/*.c "$top_srcdir/tests/mock_books.c")
modules=${CUDA_MODULES-$top_builddir/tests/cuda_host/modules}
books=$work/books

build_mock() { # FOLDER FLAG...
    local folder=$1
    shift
    # shellcheck disable=SC2086
    mkdir -p "$folder" && ${CC:-cc} ${TESTED_CFLAGS-} -std=gnu11 -Wall -Wextra -Werror -fvisibility=hidden -fPIC -shared \
        -pthread -I"$top_srcdir/src" -I"$top_srcdir/tests" "$@" -o "$folder/libcuda.so.1" "${mock_sources[@]}" -ldl
}

# Runs a command on the mock of a folder. What it and the mock say is left in $work/said and $books.
on_mock() { # FOLDER SETTINGS COMMAND...
    local folder=$1 settings=$2
    shift 2
    rm -f "$books"
    MOCK_CUDA=$settings MOCK_CUDA_REPORT=$books MOCK_CUDA_MODULES=$modules \
        LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} env ${CUDA_PRELOAD:+LD_PRELOAD="$CUDA_PRELOAD"} "$@" \
        >"$work/said" 2>&1
}

# Nothing was leaked or misused.
books_balance() {
    ! grep -E '^(leaked|misuse)' "$books"
}

unset NEARFIELD_BACKEND NEARFIELD_DEVICE
if "$NEARFIELD" info | grep -q '^cuda: .*disabled at build time'; then
    skip cuda 'this build has no cuda backend'
    finish
fi
if [ ! -e "$modules/stamp" ]; then
    skip cuda_host 'there is no C++ compiler'
    finish
fi
check 'the mock builds' build_mock "$work/mock"
[ "$failed" -eq 0 ] || finish
