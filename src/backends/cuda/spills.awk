# What ptxas -v says of a program (-v program=NAME), held against spills.txt, the first file: fails on kernels that keep
# registers in memory without being listed, on tensor-core instructions that are executed one by one, and where ptxas says
# of no kernel, or not of each, what it keeps in memory.
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
function end_of_kernel() {
    if (kernel != "" && !told)
        fail("ptxas does not say how many bytes " kernel " for " gpu " spills")
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
    end_of_kernel()
    told = 0
    split($0, quoted, "'")
    kernel = quoted[2]
    gpu = quoted[4]
}
/bytes spill stores/ {
    match($0, /[0-9]+ bytes spill stores/)
    bytes = substr($0, RSTART, RLENGTH) + 0
    told = 1
    if (bytes > 0 && !allowed(bytes))
        fail(kernel " for " gpu " spills " bytes " bytes, which spills.txt does not allow")
}
/[Ss]erializ/ {
    fail($0)
}
END {
    end_of_kernel()
    if (kernel == "")
        fail("ptxas names no kernel that it has compiled")
    exit failed
}
