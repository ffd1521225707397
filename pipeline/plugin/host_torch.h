// libtorch's settings of a program that does other things with it, too.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <string>

namespace salient::pipeline {

// While it lives, libtorch is set in this process and thread as the program `salient` finds it, so that the same configuration
// gives the same bytes; then it is put back. Not for two threads at a time: most of the settings are the process's.
class HostTorch {
 public:
  HostTorch();
  ~HostTorch();
  HostTorch(const HostTorch&) = delete;
  HostTorch& operator=(const HostTorch&) = delete;

 private:
  c10::InferenceMode no_inference_mode_{false};
  c10::impl::ExcludeDispatchKeyGuard no_autocast_{c10::autocast_dispatch_keyset};
  int threads_;
  caffe2::TypeMeta dtype_;
  std::string precision_;  // of float32 matrix products: "high"; empty: full already
};

}  // namespace salient::pipeline
