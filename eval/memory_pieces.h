// Batches that a device's memory does not hold are run in pieces.
#pragma once

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdint>
#include <limits>

#include "common/log.h"
#include "quant/out_of_memory.h"

namespace salient::eval {

// Remembers how much did not fit. One for each thread.
class MemoryPieces {
 public:
  // may_repeat: whether items may be run again that an attempt which failed had begun with, which somebody who watches would see
  // twice.
  explicit MemoryPieces(bool may_repeat) : may_repeat_(may_repeat) {}

  // work(begin, count) for all items at once, or where that ends in quant::is_out_of_memory for half as many at a time, and so on;
  // from then on never for more. Errors: that one, for a single item or where nothing may be repeated.
  template <typename Work>
  void run(int64_t begin, int64_t count, const Work& work) {
    for (const int64_t end = begin + count; begin < end;) {
      const int64_t now = std::min(most_, end - begin);
      try {
        work(begin, now);
        begin += now;
      } catch (const c10::Error& error) {
        if (!quant::is_out_of_memory(error) || now == 1 || !may_repeat_) throw;
        most_ = now / 2;
        log_warn("batch_does_not_fit items={} now={}", now, most_);
      }
    }
  }

 private:
  bool may_repeat_;
  int64_t most_ = std::numeric_limits<int64_t>::max();
};

}  // namespace salient::eval
