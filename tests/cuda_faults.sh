#!/usr/bin/env bash
# The cuda backend where there is no driver, an old one, no device, and on a device that fails at any call: a reason is
# given, nothing is written, nothing leaks, nothing crashes. The device is tests/cuda_host.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/cuda_host/use.sh"
tool=$top_builddir/tests/cuda_host/nearfield
backend=cuda
attempt=$top_builddir/tests/cuda_try
problem='na2d f32 h2/1 d8 9x11 w3 x2 both'
. "$top_srcdir/tests/faults.sh"

# ---- No driver, an old one, no device --------------------------------------------------------------------------------
mkdir "$work/none" "$work/old"
echo 'no library' >"$work/none/libcuda.so.1"
check no_driver fails_on "$work/none" '' 'backend: unavailable: ' 'libcuda.so.1' 'driver is not installed'
check old_driver_builds build_mock "$work/old" -DcuStreamGetCtx=cuStreamGetCtxOfLater
check driver_lacks_a_call fails_on "$work/old" '' 'backend: unavailable: ' 'cuStreamGetCtx' 'too old'
check old_driver fails 'driver=12080' 'backend: unavailable: ' 'the driver is for CUDA 12.8, the kernels of this library need 13.0'
check no_device fails 'devices=0' 'backend: unavailable: ' 'finds no CUDA device'
check no_device_counted fails 'fail=cuDeviceGetCount:100' 'backend: unavailable: ' 'CUDA_ERROR_NO_DEVICE'
check driver_out_of_order fails 'fail=cuInit:999' 'backend: unavailable: ' 'does not start' '999'
check old_device fails 'capability=75' 'backend: unavailable: ' 'Mock 0 cannot be used' '7.5' '8.0'
check prohibited_device fails 'prohibited=1' 'backend: unavailable: ' 'compute mode'

# The program itself says why it has no kernels; where it has some, cuda_images.sh looks at them.
says_why_absent() {
    local reason
    reason=$(sed -n 's/^#define NF_NVCC_ABSENT "\(.*\)"$/\1/p' "$top_builddir/config.h")
    "$NEARFIELD" info | grep '^cuda: ' >"$work/said" && [ -n "$reason" ] &&
        said "this build has no kernels for NVIDIA GPUs (configure: $reason)"
}
[ -n "$NVCC" ] || check no_kernels says_why_absent

# ---- Devices that work -----------------------------------------------------------------------------------------------
check healthy works ''
check least_capability works 'capability=80'
check later_capability works 'capability=121'
check newer_driver works 'driver=14000'
check later_minor_driver works 'driver=13020'
check nameless works 'name='
check long_name works "name=$(printf 'n%.0s' {1..250})"
check no_pinned_memory works 'fail=cuMemAllocHost_v2:2'
check small_blocks works 'threads=64'

settings='threads=32' check blocks_too_small says_why 'the device has 32' plan "$problem" --backend cuda
settings='shared=512' check shared_memory_too_small says_why 'local memory' plan "$problem" --backend cuda --algo portable
needs_none() { on_mock "$work/mock" 'shared=512' "$tool" plan "$problem" && said 'chosen: cuda unfused Mock 0' 'local memory'; }
check no_shared_memory_needed needs_none

# ---- Choosing a device -----------------------------------------------------------------------------------------------
check_choice '0 Mock 0, 1 Mock 1, 2 Mock 2'
describes() { on_mock "$work/mock" 'devices=2;units=7;memory=1073741824' "$tool" info && said "$@"; }
check info_devices describes 'Mock 0, used here' 'Mock 1' '7 multiprocessors' '1024 MiB' 'compute capability 9.0' 'PCI 0000:02:00.0' \
    'for compute capability 8.0 and later; of warpgroups for 9.0'
unasked() { on_mock "$work/mock" '' "$tool" plan "$problem" && said 'chosen: cuda portable Mock 0'; }
check chosen_unasked unasked

# ---- Failures of one kind --------------------------------------------------------------------------------------------
check no_image fails 'fail=cuModuleLoadData:209' 'plan: unavailable: ' 'Mock 0, compute capability 9.0' 'CUDA_ERROR_NO_BINARY_FOR_GPU'
check no_memory fails 'fail=cuMemAlloc_v2:2' 'plan: memory: ' 'CUDA_ERROR_OUT_OF_MEMORY' 'tables'
check no_memory_for_the_last_tensor fails 'fail=cuMemAlloc_v2:2:10' 'plan: memory: '
check too_little_memory fails 'memory=4096' 'plan: unsupported: ' 'tensors of ' "exceed the device's memory, 4096"
check no_context fails 'fail=cuDevicePrimaryCtxRetain:2' 'plan: memory: ' 'no context on Mock 0'
check no_resources_at_a_launch fails 'fail=cuLaunchKernel:701' 'forward: memory: ' 'kernel forward in ' 'CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES'
check lost_device fails 'lost' 'plan: ok' 'forward: device: ' 'forward again: device: ' 'CUDA_ERROR_LAUNCH_FAILED'
check kernel_fails_in_the_end fails 'verdict=719' 'forward: device: ' 'the device failed while running' 'CUDA_ERROR_LAUNCH_FAILED'
check unknown_error fails 'fail=cuLaunchKernel:9999' 'forward: device: ' 'an unknown error (9999)'
recovers() { fails 'fail=cuLaunchKernel:701:1:1' 'forward: memory: ' 'forward again: ok' 'backward: ok'; }
check recovers recovers

# ---- Every call fails once, and from then on -------------------------------------------------------------------------
# What the backend can do without.
spared='cuDeviceGetAttribute cuMemAllocHost_v2 cuMemFree[A-Za-z_0-9]* cuModuleUnload cu[A-Za-z]*Destroy_v2'
spared+=' cuDevicePrimaryCtxRelease_v2 cuCtxPopCurrent_v2 cuCtxPushCurrent_v2 cuStreamSynchronize'
failure=2
unbalanced=cuCtxPushCurrent_v2
check_calls each 'cu[A-Za-z_0-9]*'
# In the program's own memory: events, the device's clock and limits, merging. Destroying a plan waits for its last call.
check in_place works '' device
spared='cuMemFree[A-Za-z_0-9]* cuEventDestroy_v2 cuEventSynchronize cuStreamSynchronize'
check_calls in_place 'cuMem[A-Za-z]*Async[_v0-9]*\|cuEvent[A-Za-z_0-9]*\|cuStreamCreate\|cuModuleGetFunction\|cuLaunchKernel' device

# The device's limits, of which nearfield bench asks.
for call in cuEventElapsedTime cuEventSynchronize; do
    settings="fail=$call:719" check "peak_$call" says_why "the device's limits: cuda: " bench 'na1d f32 d8 16 w3' --backend cuda
done

# Tensor maps, of a plan that has boxes.
settings='fail=cuTensorMapEncodeTiled:1' check no_tensor_map says_why 'a tensor cannot be copied in boxes: ' bench \
    'na1d bf16 d8 64 w9 fwd' --backend cuda --algo wgmma --no-verify

# ---- The tool --------------------------------------------------------------------------------------------------------
check_run CUDA_ERROR_LAUNCH_FAILED
finish
