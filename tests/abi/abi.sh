#!/usr/bin/env bash
# Each installed header compiles alone as strict C11 and C++, and the library exports exactly the listed symbols.
. "$top_srcdir/tests/count.sh"
headers=$top_srcdir/include
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compiles() { # COMPILER LANGUAGE STANDARD
    local header
    for header in "$headers"/*.h; do
        echo "#include <${header##*/}>" >"$work/alone.$2"
        "$1" -x "$2" "-std=$3" -Wall -Wextra -pedantic -Werror -I"$headers" -fsyntax-only "$work/alone.$2" || return
    done
}

for compiler in gcc clang; do
    if command -v $compiler >/dev/null; then
        check "C11 by $compiler" compiles $compiler c c11
    else
        skip "C11 by $compiler" "there is no $compiler"
    fi
done
for compiler in g++ clang++; do
    if command -v $compiler >/dev/null; then
        for standard in c++11 c++17; do
            check "$standard by $compiler" compiles $compiler c++ $standard
        done
    else
        skip "C++ by $compiler" "there is no $compiler"
    fi
done

declared() {
    sed -n 's/^NF_API [^(]*[ *]\(nf_[a-z0-9_]*\)(.*/\1/p' "$headers"/*.h | LC_ALL=C sort
}
exported() {
    ${NM:-nm} -D --defined-only "$1" | awk '{print $NF}' | grep -v '^_' | sed 's/@.*//' | LC_ALL=C sort
}

library=$top_builddir/.libs/libnearfield.so
declared >"$work/declared"
check 'listed symbols are the declared ones' diff "$top_srcdir/tests/abi/symbols.txt" "$work/declared"
if [ -f "$library" ]; then
    exported "$library" >"$work/exported"
    check 'exported symbols are the listed ones' diff "$top_srcdir/tests/abi/symbols.txt" "$work/exported"
else
    skip 'exported symbols' 'there is no shared library in this build'
fi
finish
