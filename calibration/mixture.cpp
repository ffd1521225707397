#include "calibration/mixture.h"

#include <algorithm>

#include "calibration/sampling.h"
#include "common/error.h"
#include "common/hash.h"

namespace salient::calibration {
namespace {

struct Queue {
  const SourceRows* source = nullptr;
  std::vector<int64_t> order;
  size_t next = 0;
  double weight = 1;
  double used = 0;  // tokens, or rows without weights
};

Queue make_queue(const SourceRows& source, bool alone, uint64_t seed) {
  Queue queue;
  queue.source = &source;
  const auto rows = static_cast<int64_t>(source.rows.rows.size());
  const bool in_order = alone && source.source.samples == 0;
  RowSampler sampler(rows, derive_seed(seed, "calibration/mix/" + domain_of(source.source)));
  for (int64_t i = 0; i < rows; ++i) queue.order.push_back(in_order ? i : sampler.next().value_or(i));
  if (source.source.samples > 0) queue.order.resize(static_cast<size_t>(std::min(rows, source.source.samples)));
  return queue;
}

}  // namespace

Mixture mix_rows(const std::vector<SourceRows>& sources, const models::Tokenizer* tokenizer, const TokenRowOptions& options,
                 uint64_t seed) {
  std::vector<CalibrationSource> given;
  for (const SourceRows& source : sources) given.push_back(source.source);
  check_sources(given);
  const bool weighted =
      std::any_of(given.begin(), given.end(), [](const CalibrationSource& source) { return source.weight.has_value(); });
  std::vector<Queue> queues;
  for (const SourceRows& source : sources) {
    queues.push_back(make_queue(source, sources.size() == 1, seed));
    queues.back().weight =
        weighted ? source.source.weight.value_or(1) : static_cast<double>(std::max<size_t>(queues.back().order.size(), 1));
  }

  Mixture mixture;
  TokenRowCollector collector(tokenizer, options);
  const auto has_rows = [](const Queue& queue) { return queue.next < queue.order.size(); };
  while (!collector.full()) {
    Queue* next = nullptr;
    for (Queue& queue : queues) {
      if (!weighted && !has_rows(queue)) continue;
      if (next == nullptr || queue.used / queue.weight < next->used / next->weight) next = &queue;
    }
    if (next == nullptr) break;
    if (!has_rows(*next)) {
      int64_t left = 0;
      for (const Queue& queue : queues) left += static_cast<int64_t>(queue.order.size() - queue.next);
      if (left > 0) {
        mixture.notes.push_back(
            fmt::format("{} is used up after {} rows; {} rows of the other files are left out to keep the proportions",
                        next->source->source.file.string(), next->order.size(), left));
      }
      break;
    }
    const CalibrationRow& row = next->source->rows.rows[static_cast<size_t>(next->order[next->next++])];
    const int64_t tokens = collector.add(row, next->source->rows.domains[static_cast<size_t>(row.domain)]);
    next->used += weighted ? static_cast<double>(tokens) : 1;
  }
  mixture.rows = collector.take();
  return mixture;
}

}  // namespace salient::calibration
