# The Debian packages that check.sh and demo.sh need, and how they are installed; sourced by both.
build_packages="gcc g++ make autoconf automake libtool pkg-config binutils check libhwloc-dev libpng-dev
    libjpeg62-turbo-dev libnifti2-dev zlib1g-dev"
test_packages="ocl-icd-libopencl1 ocl-icd-opencl-dev opencl-headers pocl-opencl-icd oclgrind mesa-opencl-icd"
demo_packages="xplanet-images mricron-data"
full_packages="gcovr python3-venv clang-14 libclang-rt-14-dev libomp-14-dev gcc-aarch64-linux-gnu qemu-user-static"

# install_packages NAME...: installs what is missing, with sudo unless root; silent and offline if nothing is.
install_packages() {
    local package missing=() sudo=
    if ! command -v dpkg-query >/dev/null; then
        echo "This is no Debian system; please have these packages, or their like, installed: $*"
        return 0
    fi
    for package; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" -eq 0 ] || sudo="sudo DEBIAN_FRONTEND=noninteractive"
    echo "Installing packages${sudo:+ with sudo}: ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    $sudo apt-get -qq update &&
        $sudo apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null && return
    echo "Could not install them." >&2
    return 1
}
