"""Calls libnearfield in this process, through ctypes: just enough to time it beside Python libraries.

    attention = Attention(library, "na2d f32 h2 d32 56x56 w7 both", threads=2)
    attention.forward(q=q, k=k, v=v, out=out, lse=lse)     # torch tensors, contiguous, heads last
    attention.backward(q=q, ..., dout=dout, dq=dq, dk=dk, dv=dv)
"""
import ctypes
from ctypes import POINTER, byref, c_char_p, c_double, c_int, c_int32, c_int64, c_size_t, c_void_p

MAX_RANK = 4
ROLES = "q k v extra_k extra_v bias out lse dout dlse dq dk dv dextra_k dextra_v scores dscores".split()


class Axis(ctypes.Structure):
    _fields_ = [(name, c_int64) for name in
                "extent key_extent window stride dilation causal q_begin q_count k_begin k_count".split()]


class Problem(ctypes.Structure):
    _fields_ = ([("size", c_size_t)] +
                [(name, c_int) for name in "direction dtype out_dtype".split()] +
                [("rank", c_int32), ("scale_set", c_int32), ("scale", c_double)] +
                [(name, c_int64) for name in "batch heads kv_heads head_dim value_dim extra".split()] +
                [("axis", Axis * MAX_RANK)])


class Tensor(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("data", c_void_p), ("dtype", c_int), ("memory", c_int), ("rank", c_int32),
                ("reserved", c_int32), ("extents", c_int64 * (MAX_RANK + 3)), ("strides", c_int64 * (MAX_RANK + 3)),
                ("offset", c_int64)]


class Io(ctypes.Structure):
    _fields_ = [("size", c_size_t)] + [(role, POINTER(Tensor)) for role in ROLES]


class ContextOptions(ctypes.Structure):
    _fields_ = [("size", c_size_t), ("backend", c_char_p), ("device", c_char_p), ("isa", c_char_p),
                ("num_threads", c_int64), ("allocate", c_void_p), ("release", c_void_p), ("memory_user", c_void_p),
                ("log", c_void_p), ("log_user", c_void_p)]


class PlanInfo(ctypes.Structure):
    _fields_ = ([("size", c_size_t)] + [(name, c_char_p) for name in "backend algo kernel".split()] +
                [(name, c_double) for name in
                 "useful_pairs computed_pairs masked_pairs tiles_full tiles_partial tiles_absent forward_flops "
                 "backward_flops tensor_bytes".split()] +
                [("workspace_bytes", c_size_t), ("plan_bytes", c_size_t), ("threads", c_int64),
                 ("query_tile", c_int64 * MAX_RANK), ("key_tile", c_int64 * MAX_RANK),
                 ("backward_algo", c_char_p)])


class Attention:
    """One problem, planned; its tensors are named by role."""

    def __init__(self, library, problem, threads):
        self.library = library
        library.nf_last_error.restype = c_char_p
        self.problem = Problem()
        self._check(library.nf_problem_parse(byref(self.problem), problem.encode()))
        options = ContextOptions()
        library.nf_context_options_init(byref(options))
        options.num_threads = threads
        self.context, self.plan = c_void_p(), c_void_p()
        self._check(library.nf_context_create(byref(self.context), byref(options)))
        self._check(library.nf_plan_create(byref(self.plan), self.context, byref(self.problem), None))
        self.info = PlanInfo(size=ctypes.sizeof(PlanInfo))
        self._check(library.nf_plan_get_info(self.plan, byref(self.info)))

    def close(self):
        self.library.nf_plan_destroy(self.plan)
        self.library.nf_context_destroy(self.context)
        self.plan = self.context = None

    def _check(self, status):
        if status != 0:
            raise RuntimeError(self.library.nf_last_error().decode())

    def shape(self, role):
        """Extents of a tensor of this problem."""
        tensor = Tensor()
        self._check(self.library.nf_problem_tensor(byref(self.problem), ROLES.index(role), byref(tensor)))
        return list(tensor.extents[:tensor.rank])

    def bind(self, **tensors):
        """An nf_io of torch tensors, to be kept as long as it is used."""
        io = Io()
        self.library.nf_io_init(byref(io))
        io.kept = []
        for role, data in tensors.items():
            if data is None:
                continue
            tensor = Tensor()
            self._check(self.library.nf_problem_tensor(byref(self.problem), ROLES.index(role), byref(tensor)))
            if list(data.shape) != self.shape(role) or not data.is_contiguous():
                raise ValueError(f"{role}: shape {list(data.shape)} must be {self.shape(role)}, contiguous")
            tensor.data = data.data_ptr()
            io.kept += [tensor, data]
            setattr(io, role, ctypes.pointer(tensor))
        return io

    def forward(self, io):
        self._check(self.library.nf_forward(self.plan, byref(io), None))

    def backward(self, io):
        self._check(self.library.nf_backward(self.plan, byref(io), None))


def check_sizes(library):
    """Raises RuntimeError where a structure above is not the library's, which would be written past its end."""
    room = ctypes.create_string_buffer(4096)
    extents = (c_int64 * 1)(1)
    for structure, init in {Problem: lambda: library.nf_problem_init(room), Io: lambda: library.nf_io_init(room),
                            ContextOptions: lambda: library.nf_context_options_init(room),
                            Tensor: lambda: library.nf_tensor_init(room, room, 0, 1, extents)}.items():
        init()
        size = c_size_t.from_buffer(room).value
        if size != ctypes.sizeof(structure):
            raise RuntimeError(f"{structure.__name__} has {ctypes.sizeof(structure)} bytes here, {size} in the library")


def load(path):
    """The shared library; every handle is passed as a pointer."""
    library = ctypes.CDLL(str(path))
    for name, arguments in {"nf_plan_create": [c_void_p] * 4, "nf_plan_get_info": [c_void_p] * 2,
                            "nf_context_create": [c_void_p] * 2, "nf_problem_parse": [c_void_p, c_char_p],
                            "nf_problem_tensor": [c_void_p, c_int, c_void_p], "nf_plan_destroy": [c_void_p],
                            "nf_context_destroy": [c_void_p], "nf_io_init": [c_void_p], "nf_problem_init": [c_void_p],
                            "nf_tensor_init": [c_void_p, c_void_p, c_int, c_int32, c_void_p],
                            "nf_context_options_init": [c_void_p], "nf_forward": [c_void_p] * 3,
                            "nf_backward": [c_void_p] * 3}.items():
        getattr(library, name).argtypes = arguments
    check_sizes(library)
    return library
