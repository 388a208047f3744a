# Makes C of program texts: one array of strings per file, then the lists that programs are made of. A line becomes one
# string literal, in pieces short enough for any compiler.
BEGIN {
    print "/* Made by text.awk from the kernel text. */"
    print "#include \"backends/gpu/gpu_text.h\"\n"
}
FNR == 1 {
    if (NR > 1)
        print "    ;\n"
    name = FILENAME
    sub(/.*\//, "", name)
    gsub(/[^A-Za-z0-9]/, "_", name)
    print "static const char " name "[] ="
    print "    \"#line 1 \\\"" name "\\\"\\n\""
}
{
    gsub(/\\/, "\\\\\\\\")
    gsub(/"/, "\\\"")
    print "    \"" $0 "\\n\""
}
END {
    print "    ;\n"
    common = "gpu_words_cl, gpu_tables_h, gpu_common_cl"
    print "const char *const gpu_lanes_source[] = {" common ", gpu_lanes_cl, gpu_lanes_backward_cl, NULL};"
    print "const char *const gpu_tile_source[] = {" common ", gpu_tile_cl, gpu_tile_backward_cl, NULL};"
    print "const char *const gpu_unfused_source[] = {" common ", gpu_unfused_cl, NULL};"
    print "const char *const gpu_naive_source[] = {" common ", gpu_unfused_cl, gpu_naive_cl, NULL};"
    print "const char *const gpu_merge_source[] = {" common ", gpu_merge_cl, NULL};"
}
