# The programs of gpu_ahead.h compiled by nvcc, and the C file that embeds them. A makefile of its own, for GNU make, because
# the programs are a list that a script writes. Set by its caller: src, folder, NVCC, NVCC_CHECKS, CUDA_ARCHS, CUDA_TOOLKIT.
# NVCC_CHECKS, where there are any, have ptxas say what spills.awk judges.
#
# folder/NAME.ptx and folder/NAME.cubin are what nvcc makes on the way, for a test that looks for instructions.
#
# The target `host` compiles them for the host instead, each a library that tests run: set src, folder, tests, CXX.
gpu = $(src)/backends/gpu
cuda = $(src)/backends/cuda
# Kernels for compute capability 9.0 alone are left out where it is not asked for.
list = awk -f $(gpu)/ahead.awk $(gpu)/gpu_ahead.h$(if $(CUDA_ARCHS),$(if $(filter 90,$(CUDA_ARCHS)),, | grep -v ^wgmma))
images := $(patsubst %,$(folder)/%.fatbin,$(shell $(list) | cut -d ' ' -f 1))
text := $(gpu)/gpu_ahead.h $(gpu)/ahead.awk $(wildcard $(gpu)/*.cl) $(gpu)/gpu_tables.h $(wildcard $(cuda)/*.cu) \
	$(wildcard $(cuda)/cu_mma*.h) $(wildcard $(cuda)/cu_unfused*.h) $(wildcard $(cuda)/cu_wgmma*.h) \
	$(cuda)/cu_backward_ends.h $(cuda)/cu_ptx.h \
	$(cuda)/cu_softmax.h $(cuda)/cu_words.h

# The text needs nothing of later GPUs, so that all machine code comes from the least one's PTX, which is kept for GPUs
# to come.
least := $(firstword $(CUDA_ARCHS))
empty :=
comma := ,
codes := compute_$(least)$(foreach arch,$(CUDA_ARCHS),$(comma)sm_$(arch))
nvcc_codes = -gencode 'arch=compute_$(least),code=[$(subst $(empty) ,,$(codes))]'
$(folder)/wgmma%: nvcc_codes = -gencode arch=compute_90a,code=sm_90a
# Compiles the program $* to $@, with further options of nvcc.
compile = set -- $$($(list) | sed -n 's/^$* //p') && source=$$1 && shift && \
	$(NVCC) -std=c++17 -O3 $(1) $(nvcc_codes) -I$(src) "$$@" -o $@ $(cuda)/$$source

$(folder)/cu_images.c: $(images) $(if $(NVCC_CHECKS),$(images:=.judged))
	$(list) | awk -v folder=$(folder) -v toolkit=$(CUDA_TOOLKIT) -v least=$(least) -f $(cuda)/images.awk >$@.tmp
	mv $@.tmp $@

$(folder)/%.fatbin: $(text)
	@echo "  NVCC     $*"
	{ $(call compile,$(NVCC_CHECKS) -fatbin --compress-mode=size); } >$@.log 2>&1 || { cat $@.log; rm -f $@; exit 1; }
	$(if $(NVCC_CHECKS),,cat $@.log)

$(folder)/%.fatbin.judged: $(folder)/%.fatbin $(cuda)/spills.awk $(cuda)/spills.txt
	awk -v program=$* -f $(cuda)/spills.awk $(cuda)/spills.txt $<.log
	touch $@

$(folder)/%.ptx: $(text)
	$(call compile,-ptx)

$(folder)/%.cubin: $(text)
	$(call compile,-cubin)

host_flags = -std=c++17 -O1 -g -ffp-contract=off -fPIC -Wall -Werror -Wno-unknown-pragmas -Wno-unused-function \
	-Wno-psabi
host_include = -I$(src) -I$(src)/../include -I$(tests)
host_text = $(text) $(tests)/module.cpp $(wildcard $(tests)/*.h)
host_module = $(CXX) $(host_flags) $(HOST_FLAGS) -shared $(host_include)
host_objects = $(folder)/block.o $(folder)/warp.o $(folder)/barriers.o $(folder)/boxes.o $(folder)/fences.o \
	$(folder)/warpgroup.o

host: $(images:.fatbin=.so) $(folder)/warpgroup.so
.PHONY: host

# What stands in for the device, with flags of its own, so that kernels may be instrumented without it.
$(host_objects): $(folder)/%.o: $(tests)/%.cpp $(wildcard $(tests)/*.h)
	$(CXX) $(host_flags) -O3 $(HARNESS_FLAGS) $(host_include) -c -o $@ $<

$(folder)/%.so: $(host_text) $(host_objects)
	@echo "  CXX      $*.so"
	set -- $$($(list) | sed -n 's/^$* //p') && source=$$1 && shift && \
		$(host_module) -DPROGRAM="\"backends/cuda/$$source\"" "$$@" -o $@ $(tests)/module.cpp $(host_objects)

# A kernel of the tests' own.
$(folder)/warpgroup.so: $(tests)/warpgroup.cu $(host_text) $(host_objects)
	@echo "  CXX      warpgroup.so"
	$(host_module) -DPROGRAM='"warpgroup.cu"' -o $@ $(tests)/module.cpp $(host_objects)
