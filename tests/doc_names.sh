#!/usr/bin/env bash
# Files, functions and variables that doc/*.md put in backquotes exist.
. "$top_srcdir/tests/count.sh"

named() {
    grep -o '`[^`]*`' "$top_srcdir/doc/$1" | tr -d '`' | sort -u
}

exists() {
    find "$top_srcdir" -path "*/$1" | grep -q .
}

for document in architecture.md add-a-backend.md add-a-pattern.md opencl.md cuda.md; do
    while IFS= read -r name; do
        case $name in
        *[!a-zA-Z0-9_./]* | */NAME/*) ;; # more than a name, or a placeholder
        *.c | *.h | *.am | */) check "$document names $name" exists "${name%/}" ;;
        nf_* | fill_* | oracle_*)
            check "$document names $name" grep -rqw --include='*.[ch]' -- "$name" \
                "$top_srcdir/include" "$top_srcdir/src" "$top_srcdir/tests"
            ;;
        esac
    done < <(named "$document")
    while IFS= read -r link; do
        check "$document links to $link" test -e "$top_srcdir/doc/$link"
    done < <(sed -n 's/.*](\([^):]*\)).*/\1/p' "$top_srcdir/doc/$document")
done
finish
