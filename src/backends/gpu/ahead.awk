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
/define GPU_AHEAD_MMA/ {
    type_of_16_bits = /MMA_DIMS/
    sub(/.*\(D\)/, "")
    gsub(/[^0-9]+/, " ")
    if (type_of_16_bits)
        dims = split($0, dim, " ")
    else
        f32_dims = split($0, f32_dim, " ")
}
function mma(type, dim) {
    printf "mma-i%d-d%d cu_mma.cu -DIN_TYPE=%d -DDIMS=%d\n", type, dim, type, dim
}
/define GPU_AHEAD_UNFUSED/ {
    type_of_16_bits = /UNFUSED_DIMS/
    sub(/.*\(D\)/, "")
    gsub(/[^0-9]+/, " ")
    if (type_of_16_bits)
        unfused_dims = split($0, unfused_dim, " ")
    else
        unfused_f32_dims = split($0, unfused_f32_dim, " ")
}
function unfused(type, dim) {
    printf "unfused-i%d-d%d cu_unfused.cu -DUNFUSED=1 -DIN_TYPE=%d -DDIMS=%d\n", type, dim, type, dim
}
/GPU_AHEAD_WGMMA_DIMS/ {
    gsub(/[^0-9]+/, " ")
    wide_dims = split($0, wide_dim, " ")
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
        for (d = 1; d <= dims; d++)
            mma(narrow, dim[d])
    for (d = 1; d <= f32_dims; d++)
        mma(0, f32_dim[d])
    for (narrow = 2; narrow <= 3; narrow++)
        for (d = 1; d <= unfused_dims; d++)
            unfused(narrow, unfused_dim[d])
    for (d = 1; d <= unfused_f32_dims; d++)
        unfused(0, unfused_f32_dim[d])
    for (narrow = 2; narrow <= 3; narrow++)
        for (d = 1; d <= wide_dims; d++) {
            options = sprintf("-DIN_TYPE=%d -DDIMS=%d", narrow, wide_dim[d])
            printf "wgmma-i%d-d%d cu_wgmma.cu -DWGMMA=1 %s\n", narrow, wide_dim[d], options
            printf "wgmma-backward-i%d-d%d cu_wgmma_backward.cu -DWGMMA_BACKWARD=1 %s\n", narrow, wide_dim[d], options
        }
}
