// Matrix products by oneDNN, the roof that attention is held against.
//   onednn f32|bf16 BATCH M N K
// For each line on standard input it runs products for about a tenth of a second and prints seconds per product, so that
// whoever asks can interleave it with something else. OMP_NUM_THREADS says on how many threads.
#include <chrono>
#include <dnnl.hpp>
#include <iostream>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

using namespace dnnl;
using tag = memory::format_tag;

namespace {

const double sample_seconds = 0.1;

struct product {
    engine cpu{engine::kind::cpu, 0};
    stream queue{cpu};
    matmul primitive;
    std::unordered_map<int, memory> arguments;

    product(memory::data_type type, memory::dim batch, memory::dim m, memory::dim n, memory::dim k)
    {
        const memory::desc a({batch, m, k}, type, tag::abc), b({batch, k, n}, type, tag::abc);
        const memory::desc c({batch, m, n}, memory::data_type::f32, tag::abc);
        primitive = matmul(matmul::primitive_desc(matmul::desc(a, b, c), cpu));
        arguments = {{DNNL_ARG_SRC, normal(a)}, {DNNL_ARG_WEIGHTS, normal(b)}, {DNNL_ARG_DST, memory(c, cpu)}};
    }

    memory normal(const memory::desc &desc)
    {
        memory::dims dims = desc.dims();
        const memory::desc plain(dims, memory::data_type::f32, tag::abc);
        memory drawn(plain, cpu), result(desc, cpu);
        std::mt19937 generator(1);
        std::normal_distribution<float> distribution;
        float *values = static_cast<float *>(drawn.get_data_handle());
        for (memory::dim i = 0; i < dims[0] * dims[1] * dims[2]; i++)
            values[i] = distribution(generator);
        reorder(drawn, result).execute(queue, drawn, result);
        queue.wait();
        return result;
    }

    double seconds_of(long calls)
    {
        const auto start = std::chrono::steady_clock::now();
        for (long i = 0; i < calls; i++)
            primitive.execute(queue, arguments);
        queue.wait();
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / (double)calls;
    }
};

} // namespace

int main(int argc, char **argv)
{
    if (argc != 6) {
        std::cerr << "usage: onednn f32|bf16 BATCH M N K\n";
        return 2;
    }
    const auto type = std::string(argv[1]) == "bf16" ? memory::data_type::bf16 : memory::data_type::f32;
    try {
        product p(type, std::stol(argv[2]), std::stol(argv[3]), std::stol(argv[4]), std::stol(argv[5]));
        p.seconds_of(1);
        const long calls = (long)(sample_seconds / p.seconds_of(2)) + 1;
        for (std::string line; std::getline(std::cin, line);)
            std::cout << p.seconds_of(calls) << std::endl;
    } catch (const std::exception &error) {
        std::cerr << "onednn: " << error.what() << "\n";
        return 1;
    }
    return 0;
}
