# The C file of the images of a list of programs: lines of a name, a source and options. Where folder is set it embeds
# folder/NAME.fatbin, else an image is the words "host image NAME", for tests.
BEGIN {
    print "/* Made by images.awk. */"
    print "#include \"backends/cuda/cu_images.h\"\n"
}
{
    name[NR] = $1
    options[NR] = substr($0, length($1 $2) + 3)
    warpgroups += $2 ~ /^cu_wgmma/
}
function embed(i) {
    if (folder == "") {
        printf "static const char image_%d[] = \"host image %s\";\n", i, name[i]
        return
    }
    printf "__asm__(\".section .rodata\\n.balign 64\\n.globl nf_cu_image_%d\\n.hidden nf_cu_image_%d\\n\"\n", i, i
    printf "        \"nf_cu_image_%d:\\n.incbin \\\"%s/%s.fatbin\\\"\\n.previous\\n\");\n", i, folder, name[i]
    printf "extern const char image_%d[] __asm__(\"nf_cu_image_%d\");\n", i, i
}
END {
    for (i = 1; i <= NR; i++)
        embed(i)
    print "\nstatic const cu_image images[] = {"
    for (i = 1; i <= NR; i++)
        printf "    {\"%s\", image_%d}, /* %s */\n", options[i], i, name[i]
    print "};\n"
    print "const cu_image_set cu_images = {"
    printf "    .toolkit = %d,\n    .least_capability = %d,\n", toolkit, least
    printf "    .warpgroups = %d,\n    .count = %d,\n    .images = images,\n};\n", (warpgroups > 0), NR
}
