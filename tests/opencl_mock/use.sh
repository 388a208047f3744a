# Builds the mock OpenCL library into $work/mock and runs things on it; sourced after count.sh by tests that set $work.
# Finishes the test with a reason where that cannot be.
mock_sources=("$top_srcdir"/tests/opencl_mock/*.c "$top_srcdir/tests/mock_books.c")
books=$work/books

build_mock() { # FOLDER FLAG...
    local folder=$1
    shift
    # shellcheck disable=SC2086
    mkdir -p "$folder" && ${CC:-cc} ${TESTED_CFLAGS-} -std=gnu11 -Wall -Wextra -Werror -fvisibility=hidden -fPIC -shared \
        -pthread -I"$top_srcdir/tests" "$@" -o "$folder/libOpenCL.so.1" "${mock_sources[@]}"
}

# Runs a command on the mock of a folder, without a cache unless the caller has set one. What it and the mock say is left in
# $work/said and $books.
on_mock() { # FOLDER SETTINGS COMMAND...
    local folder=$1 settings=$2
    shift 2
    rm -f "$books"
    MOCK_OPENCL=$settings MOCK_OPENCL_REPORT=$books NEARFIELD_CACHE_DIR=${NEARFIELD_CACHE_DIR-} \
        LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} "$@" >"$work/said" 2>&1
}

# How often an entry point of the mock was called.
calls() { # NAME
    sed -n "s/^calls $1 //p" "$books" 2>/dev/null | awk '{n += $1} END {print n + 0}'
}

# Nothing was leaked or misused.
books_balance() {
    ! grep -E '^(leaked|misuse)' "$books"
}

if "$NEARFIELD" info | grep -q '^opencl: .*disabled at build time'; then
    skip opencl 'this build has no opencl backend'
    finish
fi
if ! echo '#include <CL/cl.h>' | ${CC:-cc} -E - >/dev/null 2>&1; then
    skip opencl_mock 'there is no CL/cl.h'
    finish
fi
check 'the mock builds' build_mock "$work/mock"
[ "$failed" -eq 0 ] || finish
