#!/usr/bin/env bash
# The cache of built OpenCL programs: what is in it is not built again, what is wrong with it is no harm. Counted on
# tests/opencl_mock, then seen on PoCL.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/opencl_mock/use.sh"
attempt=$top_builddir/tests/opencl_try
problem='na1d f32 d8 20 w5 both'
other='na1d f32 d9 20 w5 both'
cache=$work/cache

# Runs the problem with $cache; $built and $loaded tell how many programs came from where.
run() { # SETTINGS [PROBLEM]
    NEARFIELD_CACHE_DIR=$cache NEARFIELD_VERBOSE=2 on_mock "$work/mock" "$1" timeout 20 "$attempt" "${2-$problem}" ||
        { cat "$work/said"; return 1; }
    built=$(calls build-source) loaded=$(calls build-binary)
    books_balance
}
builds() { run "$@" && [ "$built" -gt 0 ] && [ "$loaded" -eq 0 ] || { echo "built $built, loaded $loaded"; return 1; }; }
loads() { run "$@" && [ "$built" -eq 0 ] && [ "$loaded" -gt 0 ] || { echo "built $built, loaded $loaded"; return 1; }; }
files() { find "$1" -mindepth 1 2>/dev/null | wc -l; }
said() { grep -q -F -e "$1" "$work/said" || { cat "$work/said"; return 1; }; }

fresh() {
    rm -rf "$cache"
    builds ''
    file=$(find "$cache" -type f)
    [ -f "$file" ]
}
check first_run_builds fresh
check one_file test "$(files "$cache")" -eq 1
check second_run_loads loads ''
check private test "$(stat -c %a "$cache")" = 700

# ---- Files that are wrong are rebuilt, and then are right ------------------------------------------------------------
heals() { # COMMAND...: spoils $file
    fresh && "$@" && builds '' && said "$file" && loads ''
}
spoil() { # OFFSET
    printf 'X' | dd of="$file" bs=1 seek="$1" conv=notrunc 2>/dev/null
}
fresh
size=$(stat -c %s "$file")
for offset in 0 15 16 31 32 39 40 47 48 $((size - 1)); do
    check "spoiled_at_$offset" heals spoil "$offset"
done
shorten() { truncate -s "$1" "$file"; }
for length in 0 1 47 48 $((size - 1)) $((size + 1)) 1000000; do
    check "size_$length" heals shorten "$length"
done
foreign() { echo 'somebody else wrote this' >"$file"; }
check foreign_text heals foreign
other_key() {
    local first=$file
    run '' "$other" && cat "$(find "$cache" -type f ! -path "$first")" >"$first"
}
check file_of_another_key heals other_key
old_version() { sed -i '1s/^nearfield cl [0-9]*/nearfield cl 0/' "$file"; }
check file_of_an_old_version heals old_version
# Something that is no file is where the file would be: a folder stays, the rest is replaced.
replaces() { fresh && rm "$file" && "$@" "$file" && builds '' && loads ''; }
check pipe_in_the_way replaces mkfifo
check dangling_link replaces ln -s "$work/nowhere/at/all"
folder_in_the_way() { fresh && rm "$file" && mkdir "$file" && builds '' && said 'cannot be kept in' && builds ''; }
check folder_in_the_way folder_in_the_way

# ---- Drivers that do not take what they gave -------------------------------------------------------------------------
refused() { fresh && run "$1" && [ "$built" -gt 0 ] && loads ''; }
check driver_refuses_the_binary refused 'fail=clCreateProgramWithBinary:-42'
check driver_cannot_build_the_binary refused 'fail=clBuildProgram:-11:1:1'
check driver_gives_no_binary eval 'rm -rf "$cache"; builds binary=0 && [ "$(files "$cache")" -eq 0 ]'

# ---- Keys ------------------------------------------------------------------------------------------------------------
misses() { # SETTINGS [PROBLEM]: another key, and both are kept
    fresh && builds "$@" && [ "$(files "$cache")" -eq 2 ] && loads "$@" && loads ''
}
check key_driver misses 'driver=1.1'
check key_device misses 'name=Other'
check key_version misses 'version=OpenCL 3.0 mock'
check key_problem misses '' "$other"
check key_type misses '' "${problem/f32/f16}"

# ---- Folders ---------------------------------------------------------------------------------------------------------
echo >"$work/file"
cannot_keep() { # FOLDER
    local cache=$1
    builds '' && said "cannot be kept in $1" && builds ''
}
check folder_is_a_file cannot_keep "$work/file"
check folder_below_a_file cannot_keep "$work/file/below"
check folder_in_proc cannot_keep /proc/nearfield
if [ "$(id -u)" -ne 0 ]; then
    mkdir -m 500 "$work/sealed"
    check sealed_folder cannot_keep "$work/sealed"
else
    skip sealed_folder 'root may write everywhere'
fi
full_disk() { # Files may have no bytes: writing fails, and leaves nothing.
    rm -rf "$cache" "$books"
    (
        trap '' XFSZ
        export MOCK_OPENCL= LD_LIBRARY_PATH=$work/mock NEARFIELD_CACHE_DIR=$cache NEARFIELD_VERBOSE=2
        said=$(ulimit -f 0 && "$attempt" "$problem" 2>&1 | cat) && grep 'cannot be kept in' <<<"$said"
    ) && [ "$(files "$cache")" -eq 0 ]
}
check full_disk full_disk
check made_with_parents eval 'cache=$work/a/b/c; fresh && loads ""'
nothing_kept() {
    local cache=
    mkdir -p "$work/home"
    HOME=$work/home XDG_CACHE_HOME=$work/home/xdg builds '' && [ "$(files "$work/home")" -eq 0 ]
}
check empty_value_is_off nothing_kept
by_default() { # FOLDER VARIABLE=VALUE...: where the cache is if only these are set
    local folder=$1
    shift
    rm -rf "$folder"
    on_mock "$work/mock" '' env -u NEARFIELD_CACHE_DIR -u HOME -u XDG_CACHE_HOME "$@" "$attempt" "$problem" &&
        [ "$(files "$folder")" -eq 1 ]
}
check default_xdg by_default "$work/xdg/nearfield" XDG_CACHE_HOME="$work/xdg" HOME="$work/home"
check default_home by_default "$work/home/.cache/nearfield" HOME="$work/home"
homeless() {
    on_mock "$work/mock" '' env -u NEARFIELD_CACHE_DIR -u HOME XDG_CACHE_HOME=relative "$attempt" "$problem" &&
        [ ! -e relative ]
}
check default_nowhere homeless

# ---- Many processes at once ------------------------------------------------------------------------------------------
at_once() {
    local pid pids=() bad=0
    rm -rf "$cache"
    for _ in 1 2 3 4 5 6 7 8; do
        NEARFIELD_CACHE_DIR=$cache MOCK_OPENCL= LD_LIBRARY_PATH=$work/mock "$attempt" "$problem" >/dev/null 2>&1 &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do
        wait "$pid" || bad=1
    done
    [ $bad -eq 0 ] && [ "$(files "$cache")" -eq 1 ] && loads ''
}
for round in 1 2 3; do
    check "at_once_$round" at_once
done

# ---- A real driver ---------------------------------------------------------------------------------------------------
if ! "$NEARFIELD" info | grep -q 'Portable Computing Language'; then
    skip pocl 'PoCL is not installed'
    finish
fi
"$top_builddir/tests/make_npy" "$work/q.npy" f4 C 1 1 30 2 8
on_pocl() { # OUT
    NEARFIELD_DEVICE=portable NEARFIELD_CACHE_DIR=$work/real NEARFIELD_VERBOSE=2 "$NEARFIELD" run 'na1d w7' --backend opencl \
        --q "$work/q.npy" --k "$work/q.npy" --v "$work/q.npy" --out "$1" >"$work/said" 2>&1
}
pocl_builds() { on_pocl "$work/built.npy" && said 'opencl: program built' && [ "$(files "$work/real")" -gt 0 ]; }
pocl_loads() { on_pocl "$work/loaded.npy" && said 'opencl: program read from' && ! said 'program built'; }
check pocl_builds pocl_builds
check pocl_loads pocl_loads
check pocl_same_bits cmp "$work/built.npy" "$work/loaded.npy"
pocl_at_once() {
    rm -rf "$work/real"
    local first
    on_pocl "$work/one.npy" &
    first=$!
    NEARFIELD_DEVICE=portable NEARFIELD_CACHE_DIR=$work/real "$NEARFIELD" run 'na1d w7' --backend opencl --q "$work/q.npy" \
        --k "$work/q.npy" --v "$work/q.npy" --out "$work/two.npy" && wait $first &&
        cmp "$work/one.npy" "$work/two.npy" && cmp "$work/one.npy" "$work/built.npy" &&
        [ -z "$(find "$work/real" -type f ! -name '*.bin')" ]
}
check pocl_at_once pocl_at_once
finish
