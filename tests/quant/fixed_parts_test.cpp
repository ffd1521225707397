#include "quant/fixed_parts.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/softplus.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <mutex>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "support/thread_count.h"

namespace salient::quant {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed));
}

// Of one thread, and whether all other numbers give its bits.
at::Tensor of_any_threads(const std::function<at::Tensor()>& work) {
  at::Tensor first;
  for (const int threads : test::kThreadCounts) {
    const test::ThreadCount count(threads);
    const at::Tensor found = work();
    if (!first.defined()) first = found;
    EXPECT_TRUE(first.equal(found)) << threads << " threads";
  }
  return first;
}

TEST(FixedParts, EveryNumberIsInOnePartWhateverTheThreads) {
  for (const int threads : test::kThreadCounts) {
    const test::ThreadCount count(threads);
    for (const auto& [numbers, part] : {std::pair<int64_t, int64_t>{0, 3}, {1, 3}, {3, 3}, {10, 3}, {100, 7}, {5, 100}}) {
      std::mutex guard;
      std::set<std::pair<int64_t, int64_t>> parts;
      in_fixed_parts(numbers, part, [&](int64_t begin, int64_t end) {
        const std::lock_guard lock(guard);
        EXPECT_TRUE(parts.emplace(begin, end).second);
      });
      int64_t next = 0;
      for (const auto& [begin, end] : parts) {
        EXPECT_EQ(begin, next);
        EXPECT_EQ(begin % part, 0);
        EXPECT_EQ(end, std::min(numbers, begin + part));
        next = end;
      }
      EXPECT_EQ(next, numbers);
    }
  }
}

TEST(FixedParts, APartHasOneThread) {
  const test::ThreadCount count(3);
  std::atomic<int> parts = 0;
  const auto alone = [&](int64_t, int64_t) {
    EXPECT_TRUE(at::in_parallel_region());
    ++parts;
  };
  in_fixed_parts(1, 1, alone);
  in_fixed_parts(8, 1, alone);
  EXPECT_EQ(parts, 9);
  EXPECT_FALSE(at::in_parallel_region());
}

TEST(FixedParts, AnErrorOfAPartIsThrownHere) {
  const test::ThreadCount count(3);
  EXPECT_THROW(in_fixed_parts(8, 1,
                              [](int64_t begin, int64_t) {
                                if (begin == 5) throw std::runtime_error("part");
                              }),
               std::runtime_error);
}

// Threads that libtorch started know nothing of the modes of the one that asks.
TEST(FixedParts, PartsHaveTheModesOfTheCaller) {
  const test::ThreadCount count(3);
  const at::NoGradGuard no_grad;
  const c10::InferenceMode inference;
  in_fixed_parts(8, 1, [](int64_t, int64_t) {
    EXPECT_FALSE(at::GradMode::is_enabled());
    EXPECT_TRUE(c10::InferenceMode::is_enabled());
  });
}

TEST(FixedParts, FunctionsOfElementsHaveTheSameBits) {
  const std::vector<std::pair<const char*, ElementFunction>> functions = {
      {"sigmoid", at::sigmoid},
      {"silu", at::silu},
      {"gelu", [](const at::Tensor& x) { return at::gelu(x, "tanh"); }},
      {"softplus", [](const at::Tensor& x) { return at::softplus(x); }},
      {"pow", [](const at::Tensor& x) { return x.abs().pow(0.35); }}};
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {3, 17}, {300, 1111}, {1, 40001}}) {
    const at::Tensor x = random_tensor({rows, columns}, 1);
    for (const auto& [name, function] : functions) {
      SCOPED_TRACE(name);
      const at::Tensor found = of_any_threads([&] { return elementwise(x, function); });
      EXPECT_EQ(found.sizes(), x.sizes());
      const at::Tensor flat = x.flatten();
      for (const int64_t first : {int64_t{0}, flat.numel() / 3, flat.numel() - 1}) {
        const at::Tensor rest = flat.narrow(0, first, flat.numel() - first);
        EXPECT_TRUE(elementwise(rest, function).equal(found.flatten().narrow(0, first, rest.numel()))) << "from " << first;
      }
      EXPECT_TRUE(at::allclose(found.to(at::kDouble), function(x.to(at::kDouble)), 1e-5, 1e-6));
    }
  }
  // Views, and functions that give another dtype.
  const at::Tensor turned = random_tensor({211, 307}, 2).t();
  EXPECT_TRUE(
      of_any_threads([&] { return elementwise(turned, at::sigmoid); }).equal(elementwise(turned.contiguous(), at::sigmoid)));
  EXPECT_EQ(elementwise(turned, [](const at::Tensor& x) { return x.to(at::kDouble).exp(); }).scalar_type(), at::kDouble);
}

TEST(FixedParts, SumsHaveTheSameBits) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{1, 1}, {3, 17}, {300, 1111}, {1779, 36}, {40000, 3}}) {
    const at::Tensor x = random_tensor({rows, columns}, 3);
    const at::Tensor all = of_any_threads([&] { return at::full({}, total(x), at::kDouble); });
    EXPECT_NEAR(all.item<double>(), x.to(at::kDouble).sum().item<double>(), 1e-9 * static_cast<double>(x.numel()));
    const at::Tensor sums = of_any_threads([&] { return sum_of_rows(x); });
    EXPECT_EQ(sums.scalar_type(), at::kDouble);
    EXPECT_TRUE(at::allclose(sums, x.to(at::kDouble).sum(0), 1e-12, 1e-9));
  }
}

// What is used without this file, because its parts are whole rows.
TEST(FixedParts, RowsOfLibtorchHaveTheSameBitsWithoutIt) {
  for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{300, 1111}, {7, 40000}, {40000, 7}}) {
    const at::Tensor x = random_tensor({rows, columns}, 4);
    of_any_threads([&] { return at::softmax(x, 1); });
    of_any_threads([&] { return at::logsumexp(x, {1}); });
    of_any_threads([&] { return x.sum(1); });
    of_any_threads([&] { return x.square().mean(-1); });
    of_any_threads([&] { return x.abs().amax(0); });
  }
}

}  // namespace
}  // namespace salient::quant
