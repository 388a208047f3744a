#!/usr/bin/env bash
# The kernels compiled for an instruction set really hold its registers and instructions: flags that are lost on the way
# (a user's CFLAGS, say) would otherwise leave slow objects and passing tests.
. "$top_srcdir/tests/count.sh"
objects=$top_builddir/src/backends/cpu
objdump=${OBJDUMP:-objdump}

case $TESTED_CFLAGS in
*-fsanitize*)
    skip isa_registers "sanitizers get in between the instructions looked for"
    finish
    ;;
esac

contains() { # OBJECT PATTERN
    "$objdump" -d --no-show-raw-insn "$1" | grep -Eq "$2"
}

while read -r name pattern; do
    object=$(find "$objects" -name "*kernels_$name.o" ! -path '*fuzz*' 2>/dev/null | head -n 1)
    if [ -z "$object" ]; then
        skip "$name" "its kernels are not built by this compiler for this machine"
    elif ! command -v "$objdump" >/dev/null; then
        skip "$name" "there is no objdump"
    else
        check "$name" contains "$object" "$pattern"
    fi
done <<'TABLE'
avx2 vfn?m[as][du][db][0-9]+ps.*%ymm
avx512 vfn?m[as][du][db][0-9]+ps.*%zmm
avx512bf16 (vdpbf16ps|vcvtne2ps2bf16).*%zmm
TABLE
finish
