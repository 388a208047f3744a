# Judges what was measured. Input: targets.txt, then rows of "NAME,ISA," and the columns of nearfield bench --csv.
# -v threads=N, -v csv=FILE for the rows as comma-separated values. Prints the table and how many rows are met.

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
$3 == "problem" {
    for (i = 1; i <= NF; i++)
        column[$i] = i
    next
}

{
    key = $1 SUBSEP $2
    if ($2 == "error") {
        reason[$1] = $3
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

function is_there(text, label, kind, direction, target) {
    if (text == "")
        missing(label, kind, direction, target)
    return text != ""
}

function judge_peak(label, direction, target,    text, one, isa_text) {
    text = find(label SUBSEP "best", direction, threads, 1)
    if (is_there(text, label, "peak", direction, target))
        judge(label, "peak", direction, text, get(text, "peak_fraction"), target, 1, "%")
    if (avx2) {
        isa_text = find(label SUBSEP "avx2", direction, threads, 1)
        if (is_there(isa_text, label, "avx2", direction, 0.9 * target))
            judge(label, "avx2", direction, isa_text, get(isa_text, "peak_fraction"), 0.9 * target, 1, "%")
    }
    one = find(label SUBSEP "best", direction, 1, 1)
    if (threads > 1 && text != "" && one != "" && get(one, "median_s") >= 5e-3)
        judge(label, "threads", direction, text, get(one, "median_s") / get(text, "median_s"), 0.95 * threads, 1, "x")
}

# Rows come in pairs: A and B of each problem.
function judge_ratios(label, kind, direction, target,    i, a, b, logs) {
    for (i = 1; (b = find(label SUBSEP "best", direction, 0, 2 * i)) != ""; i++) {
        a = find(label SUBSEP "best", direction, 0, 2 * i - 1)
        logs += log(get(a, "gflops") / get(b, "gflops"))
    }
    a = find(label SUBSEP "best", direction, 0, 1)
    if (is_there(i > 1 ? a : "", label, kind, direction, target))
        judge(label, kind, direction, a, exp(logs / (i - 1)), target, 1, "x")
}

function judge_memory(label, target,    i, key, most, bytes) {
    key = label SUBSEP "best"
    for (i = 1; i <= rows[key]; i++) {
        bytes = get(row[key, i], "library_peak_bytes") + 0
        if (get(row[key, i], "process_growth_bytes") > bytes)
            bytes = get(row[key, i], "process_growth_bytes")
        bytes /= get(row[key, i], "threads")
        most = bytes > most ? bytes : most
    }
    if (is_there(rows[key] ? row[key, 1] : "", label, "memory", "both", target))
        judge(label, "memory", "both", row[key, 1], most / 1048576, target, 0, "MiB")
}

function judge_seconds(label, kind, what, target,    text) {
    text = find(label SUBSEP "best", "fwd", 0, 1)
    if (is_there(text, label, kind, "fwd", target))
        judge(label, kind, "fwd", text, get(text, what), target, 0, "s")
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
            else if (measure[l] == "stream") {
                text = find(name[l] SUBSEP "best", part[p], threads, 1)
                if (is_there(text, name[l], "stream", part[p], part[p + 1]))
                    judge(name[l], "stream", part[p], text, get(text, "stream_s") / get(text, "median_s"), \
                        part[p + 1], 1, "%")
            } else if (measure[l] == "plan")
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
    printf "%d of %d rows met\n", met_rows, total
}
