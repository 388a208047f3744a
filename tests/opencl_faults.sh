#!/usr/bin/env bash
# The opencl backend where there is no loader, no driver, no device, and on a device that fails at any call: a reason is
# given, nothing is written, nothing leaks, nothing crashes. The device is tests/opencl_mock.
. "$top_srcdir/tests/count.sh"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
. "$top_srcdir/tests/opencl_mock/use.sh"
backend=opencl
tool=$NEARFIELD
attempt=$top_builddir/tests/opencl_try
problem='na2d f32 h2/1 d8 9x11 w3 x2 both'
. "$top_srcdir/tests/faults.sh"

# ---- No loader, an old one, no driver, no device ---------------------------------------------------------------------
mkdir "$work/none" "$work/old"
echo 'no library' >"$work/none/libOpenCL.so.1"
check no_loader fails_on "$work/none" '' 'backend: unavailable: ' 'libOpenCL.so.1'
check old_loader_builds build_mock "$work/old" -DclEnqueueBarrierWithWaitList=clEnqueueBarrierOfLater
check old_loader fails_on "$work/old" '' 'backend: unavailable: ' 'clEnqueueBarrierWithWaitList' 'OpenCL 1.2'
check no_platform fails 'platforms=0' 'backend: unavailable: ' 'no OpenCL driver'
check no_platform_by_error fails 'fail=clGetPlatformIDs:-1001' 'backend: unavailable: ' 'no OpenCL driver'
check no_device fails 'devices=0' 'backend: unavailable: ' 'no OpenCL device: 1 platform, all without devices'
check no_device_anywhere fails 'platforms=3;empty=3' 'no OpenCL device: 3 platforms, all without devices'
check empty_platforms_are_skipped works 'platforms=3;empty=2'
check driver_out_of_order fails 'fail=clGetDeviceIDs:-6' 'backend: unavailable: ' 'CL_OUT_OF_HOST_MEMORY'
check device_unavailable fails 'available=0' 'Mock' 'not available'
check no_compiler fails 'compiler=0' 'Mock' 'no compiler'
check too_old fails 'version=OpenCL 1.1 mock' 'Mock' 'OpenCL 1.1' '1.2'
check garbled_version fails 'version=Mock 7' 'Mock' 'Mock 7' '1.2'

# ---- Odd devices that work -------------------------------------------------------------------------------------------
check healthy works ''
check cpu works 'type=2'
check accelerator works 'type=8'
check custom_type works 'type=16'
check unknown_type works 'type=0x400'
check newer_version works 'version=OpenCL 3.0 mock'
check nameless works 'name=;vendor=;driver='
check long_names works "name=$(printf 'n%.0s' {1..250});driver=$(printf 'd%.0s' {1..250})"
check tiny_local_memory works 'local=512'
check no_local_memory works 'local=0'
check single_work_items works 'group=1;kernel_group=1'
check registers_run_short works 'kernel_group=1'
check no_binaries works 'binary=0'
check in_place works '' device
check late works '' late

# A tile of local memory does not fit: the algorithm says so.
settings='local=512' check tile_needs_local_memory says_why 'local memory' plan "$problem" --backend opencl --algo tile
settings='fp64=0' check f64_needs_fp64 says_why 'double precision' plan "${problem/f32/f64}" --backend opencl
settings='alloc=1024' check large_tensors says_why '1024' plan "$problem" --backend opencl

# ---- Choosing a device -----------------------------------------------------------------------------------------------
check_choice '0 Mock 0 (Mock platform 0), 1 Mock 1'
describes() { on_mock "$work/mock" 'devices=2;units=7;local=49152;driver=9.8' "$NEARFIELD" info && said "$@"; }
check info_devices describes 'Mock 0' 'Mock 1' 'Nobody' '9.8' '7' '48 KiB' 'cl_khr_fp64'
for vendor in 1 2 3; do
    info_place() { on_mock "$work/mock" "pci=$vendor" "$NEARFIELD" info && said 'PCI 0000:81:02.1'; }
    check "info_place_$vendor" info_place
done

# ---- Failures of one kind --------------------------------------------------------------------------------------------
check build_failure fails 'fail=clBuildProgram:-11' 'plan: device: ' 'Mock' 'CL_BUILD_PROGRAM_FAILURE' 'mock:7: error: no such thing'
check build_failure_long_log fails 'fail=clBuildProgram:-11;log=1000000' 'mock:7: error: no such thing'
check build_failure_no_log fails 'fail=clBuildProgram:-11;log=0' 'plan: device: ' 'CL_BUILD_PROGRAM_FAILURE'
check no_memory_for_buffers fails 'fail=clCreateBuffer:-4' 'plan: memory: ' 'CL_MEM_OBJECT_ALLOCATION_FAILURE'
check no_memory_for_the_last_buffer fails 'fail=clCreateBuffer:-4:3' 'plan: memory: '
check no_memory_at_a_launch fails 'fail=clEnqueueNDRangeKernel:-4' 'forward: memory: ' 'backward: memory: ' 'kernel'
check no_resources_at_a_launch fails 'fail=clEnqueueNDRangeKernel:-5' 'forward: memory: ' 'CL_OUT_OF_RESOURCES'
check lost_device fails 'lost' 'plan: ok' 'forward: device: ' 'forward again: device: ' 'CL_DEVICE_NOT_AVAILABLE'
check kernel_fails_in_the_end fails 'verdict=-5' 'forward: memory: ' 'forward again: memory: ' 'CL_OUT_OF_RESOURCES'
check unknown_error fails 'fail=clEnqueueNDRangeKernel:-9999' 'forward: device: ' '-9999'
recovers() { fails 'fail=clEnqueueNDRangeKernel:-5:1:1' 'forward: memory: ' 'forward again: ok' 'backward: ok'; }
check recovers recovers

# ---- Every call fails once, and from then on -------------------------------------------------------------------------
# What the backend can do without.
spared='clGetPlatformInfo clGetDeviceInfo clRelease[A-Za-z]* clGetProgramInfo clGetProgramBuildInfo clFinish'
spared+=' clGetKernelWorkGroupInfo clEnqueueUnmapMemObject clGetEventInfo'
failure=-5
check_calls each 'cl[A-Za-z]*'
# Of calls that do not wait, and of merging: what happens after the plan is made.
check_calls in_place \
    'clEnqueue[A-Za-z]*\|clFlush\|cl[A-Za-z]*Events*\|cl[A-Za-z]*EventInfo\|clSetKernelArg\|clCreate[A-Za-z]*' device
# Of calls behind an event that the program has yet to end: none waits for it, not even one that fails.
check_calls late 'clEnqueue[A-Za-z]*\|clFlush\|cl[A-Za-z]*RetainEvent\|clSetKernelArg' late

# ---- The tool --------------------------------------------------------------------------------------------------------
check_run CL_DEVICE_NOT_AVAILABLE
# A device that computes nothing is wrong, and both checkers say so.
catches() {
    on_mock "$work/mock" '' "$NEARFIELD" "$@"
    [ $? -eq 1 ] && said FAIL ' 0 skipped' || { cat "$work/said"; return 1; }
}
check verify_catches catches verify --backend opencl --cases 3
check crosscheck_catches catches crosscheck --backend opencl "$problem"
finish
