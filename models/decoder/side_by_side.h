// Forward passes over different rows side by side, each in one thread. Operators of a pass that all threads share end with threads
// that wait for the last one, and what stands between them runs in one thread: together a tenth of a small model's time with passes
// of 2000 tokens. Passes of few rows, as of generation, are faster in all threads: side by side each of them would pack all weights
// for its rows.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

#include "models/decoder/decoder.h"

namespace salient::models {

// Workers for passes over `work` rows or tokens that are ready at the same time, of which each worker should have `least`: as many
// as libtorch has threads, or 1, where passes take turns and each has all threads. That also where a row depends on what runs
// beside it (models/decoder/ragged_batch.h), because then nothing may depend on how fast a thread is.
int64_t pass_workers(const Decoder& decoder, int64_t work, int64_t least);

// Calls work(worker, failed) for each worker and returns when all have. The first worker is the calling thread; the others have its
// modes of libtorch and its cancellation token. One alone has all threads. `failed`: another worker threw, so that this one may
// stop where it is. Errors: that of the first worker that threw.
void run_side_by_side(int64_t workers, const std::function<void(int64_t worker, const std::atomic<bool>& failed)>& work);

}  // namespace salient::models
