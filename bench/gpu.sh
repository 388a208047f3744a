#!/usr/bin/env bash
# Checks and measures the cuda backend on a machine with an NVIDIA GPU, in less than ten minutes.
#   bench/gpu.sh [--tool PATH] [--out DIR] [--quick]
# Options:
#   --tool PATH   the nearfield program; else it is built in build/cuda with the nvcc that configure finds
#   --out DIR     keep what was said there (by default gpu-output)
#   --quick       few cases and samples, one problem
# Exit status: 0 if every check passed. Tensors lie in host memory, so that times include their copies to the device and back.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit
tool='' out=gpu-output cases=300 repeats=7 failed=0 quick=0 sets="nat small"

while [ $# -gt 0 ]; do
    case $1 in
    --tool) tool=$2 && shift ;;
    --out) out=$2 && shift ;;
    --quick) quick=1 cases=10 repeats=2 sets=small ;;
    *)
        sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
        exit 2
        ;;
    esac
    shift
done
mkdir -p "$out" || exit

# Runs a command as one step; what it says goes to a file, the end of it to the terminal.
step() { # NAME COMMAND...
    local name=$1 begin=$SECONDS verdict=PASS
    shift
    "$@" >"$out/$name.txt" 2>&1 || { verdict=FAIL && failed=$((failed + 1)); }
    tail -n 3 "$out/$name.txt"
    echo "$verdict $name ($((SECONDS - begin)) s)"
}

build() {
    mkdir -p "$root/build/cuda" && cd "$root" && { [ -x configure ] || ./autogen.sh; } && cd build/cuda &&
        ../../configure --quiet --with-cuda=yes && make -j"$(nproc)"
}
if [ -z "$tool" ]; then
    step build build
    tool=$root/build/cuda/nearfield
fi
[ -x "$tool" ] || { echo "bench/gpu.sh: there is no program $tool" >&2 && exit 2; }
if command -v nvidia-smi >/dev/null; then
    step card nvidia-smi
fi
unset NEARFIELD_BACKEND
step info "$tool" info
step available "$tool" plan 'na1d d8 16 w3' --backend cuda
[ "$failed" -eq 0 ] || exit 1

# ---- Right -----------------------------------------------------------------------------------------------------------
step crosscheck "$tool" crosscheck --backend cuda
step verify "$tool" verify --backend cuda --cases "$cases"
# Out of bounds, races on shared memory, divergent barriers: the sanitizer is slow, so the problems are few.
if command -v compute-sanitizer >/dev/null; then
    for check in memcheck racecheck synccheck; do
        step "$check" compute-sanitizer --tool $check --error-exitcode 1 "$tool" crosscheck --backend cuda \
            'na2d f32 h4/2 d20/36 9x11 w5x3 s2x1 x3' 'na3d bf16 h2/1 d16 5x8x6 w4x3x6 dil1x2x1 c1x0x0' 'na1d f64 h2 d24 90 w9'
    done
fi

# ---- Fast ------------------------------------------------------------------------------------------------------------
for set in $sets; do
    grep -v '^#' "$root/bench/problems/$set.txt" | sed -n 's/^[^ ]* *\(na[1-4]d [^#]*\).*/\1/p' >"$out/problems"
    mapfile -t problems <"$out/problems"
    [ "$quick" -eq 0 ] || problems=("${problems[0]}")
    step "bench-$set" "$tool" bench --backend cuda --no-verify --csv --repeats "$repeats" "${problems[@]}"
done
rm -f "$out/problems"
echo "$failed failed; see $out"
[ "$failed" -eq 0 ]
