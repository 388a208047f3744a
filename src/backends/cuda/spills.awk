# What ptxas -v says of a program (-v program=NAME), held against spills.txt, the first file: fails on kernels that keep
# registers in memory without being listed, and on tensor-core instructions that are executed one by one.
function fail(sentence) {
    print program ": " sentence >"/dev/stderr"
    failed = 1
}
function allowed(bytes,    i) {
    for (i = 1; i <= entries; i++)
        if (program ~ programs[i] && kernel ~ kernels[i] && gpu ~ gpus[i] && bytes <= most[i])
            return 1
    return 0
}
FNR == NR {
    if (/^#/ || NF == 0)
        next
    programs[++entries] = "^(" $1 ")$"
    kernels[entries] = "^(" $2 ")$"
    gpus[entries] = "^(" $3 ")$"
    most[entries] = $4 + 0
    if (NF < 5)
        fail("spills.txt, line " FNR ": gives no reason")
    next
}
/Compiling entry function/ {
    split($0, quoted, "'")
    kernel = quoted[2]
    gpu = quoted[4]
}
/bytes spill stores/ {
    match($0, /[0-9]+ bytes spill stores/)
    bytes = substr($0, RSTART, RLENGTH) + 0
    if (bytes > 0 && !allowed(bytes))
        fail(kernel " for " gpu " spills " bytes " bytes, which spills.txt does not allow")
}
/[Ss]erializ/ {
    fail($0)
}
END {
    exit failed
}
