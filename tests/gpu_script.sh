#!/usr/bin/env bash
# bench/gpu.sh, as far as a mock of the driver can tell: what it builds, checks and measures, and what it says of the rest.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/cuda_host/use.sh"

# A copy, whose configure makes a program that is the tests' own but takes too long for one of the problems; and what a
# machine with a card has.
copy=$work/copy
mkdir -p "$copy" "$work/bin" "$work/python"
cp -r "$top_srcdir/bench" "$copy/bench" && chmod -R u+w "$copy"
printf '%s\n' 'mma-f32 na1d f32 d8 16 w3 fwd # small' 'elsewhere na1d f32 d8 16 w3 fwd' >"$copy/bench/problems/algorithms.txt"
cat >"$copy/configure" <<'END'
#!/bin/sh
echo "$CUDA_ARCHS" >archs
printf '#!/bin/sh\ncase $* in *"w4 s1"*) exit 124 ;; esac\nexec "%s" "$@"\n' "$TESTED_TOOL" >nearfield
chmod +x nearfield
echo all: >Makefile
END
cat >"$work/bin/nvidia-smi" <<'END'
#!/bin/sh
echo Mock 0, 580.1, 8.9
END
cat >"$work/bin/compute-sanitizer" <<'END'
#!/bin/sh
echo "$*" >>"$SANITIZED"
END
echo 'raise ImportError("it is not installed")' >"$work/python/torch.py"
chmod +x "$copy/configure" "$work/bin/nvidia-smi" "$work/bin/compute-sanitizer"
export TESTED_TOOL=$top_builddir/tests/cuda_host/nearfield SANITIZED=$work/sanitized

# Where it is called, where it is and where it keeps things are three folders.
gpu_script() { # ARGUMENT...
    (cd "$work" && on_mock "$work/mock" '' env PATH="$work/bin:$PATH" PYTHONPATH="$work/python" \
        PYTHONDONTWRITEBYTECODE=1 bash "$copy/bench/gpu.sh" --quick --out here "$@")
}
says() { # FILE LINE
    grep -q -x -e "$2" "$1" || { cat "$1" && return 1; }
}
whole() {
    if ! gpu_script || ! says "$work/said" '0 failed; see .*/here' || ! books_balance; then
        cat "$work/said"
        return 1
    fi
}
check 'all of it' whole
check 'the nearest architecture below' says "$copy/build/cuda-80/archs" 80
for seen in 'mma na3d bf16' 'mma na2d f32' 'wgmma na1d bf16' 'portable na2d' 'unfused na2d bf16' 'unfused na1d' 'naive na1d'; do
    for tool in memcheck racecheck synccheck; do
        check "$tool of $seen" says "$SANITIZED" "--tool $tool .*crosscheck --backend cuda --algo $seen .*"
    done
done
tables=$work/here/gpu.md
check card says "$tables" '    card, driver, compute capability: Mock 0, 580.1, 8.9'
check device says "$tables" '    \[0\] Mock 0, used here'
check "the device's driver" says "$tables" '    .*, driver for CUDA 13.0'
check 'a target' says "$tables" \
    '| na1d bf16 h1 d16 64 w16 s16 | [0-9.]* | the ratio of flops, [0-9.]* | [*0.9]* | [0-9.]*, .* | [0-9.]* |'
check 'a target without a peer' says "$tables" \
    "| na1d bf16 h1 d16 64 | not measured | cuDNN's or flash attention | 0.7 | | |"
check 'why there is no peer' says "$tables" 'PyTorch was not measured: it is not installed.'
for direction in fwd bwd; do
    check "a table, $direction" says "$tables" \
        "| small-1d: na1d f32 b4 h3 d48 17 w5 s2 dil3 | $direction | .* | [0-9.]* | .* of f32 multiply-adds |"
done
check 'a table, cut off' says "$tables" '| small-1d-even: na1d f32 b4 h3 d48 17 w4 s1 dil2 | | not measured | | | | |'
check 'a table, by name' says "$tables" '| mma-f32: na1d f32 b1 h1 d8 16 w3 | fwd | mma | .*'
check 'a table, not for this card' says "$tables" '| elsewhere: na1d f32 d8 16 w3 | | not measured | | | | |'

# A check that time cuts off has failed.
no_time() {
    sed -i 's/^most_seconds=.*/most_seconds=0/' "$copy/bench/gpu.sh"
    ! gpu_script --tool "$TESTED_TOOL" && says "$work/said" 'FAIL, cut off: info .*'
}
check 'no time' no_time
finish
