# Plots peers.csv, in the current folder: how many times as fast as each peer Nearfield is, on a log scale.
set datafile separator ","
set style fill solid 0.7 noborder
set boxwidth 0.7
set grid ytics
set logscale y
set yrange [0.5:*]
set xtics rotate by -50 left font ",9" noenhanced
set key top right
set rmargin 12
set terminal pngcairo size 1500,800 font "sans,11"
set ylabel "times as fast as the peer"
set title "Nearfield against its peers, same problem, same threads, sampled in turns"
set output "peers.png"
rows = "< awk -F, -v OFS=, '$7 ~ /^[0-9]/ && $14 !~ /^roof/ { print $1 \" \" $2 \" \" $3 \" \" $4 \"t\", $7, $8, $9, $10 }' peers.csv"
plot rows using 2:xtic(1) with boxes lc rgb "#4472c4" title "median", \
     "" using 0:2:3:4 with yerrorbars pt 0 lc rgb "#203864" lw 2 title "range", \
     "" using 0:5 with points pt 9 ps 1.2 lc rgb "#c00000" title "target"
