#!/usr/bin/env bash
# Measures Nearfield.
#   bench/run.sh cpu [OPTION...]         the target table: problems/targets.txt, judged
#   bench/run.sh peers [OPTION...]       against what else one could use; peers/setup.sh installs it
#   bench/run.sh set NAME [REGEX]        nearfield bench on problems/NAME.txt, on the tags that match
#   bench/run.sh record --out DIR        puts the tables that cpu and peers left in DIR into doc/performance.md
# Options:
#   --tool PATH     the nearfield program or the folder it was built in; else the one in PATH, else build/gcc's
#   --out DIR       keep the numbers there (CSV), and plots of them if there is gnuplot
#   --threads N     by default all cores
#   --rounds N      cpu measures everything N times, one time after the other (3)
#   --quick         three samples instead of seven; cpu leaves out AVX2 and has one round, peers leave out the slowest
#   --only REGEX    only the targets, or the peers, whose names match
set -u
here=$(cd "$(dirname "$0")" && pwd) || exit
tool='' out='' threads=$(nproc) quick=0 only=. repeats=7 rounds=3

usage() {
    sed -n '2,/^set/{s/^# \{0,1\}//p}' "$0" >&2
    exit 2
}

die() {
    echo "bench/run.sh: $*" >&2
    exit 2
}

find_tool() {
    if [ -z "$tool" ]; then
        tool=$(command -v nearfield) || tool=$here/../build/gcc/nearfield
    elif [ -d "$tool" ]; then
        tool=$tool/nearfield
    fi
    [ -x "$tool" ] || die "there is no program $tool: build it, or name it with --tool"
}

# Threads stay where they are.
export OMP_PLACES=${OMP_PLACES-cores} OMP_PROC_BIND=${OMP_PROC_BIND-close}

# Appends rows to raw.csv, in front of them a target's name, ISA and round; or the reason why there are none. Results are
# verified in the first round.
measure() { # NAME ISA ARGUMENT...
    local name=$1 isa=$2 variables=() options=()
    shift 2
    [ "$isa" = best ] || variables=(NEARFIELD_ISA="$isa")
    [ "$round" -eq 1 ] || options=(--no-verify)
    if env "${variables[@]}" "$tool" bench --csv "${options[@]}" "$@" >"$work/rows" 2>"$work/said"; then
        sed "s/^/$name,$isa,$round,/" "$work/rows" >>"$work/raw.csv"
    else
        echo "$name,error,$round,$(tail -n 1 "$work/said" | tr ',' ' ')" >>"$work/raw.csv"
    fi
}

# A problem that the library refuses on one algorithm would stop the others, so each is asked for on its own.
measure_target() { # NAME MEASURE PROBLEM...
    local name=$1 measure=$2
    shift 2
    case $measure in
    peak)
        [ "$threads" -gt 1 ] && counts=1,$threads || counts=1
        measure "$name" best --repeats "$repeats" --interleave --threads "$counts" "$@"
        [ "$avx2" -eq 0 ] || measure "$name" avx2 --repeats "$repeats" --threads "$threads" "$@"
        ;;
    stream | memory | plan | call) measure "$name" best --repeats "$repeats" --threads "$threads" "$@" ;;
    speed) measure "$name" best --repeats "$repeats" --threads "$threads" --interleave "$@" ;;
    fused) measure "$name" best --repeats 3 --threads "$threads" --interleave --algo auto,naive "$@" ;;
    unfused) measure "$name" best --repeats 3 --threads "$threads" --interleave --algo unfused,naive "$@" ;;
    *) die "problems/targets.txt: $name: there is no measure \"$measure\"" ;;
    esac
}

# The lines of problems/targets.txt that --only leaves.
targets() {
    grep '|' "$here/problems/targets.txt" | grep -v '^#' | grep -E -e "^[^|]*($only)[^|]*\|"
}

trim() {
    sed 's/^ *//; s/ *$//'
}

describe() {
    echo "date: $(date -u '+%Y-%m-%d %H:%M') UTC"
    echo "program: $("$tool" --version), $threads threads of $(nproc)"
    "$tool" info | grep -E '^(machine|caches):'
    echo "load before: $(cut -d ' ' -f 1 /proc/loadavg)"
}

measure_targets() {
    local name measure goal problems list
    while IFS='|' read -r name measure goal problems <&3; do
        name=$(trim <<<"$name") measure=$(trim <<<"$measure")
        echo "round $round of $rounds: $name ..." >&2
        mapfile -t list < <(tr ';' '\n' <<<"$problems" | trim)
        measure_target "$name" "$measure" "${list[@]}"
    done 3< <(targets)
}

run_cpu() {
    local avx2=0 round
    [ "$quick" -eq 0 ] && NEARFIELD_ISA=avx2 "$tool" plan 'na1d d8 16 w3' 2>/dev/null | grep -qw avx2 && avx2=1
    describe | tee "$work/about-cpu.txt"
    echo
    : >"$work/raw.csv"
    for ((round = 1; round <= rounds; round++)); do
        measure_targets
    done
    targets >"$work/targets.txt"
    awk -v threads="$threads" -v avx2="$avx2" -v rounds="$rounds" -v csv="$work/targets.csv" -f "$here/targets.awk" \
        "$work/targets.txt" "$work/raw.csv" | tee "$work/targets.table"
    keep cpu about-cpu.txt raw.csv targets.csv targets.table
}

# Moves files to --out and plots them.
keep() { # PLOTS FILE...
    local plots=$1
    shift
    [ -n "$out" ] || return 0
    (cd "$work" && cp "$@" "$out") || exit
    if command -v gnuplot >/dev/null; then
        (cd "$out" && gnuplot "$here/plot-$plots.gp") || die 'gnuplot failed'
    else
        echo "No plots: there is no gnuplot" >&2
    fi
}

run_set() { # NAME [REGEX]
    local file=$here/problems/${1%.txt}.txt regex=${2-.} list
    [ -f "$file" ] || die "there is no problems/${1%.txt}.txt"
    mapfile -t list < <(grep -v '^#' "$file" | sed 's/ *#.*//' | awk -v r="$regex" '$1 ~ r { $1 = ""; print }' | trim)
    [ ${#list[@]} -gt 0 ] || die "no tag in $file matches $regex"
    "$tool" bench --threads "$threads" --repeats "$repeats" "${list[@]}"
}

run_peers() {
    . "$here/peers/where.sh"
    [ -x "$peers_dir/bin/python" ] || die "the peers are not installed: run bench/peers/setup.sh"
    describe | tee "$work/about-peers.txt"
    echo
    export PYTHONDONTWRITEBYTECODE=1
    local part
    for part in attention pictures; do
        local options=("$part" --tool "$tool" --threads "$threads" --repeats "$repeats" --only "$only")
        [ "$quick" -eq 0 ] || options+=(--quick)
        # OpenCV's threads and the programs that Python starts would inherit the one processor of a pinned main thread.
        [ $part = attention ] || unset OMP_PLACES OMP_PROC_BIND
        "$peers_dir/bin/python" "$here/peers/peers.py" "${options[@]}" --csv "$work/$part.csv"
    done | tee "$work/peers.table"
    { cat "$work/attention.csv"; tail -n +2 "$work/pictures.csv"; } >"$work/peers.csv"
    keep peers about-peers.txt peers.csv peers.table
}

run_record() {
    local document=$here/../doc/performance.md part table
    [ -n "$out" ] || die "record needs --out DIR"
    cp "$document" "$work/document.md" || exit
    for part in cpu peers; do
        table=targets && [ $part = cpu ] || table=peers
        [ -f "$out/$table.csv" ] || continue
        { sed 's/^/    /' "$out/about-$part.txt"; echo; awk -F, -f "$here/markdown.awk" "$out/$table.csv"; } >"$work/$part.md"
        awk -v name=$part -v file="$work/$part.md" '
            $0 == "<!-- end " name " -->" { inside = 0 }
            !inside
            $0 == "<!-- begin " name " -->" { inside = 1; while ((getline line < file) > 0) print line }
        ' "$work/document.md" >"$work/next.md" && mv "$work/next.md" "$work/document.md" || exit
    done
    cp "$work/document.md" "$document"
}

[ $# -gt 0 ] || usage
command=$1 words=()
shift
while [ $# -gt 0 ]; do
    case $1 in
    --quick) quick=1 repeats=3 rounds=1 ;;
    --tool | --out | --threads | --only | --rounds)
        [ $# -gt 1 ] || usage
        printf -v "${1#--}" %s "$2"
        shift
        ;;
    -*) usage ;;
    *) words+=("$1") ;;
    esac
    shift
done
[ "$command" = record ] || find_tool
if [ -n "$out" ]; then
    mkdir -p "$out" && out=$(cd "$out" && pwd) || exit
fi
work=$(mktemp -d) || exit
trap 'rm -rf "$work"' EXIT
case $command in
cpu) run_cpu ;;
peers) run_peers ;;
record) run_record ;;
set) [ ${#words[@]} -gt 0 ] && run_set "${words[@]}" || usage ;;
*) usage ;;
esac
