#!/bin/sh
# usage: test-summary.sh LOG...
# Adds up the last lines "N passed, N failed, N skipped" of the given test logs, after the reasons of all skips. A log that
# is missing, lacks that line, or counts nothing is a failed test. Exits non-zero unless something passed and nothing failed.
passed=0 failed=0 skipped=0
for log; do
    name=${log%.log}
    last=
    if [ -f "$log" ]; then
        # automake appends a line such as "PASS tests/x (exit status: 0)".
        last=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed, \([0-9][0-9]*\) skipped$/\1 \2 \3/p' "$log" | tail -n 1)
    fi
    if [ -z "$last" ] || [ "$last" = "0 0 0" ]; then
        echo "FAIL $name: its log ends without a count of tests"
        failed=$((failed + 1))
        continue
    fi
    set -- $last
    passed=$((passed + $1)) failed=$((failed + $2)) skipped=$((skipped + $3))
    if [ "$2" -eq 0 ] && grep -q '^:test-result: \(FAIL\|ERROR\|XPASS\)' "$name.trs" 2>/dev/null; then
        echo "FAIL $name: it counts no failure but exited as failed"
        failed=$((failed + 1))
    elif [ "$2" -gt 0 ]; then
        echo "FAIL $name: see $log"
    fi
    grep '^SKIP [^ ]*: ' "$log" | sed "s|^SKIP |SKIP $name: |"
done
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
