#include "eval/generate_until.h"

#include <ATen/ops/isfinite.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>

#include "common/error.h"
#include "eval/token_scores.h"
#include "models/decoder/generation.h"

namespace salient::eval {
namespace {

using models::TokenId;

// Greedy decoding turns NaN logits into some token, so a broken model would only look stupid.
void require_finite(const LanguageModel& model, const std::vector<TokenId>& prompt, const std::string& document) {
  const at::Tensor hidden = model.decoder.hidden_states(pad_right({prompt}, 0, model.decoder.options().device));
  if (!model.decoder.logits(hidden.narrow(1, hidden.size(1) - 1, 1)).isfinite().all().item<bool>()) {
    fail(ErrorKind::kCheckFailed, "{}: NaN or infinite logits at document {}: the model is broken, its scores mean nothing", model.name, document);
  }
}

// A stop string that is one special token is no text, so it ends a row as an id.
void add_stop(const LanguageModel& model, const std::string& stop, models::GenerationOptions& options) {
  if (stop.empty()) return;
  const auto id = model.tokenizer.token_to_id(stop);
  if (id && model.tokenizer.decode(std::vector<TokenId>{*id}, true).empty()) {
    options.stop_ids.push_back(*id);
  } else {
    options.stop_strings.push_back(stop);
  }
}

bool is_special(const models::Tokenizer& tokenizer, TokenId id) {
  const std::vector<TokenId> one = {id};
  return tokenizer.decode(one, true).empty() && !tokenizer.decode(one, false).empty();
}

}  // namespace

std::string cut_at_stops(std::string text, const std::vector<std::string>& stops) {
  for (const std::string& stop : stops) {
    if (stop.empty()) continue;
    if (const size_t at = text.find(stop); at != std::string::npos) text.resize(at);
  }
  return text;
}

std::vector<Generated> generate_until(const LanguageModel& model, const std::vector<GenerationRequest>& requests,
                                      const GenerateUntilOptions& options) {
  const c10::InferenceMode inference;
  const int64_t room = model.max_length - options.max_new_tokens;
  if (room < 1) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: {} new tokens leave no room for a prompt in inputs of at most {} tokens", model.name,
                                                         options.max_new_tokens, model.max_length))
        .with_hint("ask for fewer new tokens");
  }
  std::vector<std::string> stops = options.stop;
  stops.push_back(model.eos_text);
  models::GenerationOptions generation;
  generation.max_new_tokens = options.max_new_tokens;
  generation.stop_ids = model.stop_ids;
  generation.tokenizer = &model.tokenizer;
  generation.observer = options.watch.inputs();
  for (const std::string& stop : stops) add_stop(model, stop, generation);

  std::vector<Generated> out(requests.size());
  std::vector<std::vector<TokenId>> prompts(requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    prompts[i] = encode_text(model, requests[i].prompt);
    if (prompts[i].empty()) fail(ErrorKind::kInvalidArgument, "{}: an empty prompt", requests[i].document);
    if (const auto limit = static_cast<size_t>(room); prompts[i].size() > limit) {
      prompts[i].erase(prompts[i].begin(), prompts[i].end() - static_cast<std::ptrdiff_t>(limit));
      out[i].truncated = true;
    }
  }
  std::vector<size_t> order(requests.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return prompts[a].size() > prompts[b].size(); });

  for (size_t begin = 0; begin < order.size();) {
    const int64_t row_bytes = (static_cast<int64_t>(prompts[order[begin]].size()) + options.max_new_tokens) * static_cast<int64_t>(model.decoder.cache_bytes_per_token());
    const auto rows = static_cast<size_t>(std::clamp<int64_t>(options.cache_bytes / row_bytes, 1, options.max_rows));
    size_t end = std::min(order.size(), begin + rows);
    if (options.watch.wants_equal_lengths(model.decoder.config())) {
      while (prompts[order[end - 1]].size() != prompts[order[begin]].size()) --end;
    }
    require_finite(model, prompts[order[begin]], requests[order[begin]].document);
    std::vector<std::vector<TokenId>> batch;
    for (size_t i = begin; i < end; ++i) batch.push_back(std::move(prompts[order[i]]));
    const auto results = models::generate(model.decoder, batch, generation);
    for (size_t i = begin; i < end; ++i) {
      const models::GenerationResult& result = results[i - begin];
      std::vector<TokenId>& row = batch[i - begin];
      const auto response_begin = static_cast<int64_t>(row.size());
      row.insert(row.end(), result.ids.begin(), result.ids.begin() + static_cast<std::ptrdiff_t>(result.ran));
      options.watch.tell(row, result.ran > 0 ? response_begin : -1);
      Generated& generated = out[order[i]];
      generated.tokens = static_cast<int64_t>(result.ids.size());
      generated.hit_limit = !result.stopped;
      generated.text = cut_at_stops(model.tokenizer.decode(result.ids, true), stops);
      const auto special = std::find_if(result.ids.begin(), result.ids.end(), [&](TokenId id) { return is_special(model.tokenizer, id); });
      generated.turn = special == result.ids.end()
                           ? generated.text
                           : cut_at_stops(model.tokenizer.decode(std::vector<TokenId>(result.ids.begin(), special), true), stops);
    }
    begin = end;
    if (options.progress) options.progress(static_cast<int64_t>(end), static_cast<int64_t>(order.size()));
  }
  return out;
}

}  // namespace salient::eval
