#include "models/decoder/side_by_side.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <exception>
#include <optional>
#include <vector>

#include "common/cancellation.h"
#include "quant/fixed_parts.h"

namespace salient::models {

int64_t pass_workers(const Decoder& decoder, int64_t work, int64_t least) {
  const auto threads = static_cast<int64_t>(at::get_num_threads());
  return decoder.rows_are_independent() && !at::in_parallel_region() && work >= threads * least ? threads : 1;
}

void run_side_by_side(int64_t workers, const std::function<void(int64_t worker, const std::atomic<bool>& failed)>& work) {
  std::atomic<bool> failed = false;
  if (workers <= 1) return work(0, failed);
  const CancellationToken* token = cancellation_token();
  std::vector<std::exception_ptr> errors(static_cast<size_t>(workers));
  quant::in_fixed_parts(workers, 1, [&](int64_t worker, int64_t) {
    std::optional<CancellationScope> scope;
    if (token != nullptr) scope.emplace(*token);
    try {
      work(worker, failed);
    } catch (...) {
      errors[static_cast<size_t>(worker)] = std::current_exception();
      failed = true;
    }
  });
  const auto error = std::find_if(errors.begin(), errors.end(), [](const std::exception_ptr& one) { return one != nullptr; });
  if (error != errors.end()) std::rethrow_exception(*error);
}

}  // namespace salient::models
