// How a long evaluation tells how far it is.
#pragma once

#include <cstdint>
#include <functional>

namespace salient::eval {

// Called after every batch with what is done so far and the whole; both count the same unit (requests, windows, tokens).
using ProgressCallback = std::function<void(int64_t done, int64_t total)>;

}  // namespace salient::eval
