# The programs that are compiled ahead, one a line: a name, the file below src/backends/cuda, and the options, exactly as
# gpu_shape.c, gpu_slots_finish, gpu_merge_options, cu_mma_plan.c, cu_unfused_plan.c and cu_wgmma_plan.c write them. Reads
# gpu_ahead.h.
/^ *X\(/ {
    gsub(/[^0-9]+/, " ")
    tiles[++count] = $0
}
/GPU_AHEAD_PLAIN_RANK =/ {
    gsub(/[^0-9]+/, " ")
    split($0, plain, " ")
}
# The dimensions D(n) of the line. Returns how many.
function read_dims(into) {
    sub(/.*\(D\)/, "")
    gsub(/[^0-9]+/, " ")
    return split($0, into, " ")
}
/define GPU_AHEAD_MMA_DIMS/ { mma_dims = read_dims(mma_dim) }
/define GPU_AHEAD_MMA_F32_DIMS/ { mma_f32_dims = read_dims(mma_f32_dim) }
/define GPU_AHEAD_UNFUSED_DIMS/ { unfused_dims = read_dims(unfused_dim) }
/define GPU_AHEAD_UNFUSED_F32_DIMS/ { unfused_f32_dims = read_dims(unfused_f32_dim) }
/define GPU_AHEAD_WGMMA_DIMS/ { wgmma_dims = read_dims(wgmma_dim) }
function list_dims(name, source, option, type, dim, dims,    d) {
    for (d = 1; d <= dims; d++)
        printf "%s-i%d-d%d %s %s-DIN_TYPE=%d -DDIMS=%d\n", name, type, dim[d], source, option, type, dim[d]
}
END {
    # Element types of the inputs and of out, as nf_dtype numbers them, and the bytes that their arithmetic has.
    pairs = split("0 0 4,1 1 8,2 2 4,3 3 4,2 0 4,3 0 4", pair, ",")
    for (rank = 2; rank <= 4; rank += 2)
        for (p = 1; p <= pairs; p++)
            for (t = 1; t <= count; t++) {
                split(pair[p], type, " ")
                split(tiles[t], tile, " ")
                if (type[3] != tile[1])
                    continue
                printf "r%d-i%d-o%d-t%d cu_portable.cu", rank, type[1], type[2], tile[2]
                printf " -DRANK=%d -DIN_TYPE=%d -DOUT_TYPE=%d", rank, type[1], type[2]
                printf " -DCOLUMNS=%d -DROWS=%d -DITEMS_X=%d -DITEMS_Y=%d", tile[2], tile[2], tile[3], tile[3]
                printf " -DCHUNK=16 -DOUT_DIMS=%d\n", tile[4]
            }
    for (p = 1; p <= pairs; p++) {
        split(pair[p], type, " ")
        printf "plain-i%d-o%d cu_plain.cu -DRANK=%d -DIN_TYPE=%d -DOUT_TYPE=%d -DITEMS=%d\n", type[1], type[2],
            plain[1], type[1], type[2], plain[2]
    }
    print "peak cu_peak.cu -DPEAK=1"
    for (p = 1; p <= 2; p++) {
        split(pair[p], type, " ")
        printf "merge-i%d cu_merge.cu -DRANK=1 -DIN_TYPE=%d -DOUT_TYPE=%d\n", type[1], type[1], type[2]
    }
    for (narrow = 2; narrow <= 3; narrow++)
        list_dims("mma", "cu_mma.cu", "", narrow, mma_dim, mma_dims)
    list_dims("mma", "cu_mma.cu", "", 0, mma_f32_dim, mma_f32_dims)
    for (narrow = 2; narrow <= 3; narrow++)
        list_dims("unfused", "cu_unfused.cu", "-DUNFUSED=1 ", narrow, unfused_dim, unfused_dims)
    list_dims("unfused", "cu_unfused.cu", "-DUNFUSED=1 ", 0, unfused_f32_dim, unfused_f32_dims)
    for (narrow = 2; narrow <= 3; narrow++) {
        list_dims("wgmma", "cu_wgmma.cu", "-DWGMMA=1 ", narrow, wgmma_dim, wgmma_dims)
        list_dims("wgmma-backward", "cu_wgmma_backward.cu", "-DWGMMA_BACKWARD=1 ", narrow, wgmma_dim, wgmma_dims)
    }
}
