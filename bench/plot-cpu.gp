# Plots of targets.csv, in the current folder: one for fractions of a limit, one for ratios over their target.
set datafile separator ","
set style fill solid 0.7 noborder
set boxwidth 0.7
set grid ytics
set xtics rotate by -50 left font ",9" noenhanced
set key top right
set rmargin 12
set terminal pngcairo size 1500,700 font "sans,11"

rows(kinds) = sprintf("< awk -F, -v OFS=, '$2 ~ /^(%s)$/ && $8 != \"\" { print $1 \" \" $3 ($2 == \"threads\" ? \" threads\" : \"\"), $8, $9, $8 / $9 }' targets.csv", kinds)
peak_rows = rows("peak|stream")
avx2_rows = rows("avx2")
ratio_rows = rows("speed|threads|fused|unfused")

set ylabel "% of the limit"
set yrange [0:100]
set output "targets-peak.png"
set title "Fraction of the multiply-add peak (w3: of the streaming speed), all threads, best instruction set"
plot peak_rows using (100 * $2):xtic(1) with boxes lc rgb "#4472c4" title "measured", \
     "" using 0:(100 * $3) with points pt 9 ps 1.2 lc rgb "#c00000" title "target"

if (int(system("grep -c ',avx2,' targets.csv")) > 0) {
    set output "targets-avx2.png"
    set title "The same with AVX2, of its own peak"
    plot avx2_rows using (100 * $2):xtic(1) with boxes lc rgb "#70ad47" title "measured", \
         "" using 0:(100 * $3) with points pt 9 ps 1.2 lc rgb "#c00000" title "target"
}

if (int(system("grep -c -E ',(speed|threads|fused|unfused),' targets.csv")) > 0) {
    set output "targets-ratio.png"
    set key top left
    set title "Ratios over their targets: dilated over undilated, time saved over work saved, threads, plain loops"
    set ylabel "measured / target"
    set yrange [0:*]
    plot ratio_rows using 4:xtic(1) with boxes lc rgb "#ed7d31" title "measured / target", \
         1 lc rgb "#c00000" title "met"
}
