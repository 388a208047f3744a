# targets.csv or peers.csv as a table of a Markdown document.
NR == 1 {
    for (i = 1; i <= NF; i++)
        column[$i] = i
    peers = "peer" in column
    if (peers)
        print "| peer | problem | direction | threads | ours, ms | peer, ms | ratio (range) | target | | note |\n" \
            "|---|---|---|---|---|---|---|---|---|---|"
    else
        print "| problem | measure | direction | kernel | median, ms | floor, ms | reached | target | | spread |\n" \
            "|---|---|---|---|---|---|---|---|---|---|"
    next
}

function of(name) {
    return $column[name]
}

# A note may hold commas, in quotes.
function note(    i, text) {
    text = $column["note"]
    for (i = column["note"] + 1; i <= NF; i++)
        text = text "," $i
    gsub(/"/, "", text)
    return text
}

function shown(value,    kind) {
    kind = of("measure")
    if (kind ~ /^(peak|avx2|stream)$/)
        return sprintf("%.1f %%", 100 * value)
    if (kind ~ /^(plan|call)$/)
        return sprintf("%.2f us", 1e6 * value)
    return sprintf(kind == "memory" ? "%.2f MiB" : "%.2f x", value)
}

peers {
    rows++
    met += of("verdict") == "met"
    judged += of("verdict") ~ /met|wrong/
    if (of("verdict") ~ /skipped|wrong/)
        printf "| %s | %s | | | | | | | %s | %s |\n", of("peer"), of("problem"), of("verdict"), note()
    else
        printf "| %s | %s | %s | %s | %.3f | %.3f | %.2f x (%.2f .. %.2f) | %s | %s%s | %s |\n", of("peer"), of("problem"), \
            of("direction"), of("threads"), 1e3 * of("ours_s"), 1e3 * of("peer_s"), of("ratio"), of("ratio_low"), \
            of("ratio_high"), (of("target") == "" ? "" : of("target") " x"), of("verdict"), \
            (of("disturbed") > 0 ? " (busy)" : ""), note()
    next
}

{
    judged++
    met += of("verdict") == "met"
    if (of("value") == "")
        printf "| %s | %s | %s | | | | | %s | %s | |\n", of("name"), of("measure"), of("direction"), \
            shown(of("target")), of("verdict")
    else
        printf "| %s | %s | %s | %s | %.4f | %.4f | %s | %s | %s%s | %.1f %% |\n", of("name"), of("measure"), \
            of("direction"), of("algo"), 1e3 * of("median_s"), 1e3 * of("floor_s"), shown(of("value")), \
            shown(of("target")), of("verdict"), (of("busy_samples") > 0 ? " (busy)" : ""), 100 * of("spread")
}

END {
    printf "\n%d of %d rows met.\n", met, judged
}
