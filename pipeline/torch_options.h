// Names of dtypes, devices and thread counts, as configs and command lines give them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace salient {
class Ranks;
}

namespace salient::pipeline {

// "float32" or "bfloat16". Errors: invalid argument.
at::ScalarType parse_dtype(const std::string& name);
// "cpu", "cuda" or "cuda:1". With a CUDA device, products of float32 keep float32's precision from then on, in the whole process.
// Errors: invalid argument, also for a device that is not there; unsupported (KERNEL_NOT_FOUND) when this libtorch has no CUDA or
// there is none at all.
at::Device parse_device(const std::string& name);
// "cuda" of a rank (common/ranks.h; null = no ranks): the ranks of a machine take its devices in turn. Others stay as they are.
at::Device device_of_rank(at::Device device, const Ranks* ranks);
// 0: as libtorch chooses, every core.
void set_threads(int64_t threads);

}  // namespace salient::pipeline
