#!/usr/bin/env bash
# nearfield denoise on real and made-up pictures and volumes: what it gains, what it keeps, what it refuses.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1

# The right half of the picture in the README is free of noise, and cropped from here on.
sample=$top_srcdir/doc/images/denoise.png
earth=/usr/share/xplanet/images/earth.jpg
scan=/usr/share/mricron/templates/ch2bet.nii.gz

has() { # LIBRARY: was the tool built with it?
    grep -q "^#define HAVE_$1 1" "$top_builddir/config.h"
}

denoise() {
    "$NEARFIELD" denoise "$@"
}

gains() { # DECIBELS OPTION...: at least so many
    local least=$1
    shift
    denoise "$@" >report || return 1
    cat report
    awk -v least="$least" '/^PSNR/ {found = 1; exit !($(NF - 1) >= least)} END {if (!found) exit 1}' report
}

gains_more() { # OPTION...: than with whole patches
    local few all
    few=$(gain "$@") && all=$(gain "$@" --features all) && echo "$few dB, $all dB" && awk "BEGIN {exit !($few > $all)}"
}

gain() {
    denoise "$@" | awk '/^PSNR/ {print $(NF - 1)}'
}

estimates() { # LOW HIGH PICTURE: a sigma between them
    denoise "$3" out.png |
        awk -v low="$1" -v high="$2" '/estimated/ {found = $3 + 0 > low && $3 + 0 < high} END {exit !found}'
}

differ() {
    ! cmp -s "$1" "$2"
}

psnr() {
    denoise "$@" | grep '^PSNR'
}

# ---- Made-up files ---------------------------------------------------------------------------------------------------
printf %s iVBORw0KGgoAAAANSUhEUgAAAAgAAAAIEAYAAACUn2LIAAAA5klEQVR42h2RwQ3DMAwDlUm8ieFFPIoADaJN9PEcmiY69lGgOZMOr2b6xLeO2Trx\
7TDbEd99ZvfF50N9eA7P4TW8hvfwHm7ECPJN0Y51CN63DkU+nGAOp6iGE+zhFBn3cZDjBPlF0X1UUbCDgzmcYA2nqIdTbLwoQe6liBqCPKXIhxPM4RTVcII9nCIt\
dDlwbaS/5MC1EWpy4HJU4XLUz+XIUJNykNrIi7UcpDZSu+Qg5agi5ahfypHhtOSgtJHFLgeljbzPloOSI06bHJQcGX9Gy0FrI6pSDlobGXLloOWIa5YctBz94V26\
AdcJDyoAAAAASUVORK5CYII= | base64 -d >rgba16.png # 8x8
printf %s iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAAAAADhZOFXAAAADklEQVR42mNogAIGyhgAgIQgARDoahcAAAAASUVORK5CYII= |
    base64 -d >flat.png # 8x8, all 128
printf %s /9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAgGBgcGBQgHBwcJCQgKDBQNDAsLDBkSEw8UHRofHh0aHBwgJC4nICIsIxwcKDcpLDAxNDQ0Hyc5PTgyPC4z\
NDL/wAALCAAIABABAREA/8QAFAABAAAAAAAAAAAAAAAAAAAAB//EABcQAQADAAAAAAAAAAAAAAAAAAUAIjL/2gAIAQEAAD8AOhB81iSIPms//9k= |
    base64 -d >grey.jpg # 16x8

# A volume of 16 x 16 x 16 bytes: a block in a ramp.
{
    printf '\x5c\1\0\0'
    head -c 36 /dev/zero
    printf '\3\0\20\0\20\0\20\0\1\0\1\0\1\0\1\0' # dim
    head -c 14 /dev/zero
    printf '\2\0\10\0' # datatype, bitpix
    head -c 34 /dev/zero
    printf '\0\0\xb0\x43' # vox_offset 352
    head -c 36 /dev/zero
    printf 'a description'
    head -c 183 /dev/zero
    printf 'n+1\0\0\0\0\0'
    for ((z = 0; z < 16; z++)); do for ((y = 0; y < 16; y++)); do for ((x = 0; x < 16; x++)); do
        printf -v octal %o $((20 + 4 * y + (x > 3 && x < 11 && z > 4 && z < 12 ? 90 : 0)))
        printf %b "\\0$octal"
    done; done; done
} >block.nii
gzip -k block.nii

patched() { # OFFSET BYTE: block.nii with one byte changed
    head -c "$1" block.nii
    printf %b "\\0$2"
    tail -c +$(($1 + 2)) block.nii
}
patched 46 21 >more.nii # dim[3] is 17
patched 70 4 >wide.nii  # datatype is int16

# ---- What it gains ---------------------------------------------------------------------------------------------------
if has LIBPNG; then
    check 'gain on a picture' gains 5 "$sample" out.png --add-noise 25 --crop 300x190+304+0
    check 'gain of whole patches' gains 5 "$sample" out.png --add-noise 25 --crop 300x190+304+0 --features all
    check 'low frequencies gain more' gains_more "$sample" out.png --add-noise 25 --crop 300x190+304+0
    check 'gain with the noise estimated' gains 5 "$sample" out.png --add-noise 25 --crop 300x190+304+0 --strength 25
    check 'little noise is no loss' gains 0.5 "$sample" out.png --add-noise 5 --crop 300x190+304+0
    first=$(psnr "$sample" a.png --add-noise 25 --crop 90x70+400+20 --threads 1 --noisy-out noisy-a.png)
    second=$(psnr "$sample" b.png --add-noise 25 --crop 90x70+400+20 --threads 2 --noisy-out noisy-b.png)
    check 'same result for 1 and 2 threads' cmp a.png b.png
    check 'same noise for the same seed' cmp noisy-a.png noisy-b.png
    check 'same report for 1 and 2 threads' test "$first" = "$second"
    check 'the reference agrees' test "$first" = "$(psnr "$sample" b.png --add-noise 25 --crop 90x70+400+20 \
        --backend reference)"
    check 'other noise for another seed' denoise "$sample" b.png --add-noise 25 --crop 90x70+400+20 --seed 2 \
        --noisy-out noisy-b.png
    check 'noise differs' differ noisy-a.png noisy-b.png
    check 'sigma is estimated' estimates 20 30 noisy-a.png
    cp noisy-a.png c.png
    check 'in place' denoise c.png c.png --sigma 25
    check 'something changed' differ c.png noisy-a.png
    check 'a picture of before and after' denoise noisy-a.png b.png --sigma 25 --picture pair.png
    check 'is twice as wide' test "$(od -An -tu1 -j16 -N8 pair.png | tr -s ' ')" = ' 0 0 0 184 0 0 0 70'
    check '16 bits and alpha' denoise rgba16.png out16.png --sigma 20
    check 'are kept' test "$(od -An -tu1 -j24 -N2 out16.png | tr -s ' ')" = ' 16 6'
    denoise rgba16.png b.png --sigma 20 --progress >report 2>bar
    check 'progress when asked for' grep -q '100 %' bar
    check 'no progress elsewhere' test -z "$(denoise rgba16.png b.png --sigma 20 2>&1 >report)"
else
    skip 'pictures' 'built without libpng'
fi
if has LIBPNG && has LIBJPEG; then
    check 'a JPEG' denoise grey.jpg out.png --sigma 10
    check 'becomes a grey PNG' test "$(od -An -tu1 -j24 -N2 out.png | tr -s ' ')" = ' 8 0'
    if [ -f $earth ]; then
        check 'gain on a photograph' gains 5 $earth out.png --add-noise 25 --crop 400x300+900+150
    else
        skip 'gain on a photograph' 'there is no earth.jpg; the package is xplanet-images'
    fi
else
    skip 'JPEG' 'built without libjpeg or libpng'
fi
if has LIBNIFTI2; then
    check 'gain on a volume' gains 5 block.nii out.nii --add-noise 10
    check 'its header is kept' cmp -n 232 -i 120 block.nii out.nii # from after scl_inter to the voxels
    check 'gain on a packed volume' gains 5 block.nii.gz out.nii.gz --add-noise 10
    gzip -dc out.nii.gz >unpacked.nii
    check 'the same volume packed' cmp unpacked.nii out.nii
    if [ -f $scan ]; then
        check 'gain on a brain scan' gains 5 $scan out.nii --add-noise 10 --window 3
    else
        skip 'gain on a brain scan' 'there is no ch2bet.nii.gz; the package is mricron-data'
    fi
else
    skip 'volumes' 'built without libnifti2'
fi

# ---- What it refuses -------------------------------------------------------------------------------------------------
# refused WORDS ARGUMENT...: exit status 2, one line with the words on stderr, and no new file
refused() {
    local words=$1 before after said status
    shift
    before=$(ls -A)
    said=$(denoise "$@" 2>&1 >/dev/null)
    status=$?
    after=$(ls -A)
    echo "status $status: $said"
    [ $status -eq 2 ] && [ "$before" = "$after" ] && [ "$(wc -l <<<"$said")" -eq 1 ] &&
        [[ $said == "nearfield denoise: "* && $said == *"$words"* ]]
}

# refuse WORDS ARGUMENT...
refuse() {
    check "refuses: $1" refused "$@"
}

rm -f out*.png [abc].png
head -c 60 rgba16.png >short.png
head -c 150 grey.jpg >short.jpg
head -c 4000 block.nii >short.nii
head -c 100 block.nii.gz >short.nii.gz
echo 'no picture' >text.png
: >empty.png
mkdir folder.png

refuse 'IN OUT expected'
refuse 'another word is expected' rgba16.png
refuse 'unexpected word "c"' rgba16.png new.png c
refuse 'unknown option --windw; did you mean --window?' rgba16.png new.png --windw 3
refuse '--window 4: must be odd' rgba16.png new.png --window 4
refuse '--window 0: must be between 1 and 1001' rgba16.png new.png --window 0
refuse '--patch 2: must be odd' rgba16.png new.png --patch 2
refuse '--patch 33: must be between 1 and 31' rgba16.png new.png --patch 33
refuse '--features 0: must be a whole number from 1 on, or "all"' rgba16.png new.png --features 0
refuse '--features 1.5: must be' rgba16.png new.png --features 1.5
refuse '--features most: must be' rgba16.png new.png --features most
refuse '--sigma -1: must be at least 0' rgba16.png new.png --sigma -1
refuse '--sigma much: not a finite number' rgba16.png new.png --sigma much
refuse '--strength nan: not a finite number' rgba16.png new.png --strength nan
refuse '--add-noise -3: must be at least 0' rgba16.png new.png --add-noise -3
refuse '--add-noise 0: must be above 0' rgba16.png new.png --add-noise 0
refuse '--seed 1.5: not a whole number' rgba16.png new.png --seed 1.5
refuse '--threads 0: must be' rgba16.png new.png --threads 0
refuse 'nosuch' rgba16.png new.png --backend nosuch
refuse '--noisy-out new2.png: needs --add-noise' rgba16.png new.png --noisy-out new2.png
refuse 'new.png: two outputs must not have the same name' rgba16.png new.png --add-noise 3 --noisy-out new.png
refuse '--picture new.jpg: must end in .png' rgba16.png new.png --picture new.jpg
refuse 'none.png: cannot open: No such file' none.png new.png
refuse 'folder.png: must be a regular file' folder.png new.png
refuse 'text.png: must be a PNG, JPEG or NIfTI file' text.png new.png
refuse 'empty.png: must be a PNG, JPEG or NIfTI file' empty.png new.png
if has LIBPNG; then
    refuse '--crop 3x: must be WxH+X+Y' rgba16.png new.png --crop 3x
    refuse '--crop 8x8+1+0 must lie inside rgba16.png, 8x8' rgba16.png new.png --crop 8x8+1+0
    refuse 'strength 0 (by default from sigma) must be at least 0.0255' flat.png new.png
    refuse 'strength 0.001 (by default from sigma) must be at least' rgba16.png new.png --strength 0.001
    refuse 'new.jpg: a picture is written as .png' rgba16.png new.jpg
    refuse 'new.tif: a picture is written as .png' rgba16.png new.png --add-noise 3 --noisy-out new.tif
    refuse 'short.png: not a valid PNG' short.png new.png --sigma 5
    refuse 'nowhere/new.png: cannot create: No such file' rgba16.png nowhere/new.png --sigma 5
    refuse 'folder.png: an output must be a regular file' rgba16.png folder.png --sigma 5
else
    refuse 'needs libpng, which this program was built without' rgba16.png new.png
fi
if has LIBJPEG; then
    refuse 'short.jpg: not a valid JPEG' short.jpg new.png --sigma 5
else
    refuse 'needs libjpeg, which this program was built without' grey.jpg new.png
fi
if has LIBNIFTI2; then
    refuse '--crop cuts pictures, and block.nii is a volume' block.nii new.nii --crop 2x2+0+0
    refuse 'new.png: a volume is written as .nii or .nii.gz' block.nii new.png
    refuse 'short.nii: the file ends early or is damaged' short.nii new.nii --sigma 5
    refuse 'short.nii.gz: the file ends early or is damaged' short.nii.gz new.nii --sigma 5
    refuse 'more.nii: the file ends early or is damaged: not as many voxels as dim says' more.nii new.nii --sigma 5
    refuse 'wide.nii: bitpix is 8, must be 16 for datatype 4' wide.nii new.nii --sigma 5
else
    refuse 'needs libnifti2, which this program was built without' block.nii new.nii
fi
finish
