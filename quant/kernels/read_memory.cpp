#include "quant/kernels/read_memory.h"

#include <ATen/Parallel.h>

#include <atomic>
#include <cstdint>

#include "quant/clones.h"
#include "quant/kernels/tile_kernels.h"

namespace salient::quant {
namespace {

constexpr int64_t kWords = 32;  // read together
constexpr int64_t kLineWords = kLineBytes / 8;
constexpr int64_t kAheadWords = kPrefetchBytes / 8;

SALIENT_CLONES int64_t read_part(const int64_t* words, int64_t count) {
  int64_t parts[kWords] = {};
  for (int64_t i = 0; i + kWords <= count; i += kWords) {
    for (int64_t k = 0; k < kWords; k += kLineWords) __builtin_prefetch(words + i + k + kAheadWords, 0, 2);
    for (int64_t k = 0; k < kWords; ++k) parts[k] ^= words[i + k];
  }
  int64_t all = 0;
  for (const int64_t part : parts) all ^= part;
  return all;
}

}  // namespace

void read_memory(const at::Tensor& memory) {
  static std::atomic<int64_t> kept = 0;  // so that the reads are not left out
  const auto* words = memory.const_data_ptr<int64_t>();
  at::parallel_for(0, memory.numel(), 1, [&](int64_t begin, int64_t end) { kept ^= read_part(words + begin, end - begin); });
}

}  // namespace salient::quant
