#!/usr/bin/env bash
# Checks and measures the cuda backend on a machine with an NVIDIA GPU, in less than ten minutes.
#   bench/gpu.sh [--tool PATH] [--out DIR] [--quick]
# Options:
#   --tool PATH   the nearfield program; else it is built in build/cuda with the nvcc that configure finds
#   --out DIR     keep what was said there (by default gpu-output), comma-separated values of the tables included
#   --quick       few cases and samples, one problem
# Exit status: 0 if every check passed; a target that is not met fails nothing. Times are the device's: copies of tensors are
# not in them. PyTorch is compared with where python3, or the one that PYTHON names, has it with CUDA.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit
tool='' out=gpu-output cases=300 repeats=5 failed=0 quick=()
sets="nat dinat dense seq mistral-like flux hunyuan cosmos small"
most_seconds=570 # of all: a set of problems that would go beyond is cut off, not failed

while [ $# -gt 0 ]; do
    case $1 in
    --tool) tool=$2 && shift ;;
    --out) out=$2 && shift ;;
    --quick) quick=(--quick) cases=10 repeats=2 sets=small ;;
    *)
        sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//p}' "$0" >&2
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

left() { # SECONDS: no more than these, and than there are
    local rest=$((most_seconds - SECONDS))
    [ "$rest" -gt 1 ] || rest=1
    echo $(($1 < rest ? $1 : rest))
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
for algo in mma portable unfused naive; do
    step "verify-$algo" "$tool" verify --backend cuda --algo $algo --cases $((cases / 10 + 1))
done
# Problems that are drawn rarely let boxes be copied.
boxed=('na2d bf16 h4/2 d24/32 9x11 w5x3 s2x1 x3' 'na3d f16 b2 h3 d64 9x8x7 w3x5x3 dil1x1x2' 'na1d bf16 h2 d128 1000 w300')
[ ${#quick[@]} -eq 0 ] || boxed=('na1d bf16 h2 d24/32 80 w9 x3')
if "$tool" plan "${boxed[0]}" --backend cuda --algo wgmma >"$out/wgmma.txt" 2>&1; then
    step verify-wgmma timeout 60 "$tool" verify --backend cuda --algo wgmma "${boxed[@]/%/ fwd}"
    step verify-wgmma-backward timeout 60 "$tool" verify --backend cuda --algo wgmma "${boxed[@]/%/ bwd}"
else
    echo "SKIP verify-wgmma: $(cat "$out/wgmma.txt")"
fi
# Out of bounds, races on shared memory, divergent barriers: the sanitizer is slow, so the problems are few.
if command -v compute-sanitizer >/dev/null; then
    for check in memcheck racecheck synccheck; do
        step "$check" compute-sanitizer --tool $check --error-exitcode 1 "$tool" crosscheck --backend cuda \
            'na2d f32 h4/2 d20/36 9x11 w5x3 s2x1 x3' 'na3d bf16 h2/1 d16 5x8x6 w4x3x6 dil1x2x1 c1x0x0' 'na1d f64 h2 d24 90 w9'
    done
else
    echo 'SKIP compute-sanitizer: there is none'
fi

# ---- Targets ---------------------------------------------------------------------------------------------------------
python=${PYTHON:-python3}
if command -v "$python" >/dev/null; then
    timeout "$(left 240)" "$python" "$root/bench/peers/gpu.py" --tool "$tool" --repeats "$repeats" "${quick[@]}" \
        >"$out/targets.txt" 2>"$out/targets-errors.txt" || echo "targets: cut off or failed, see $out/targets-errors.txt"
    cat "$out/targets.txt"
else
    echo "SKIP targets: there is no $python"
fi

# ---- Tables ----------------------------------------------------------------------------------------------------------
# TFLOP/s of the pairs that are visible and of those that are computed, and the former as a fraction of the measured peak.
print_table() { # FILE OF COMMA-SEPARATED VALUES
    awk -F, 'NR == 1 {for (i = 1; i <= NF; i++) at[$i] = i; next}
        NF >= at["clock"] && NF > 1 {printf "%-52s %s %-9s %10.4f ms %8.2f useful %8.2f computed TFLOP/s %5.1f %% of %s\n",
            $at["problem"], $at["direction"], $at["algo"], 1e3 * $at["median_s"], $at["gflops"] / 1e3,
            $at["computed_gflops"] / 1e3, 100 * $at["peak_fraction"], $at["peak_basis"]}' "$1"
}
measure() { # SET
    local problems
    mapfile -t problems < <(grep -v -e '^#' -e '^[^ ]*-cpu' "$root/bench/problems/$1.txt" | sed -n 's/^[^ ]* *\(na[1-4]d [^#]*\).*/\1/p')
    [ ${#quick[@]} -eq 0 ] || problems=("${problems[0]}")
    timeout "$(left 60)" "$tool" bench --backend cuda --no-verify --csv --repeats "$repeats" "${problems[@]}" \
        >"$out/bench-$1.csv" 2>"$out/bench-$1-errors.txt"
    local status=$?
    print_table "$out/bench-$1.csv"
    [ $status -ne 124 ] || { echo "$1: cut off after $(wc -l <"$out/bench-$1.csv") lines" && return 0; }
    [ $status -eq 0 ] || cat "$out/bench-$1-errors.txt"
    return $status
}
for set in $sets; do
    measure "$set" || { echo "FAIL bench-$set" && failed=$((failed + 1)); }
done
echo "$failed failed; see $out"
[ "$failed" -eq 0 ]
