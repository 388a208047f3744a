#!/usr/bin/env bash
# What the documents say is true: their problem strings parse, their commands run, the version and links hold.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/bin"
ln -s "$NEARFIELD" "$work/bin/nearfield"
ln -s "$top_srcdir"/doc/images/*.png "$work/" 2>/dev/null
export PATH=$work/bin:$PATH

# The examples of nearfield-problem(7) are the lines between .EX and .EE.
while IFS= read -r problem; do
    check "problem in nearfield-problem(7)" nearfield plan "$problem"
done < <(sed -n '/^\.EX/,/^\.EE/{/^na/p}' "$top_srcdir/doc/man/nearfield-problem.7")

# Commands in README.md are the indented lines that start with the tool's name.
while IFS= read -r command; do
    if [[ $command == *.png* ]] && ! grep -q '^#define HAVE_LIBPNG 1' "$top_builddir/config.h"; then
        skip "command in README.md" "built without libpng: $command"
    else
        check "command in README.md" bash -c "cd '$work' && $command"
    fi
done < <(sed -n 's/^    \(nearfield .*\)/\1/p' "$top_srcdir/README.md")

# Files that README.md points to, and the example that it shows.
while IFS= read -r file; do
    check "README.md names $file" test -e "$top_srcdir/$file"
done < <(sed -n 's/.*](\([^):]*\)).*/\1/p' "$top_srcdir/README.md")

check 'NEWS names the version' grep -q "^Nearfield $(nearfield --version | sed 's/.* //')\$" "$top_srcdir/NEWS"

for page in "$top_srcdir"/doc/man/*.[1-9]; do
    if command -v man >/dev/null; then
        check "${page##*/} formats" bash -c "! MANROFFSEQ= man --warnings=all -l '$page' 2>&1 >/dev/null | grep ."
    else
        skip "${page##*/} formats" 'there is no man'
    fi
done
finish
