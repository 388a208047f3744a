# Judges what was measured. Input: targets.txt, then rows of "NAME,ISA,ROUND," and the columns of nearfield bench --csv.
# -v threads=N, -v rounds=N, -v csv=FILE for the rows as comma-separated values. Prints the table and how many rows are met.
#
# What else a machine does only ever makes a time longer, so that a time is that of the best round. It may favor either side of
# a ratio: that is the middle one of the rounds' (of an even number the lower of the two), and memory the most of any round.

FNR == NR {
    if ($0 ~ /^#/ || $0 !~ /\|/)
        next
    split($0, field, /[ \t]*\|[ \t]*/)
    name[++lines] = field[1]
    measure[lines] = field[2]
    targets[lines] = field[3]
    next
}

# The heading names the columns; later ones repeat it.
$4 == "problem" {
    for (i = 1; i <= NF; i++)
        column[$i] = i
    next
}

{
    key = $1 SUBSEP $2 SUBSEP $3
    if ($2 == "error") {
        reason[$1] = $4
        next
    }
    row[key, ++rows[key]] = $0
}

function get(text, what,    cells) {
    split(text, cells, ",")
    return cells[column[what]]
}

# The index-th row of a target, direction, number of threads and set of algorithms; "" if there is none.
function find(key, direction, count, index_,    i, seen) {
    for (i = 1; i <= rows[key]; i++)
        if (get(row[key, i], "direction") == direction && (!count || get(row[key, i], "threads") == count) &&
            ++seen == index_)
            return row[key, i]
    return ""
}

function spread(text) {
    return (get(text, "maximum_s") - get(text, "minimum_s")) / get(text, "median_s")
}

function judge(label, kind, direction, text, value, target, least, unit,    met, busy) {
    total++
    met = least ? value >= target : value <= target
    met_rows += met
    busy = get(text, "busy_samples") > 0 ? "*" : ""
    any_busy = any_busy || busy != ""
    printf "%-22s %-9s %-4s %-8s %10.4f %10.4f  %9s %9s  %-7s %5.1f%s\n", label, kind, direction, get(text, "algo"), \
        1e3 * get(text, "median_s"), 1e3 * get(text, "floor_s"), shown(value, unit), shown(target, unit), \
        met ? "met" : "NOT MET", 100 * spread(text), busy
    if (csv)
        printf "%s,%s,%s,%s,%s,%s,%s,%.4g,%g,%s,%.3f,%s,%s\n", label, kind, direction, get(text, "algo"), \
            get(text, "kernel"), get(text, "median_s"), get(text, "floor_s"), value, target, met ? "met" : "not met", \
            spread(text), get(text, "busy_samples"), get(text, "problem") > csv
}

function shown(value, unit) {
    return unit == "%" ? sprintf("%.1f %%", 100 * value) : unit == "s" ? sprintf("%.2f us", 1e6 * value) : \
        unit == "MiB" ? sprintf("%.2f MiB", value) : sprintf("%.2f x", value)
}

function missing(label, kind, direction, target,    why) {
    total++
    why = label in reason ? reason[label] : "not measured"
    printf "%-22s %-9s %-4s not measured: %s\n", label, kind, direction, why
    if (csv)
        printf "%s,%s,%s,,,,,,%g,not measured,,,%s\n", label, kind, direction, target, why > csv
}

# What the rounds of the row at hand found.
function begin_row() {
    found = 0
}

function note_round(round, text, value) {
    if (text == "")
        return
    texts[++found] = text
    values[found] = value + 0
    round_of[found] = round
}

# Orders the rounds by value, and judges the one that counts: "best", "middle" or "worst". least: values should reach the
# target; else they should not exceed it.
function end_row(label, kind, direction, target, least, unit, which,    i, j, text, value, round) {
    if (!found) {
        missing(label, kind, direction, target)
        return
    }
    for (i = 1; i <= found; i++)
        met_in[round_of[i]] += least ? values[i] >= target : values[i] <= target
    for (i = 2; i <= found; i++) {
        text = texts[i]
        value = values[i]
        for (j = i - 1; j && (least ? values[j] > value : values[j] < value); j--) {
            texts[j + 1] = texts[j]
            values[j + 1] = values[j]
        }
        texts[j + 1] = text
        values[j + 1] = value
    }
    i = which == "best" ? found : which == "worst" ? 1 : int((found + 1) / 2)
    judge(label, kind, direction, texts[i], values[i], target, least, unit)
}

function judge_fraction(label, kind, isa, direction, target,    r, text) {
    begin_row()
    for (r = 1; r <= rounds; r++) {
        text = find(label SUBSEP isa SUBSEP r, direction, threads, 1)
        note_round(r, text, get(text, "peak_fraction"))
    }
    end_row(label, kind, direction, target, 1, "%", "best")
}

# All threads over one, of what takes one long enough.
function judge_threads(label, direction,    r, text, one) {
    begin_row()
    for (r = 1; r <= rounds; r++) {
        text = find(label SUBSEP "best" SUBSEP r, direction, threads, 1)
        one = find(label SUBSEP "best" SUBSEP r, direction, 1, 1)
        if (text != "" && one != "" && get(one, "median_s") >= 5e-3)
            note_round(r, text, get(one, "median_s") / get(text, "median_s"))
    }
    if (found)
        end_row(label, "threads", direction, 0.95 * threads, 1, "x", "middle")
}

function judge_peak(label, direction, target) {
    judge_fraction(label, "peak", "best", direction, target)
    if (avx2)
        judge_fraction(label, "avx2", "avx2", direction, 0.9 * target)
    if (threads > 1)
        judge_threads(label, direction)
}

function judge_stream(label, direction, target,    r, text) {
    begin_row()
    for (r = 1; r <= rounds; r++) {
        text = find(label SUBSEP "best" SUBSEP r, direction, threads, 1)
        note_round(r, text, text == "" ? 0 : get(text, "stream_s") / get(text, "median_s"))
    }
    end_row(label, "stream", direction, target, 1, "%", "best")
}

# Rows come in pairs: A and B of each problem.
function judge_ratios(label, kind, direction, target,    r, i, key, a, b, logs) {
    begin_row()
    for (r = 1; r <= rounds; r++) {
        key = label SUBSEP "best" SUBSEP r
        logs = 0
        for (i = 1; (b = find(key, direction, 0, 2 * i)) != ""; i++) {
            a = find(key, direction, 0, 2 * i - 1)
            logs += log(get(a, "gflops") / get(b, "gflops"))
        }
        if (i > 1)
            note_round(r, find(key, direction, 0, 1), exp(logs / (i - 1)))
    }
    end_row(label, kind, direction, target, 1, "x", "middle")
}

function judge_memory(label, target,    r, i, key, most, bytes) {
    begin_row()
    for (r = 1; r <= rounds; r++) {
        key = label SUBSEP "best" SUBSEP r
        most = 0
        for (i = 1; i <= rows[key]; i++) {
            bytes = get(row[key, i], "library_peak_bytes") + 0
            if (get(row[key, i], "process_growth_bytes") > bytes)
                bytes = get(row[key, i], "process_growth_bytes")
            bytes /= get(row[key, i], "threads")
            most = bytes > most ? bytes : most
        }
        note_round(r, rows[key] ? row[key, 1] : "", most / 1048576)
    }
    end_row(label, "memory", "both", target, 0, "MiB", "worst")
}

function judge_seconds(label, kind, what, target,    r, text) {
    begin_row()
    for (r = 1; r <= rounds; r++) {
        text = find(label SUBSEP "best" SUBSEP r, "fwd", 0, 1)
        note_round(r, text, get(text, what) + 0)
    }
    end_row(label, kind, "fwd", target, 0, "s", "best")
}

BEGIN {
    FS = ","
    printf "%-22s %-9s %-4s %-8s %10s %10s  %9s %9s  %-7s %s\n", "problem", "measure", "dir", "kernel", "median ms", \
        "floor ms", "reached", "target", "", "spread %"
    if (csv)
        print "name,measure,direction,algo,kernel,median_s,floor_s,value,target,verdict,spread,busy_samples,problem" > csv
}

END {
    for (l = 1; l <= lines; l++) {
        count = split(targets[l], part, " ")
        for (p = 1; p < count; p += 2) {
            if (measure[l] == "peak")
                judge_peak(name[l], part[p], part[p + 1])
            else if (measure[l] == "stream")
                judge_stream(name[l], part[p], part[p + 1])
            else if (measure[l] == "plan")
                judge_seconds(name[l], "plan", "plan_s", part[p + 1])
            else if (measure[l] == "call")
                judge_seconds(name[l], "call", "median_s", part[p + 1])
            else if (measure[l] == "memory")
                judge_memory(name[l], part[p + 1])
            else
                judge_ratios(name[l], measure[l], part[p], part[p + 1])
        }
    }
    if (any_busy)
        print "* other processes ran during some of the samples: measure again on a quiet machine"
    for (r = 1; rounds > 1 && r <= rounds; r++)
        printf "round %d alone: %d\n", r, met_in[r]
    printf "%d of %d rows met\n", met_rows, total
}
