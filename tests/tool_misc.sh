#!/usr/bin/env bash
# The tool's help, version, info, env and plan; standard output that breaks; and that the manual knows every option.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
commands=$("$NEARFIELD" help | sed -n '/^commands:/,$ s/^  \([a-z]*\) .*/\1/p')

says() { # PATTERN ARGUMENT...
    local pattern=$1
    shift
    "$NEARFIELD" "$@" >"$work/text" && cat "$work/text" && grep -q -e "$pattern" "$work/text"
}

check version says '^nearfield [0-9]*\.[0-9]*\.[0-9]*$' --version
check eight_commands test "$(wc -w <<<"$commands")" -eq 8
for command in $commands; do
    check "help_$command" says "^usage: nearfield $command " help "$command"
    check "${command}_help" says "^usage: nearfield $command " "$command" --help
    check "same_help_$command" test "$("$NEARFIELD" help "$command")" = "$("$NEARFIELD" "$command" --help)"
done
no_command() {
    "$NEARFIELD" 2>"$work/text" >"$work/stdout"
    [ $? -eq 2 ] && [ ! -s "$work/stdout" ] && grep -q '^usage:' "$work/text"
}
check no_command no_command

check info_cpu says '^ *cpu' info
check info_reference says 'reference' info
check info_absent says 'cuda.*unavailable' info
check env_backend says '^NEARFIELD_BACKEND=' env
current_value() { NEARFIELD_NUM_THREADS=1 says 'Now: 1' env; }
check env_shows_the_value current_value

problem='na2d f32 h2 d32 56x56 w7 both'
check plan_problem says '^problem: na2d f32 b1 h2 d32 56x56 w7 both$' plan "$problem"
check plan_choice says '^chosen: cpu ' plan "$problem"
check plan_refusals says 'reference: never chosen' plan "$problem"
check plan_pairs says '307328 visible' plan "$problem"
check plan_picture says '^ *[#+.]*#[#+.]*$' plan "$problem" --algo tile
check plan_reference says '^chosen: reference ' plan --backend reference "$problem"
check plan_backend_last says '^chosen: reference ' plan "$problem" --backend=reference
check plan_dashes says '^chosen: ' plan -- "$problem"
check plan_threads says 'threads 1' plan "$problem" --threads 1

# A full disk and a closed pipe are errors.
for arguments in --version help 'help run' info env "plan|$problem"; do
    IFS='|' read -r -a words <<<"$arguments"
    [ "$arguments" = 'help run' ] && words=(help run)
    if [ -w /dev/full ]; then
        full() { "$NEARFIELD" "${words[@]}" >/dev/full 2>"$work/text"; [ $? -eq 2 ] && grep -q 'standard output: ' "$work/text"; }
        check "full_disk_${words[0]}" full
    else
        skip "full_disk_${words[0]}" 'there is no /dev/full'
    fi
    closed() { "$NEARFIELD" "${words[@]}" >&- 2>"$work/text"; [ $? -eq 2 ] && grep -q 'standard output: ' "$work/text"; }
    check "closed_output_${words[0]}" closed
done
closed_pipe() {
    mkfifo "$work/pipe" && exec 3<>"$work/pipe" 4>"$work/pipe" 3<&- || return 1
    "$NEARFIELD" help >&4 2>"$work/text"
    local status=$?
    exec 4>&-
    [ $status -eq 2 ] && grep -q 'standard output: Broken pipe' "$work/text"
}
check closed_pipe closed_pipe

# Every option in nearfield(1), under its command; every variable in nearfield-environment(7).
section() { # COMMAND: its part of the page, as plain text
    sed -n "/^\.SS \"nearfield $1[ \"]/,/^\.S[SH]/p" "$top_srcdir/doc/man/nearfield.1" | sed 's/\\-/-/g'
}
knows() { # COMMAND OPTION
    section "$1" | grep -q -E -e "--$2([^a-z-]|\$)"
}
for command in $commands; do
    check "manual_$command" test -n "$(section "$command")"
    for option in $("$NEARFIELD" help "$command" | sed -n 's/^  --\([a-z-]*\).*/\1/p' | grep -v '^help$'); do
        check "manual_${command}_$option" knows "$command" "$option"
    done
done
for variable in $("$NEARFIELD" env | sed -n 's/^\(NEARFIELD_[A-Z_]*\)=.*/\1/p'); do
    check "manual_$variable" grep -q "^\.BR $variable " "$top_srcdir/doc/man/nearfield-environment.7"
done
for page in nearfield.1 nearfield-environment.7; do
    if command -v mandoc >/dev/null; then
        check "lint_$page" test -z "$(mandoc -Tlint "$top_srcdir/doc/man/$page" 2>&1)"
    else
        skip "lint_$page" 'there is no mandoc'
    fi
done
finish
