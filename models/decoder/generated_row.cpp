#include "models/decoder/generated_row.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"
#include "common/hash.h"

namespace salient::models {
namespace {

constexpr size_t kTailMargin = 8;  // ids decoded beyond what the longest stop string can need

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

}  // namespace

void check_generation(const GenerationOptions& options, const std::vector<std::vector<TokenId>>& prompts, size_t room) {
  if (options.max_new_tokens < 1)
    fail(ErrorKind::kInvalidArgument, "generation: max_new_tokens is {}, expected at least 1", options.max_new_tokens);
  if (!(options.temperature >= 0.0) || !std::isfinite(options.temperature)) {
    fail(ErrorKind::kInvalidArgument, "generation: temperature is {}, expected 0 or more", options.temperature);
  }
  if (!(options.top_p > 0.0 && options.top_p <= 1.0))
    fail(ErrorKind::kInvalidArgument, "generation: top_p is {}, expected above 0, at most 1", options.top_p);
  if (!options.rows.empty() && options.rows.size() != prompts.size())
    fail(ErrorKind::kInvalidArgument, "generation: {} row numbers for {} prompts", options.rows.size(), prompts.size());
  if (options.top_k < 0) fail(ErrorKind::kInvalidArgument, "generation: top_k is {}, expected 0 or more", options.top_k);
  if (!options.stop_strings.empty() && options.tokenizer == nullptr)
    fail(ErrorKind::kInvalidArgument, "generation: stop strings need a tokenizer");
  for (const std::string& text : options.stop_strings) {
    if (text.empty()) fail(ErrorKind::kInvalidArgument, "generation: a stop string is empty");
  }
  for (size_t i = 0; i < prompts.size(); ++i) {
    if (prompts[i].empty()) fail(ErrorKind::kInvalidArgument, "generation: prompt {} is empty, expected at least one token", i);
    if (prompts[i].size() >= room) {
      fail(ErrorKind::kInvalidArgument, "generation: prompt {} has {} tokens and leaves no room in max_position_embeddings {}", i,
           prompts[i].size(), room);
    }
  }
}

GeneratedRow::GeneratedRow(const GenerationOptions& options, size_t row, size_t prompt_tokens, size_t room)
    : options_(&options),
      row_(row),
      prompt_tokens_(prompt_tokens),
      room_(room),
      random_(derive_seed(options.seed, fmt::format("row/{}", options.rows.empty() ? row : options.rows[row]))) {}

bool GeneratedRow::advance(std::span<const float> logits, TokenId likeliest) {
  // A broken model would look stupid, since some token is always the first. All logits are looked at behind the prompt alone, which
  // costs as much as finding the likeliest; a NaN later on is the likeliest of its row.
  const bool finite = std::isfinite(logits[static_cast<size_t>(likeliest)]) &&
                      (!result_.ids.empty() || std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }));
  if (!finite) {
    result_.broken = true;
    return false;
  }
  const TokenId id = options_->temperature == 0.0 ? likeliest : sample(logits, *options_, random_);
  result_.ran = result_.ids.size();
  if (std::find(options_->stop_ids.begin(), options_->stop_ids.end(), id) != options_->stop_ids.end()) {
    result_.stopped = true;
    return false;
  }
  result_.ids.push_back(id);
  if (options_->on_token) options_->on_token(row_, id);
  result_.stopped = contains_stop_string(result_.ids, *options_);
  const bool full =
      result_.ids.size() >= static_cast<size_t>(options_->max_new_tokens) || prompt_tokens_ + result_.ids.size() >= room_;
  return !result_.stopped && !full;
}

}  // namespace salient::models
