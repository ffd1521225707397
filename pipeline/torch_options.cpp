#include "pipeline/torch_options.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "common/error.h"
#include "common/ranks.h"

namespace salient::pipeline {

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  fail(ErrorKind::kInvalidArgument, "dtype '{}': expected float32 or bfloat16", name);
}

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  if (name != "cuda" && !name.starts_with("cuda:")) {
    fail(ErrorKind::kInvalidArgument, "device '{}': expected cpu, cuda or cuda:N", name);
  }
  if (!at::hasCUDA()) {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("device '{}': this libtorch was built without CUDA, or no CUDA device is there", name))
        .with_code("KERNEL_NOT_FOUND")
        .with_hint("use the device cpu, or build with a CUDA libtorch (SALIENT_TORCH)");
  }
  return at::Device(name);
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
