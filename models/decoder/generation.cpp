#include "models/decoder/generation.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <span>

#include "common/error.h"
#include "common/hash.h"

namespace salient::models {
namespace {

constexpr int64_t kCacheStep = 256;  // tokens by which the cache grows, at least
constexpr size_t kTailMargin = 8;    // ids decoded beyond what the longest stop string can need

void check(const Decoder& decoder, const std::vector<std::vector<TokenId>>& prompts, const GenerationOptions& options) {
  if (options.max_new_tokens < 1)
    fail(ErrorKind::kInvalidArgument, "generation: max_new_tokens is {}, expected at least 1", options.max_new_tokens);
  if (!(options.temperature >= 0.0) || !std::isfinite(options.temperature)) {
    fail(ErrorKind::kInvalidArgument, "generation: temperature is {}, expected 0 or more", options.temperature);
  }
  if (!(options.top_p > 0.0 && options.top_p <= 1.0))
    fail(ErrorKind::kInvalidArgument, "generation: top_p is {}, expected above 0, at most 1", options.top_p);
  if (options.top_k < 0) fail(ErrorKind::kInvalidArgument, "generation: top_k is {}, expected 0 or more", options.top_k);
  if (!options.stop_strings.empty() && options.tokenizer == nullptr)
    fail(ErrorKind::kInvalidArgument, "generation: stop strings need a tokenizer");
  for (const std::string& text : options.stop_strings) {
    if (text.empty()) fail(ErrorKind::kInvalidArgument, "generation: a stop string is empty");
  }
  const auto room = static_cast<size_t>(decoder.config().max_position_embeddings);
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].empty()) fail(ErrorKind::kInvalidArgument, "generation: prompt {} is empty, expected at least one token", i);
    if (prompts[i].size() >= room) {
      fail(ErrorKind::kInvalidArgument, "generation: prompt {} has {} tokens and leaves no room in max_position_embeddings {}", i,
           prompts[i].size(), room);
    }
  }
}

// [0, 1) with 53 bits, the same on every standard library (std::uniform_real_distribution is not).
double uniform(std::mt19937_64& random) { return static_cast<double>(random() >> 11) * 0x1.0p-53; }

// logits: float [vocab_size]
TokenId sample(std::span<const float> logits, const GenerationOptions& options, std::mt19937_64& random) {
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto likelier = [&](TokenId a, TokenId b) {
    const float x = logits[static_cast<size_t>(a)];
    const float y = logits[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  };
  const size_t kept = options.top_k > 0 ? std::min(order.size(), static_cast<size_t>(options.top_k)) : order.size();
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(kept), order.end(), likelier);
  order.resize(kept);

  const double highest = logits[static_cast<size_t>(order.front())];
  std::vector<double> cumulative(kept);
  double total = 0.0;
  for (size_t i = 0; i < kept; ++i) {
    total += std::exp((static_cast<double>(logits[static_cast<size_t>(order[i])]) - highest) / options.temperature);
    cumulative[i] = total;
  }
  size_t nucleus = kept;
  if (options.top_p < 1.0) {
    const auto reached = std::lower_bound(cumulative.begin(), cumulative.end(), options.top_p * total);
    nucleus = std::min(kept, static_cast<size_t>(reached - cumulative.begin()) + 1);
  }
  const double point = uniform(random) * cumulative[nucleus - 1];
  const auto drawn = std::upper_bound(cumulative.begin(), cumulative.begin() + static_cast<std::ptrdiff_t>(nucleus) - 1, point);
  return order[static_cast<size_t>(drawn - cumulative.begin())];
}

// Every id gives at least one byte of text, so a stop string that the newest id completes lies in the last of them.
bool contains_stop_string(const std::vector<TokenId>& ids, const GenerationOptions& options) {
  size_t longest = 0;
  for (const std::string& text : options.stop_strings) longest = std::max(longest, text.size());
  if (longest == 0) return false;
  const size_t count = std::min(ids.size(), longest + kTailMargin);
  const std::string tail = options.tokenizer->decode(std::span(ids).last(count), /*skip_special_tokens=*/false);
  return std::any_of(options.stop_strings.begin(), options.stop_strings.end(),
                     [&](const std::string& text) { return tail.find(text) != std::string::npos; });
}

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
  check(decoder, prompts, options);
  std::vector<GenerationResult> results(prompts.size());
  if (prompts.empty()) return results;
  const int64_t vocab_size = decoder.config().vocab_size;
  const auto room = static_cast<size_t>(decoder.config().max_position_embeddings);
  std::vector<std::mt19937_64> random;
  for (size_t i = 0; i < prompts.size(); ++i)
    random.emplace_back(derive_seed(options.seed, fmt::format("row/{}", options.first_row + i)));

  Batch batch;
  batch.rows.resize(prompts.size());
  std::iota(batch.rows.begin(), batch.rows.end(), size_t{0});
  at::Tensor last = read_rows(decoder, batch, prompts, options.max_new_tokens, [&](const at::Tensor&) {
    return Observation{options.observer, {}};
  });

  while (true) {
    const at::Tensor logits = decoder.logits(last).cpu().contiguous();
    const at::Tensor greedy = options.temperature == 0.0 ? logits.argmax(-1) : at::Tensor();  // argmax: the first of equals
    std::vector<int64_t> kept;
    std::vector<int64_t> next_ids;
    bool stale = false;  // whether the cache is
    for (size_t i = 0; i < batch.rows.size(); ++i) {
      const size_t row = batch.rows[i];
      const std::span values(logits.const_data_ptr<float>() + static_cast<int64_t>(i) * vocab_size,
                             static_cast<size_t>(vocab_size));
      const TokenId id =
          greedy.defined() ? static_cast<TokenId>(greedy.const_data_ptr<int64_t>()[i]) : sample(values, options, random[row]);
      GenerationResult& result = results[row];
      if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
        result.stopped = true;
        result.ran = result.ids.size();
        continue;
      }
      result.ran = result.ids.size();
      result.ids.push_back(id);
      if (options.on_token) options.on_token(row, id);
      result.stopped = contains_stop_string(result.ids, options);
      const bool full =
          result.ids.size() >= static_cast<size_t>(options.max_new_tokens) || prompts[row].size() + result.ids.size() >= room;
      if (result.stopped || full) continue;
      kept.push_back(static_cast<int64_t>(i));
      next_ids.push_back(id);
      stale = stale || passes_change_of_angles(decoder.config(), prompts[row].size() + result.ids.size());
    }
    if (kept.empty()) return results;
    if (kept.size() < batch.rows.size()) compact(batch, kept);
    if (stale) {
      std::vector<std::vector<TokenId>> rows;
      for (const size_t row : batch.rows) {
        rows.push_back(prompts[row]);
        rows.back().insert(rows.back().end(), results[row].ids.begin(), results[row].ids.end());
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
