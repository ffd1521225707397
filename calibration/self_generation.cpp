#include "calibration/self_generation.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <deque>
#include <optional>
#include <random>
#include <span>

#include "common/checksum.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/log.h"
#include "common/shares.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/streamed_decoder.h"
#include "models/io/npy.h"

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

// What one row needs while it is written: its cache with the states of linear attention, its logits and probabilities, and the
// largest that a block works with at a time, four activations of its widest linear and the new states beside the old ones.
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
    for (const models::LinearSpec& spec : models::block_layout(config, block).linears)
      widest = std::max(widest, spec.in_features + spec.out_features);
    most = std::max(most, 2 * states + static_cast<uint64_t>(4 * widest) * sizeof(float));
  }
  return total + most;
}

using Rows = std::vector<std::vector<TokenId>>;

// Small batches first, as what of the last one is not wanted was written in vain; larger ones, which read the weights less often,
// where there are many rows.
constexpr int64_t kSmallBatch = 32;
constexpr int64_t kMiddleBatch = 64;
constexpr int64_t kMostBatch = 128;

struct RowBatch {
  int64_t begin = 0;
  int64_t count = 0;
};

// The same for every number of rows, as the last bits of a product depend on how many rows it has, and a drawn token may hang on
// them.
std::vector<RowBatch> batches_of(int64_t rows, int64_t most) {
  std::vector<RowBatch> batches;
  for (int64_t begin = 0; begin < rows;) {
    const int64_t wanted = begin < kMostBatch ? kSmallBatch : begin < 2 * kMostBatch ? kMiddleBatch : kMostBatch;
    const int64_t count = std::min(wanted, most);
    batches.push_back({begin, count});
    begin += count;
  }
  return batches;
}

// Writes a batch of rows with `decoder`.
Rows write_batch(models::StreamedDecoder& decoder, const models::DecoderConfig& config, const SelfGenerationOptions& options,
                 const RowBatch& batch, const std::function<void()>& on_step) {
  Rows result(static_cast<size_t>(batch.count));
  std::vector<Row> rows(result.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const size_t number = static_cast<size_t>(batch.begin) + i;
    rows[i].engine.seed(derive_seed(options.seed, fmt::format("self_generation/{}", number)));
    rows[i].opening = number;
    open(rows[i], config, options);
  }
  decoder.start(batch.count, options.row_tokens);
  for (int64_t step = 0; step < options.row_tokens; ++step) {
    std::vector<int64_t> next;
    for (size_t i = 0; i < rows.size(); ++i) {
      next.push_back(rows[i].waiting.front());
      rows[i].waiting.pop_front();
      result[i].push_back(static_cast<TokenId>(next.back()));
    }
    on_step();
    if (step + 1 == options.row_tokens) break;
    const at::Tensor logits = decoder.next_logits(at::tensor(next, at::kLong).unsqueeze(1));
    const at::Tensor probabilities = at::softmax(logits.div_(options.temperature), 1).contiguous();
    for (size_t i = 0; i < rows.size(); ++i) {
      // Drawn at every step, whether it is used or not: a row's numbers do not depend on its openings' lengths.
      const TokenId drawn = sample(probabilities.const_data_ptr<float>() + static_cast<int64_t>(i) * config.vocab_size,
                                   config.vocab_size, rows[i].engine);
      if (!rows[i].waiting.empty()) continue;
      rows[i].waiting.push_back(drawn);
      if (std::find(options.end_ids.begin(), options.end_ids.end(), drawn) != options.end_ids.end()) open(rows[i], config, options);
    }
  }
  return result;
}

// Whose each batch is; 0 for all where this process is alone.
std::vector<int> owners_of(const std::vector<RowBatch>& batches, const Ranks* ranks) {
  std::vector<double> costs;
  for (const RowBatch& batch : batches) costs.push_back(static_cast<double>(batch.count));
  return share_by_cost(costs, is_shared(ranks) ? ranks->size() : 1);
}

// A batch of rank `from` to all.
void broadcast_batch(Rows& rows, const RowBatch& batch, int64_t row_tokens, int from, Ranks& ranks) {
  std::vector<int64_t> ids(static_cast<size_t>(batch.count * row_tokens));
  auto id = ids.begin();
  for (const auto& row : rows) id = std::copy(row.begin(), row.end(), id);
  ranks.broadcast(std::as_writable_bytes(std::span(ids)), from);
  rows.clear();
  for (auto begin = ids.begin(); begin != ids.end(); begin += row_tokens) {
    std::vector<TokenId> row;
    for (auto one = begin; one != begin + row_tokens; ++one) row.push_back(static_cast<TokenId>(*one));
    rows.push_back(std::move(row));
  }
}

std::filesystem::path cached_batch(const SelfGenerationOptions& options, const RowBatch& batch) {
  return options.cache / fmt::format("rows_{}_{}.npy", batch.begin, batch.count);
}

// Nothing where it is not there, or no batch of these.
std::optional<Rows> find_batch(const SelfGenerationOptions& options, const RowBatch& batch) {
  if (options.cache.empty() || !std::filesystem::exists(cached_batch(options, batch))) return std::nullopt;
  try {
    const at::Tensor ids = models::read_npy(cached_batch(options, batch));
    if (ids.scalar_type() != at::kLong || !ids.sizes().equals({batch.count * options.row_tokens + 1})) return std::nullopt;
    const std::span values(ids.const_data_ptr<int64_t>(), static_cast<size_t>(ids.numel()));
    if (static_cast<uint64_t>(values.back()) != checksum_of_bytes(std::as_bytes(values.first(values.size() - 1)))) {
      log_warn("generated_rows_changed file=\"{}\"", cached_batch(options, batch).string());
      return std::nullopt;
    }
    Rows rows(static_cast<size_t>(batch.count));
    const int64_t* id = values.data();
    for (auto& row : rows) {
      for (int64_t i = 0; i < options.row_tokens; ++i) row.push_back(static_cast<TokenId>(*id++));
    }
    return rows;
  } catch (const Error& error) {  // damaged: as good as none
    log_warn("generated_rows_unreadable reason=\"{}\"", error.message());
    return std::nullopt;
  }
}

// The ids of the rows, and behind them a checksum of theirs.
void keep_batch(const SelfGenerationOptions& options, const RowBatch& batch, const Rows& rows) {
  if (options.cache.empty()) return;
  std::vector<int64_t> ids;
  for (const auto& row : rows) ids.insert(ids.end(), row.begin(), row.end());
  std::filesystem::create_directories(options.cache);
  ids.push_back(static_cast<int64_t>(checksum_of_bytes(std::as_bytes(std::span(ids)))));
  models::write_npy(cached_batch(options, batch), at::tensor(ids, at::kLong));
}

}  // namespace

Rows generate_rows(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                   const SelfGenerationOptions& options) {
  const int64_t count = (options.tokens + options.row_tokens - 1) / options.row_tokens;
  const uint64_t row_bytes = bytes_per_row(config, options.row_tokens);
  // Rows that are written at a time share every reading of the weights and every step: they get what the weights cannot use, half
  // at least.
  const uint64_t for_weights = std::min(options.memory_bytes / 2, models::StreamedDecoder::most_kept_bytes(config));
  const uint64_t fitting = std::clamp<uint64_t>((options.memory_bytes - for_weights) / row_bytes, 1, kMostBatch);
  // A power of two, so that a little more or less memory changes nothing.
  const auto most = static_cast<int64_t>(std::bit_floor(fitting));
  const std::vector<RowBatch> batches = batches_of(count, most);
  const uint64_t rows_bytes = (batches.empty() ? 0 : static_cast<uint64_t>(batches.back().count)) * row_bytes;
  std::optional<models::StreamedDecoder> decoder;  // once there is something to write
  const std::vector<int> owners = owners_of(batches, options.ranks);
  const int rank = is_shared(options.ranks) ? options.ranks->rank() : 0;
  int64_t steps = 0;
  const int64_t total_steps = std::count(owners.begin(), owners.end(), rank) * options.row_tokens;
  std::vector<Rows> written(batches.size());
  for (size_t i = 0; i < batches.size(); ++i) {
    if (owners[i] != rank) continue;
    const RowBatch& batch = batches[i];
    std::optional<Rows> rows = find_batch(options, batch);
    if (rows) {
      steps += options.row_tokens;
    } else {
      if (!decoder) decoder.emplace(checkpoint, config, options.memory_bytes > rows_bytes ? options.memory_bytes - rows_bytes : 0);
      rows = write_batch(*decoder, config, options, batch, [&] {
        if (options.on_progress) options.on_progress(++steps, total_steps);
      });
      keep_batch(options, batch, *rows);
    }
    written[i] = std::move(*rows);
  }
  Rows result;
  for (size_t i = 0; i < batches.size(); ++i) {
    if (is_shared(options.ranks)) broadcast_batch(written[i], batches[i], options.row_tokens, owners[i], *options.ranks);
    result.insert(result.end(), written[i].begin(), written[i].end());
  }
  result.resize(static_cast<size_t>(count));
  return result;
}

}  // namespace salient::calibration
