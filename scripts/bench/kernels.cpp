// How near the products of quant/kernels come to what the machine can do: reading memory for few rows, float32 products for many;
// and how float32 products compare with libtorch's. Each line compares measurements of this run.
// Usage: bench_kernels [THREADS [few|half|many|float|forms]]
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quant/kernels/float_product.h"
#include "quant/kernels/half_product.h"
#include "quant/kernels/integer_product.h"
#include "quant/kernels/quadratic_form.h"
#include "quant/kernels/read_memory.h"

namespace salient::quant {
namespace {

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The best of several, after one that is not counted.
double best_seconds(int repeats, const std::function<void()>& work) {
  work();
  double best = seconds_of(work);
  for (int i = 1; i < repeats; ++i) best = std::min(best, seconds_of(work));
  return best;
}

struct Matrix {
  int64_t out, in;
  int64_t group_size = 128;
  int levels = 16;
};

InterleavedWeight random_weight(const Matrix& m) {
  return interleave(at::randint(0, m.levels, {m.out, m.in}, at::kByte),
                    at::randint(0, m.levels, {m.out, m.in / m.group_size}, at::kByte),
                    (at::rand({m.out, m.in / m.group_size}) * 0.1 + 0.001).to(at::kHalf), m.group_size);
}

struct Rates {
  double work, reading;  // bytes/s
};

// The two in turns, because what a virtual machine gets of its memory changes within seconds; the best of each.
Rates rates_of(uint64_t bytes, const std::function<void()>& work) {
  static const at::Tensor memory = at::ones({int64_t{1} << 26}, at::kLong);
  double best_work = 1e9;
  double best_reading = 1e9;
  for (int i = 0; i < 6; ++i) {
    best_reading = std::min(best_reading, seconds_of([&] { read_memory(memory); }));
    best_work = std::min(best_work, seconds_of(work));
  }
  return {static_cast<double>(bytes) / best_work, static_cast<double>(memory.nbytes()) / best_reading};
}

void print_rates(const std::string& what, const Rates& rates) {
  fmt::print("  {:36} {:6.2f} GB/s, {:5.1f} % of the {:5.2f} GB/s of reading\n", what, rates.work / 1e9,
             100 * rates.work / rates.reading, rates.reading / 1e9);
}

// Every repetition reads another copy, so that none comes from a cache.
void few_rows(const Matrix& m, InstructionSet set) {
  std::vector<InterleavedWeight> copies = {random_weight(m)};
  while (memory_bytes(copies[0]) * copies.size() < (uint64_t{1} << 29)) {
    copies.push_back(copies[0]);
    for (at::Tensor* tensor : {&copies.back().codes, &copies.back().zeros, &copies.back().scales}) *tensor = tensor->clone();
  }
  for (const int64_t rows : {1, 2, 4}) {
    const QuantizedRows x = quantize_rows(at::randn({rows, m.in}), m.group_size);
    at::Tensor y = at::empty({rows, m.out});
    const Rates rates = rates_of(memory_bytes(copies[0]) * copies.size(), [&] {
      for (const InterleavedWeight& weight : copies)
        integer_product(view_of(weight), view_of(x), y.data_ptr<float>(), nullptr, set);
    });
    print_rates(fmt::format("{} rows, {} x {} g{}, {} bits", rows, m.out, m.in, m.group_size, copies[0].bits), rates);
  }
}

void many_rows(const Matrix& m, InstructionSet set, int64_t rows) {
  const InterleavedWeight weight = random_weight(m);
  const at::Tensor x = at::randn({rows, m.in});
  const at::Tensor dense = at::randn({m.out, m.in});
  const WeightView view = view_of(weight);
  at::Tensor y = at::empty({rows, m.out});
  at::Tensor scratch = at::empty({product_scratch_bytes(view, rows, set)}, at::kByte);
  const double operations = 2.0 * static_cast<double>(rows * m.out * m.in);
  QuantizedRows quantized;
  const double quantizing = best_seconds(5, [&] { quantized = quantize_rows(x, m.group_size); });
  const double integer =
      best_seconds(5, [&] { integer_product(view, view_of(quantized), y.data_ptr<float>(), scratch.data_ptr(), set); });
  const double floating = best_seconds(3, [&] { at::linear(x, dense); });
  fmt::print("  {:36} {:6.1f} GOP/s, quantizing adds {:.1f} %; at::linear in float32 {:6.1f} GFLOP/s: {:.2f} times\n",
             fmt::format("{} rows, {} x {} g{}, {} bits", rows, m.out, m.in, m.group_size, weight.bits), operations / integer / 1e9,
             100 * quantizing / integer, operations / floating / 1e9, floating / (integer + quantizing));
}

void half_weights(at::ScalarType type, InstructionSet set) {
  const at::Tensor weight = at::randn({65536, 2048}).to(type);
  for (const int64_t rows : {1, 4}) {
    const at::Tensor x = at::randn({rows, 2048});
    print_rates(fmt::format("{} rows, 65536 x 2048 {}", rows, c10::toString(type)),
                rates_of(weight.nbytes(), [&] { half_product(weight, x, set); }));
  }
}

// Of `work`, called often enough to be measured. operations: of one call.
double billions_a_second(double operations, const std::function<void()>& work) {
  const int calls = std::max(1, static_cast<int>(2e8 / operations));
  const double seconds = best_seconds(7, [&] {
    for (int i = 0; i < calls; ++i) work();
  });
  return operations * calls / seconds / 1e9;
}

using OneDnnLinear = at::Tensor(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                                std::string_view attribute, c10::List<std::optional<at::Scalar>> scalars,
                                std::optional<std::string_view> algorithm);

void float_weights(const Matrix& m, InstructionSet set, int64_t rows) {
  static const auto onednn = c10::Dispatcher::singleton().findSchemaOrThrow("mkldnn::_linear_pointwise", "").typed<OneDnnLinear>();
  const at::Tensor weight = at::randn({m.out, m.in});
  const at::Tensor x = at::randn({rows, m.in});
  const double operations = 2.0 * static_cast<double>(rows * m.out * m.in);
  const auto rate = [&](const std::function<void()>& work) { return billions_a_second(operations, work); };
  const double ours = rate([&] { float_product(x, weight, set); });
  const double mkl = rate([&] { at::linear(x, weight); });
  const double dnn =
      rate([&] { onednn.call(x, weight, std::nullopt, "none", c10::List<std::optional<at::Scalar>>(), std::nullopt); });
  fmt::print("  {:36} {:6.1f} GFLOP/s; MKL {:6.1f}: {:.2f} times, oneDNN {:6.1f}: {:.2f} times\n",
             fmt::format("{} rows, {} x {} float32", rows, m.out, m.in), ours, mkl, ours / mkl, dnn, ours / dnn);
}

// Errors of `rows` output channels by a Gram matrix: half of what libtorch's product, multiplication and sum work. Both rates count
// that half.
void forms(int64_t rows, int64_t features, InstructionSet set) {
  const at::Tensor errors = at::randn({rows, features});
  const at::Tensor gram = at::randn({features, features});
  const double operations = static_cast<double>(rows * features) * static_cast<double>(features + 1);
  const auto rate = [&](const std::function<void()>& work) { return billions_a_second(operations, work); };
  const double ours = rate([&] { quadratic_forms(errors, gram, set); });
  const double torch = rate([&] { at::mm(errors, gram).mul_(errors).sum(1); });
  fmt::print("  {:36} {:6.1f} GFLOP/s; libtorch {:6.1f}: {:.2f} times\n", fmt::format("{} rows, forms of {}", rows, features), ours,
             torch, ours / torch);
}

void run(std::string_view part) {
  const auto is_on = [&](std::string_view name) { return part.empty() || part == name; };
  at::manual_seed(1);
  for (const InstructionSet set : available_instruction_sets()) {
    if (set == InstructionSet::kPortable) continue;
    fmt::print("{}, {} threads\n", name(set), at::get_num_threads());
    if (is_on("few")) {
      for (const Matrix& m : {Matrix{4096, 4096, 128, 16}, {1024, 3072, 128, 16}, {4096, 4096, 32, 16}, {4096, 4096, 128, 256}})
        few_rows(m, set);
    }
    if (is_on("half")) {
      half_weights(at::kHalf, set);
      half_weights(at::kBFloat16, set);
    }
    if (is_on("float")) {
      for (const int64_t rows : {1, 8, 16, 32, 128, 1024}) float_weights({768, 256}, set, rows);
      float_weights({256, 768}, set, 1024);
      for (const int64_t rows : {1, 16, 512}) float_weights({3072, 1024}, set, rows);
      float_weights({4096, 4096}, set, 2048);
    }
    if (is_on("forms")) {
      for (const auto& [rows, features] :
           {std::pair<int64_t, int64_t>{1024, 64}, {1024, 128}, {64, 1024}, {1024, 1024}, {1024, 3072}})
        forms(rows, features, set);
    }
    if (is_on("many")) {
      for (const int64_t rows : {8, 64, 512}) many_rows({4096, 4096, 128, 16}, set, rows);
      for (const Matrix& m : {Matrix{3072, 1024, 128, 16},
                              {1024, 3072, 128, 16},
                              {4096, 4096, 32, 16},
                              {4096, 4096, 4096, 16},
                              {4096, 4096, 128, 256}}) {
        many_rows(m, set, 512);
      }
    }
  }
}

}  // namespace
}  // namespace salient::quant

int main(int argc, char** argv) {
  if (argc > 1) at::set_num_threads(std::atoi(argv[1]));
  salient::quant::run(argc > 2 ? argv[2] : "");
}
