#include "pipeline/torch_options.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <string_view>
#include <system_error>

#include "common/error.h"
#include "common/ranks.h"

namespace salient::pipeline {

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  fail(ErrorKind::kInvalidArgument, "dtype '{}': expected float32 or bfloat16", name);
}

namespace {

// The N of "cuda:N", -1 of "cuda" alone; nothing for other names. A number that is too large for int is one all the same.
std::optional<int> cuda_index(std::string_view name) {
  constexpr std::string_view kCuda = "cuda";
  if (!name.starts_with(kCuda)) return std::nullopt;
  if (name == kCuda) return -1;
  const std::string_view digits = name.substr(kCuda.size());
  const bool number = digits.size() > 1 && digits.front() == ':' &&
                      std::all_of(digits.begin() + 1, digits.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (!number) return std::nullopt;
  int index = 0;
  const auto [end, error] = std::from_chars(digits.data() + 1, digits.data() + digits.size(), index);
  return error == std::errc() ? index : std::numeric_limits<int>::max();
}

}  // namespace

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  const std::optional<int> index = cuda_index(name);
  if (!index) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("device '{}': expected cpu, cuda or cuda:N", name))
        .with_hint("N counts the CUDA devices of this machine from 0; cuda alone is the first");
  }
  if (!at::hasCUDA()) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("device '{}': this libtorch was built without CUDA, or no CUDA device is there", name))
        .with_code("KERNEL_NOT_FOUND")
        .with_hint("use the device cpu, or build with a CUDA libtorch (SALIENT_TORCH)");
  }
  const auto devices = static_cast<int>(at::getNumGPUs());
  if (*index >= devices) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("device '{}': found {} CUDA device{}, expected a number from 0 to {}",
                                                         name, devices, devices == 1 ? "" : "s", devices - 1))
        .with_hint("nvidia-smi lists the devices of this machine, CUDA_VISIBLE_DEVICES says which of them a program sees");
  }
  // Float32 is what is asked for, and what the CPU computes: TF32, which TORCH_ALLOW_TF32_CUBLAS_OVERRIDE switches on, keeps 10
  // bits of a product's factors. libtorch has the choice for the process alone.
  at::globalContext().setFloat32MatmulPrecision("highest");
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(*index));
}

at::Device device_of_rank(at::Device device, const Ranks* ranks) {
  if (!is_shared(ranks) || !device.is_cuda() || device.has_index()) return device;
  const auto devices = static_cast<int>(at::getNumGPUs());
  return at::Device(at::kCUDA, static_cast<at::DeviceIndex>(ranks->host_rank() % std::max(1, devices)));
}

void set_threads(int64_t threads) {
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
}

}  // namespace salient::pipeline
