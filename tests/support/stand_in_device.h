// A device that is none: its tensors lie where no program may read or write, its operators run on the CPU. What takes tensors of
// any device can be tested with it where there is no GPU: memory that is read as if it were the CPU's ends the test, and so does an
// operator whose tensors lie on several devices. Slow, and without streams, pinned memory or kernels of its own: what a CUDA device
// does must still be seen on one.
//
// Included by one file of a program, which it registers libtorch's device type "privateuseone" in.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <sys/mman.h>
#include <torch/library.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <optional>
#include <vector>

namespace salient::test {

inline constexpr c10::DeviceType kStandIn = c10::DeviceType::PrivateUse1;

// Addresses that nobody may use, each with memory behind it.
class StandInMemory final : public c10::Allocator {
 public:
  static StandInMemory& instance() {
    static auto* const memory = new StandInMemory;
    return *memory;
  }

  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(kStandIn, 0);
    if (bytes == 0) return {nullptr, nullptr, &forget, device};
    const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, whole));
    const std::lock_guard lock(mutex_);
    if (memory == nullptr || whole > kAddresses - used_) throw std::bad_alloc();
    std::byte* address = addresses_ + used_;
    used_ += whole;
    blocks_[address] = memory;
    return {address, address, &forget, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &forget; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(behind(to), behind(from), bytes); }

  // Where the memory behind an address is.
  void* behind(const void* address) const {
    if (address == nullptr) return nullptr;
    const auto* at = static_cast<const std::byte*>(address);
    const std::lock_guard lock(mutex_);
    const auto block = std::prev(blocks_.upper_bound(const_cast<std::byte*>(at)));
    return block->second + (at - block->first);
  }

 private:
  static constexpr size_t kAlignment = 64;
  static constexpr size_t kAddresses = size_t{1} << 38;  // none is given twice

  StandInMemory() {
    void* reserved = ::mmap(nullptr, kAddresses, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) throw std::bad_alloc();
    addresses_ = static_cast<std::byte*>(reserved);
  }

  static void forget(void* address) {
    if (address == nullptr) return;
    StandInMemory& all = instance();
    const std::lock_guard lock(all.mutex_);
    const auto block = all.blocks_.find(static_cast<std::byte*>(address));
    std::free(block->second);
    all.blocks_.erase(block);
  }

  mutable std::mutex mutex_;
  std::byte* addresses_ = nullptr;
  size_t used_ = 0;
  std::map<std::byte*, std::byte*> blocks_;  // address -> memory
};

namespace stand_in {

// The same numbers as a tensor of the CPU.
inline at::Tensor on_cpu(const at::Tensor& tensor) {
  if (tensor.device().type() != kStandIn) return tensor;
  return at::from_blob(StandInMemory::instance().behind(tensor.const_data_ptr()), tensor.sizes(), tensor.strides(),
                       tensor.options().device(at::kCPU));
}

inline at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout> /*layout*/,
                        std::optional<at::Device> /*device*/, std::optional<bool> /*pin*/, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &StandInMemory::instance(), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype.value_or(at::kFloat), format);
}

inline at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                                std::optional<at::Layout> /*layout*/, std::optional<at::Device> /*device*/,
                                std::optional<bool> /*pin*/) {
  return at::detail::empty_strided_generic(size, stride, &StandInMemory::instance(),
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1), dtype.value_or(at::kFloat));
}

inline at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool /*non_blocking*/) {
  on_cpu(to).copy_(on_cpu(from));
  return to;
}

inline at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) at::native::resize_(to, from.sizes(), std::nullopt);
  return copy_from(from, to, false);
}

// As a CUDA device would: numbers without sizes may lie on the CPU, and nothing else.
inline at::Tensor argument(const c10::OperatorHandle& op, const at::Tensor& tensor) {
  if (!tensor.defined()) return tensor;
  TORCH_CHECK(tensor.device().type() == kStandIn || tensor.dim() == 0, "Expected all tensors to be on the same device, but ",
              op.schema().name(), " got one of sizes ", tensor.sizes(), " on ", tensor.device());
  return on_cpu(tensor);
}

// A result that the operator gives its size.
inline bool is_filled(const c10::Argument& of, const at::Tensor& tensor) {
  return of.alias_info() != nullptr && of.alias_info()->isWrite() && tensor.defined() && tensor.numel() == 0;
}

// The operator of the CPU, on the same memory. What it changes is changed; what it makes is moved.
inline void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const size_t first = stack->size() - schema.arguments().size();
  const std::vector<c10::IValue> given(stack->begin() + static_cast<std::ptrdiff_t>(first), stack->end());
  for (size_t i = first; i < stack->size(); ++i) {
    c10::IValue& value = (*stack)[i];
    if (value.isTensor()) {
      value = is_filled(schema.arguments()[i - first], value.toTensor())
                  ? at::empty({0}, value.toTensor().options().device(at::kCPU))
                  : argument(op, value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list = value.toTensorVector();
      for (at::Tensor& tensor : list) tensor = argument(op, tensor);
      value = list;
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
        list.push_back(tensor ? std::optional(argument(op, *tensor)) : tensor);
      value = list;
    } else if (value.isDevice()) {
      value = at::Device(at::kCPU);
    }
  }
  op.callBoxed(stack);
  for (size_t i = 0; i < schema.returns().size(); ++i) {
    c10::IValue& value = (*stack)[first + i];
    const c10::AliasInfo* alias = schema.returns()[i].alias_info();
    if (alias != nullptr) {
      TORCH_CHECK(alias->isWrite(), schema.name(), " is a view: the stand-in device does not know it");
      for (size_t k = 0; k < given.size(); ++k) {
        const c10::AliasInfo* of_argument = schema.arguments()[k].alias_info();
        if (of_argument == nullptr || *of_argument != *alias) continue;
        if (is_filled(schema.arguments()[k], given[k].toTensor())) copy_from_and_resize(value.toTensor(), given[k].toTensor());
        value = given[k];
      }
    } else if (value.isTensor() && value.toTensor().defined()) {
      value = value.toTensor().to(at::Device(kStandIn, 0));
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list = value.toTensorVector();
      for (at::Tensor& tensor : list) tensor = tensor.to(at::Device(kStandIn, 0));
      value = list;
    }
  }
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("_copy_from", &copy_from);
  library.impl("_copy_from_and_resize", &copy_from_and_resize);
  library.impl("as_strided", &at::native::as_strided_tensorimpl);
  library.impl("_reshape_alias", [](const at::Tensor& self, c10::IntArrayRef size, c10::IntArrayRef stride) {
    return at::native::_reshape_alias(self, size, stride);
  });
  library.impl("view", [](const at::Tensor& self, c10::IntArrayRef size) { return at::native::view(self, size); });
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>()); }

using Guard = c10::impl::NoOpDeviceGuardImpl<kStandIn>;
C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

}  // namespace stand_in
}  // namespace salient::test
