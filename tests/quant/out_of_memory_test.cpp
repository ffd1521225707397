#include "quant/out_of_memory.h"

#include <gtest/gtest.h>

#include <string>

namespace salient::quant {
namespace {

// Whether an error with this text is one.
template <typename Throw>
bool is_one(const Throw& throw_error) {
  try {
    throw_error();
  } catch (const c10::Error& error) {
    return is_out_of_memory(error);
  }
  ADD_FAILURE() << "no error";
  return false;
}
bool says(const std::string& text) {
  return is_one([&] { TORCH_CHECK(false, text); });
}

TEST(OutOfMemory, IsKnownByItsTypeAndByItsWords) {
  EXPECT_TRUE(is_one([] { TORCH_CHECK_WITH(OutOfMemoryError, false, "too much"); }));
  EXPECT_TRUE(says("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"));
  EXPECT_TRUE(says("CUDA out of memory. Tried to allocate 2.00 GiB"));
  EXPECT_TRUE(says("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"));
  EXPECT_TRUE(says("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"));
}

TEST(OutOfMemory, OtherErrorsAreNone) {
  EXPECT_FALSE(says("another"));
  EXPECT_FALSE(says("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"));
  EXPECT_FALSE(says("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes."));
}

}  // namespace
}  // namespace salient::quant
