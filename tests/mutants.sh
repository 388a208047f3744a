#!/usr/bin/env bash
# Plants each fault of mutants.list in a copy of its source file, builds a nearfield with it, and expects that verify fails.
# The baseline instruction set is forced, so that a fault in a kernel needs one object.
. "$top_srcdir/tests/count.sh"
case $TESTED_CFLAGS in
*-fsanitize*)
    skip mutants "faults are planted in builds without sanitizers, which would stop at them"
    finish
    ;;
esac
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$top_builddir" || exit
source_root=$top_srcdir
compiler=${CC:-cc}
flags="-O1 -std=gnu11 -D_GNU_SOURCE -DNF_BUILDING -DHAVE_CONFIG_H ${TESTED_CFLAGS-}"

# Compiles one file of the mutated tree; its own headers come first.
compile() { # FILE OBJECT
    # shellcheck disable=SC2086
    $compiler $flags -w -I"$scratch/src" -I. -I"$source_root/include" -I"$source_root/src" -c "$1" -o "$2"
}

plant() { # FILE EXPRESSION
    rm -rf "$scratch/src"
    mkdir -p "$scratch/src/$(dirname "$1")"
    sed -e "$2" "$source_root/src/$1" >"$scratch/src/$1"
    ! cmp -s "$source_root/src/$1" "$scratch/src/$1"
}

build() { # FILE
    local file=$1
    case $1 in
    backends/reference/*.h) file=backends/reference/reference_double.c ;;
    *.h) file=backends/cpu/kernels_baseline.c ;;
    esac
    local unit=$scratch/src/$file
    [ "$file" = "$1" ] || cp "$source_root/src/$file" "$unit"
    rm -f "$scratch"/mutant*
    # shellcheck disable=SC2086
    compile "$unit" "$scratch/mutant.o" &&
        ./libtool --silent --tag=CC --mode=link $compiler ${TESTED_CFLAGS-} -o "$scratch/mutant" "$scratch/mutant.o" \
            tools/nearfield.o libnearfield-tool.la libnearfield-internal.la
}

# verify must say 1 (checks failed), not 2, and must have run something.
caught() { # FILE
    local status backend=cpu
    case $1 in backends/reference/*) backend=reference ;; esac
    NEARFIELD_ISA=baseline timeout 120 "$scratch/mutant" verify --stop --backend $backend --seed 1 --threads 2 \
        --cases "${MUTANT_CASES:-300}" >"$scratch/said" 2>&1
    status=$?
    if [ "$status" -ne 1 ]; then
        echo "verify exits $status: $(tail -n 1 "$scratch/said")"
        return 1
    fi
    grep -m 1 FAIL "$scratch/said" | sed 's/^FAIL \([^:]*\):.*--seed \([0-9]*\) /\1, seed \2, /' >"$scratch/caught"
}

mutant() { # NAME FILE EXPRESSION
    if ! plant "$2" "$3"; then
        echo "the edit changes nothing in $2"
        return 1
    fi
    build "$2" && caught "$2"
}

while IFS='|' read -r name file expression; do
    case $name in '#'* | '') continue ;; esac
    name=$(echo "$name" | sed 's/ *$//')
    : >"$scratch/caught"
    check "$name" mutant "$name" "$(echo "$file" | tr -d ' ')" "${expression# }"
    printf '%-36s caught by %s\n' "$name" "$(cat "$scratch/caught")"
done <"$source_root/tests/mutants.list"
finish
