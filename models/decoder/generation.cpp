#include "models/decoder/generation.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>
#include <span>

#include "models/decoder/generated_row.h"

namespace salient::models {
namespace {

constexpr int64_t kCacheStep = 256;  // tokens by which the cache grows, at least

// The rows that are still being generated.
struct Batch {
  std::vector<size_t> rows;  // indices of the prompts
  KvCache cache;
  at::Tensor real;  // bool [rows, cache.length], true = a token, false = left padding
};

struct PaddedPrompts {
  at::Tensor ids;   // int64 [prompts, longest]
  at::Tensor real;  // bool, the same shape
};
PaddedPrompts pad_left(const std::vector<std::vector<TokenId>>& prompts) {
  size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const std::vector<int64_t> shape = {static_cast<int64_t>(prompts.size()), static_cast<int64_t>(longest)};
  PaddedPrompts padded{at::zeros(shape, at::kLong), at::zeros(shape, at::kBool)};
  auto* ids = padded.ids.data_ptr<int64_t>();
  auto* real = padded.real.data_ptr<bool>();
  for (size_t row = 0; row < prompts.size(); ++row) {
    const size_t begin = (row + 1) * longest - prompts[row].size();
    std::copy(prompts[row].begin(), prompts[row].end(), ids + begin);
    std::fill_n(real + begin, prompts[row].size(), true);
  }
  return padded;
}

// Keeps the rows at `kept` (positions in the batch) and drops leading padding that all of them have.
void compact(Batch& batch, const std::vector<int64_t>& kept) {
  const at::Tensor rows = at::tensor(kept, at::kLong);
  const at::Tensor real = batch.real.index_select(0, rows);
  const int64_t skip = real.any(0).to(at::kByte).argmax().item<int64_t>();
  select_cache(batch.cache, rows, skip);
  batch.real = real.narrow(1, skip, real.size(1) - skip);
  std::vector<size_t> remaining;
  for (const int64_t row : kept) remaining.push_back(batch.rows[static_cast<size_t>(row)]);
  batch.rows = std::move(remaining);
}

// Whether a row of `length` tokens is the first that a change of the rotary angles reaches. Generation stays within
// max_position_embeddings, where only LongRoPE has such a change.
bool passes_change_of_angles(const DecoderConfig& config, size_t length) {
  return std::any_of(config.ropes.begin(), config.ropes.end(), [&](const RopeConfig& rope) {
    const int64_t last = angles_change_after(rope);
    return last > 0 && static_cast<int64_t>(length) == last + 1;
  });
}

// Reads all rows from the start into a new cache; returns the last hidden states.
at::Tensor read_rows(const Decoder& decoder, Batch& batch, const std::vector<std::vector<TokenId>>& rows, int64_t new_tokens,
                     const std::function<Observation(const at::Tensor& real)>& observe) {
  const PaddedPrompts padded = pad_left(rows);
  const int64_t longest = padded.ids.size(1);
  batch.real = padded.real;
  batch.cache = decoder.make_cache(static_cast<int64_t>(rows.size()), longest + std::min(new_tokens, kCacheStep));
  return decoder.hidden_states(padded.ids, batch.real, &batch.cache, observe(padded.real)).select(1, longest - 1);
}

// Of rows that are read again: the newest token of each, all others have been shown. Experts cannot be shown a part of the tokens,
// so nothing of a mixture.
Observation newest_tokens(const Decoder& decoder, const InputObserver* observer, const at::Tensor& real) {
  const auto& layers = decoder.config().layers;
  if (observer == nullptr || std::any_of(layers.begin(), layers.end(), [](const LayerConfig& layer) { return layer.moe; }))
    return {};
  const at::Tensor shown = at::zeros(real.sizes(), at::kBool);
  shown.select(1, real.size(1) - 1).fill_(true);
  return {observer, shown};
}

}  // namespace

std::vector<GenerationResult> generate(const Decoder& decoder, const std::vector<std::vector<TokenId>>& prompts,
                                       const GenerationOptions& options) {
  const at::NoGradGuard no_grad;
  const auto room = static_cast<size_t>(decoder.config().max_position_embeddings);
  check_generation(options, prompts, room);
  if (prompts.empty()) return {};
  const int64_t vocab_size = decoder.config().vocab_size;
  std::vector<GeneratedRow> generated;
  for (size_t i = 0; i < prompts.size(); ++i) generated.emplace_back(options, i, prompts[i].size(), room);

  Batch batch;
  batch.rows.resize(prompts.size());
  std::iota(batch.rows.begin(), batch.rows.end(), size_t{0});
  at::Tensor last = read_rows(decoder, batch, prompts, options.max_new_tokens, [&](const at::Tensor&) {
    return Observation{options.observer, {}};
  });

  while (true) {
    const at::Tensor logits = decoder.logits(last).cpu().contiguous();
    const at::Tensor likeliest = logits.argmax(-1);  // the first of equals
    std::vector<int64_t> kept;
    std::vector<int64_t> next_ids;
    bool stale = false;  // whether the cache is
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      const size_t row = batch.rows[i];
      const std::span values(logits.const_data_ptr<float>() + static_cast<int64_t>(i) * vocab_size,
                             static_cast<size_t>(vocab_size));
      if (!generated[row].advance(values, static_cast<TokenId>(likeliest.const_data_ptr<int64_t>()[i]))) continue;
      const std::vector<TokenId>& ids = generated[row].result().ids;
      kept.push_back(static_cast<int64_t>(i));
      next_ids.push_back(ids.back());
      stale = stale || passes_change_of_angles(decoder.config(), prompts[row].size() + ids.size());
    }
    if (kept.empty()) {
      std::vector<GenerationResult> results;
      for (GeneratedRow& row : generated) results.push_back(row.take());
      return results;
    }
    if (kept.size() < batch.rows.size()) compact(batch, kept);
    if (stale) {
      std::vector<std::vector<TokenId>> rows;
      for (const size_t row : batch.rows) {
        rows.push_back(prompts[row]);
        const std::vector<TokenId>& ids = generated[row].result().ids;
        rows.back().insert(rows.back().end(), ids.begin(), ids.end());
      }
      last = read_rows(decoder, batch, rows, options.max_new_tokens,
                       [&](const at::Tensor& real) { return newest_tokens(decoder, options.observer, real); });
      continue;
    }
    if (batch.cache.length == batch.cache.capacity)
      grow_cache(batch.cache, batch.cache.capacity + std::max(kCacheStep, batch.cache.capacity / 2));

    const auto count = static_cast<int64_t>(kept.size());
    batch.real = at::cat({batch.real, at::ones({count, 1}, at::kBool)}, 1);
    last = decoder.hidden_states(at::tensor(next_ids, at::kLong).view({count, 1}), batch.real, &batch.cache, {options.observer, {}})
               .select(1, 0);
  }
}

}  // namespace salient::models
