#!/usr/bin/env bash
# What the tool refuses: each bad command line or file ends with exit status 2, says why, and writes nothing.
. "$top_srcdir/tests/count.sh"
make_npy=$top_builddir/tests/make_npy
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/files" && cd "$work/files" || exit 1

"$make_npy" q.npy f4 C 1 1 9 11 2 16
"$make_npy" k12.npy f4 C 2 1 9 12 2 16
"$make_npy" h3.npy f4 C 2 1 9 11 3 16
"$make_npy" d8.npy f4 C 2 1 9 11 2 8
"$make_npy" b2.npy f4 C 2 2 9 11 2 16
"$make_npy" f8.npy f8 C 2 1 9 11 2 16
"$make_npy" u2.npy u2 C 2 1 9 11 2 16
"$make_npy" empty.npy f4 C 2 1 0 11 2 16
"$make_npy" small.npy f4 C 2 11 16
"$make_npy" extra.npy f4 C 2 1 3 2 16
"$make_npy" lse.npy f4 C 2 1 9 11 2
head -c 200 q.npy >cut.npy
{ cat q.npy; echo; } >long.npy
sed 's/<f4/>f4/' q.npy >big.npy
sed 's/<f4/<i4/' q.npy >int.npy
sed 's/(1, 9/(1,-9/' q.npy >negative.npy
printf '\x93NUMPY\x01\x00\xff\xff{' >hostile.npy
printf '\x93NUMPY\x02\x00\xff\xff\xff\xff{' >hostile2.npy
header="{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296)}"
printf "\\x93NUMPY\\x01\\x00\\x$(printf %x $((${#header} + 1)))\\x00%s\\n" "$header" >overflow.npy
echo 'not an array' >text.npy
mkdir directory
ls -lR --time-style=full-iso >../before

# refuse MESSAGE ARGUMENT...
refuse() {
    local message=$1 status
    shift
    "$NEARFIELD" "$@" >../stdout 2>../stderr
    status=$?
    ls -lR --time-style=full-iso >../after
    cat ../stderr
    [ $status -eq 2 ] || { echo "exit status $status"; return 1; }
    [ ! -s ../stdout ] || { echo 'something on stdout'; return 1; }
    grep -q -F -e "$message" ../stderr || { echo "lacks: $message"; return 1; }
    [ "$(wc -l <../stderr)" -eq 1 ] || { echo 'not one line'; return 1; }
    cmp ../before ../after || { echo 'a file was written or changed'; return 1; }
}

refuse_run() { # MESSAGE PROBLEM OPTION...: q, k and v are given unless an option replaces them
    local message=$1 problem=$2 q=q.npy k=q.npy v=q.npy
    shift 2
    case ${1-} in q=* | k=* | v=*) local "${1?}"; shift ;; esac
    refuse "$message" run "$problem" --q "$q" --k "$k" --v "$v" "$@"
}

number=0
try() {
    number=$((number + 1))
    check "$number" "$@"
}

# Command lines.
try refuse 'unknown command "rum"; did you mean run?' rum
try refuse 'unknown command "frobnicate"' frobnicate
try refuse 'unknown command "plam"; did you mean plan?' help plam
try refuse 'unknown option --verbose; the command comes first' --verbose run
try refuse 'PROBLEM expected' run
try refuse 'PROBLEM expected' plan
try refuse 'unexpected word "w3"; quote the problem as one word' run na2d w3
try refuse 'unexpected word "now"' info now
try refuse '--q is missing' run 'na2d w3' --k q.npy --v q.npy --out o.npy
try refuse '--v is missing' run 'na2d w3' --q q.npy --k q.npy --out o.npy
try refuse_run 'nothing to write' 'na2d w3'
try refuse_run 'unknown option --oot; did you mean --out?' 'na2d w3' --oot o.npy
try refuse_run 'unknown option -o; options begin with two dashes' 'na2d w3' -o o.npy
try refuse_run '--out is given twice' 'na2d w3' --out o.npy --out p.npy
try refuse_run '--out needs a value: --out FILE' 'na2d w3' --out
try refuse_run '--out needs a value: --out FILE' 'na2d w3' --out --lse l.npy
try refuse_run '--out: the FILE must not be empty' 'na2d w3' --out=
try refuse_run '--threads two: not a whole number' 'na2d w3' --out o.npy --threads two
try refuse_run '--threads 1.5: not a whole number' 'na2d w3' --out o.npy --threads 1.5
try refuse_run '--threads 99999999999999999999: not a whole number' 'na2d w3' --out o.npy --threads 99999999999999999999
try refuse_run '--threads 0: must be between 1 and 4096' 'na2d w3' --out o.npy --threads 0
try refuse_run "--backend nope: the option backend: 'nope' is no backend" 'na2d w3' --out o.npy --backend nope
try refuse_run '--algo nope' 'na2d w3' --out o.npy --algo nope
try refuse '--csv takes no value' bench --csv=yes
try refuse '--threads 1,0: must be up to 16 numbers between 1 and 4096' bench --threads 1,0
try refuse '--repeats 0: must be between 1 and' bench --repeats 0

# Options that need each other, and paths.
try refuse_run '--dq needs --dout' 'na2d w3' --out o.npy --dq dq.npy
try refuse_run '--dlse needs --dout' 'na2d w3' --out o.npy --dlse lse.npy
try refuse_run '--dout needs a gradient to write' 'na2d w3' --out o.npy --dout q.npy
try refuse_run '--extra-k and --extra-v need each other' 'na2d w3' --out o.npy --extra-k extra.npy
try refuse_run '--dextra-k needs --extra-k' 'na2d w3' --dout q.npy --dextra-k dek.npy
try refuse_run '--out and --q are the same file' 'na2d w3' --out q.npy
try refuse_run '--out and --q are the same file' 'na2d w3' --out directory/../q.npy
try refuse_run '--out and --lse are the same file' 'na2d w3' --out o.npy --lse directory/../o.npy
try refuse_run '--out directory: exists and is not a regular file' 'na2d w3' --out directory
try refuse_run '--out /dev/full: exists and is not a regular file' 'na2d w3' --out /dev/full
try refuse_run '--out nowhere/o.npy: No such file or directory' 'na2d w3' --out nowhere/o.npy
try refuse_run '--lse nowhere/l.npy: No such file or directory' 'na2d w3' --out o.npy --lse nowhere/l.npy

# Files.
try refuse_run '--q absent.npy: No such file or directory' 'na2d w3' q=absent.npy --out o.npy
try refuse_run '--k directory: not a regular file' 'na2d w3' k=directory --out o.npy
try refuse_run '--q cut.npy: truncated' 'na2d w3' q=cut.npy --out o.npy
try refuse_run '--q long.npy: trailing data' 'na2d w3' q=long.npy --out o.npy
try refuse_run "--q big.npy: element type '>f4' is not supported" 'na2d w3' q=big.npy --out o.npy
try refuse_run "--v int.npy: element type '<i4' is not supported" 'na2d w3' v=int.npy --out o.npy
try refuse_run "--k negative.npy: 'shape' must be a tuple" 'na2d w3' k=negative.npy --out o.npy
try refuse_run '--q hostile.npy: truncated' 'na2d w3' q=hostile.npy --out o.npy
try refuse_run '--q hostile2.npy: truncated' 'na2d w3' q=hostile2.npy --out o.npy
try refuse_run '--q overflow.npy: '"'shape': the number of elements exceeds" 'na2d w3' q=overflow.npy --out o.npy
try refuse_run '--q text.npy: not a .npy file' 'na2d w3' q=text.npy --out o.npy
try refuse_run 'empty.npy: extent of axis 0 is 0, must be at least 1' 'na2d w3' q=empty.npy --out o.npy

# Files that disagree with PROBLEM or with each other.
try refuse_run 'extent of axis 1: q.npy says 11, k12.npy has 12' 'na2d w3' k=k12.npy --out o.npy
try refuse_run 'key/value heads: q.npy says 2, h3.npy has 3' 'na2d w3' v=h3.npy --out o.npy
try refuse_run 'head_dim: q.npy says 16, d8.npy has 8' 'na2d w3' k=d8.npy --out o.npy
try refuse_run 'batch: q.npy says 1, b2.npy has 2' 'na2d w3' v=b2.npy --out o.npy
try refuse_run "f8.npy: holds '<f8', but k of type f32 is '<f4'" 'na2d w3' k=f8.npy --out o.npy
try refuse_run "u2.npy: holds '<u2', which is read as bf16 only where PROBLEM says bf16" 'na2d w3' q=u2.npy --out o.npy
try refuse_run "q.npy: holds '<f4', but q of a PROBLEM that says bf16 is '<u2'" 'na2d bf16 w3' --out o.npy
try refuse_run 'heads: PROBLEM says 4, q.npy has 2' 'na2d h4 w3' --out o.npy
try refuse_run 'batch: PROBLEM says 3, q.npy has 1' 'na2d b3 w3' --out o.npy
try refuse_run 'head_dim: PROBLEM says 32, q.npy has 16' 'na2d d32 w3' --out o.npy
try refuse_run 'extent of axis 0: PROBLEM says 10, q.npy has 9' 'na2d 10x11 w3' --out o.npy
try refuse_run 'extra tokens: PROBLEM says 4, extra.npy has 3' 'na2d x4 w3' --extra-k extra.npy --extra-v extra.npy --out o.npy
try refuse_run 'PROBLEM says x4: --extra-k and --extra-v are needed' 'na2d x4 w3' --out o.npy
try refuse_run 'PROBLEM says bwd, which needs --dout' 'na2d w3 bwd' --out o.npy
try refuse_run 'PROBLEM says fwd, but --dout asks for gradients' 'na2d w3 fwd' --dout q.npy --dq dq.npy
try refuse_run 'small.npy: has 2 dimensions; q of a na2d problem has 5, or 4 without batch' 'na2d w3' q=small.npy --out o.npy
try refuse_run 'q.npy: has 5 dimensions; q of a na1d problem has 4' 'na1d w3' --out o.npy
try refuse_run 'it must state the extents too' 'na2d w3 q0:3x0:3' --out o.npy
try refuse_run 'window 10 * dilation 1 = 10 exceeds the extent 9' 'na2d w10' --out o.npy
try refuse_run 'PROBLEM: ' 'na2d w3 s4' --out o.npy
try refuse_run 'PROBLEM: ' 'na5d w3' --out o.npy
try refuse_run 'PROBLEM: ' '' --out o.npy
try refuse 'PROBLEM "na1d d8": axis 0: extent 0' bench 'na1d d8'
try refuse 'PROBLEM: ' plan 'na1d d8 100 w7 s9'
finish
