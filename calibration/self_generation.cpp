#include "calibration/self_generation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <random>

#include "common/hash.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/streamed_decoder.h"

namespace salient::calibration {
namespace {

using models::TokenId;

// 53 random bits: the standard's distributions differ between libraries.
double uniform(std::mt19937_64& engine) { return static_cast<double>(engine() >> 11) * 0x1.0p-53; }

// probabilities: float32 [vocab_size], one row.
TokenId sample(const float* probabilities, int64_t count, std::mt19937_64& engine) {
  const double wish = uniform(engine);
  double sum = 0;
  TokenId last = 0;
  for (int64_t id = 0; id < count; ++id) {
    if (!(probabilities[id] > 0.0f)) continue;
    last = static_cast<TokenId>(id);
    sum += probabilities[id];
    if (sum > wish) break;
  }
  return last;
}

// One row: what it will be fed next, and where it is in its openings.
struct Row {
  std::mt19937_64 engine;
  std::deque<TokenId> waiting;
  size_t opening = 0;
};

void open(Row& row, const models::DecoderConfig& config, const SelfGenerationOptions& options) {
  if (!options.openings.empty()) {
    const std::vector<TokenId>& opening = options.openings[row.opening++ % options.openings.size()];
    row.waiting.insert(row.waiting.end(), opening.begin(), opening.end());
  }
  row.waiting.push_back(static_cast<TokenId>(uniform(row.engine) * static_cast<double>(config.vocab_size)));
}

// What one row needs while it is written: its cache with the states of linear attention, its logits and probabilities, and the largest that a block
// works with at a time, four activations of its widest linear and the new states beside the old ones.
uint64_t bytes_per_row(const models::DecoderConfig& config, int64_t tokens) {
  uint64_t total = static_cast<uint64_t>(config.vocab_size) * 2 * sizeof(float);
  uint64_t most = 0;
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const models::KvCacheLayer layer = models::make_cache_layer(config, block, 1, tokens, at::kFloat, at::kCPU);
    uint64_t states = 0;
    for (const at::Tensor* tensor : {&layer.convolution, &layer.recurrent}) states += tensor->defined() ? tensor->nbytes() : 0;
    for (const at::Tensor* tensor : {&layer.keys, &layer.values}) total += tensor->defined() ? tensor->nbytes() : 0;
    total += states;
    int64_t widest = 0;
    for (const models::LinearSpec& spec : models::block_layout(config, block).linears) widest = std::max(widest, spec.in_features + spec.out_features);
    most = std::max(most, 2 * states + static_cast<uint64_t>(4 * widest) * sizeof(float));
  }
  return total + most;
}

}  // namespace

std::vector<std::vector<TokenId>> generate_rows(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                                                const SelfGenerationOptions& options) {
  const int64_t count = (options.tokens + options.row_tokens - 1) / options.row_tokens;
  std::vector<std::vector<TokenId>> result(static_cast<size_t>(count));
  const uint64_t row_bytes = bytes_per_row(config, options.row_tokens);
  // Rows that are written at a time share every reading of the weights and every step: they get what the weights cannot use, half at least.
  const uint64_t for_weights = std::min(options.memory_bytes / 2, models::StreamedDecoder::most_kept_bytes(config));
  const int64_t batch = std::clamp<int64_t>(static_cast<int64_t>((options.memory_bytes - for_weights) / row_bytes), 1,
                                            std::max<int64_t>(1, count));
  const uint64_t rows_bytes = static_cast<uint64_t>(batch) * row_bytes;
  models::StreamedDecoder decoder(checkpoint, config, options.memory_bytes > rows_bytes ? options.memory_bytes - rows_bytes : 0);
  int64_t steps = 0;
  const int64_t total_steps = (count + batch - 1) / batch * options.row_tokens;
  for (int64_t begin = 0; begin < count; begin += batch) {
    std::vector<Row> rows(static_cast<size_t>(std::min(batch, count - begin)));
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t number = static_cast<size_t>(begin) + i;
      rows[i].engine.seed(derive_seed(options.seed, fmt::format("self_generation/{}", number)));
      rows[i].opening = number;
      open(rows[i], config, options);
    }
    decoder.start(static_cast<int64_t>(rows.size()), options.row_tokens);
    for (int64_t step = 0; step < options.row_tokens; ++step) {
      std::vector<int64_t> next;
      for (size_t i = 0; i < rows.size(); ++i) {
        next.push_back(rows[i].waiting.front());
        rows[i].waiting.pop_front();
        result[static_cast<size_t>(begin) + i].push_back(static_cast<TokenId>(next.back()));
      }
      if (options.on_progress) options.on_progress(++steps, total_steps);
      if (step + 1 == options.row_tokens) break;
      const at::Tensor logits = decoder.next_logits(at::tensor(next, at::kLong).unsqueeze(1));
      const at::Tensor probabilities = at::softmax(logits.div_(options.temperature), 1).contiguous();
      for (size_t i = 0; i < rows.size(); ++i) {
        // Drawn at every step, whether it is used or not: a row's numbers do not depend on its openings' lengths.
        const TokenId drawn = sample(probabilities.const_data_ptr<float>() + static_cast<int64_t>(i) * config.vocab_size, config.vocab_size, rows[i].engine);
        if (!rows[i].waiting.empty()) continue;
        rows[i].waiting.push_back(drawn);
        if (std::find(options.end_ids.begin(), options.end_ids.end(), drawn) != options.end_ids.end())
          open(rows[i], config, options);
      }
    }
  }
  return result;
}

}  // namespace salient::calibration
