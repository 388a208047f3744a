# Counting for shell tests; source it, call check and skip, and end with finish.
passed=0 failed=0 skipped=0

# check NAME COMMAND...: runs the command; it passes iff it exits 0. What it says is shown only if it fails.
check() {
    local name=$1 said
    shift
    if said=$("$@" 2>&1); then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        printf 'FAIL %s: %s\n%s\n' "$name" "$*" "$said"
    fi
}

# skip NAME REASON...
skip() {
    local name=$1
    shift
    skipped=$((skipped + 1))
    printf 'SKIP %s: %s\n' "$name" "$*"
}

# Prints the totals as the last line and exits: 0 passed, 77 only skips, 1 failed or nothing ran.
finish() {
    printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
    [ "$failed" -eq 0 ] && [ $((passed + skipped)) -gt 0 ] || exit 1
    [ "$passed" -gt 0 ] || exit 77
    exit 0
}
