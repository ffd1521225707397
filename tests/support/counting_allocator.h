// Counts the bytes that CPU tensors hold: what a program keeps, and the most it held at a time. Mapped files are not counted.
#pragma once

#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

namespace salient::test {

class CountingAllocator : public c10::Allocator {
 public:
  // Replaces the CPU allocator for the rest of the program.
  static CountingAllocator& install() {
    static CountingAllocator* const counter = [] {
      auto* made = new CountingAllocator;
      c10::SetCPUAllocator(made, /*priority=*/255);
      return made;
    }();
    return *counter;
  }

  size_t live() const { return live_; }
  size_t peak() const { return peak_; }
  void reset_peak() { peak_ = live_.load(); }
  // From now on what would make more than `bytes` live is refused as a device refuses it: with c10::OutOfMemoryError.
  void refuse_above(size_t bytes) { most_ = bytes; }
  int64_t refusals() const { return refusals_; }
  void refuse_nothing() { most_ = std::numeric_limits<size_t>::max(); }

  c10::DataPtr allocate(size_t bytes) override {
    if (bytes == 0) return {nullptr, nullptr, &forget, c10::Device(c10::DeviceType::CPU)};
    const size_t live = live_ += bytes;
    const bool fits = live <= most_;
    void* block = fits ? std::aligned_alloc(kHeader, (bytes + 2 * kHeader - 1) / kHeader * kHeader) : nullptr;
    if (block == nullptr) live_ -= bytes;
    if (!fits) ++refusals_;
    TORCH_CHECK_WITH(OutOfMemoryError, fits, "CUDA out of memory. Tried to allocate ", bytes, " bytes");
    if (block == nullptr) throw std::bad_alloc();
    std::memcpy(block, &bytes, sizeof(bytes));
    size_t most = peak_;
    while (live > most && !peak_.compare_exchange_weak(most, live)) {
    }
    void* data = static_cast<char*>(block) + kHeader;
    return {data, data, &forget, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &forget; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }

 private:
  static constexpr size_t kHeader = 64;  // keeps the alignment that vector code expects

  static void forget(void* data) {
    if (data == nullptr) return;
    void* block = static_cast<char*>(data) - kHeader;
    size_t bytes = 0;
    std::memcpy(&bytes, block, sizeof(bytes));
    install().live_ -= bytes;
    std::free(block);
  }

  std::atomic<size_t> live_{0};
  std::atomic<size_t> peak_{0};
  std::atomic<int64_t> refusals_{0};
  std::atomic<size_t> most_{std::numeric_limits<size_t>::max()};
};

}  // namespace salient::test
