#include "pipeline/plugin/host_torch.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/DefaultDtype.h>

namespace salient::pipeline {
namespace {

// "" = full float32, or set in libtorch's newer way, one precision for each kind of product, which cannot be read in the older one.
std::string reduced_precision() {
  try {
    switch (at::globalContext().float32MatmulPrecision()) {
      case at::Float32MatmulPrecision::HIGHEST: return "";
      case at::Float32MatmulPrecision::HIGH: return "high";
      case at::Float32MatmulPrecision::MEDIUM: return "medium";
    }
  } catch (const c10::Error&) {
  }
  return "";
}

}  // namespace

HostTorch::HostTorch() : threads_(at::get_num_threads()), dtype_(c10::get_default_dtype()), precision_(reduced_precision()) {
  c10::set_default_dtype(caffe2::TypeMeta::Make<float>());
  if (!precision_.empty()) at::globalContext().setFloat32MatmulPrecision("highest");
}

HostTorch::~HostTorch() {
  at::set_num_threads(threads_);
  c10::set_default_dtype(dtype_);
  if (!precision_.empty()) at::globalContext().setFloat32MatmulPrecision(precision_);
}

}  // namespace salient::pipeline
