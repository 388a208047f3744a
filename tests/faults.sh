# What the fault tests of backends on mock drivers share; sourced after the mock's use.sh by tests that set
#   backend, tool       its name, and the program that runs it
#   attempt, problem    the program that tries a problem and holds failures against their promises, and the problem

said() { # WORDS...: each was said
    local words
    for words; do
        grep -q -F -e "$words" "$work/said" || { cat "$work/said"; echo "lacks: $words"; return 1; }
    done
}

# The problem runs, as far as a device can tell.
works() { # SETTINGS [ARGUMENT...]
    on_mock "$work/mock" "$1" "$attempt" "$problem" "${@:2}" || { cat "$work/said"; return 1; }
    books_balance
}

# It fails with all promises kept, and with these words.
fails_on() { # FOLDER SETTINGS WORDS...
    local folder=$1 settings=$2 status
    shift 2
    on_mock "$folder" "$settings" "$attempt" "$problem"
    status=$?
    [ $status -eq 1 ] || { cat "$work/said"; echo "exit status $status"; return 1; }
    said "$@" && { [ ! -e "$books" ] || books_balance; }
}
fails() { fails_on "$work/mock" "$@"; }

says_why() { # WORDS COMMAND...: the tool fails politely on the mock of $settings
    local words=$1
    shift
    on_mock "$work/mock" "$settings" "$tool" "$@"
    [ $? -eq 2 ] && said "$words" || { cat "$work/said"; return 1; }
}

uses() { # TEXT NAME
    NEARFIELD_DEVICE=$1 on_mock "$work/mock" 'devices=3' "$tool" plan "$problem" --backend "$backend" && said "$2"
}

# One of three devices is chosen by number, by a part of its name, by default.
check_choice() { # NAMES: as a refusal lists them
    local device
    check device_by_number uses 2 'Mock 2'
    check device_by_name uses 'mock 1' 'Mock 1'
    check device_by_default uses '' 'Mock 0'
    for device in 3 -1 nonsense; do
        settings='devices=3' NEARFIELD_DEVICE=$device check "device_$device" \
            says_why "device '$device' is none of: $1" plan "$problem" --backend "$backend"
    done
}

# A call that fails once, at each turn, and from then on. $failure: the code; $spared: calls that the backend can do without,
# as regular expressions; $unbalanced: one after whose failure nothing can be released.
fails_at() { # NAME COUNT [ARGUMENT...]
    local name=$1 count=$2 turn range status
    for ((turn = 1; turn <= count; turn++)); do
        for range in "$turn:$turn" "$turn"; do
            on_mock "$work/mock" "fail=$name:$failure:$range" "$attempt" "$problem" "${@:3}"
            status=$?
            if [ $status -eq 0 ] && [[ " $name " =~ \ ($(tr ' ' '|' <<<"$spared"))\  ]]; then
                status=1
            fi
            [ $status -eq 1 ] && { [ "$name" = "${unbalanced-}" ] || books_balance; } ||
                { cat "$work/said"; echo "call $range, exit status $status"; return 1; }
        done
    done
}

# All calls of the problem that match, one after the other.
check_calls() { # PREFIX PATTERN [ARGUMENT...]
    local name count
    on_mock "$work/mock" '' "$attempt" "$problem" "${@:3}"
    while read -r name count; do
        check "$1_$name" fails_at "$name" "$count" "${@:3}"
    done < <(sed -n "s/^calls \($2\) /\1 /p" "$books")
}

# nearfield run on a device that is lost says so, and leaves no file.
check_run() { # WORDS
    make_npy() { "$top_builddir/tests/make_npy" "$work/q.npy" f4 C 1 1 9 11 2 8; }
    check make_npy make_npy
    writes_nothing() {
        settings=lost says_why "$1" run 'na2d w3' --backend "$backend" --q "$work/q.npy" --k "$work/q.npy" \
            --v "$work/q.npy" --out "$work/out.npy" && [ ! -e "$work/out.npy" ]
    }
    check run_writes_nothing writes_nothing "$1"
}
