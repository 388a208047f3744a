#!/usr/bin/env bash
# Checks and measures the cuda backend on a machine with an NVIDIA GPU, in less than ten minutes.
#   bench/gpu.sh [--tool PATH] [--out DIR] [--quick]
# Options:
#   --tool PATH   the nearfield program; else it is built in build/ for the cards at hand, with the nvcc that configure finds
#   --out DIR     keep what was said there (by default gpu-output); gpu.md has all tables, for doc/performance.md
#   --quick       few cases and samples, two problems
# Exit status: 0 if every check passed; one that was cut off, as time was over, did not. A target that is not met, or what of
# the tables time did not suffice for, fails nothing. Times are the device's: copies of tensors are not in them. PyTorch is
# compared with where python3, or the one that PYTHON names, has it with CUDA.
set -u
root=$(cd "$(dirname "$0")/.." && pwd) || exit
tool='' out=gpu-output cases=300 repeats=5 failed=0 quick=()
# What matters most comes first.
sets="algorithms mistral-like dense nat dinat seq flux hunyuan cosmos dinat-l384 nlm small"
with_peers=(mistral-like flux hunyuan cosmos dinat)
most_seconds=570    # of all
most_problems=1000  # of a set

while [ $# -gt 0 ]; do
    case $1 in
    --tool) tool=$2 && shift ;;
    --out) out=$2 && shift ;;
    --quick) quick=(--quick) cases=10 repeats=2 most_problems=2 sets="algorithms small" with_peers=(small) ;;
    *)
        sed -n '2,/^set -u/{/^set -u/d;s/^# \{0,1\}//p}' "$0" >&2
        exit 2
        ;;
    esac
    shift
done
mkdir -p "$out" && out=$(realpath "$out") || exit
[ -z "$tool" ] || tool=$(realpath -s "$tool")

# Runs a command for at most these seconds, and what is left of all; cut off, its status is 124 or 137.
limited() { # SECONDS COMMAND...
    local seconds=$((most_seconds - SECONDS))
    [ "$seconds" -lt "$1" ] || seconds=$1
    shift
    [ "$seconds" -gt 0 ] || return 124
    timeout -k 5 "$seconds" "$@"
}
is_cut_off() { # STATUS
    [ "$1" -eq 124 ] || [ "$1" -eq 137 ]
}

# Runs a command that must succeed in time; what it says goes to a file, the end of it to the terminal.
step() { # SECONDS NAME COMMAND...
    local seconds=$1 name=$2 begin=$SECONDS status verdict=PASS
    shift 2
    limited "$seconds" "$@" >"$out/$name.txt" 2>&1
    status=$?
    [ $status -eq 0 ] || { verdict=FAIL && failed=$((failed + 1)); }
    is_cut_off $status && verdict='FAIL, cut off:'
    tail -n 3 "$out/$name.txt"
    echo "$verdict $name ($((SECONDS - begin)) s)"
}

# What CUDA_ARCHS should be: for each card the greatest default of configure that it runs; nothing where no card tells.
archs_at_hand() {
    awk -F ', *' 'BEGIN {count = split("80 90 100 120", archs, " ")}
        $NF ~ /^[0-9]+\.[0-9]$/ {for (i = count; i > 1 && archs[i] > 10 * $NF; i--); print archs[i]}' "$out/card.txt" |
        sort -nu | xargs
}
build() {
    local archs folder
    archs=$(archs_at_hand)
    folder=$root/build/cuda${archs:+-${archs// /-}} # make does not see that CUDA_ARCHS has changed
    mkdir -p "$folder"
    [ -x "$root/configure" ] || step 60 autogen "$root/autogen.sh"
    step 60 configure env -C "$folder" ${archs:+CUDA_ARCHS="$archs"} \
        "$root/configure" --quiet --disable-shared --with-cuda=yes
    step 300 make make -C "$folder" -j"$(nproc)"
    tool=$folder/nearfield
}
limited 20 nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv,noheader >"$out/card.txt" 2>&1
cat "$out/card.txt"
[ -n "$tool" ] || build
[ -x "$tool" ] || { echo "bench/gpu.sh: there is no program $tool" >&2 && exit 2; }
unset NEARFIELD_BACKEND
step 20 info "$tool" info
step 20 available "$tool" bench --backend cuda --no-verify --csv --repeats 1 'na1d d8 16 w3'
[ "$failed" -eq 0 ] || exit 1

# ---- Right -----------------------------------------------------------------------------------------------------------
step 60 crosscheck "$tool" crosscheck --backend cuda
step 90 verify "$tool" verify --backend cuda --cases "$cases"
for algo in mma portable unfused naive; do
    step 30 "verify-$algo" "$tool" verify --backend cuda --algo $algo --cases $((cases / 10 + 1))
done
# One problem for each kind of program; the compute sanitizer is slow, so they are small.
small=('mma na3d bf16 h2/1 d16 5x8x6 w4x3x6 dil1x2x1 c1x0x0 x3' 'mma na2d f32 h4/2 d20/36 9x11 w5x3 s2x1 x3'
    'portable na2d f32 h4/2 d20/36 9x11 w5x3 s2x1 x3' 'unfused na2d bf16 h4/2 d20/36 9x11 w5x3 s2x1 x3'
    'unfused na1d f64 h2 d24 90 w9' 'naive na1d f64 h2 d24 90 w9')
# Problems that are drawn rarely let boxes be copied.
boxed=('na2d bf16 h4/2 d24/32 9x11 w5x3 s2x1 x3' 'na3d f16 b2 h3 d64 9x8x7 w3x5x3 dil1x1x2' 'na1d bf16 h2 d128 1000 w300')
[ ${#quick[@]} -eq 0 ] || boxed=('na1d bf16 h2 d24/32 80 w9 x3')
if limited 20 "$tool" plan "${boxed[0]}" --backend cuda --algo wgmma >"$out/wgmma.txt" 2>&1; then
    step 60 verify-wgmma "$tool" verify --backend cuda --algo wgmma "${boxed[@]/%/ fwd}"
    step 60 verify-wgmma-backward "$tool" verify --backend cuda --algo wgmma "${boxed[@]/%/ bwd}"
    small=("wgmma ${boxed[0]}" "${small[@]}")
else
    echo "SKIP wgmma: $(cat "$out/wgmma.txt")"
fi
# Out of bounds, races on shared memory, divergent barriers; in both directions.
if command -v compute-sanitizer >/dev/null; then
    end=$((SECONDS + 150))
    for check in memcheck racecheck synccheck; do
        for i in "${!small[@]}"; do
            algo=${small[i]%% *}
            step $((end - SECONDS)) "$check-$i-$algo" compute-sanitizer --tool $check --error-exitcode 1 \
                "$tool" crosscheck --backend cuda --algo "$algo" "${small[i]#* }"
        done
    done
else
    echo 'SKIP compute-sanitizer: there is none'
fi

# ---- Targets and tables ----------------------------------------------------------------------------------------------
python=${PYTHON:-python3}
compare() { # SECONDS NAME ARGUMENT...: with PyTorch; a table in NAME.md, which is whole whenever time is over
    echo 'Not measured.' >"$out/$2.md"
    if ! command -v "$python" >/dev/null; then
        echo "Not measured: there is no $python." >"$out/$2.md"
    elif ! limited "$1" "$python" "$root/bench/peers/gpu.py" --out "$out/$2.md" "${@:3}" 2>"$out/$2-errors.txt"; then
        echo "$2: cut off or failed, see $out/$2-errors.txt"
    fi
    cat "$out/$2.md"
}

# One problem at a time, so that one that fails or is cut off leaves the others. What was not measured is a row, too.
header=$(grep '^problem,' "$out/available.txt")
measure() { # SET
    local tag problem algo status end=$((SECONDS + 45))
    while read -r tag problem <&3; do
        [ "$1" = algorithms ] && algo=${tag%%-*} || algo=auto
        limited $((end - SECONDS)) "$tool" bench --backend cuda --algo "$algo" --no-verify --csv --repeats "$repeats" "$problem" \
            >"$out/rows.csv" 2>"$out/bench-errors.txt"
        status=$?
        if [ $status -eq 0 ]; then
            sed "1d; s/^/$tag,/" "$out/rows.csv"
            continue
        fi
        echo "$tag,$problem"
        is_cut_off $status && continue
        echo "$1/$tag: $(cat "$out/bench-errors.txt")" >&2
        [ "$algo" = auto ] || continue # not every card has every algorithm
        failed=$((failed + 1))
    done 3< <(sed '/^#/d; /^[^ ]*-cpu/d; s/ *#.*//' "$root/bench/problems/$1.txt" | head -n "$most_problems")
}
# TFLOP/s of the pairs that are visible and of those that are computed, and the former as a fraction of the measured peak.
print_table() { # SET
    echo "| $1 | | | ms | useful TFLOP/s | computed TFLOP/s | of the peak |"
    echo '|---|---|---|---|---|---|---|'
    awk -F, 'NR == 1 {for (i = 1; i <= NF; i++) at[$i] = i; next}
        {sub(/ (fwd|bwd|both)$/, "", $2)}
        NF < at["clock"] {printf "| %s: %s | | not measured | | | | |\n", $1, $2; next}
        {printf "| %s: %s | %s | %s | %.4f | %.2f | %.2f | %.1f %% of %s |\n", $1, $2, $at["direction"], $at["algo"],
            1e3 * $at["median_s"], $at["gflops"] / 1e3, $at["computed_gflops"] / 1e3, 100 * $at["peak_fraction"],
            $at["peak_basis"]}' "$out/bench-$1.csv"
}
describe() {
    echo "    date: $(date -u '+%Y-%m-%d %H:%M') UTC"
    echo "    program: $("$tool" --version)"
    sed 's/^/    card, driver, compute capability: /' "$out/card.txt"
    sed -n '/^cuda:/,/^[a-z]*:/{/, used here$/,+1s/^ */    /p}' "$out/info.txt"
}

compare 180 targets --tool "$tool" --repeats "$repeats" "${quick[@]}"
for set in $sets; do
    { echo "tag,$header" && measure "$set"; } >"$out/bench-$set.csv"
    print_table "$set" | tee "$out/bench-$set.md"
done
beside=("${with_peers[@]/%/.csv}")
compare $most_seconds peers "${beside[@]/#/$out/bench-}"
{
    describe && echo && cat "$out/targets.md"
    for set in $sets; do
        echo && cat "$out/bench-$set.md"
    done
    echo && cat "$out/peers.md"
} >"$out/gpu.md"
echo "$failed failed; see $out"
[ "$failed" -eq 0 ]
