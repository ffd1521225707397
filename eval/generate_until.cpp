#include "eval/generate_until.h"

#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <numeric>
#include <optional>
#include <span>

#include "common/error.h"
#include "eval/token_scores.h"
#include "models/decoder/continuous_generation.h"

namespace salient::eval {
namespace {

using models::TokenId;

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

// Nothing where it is not that of `count` generations.
std::optional<std::vector<models::GenerationResult>> parse_generations(const std::string& text, size_t count) {
  const Json list = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array() || list.size() != count) return std::nullopt;
  std::vector<models::GenerationResult> results;
  for (const Json& one : list) {
    if (!one.is_object() || !one.contains("ids") || !one["ids"].is_array() || !one.contains("stopped") ||
        !one["stopped"].is_boolean())
      return std::nullopt;
    models::GenerationResult& result = results.emplace_back();
    for (const Json& id : one["ids"]) {
      if (!id.is_number_integer()) return std::nullopt;
      result.ids.push_back(id.get<TokenId>());
    }
    result.stopped = one["stopped"].get<bool>();
  }
  return results;
}

// All requests of one call, in tokens.
class GenerationRun {
 public:
  GenerationRun(const LanguageModel& model, const std::vector<GenerationRequest>& requests, const GenerateUntilOptions& options)
      : model_(model),
        requests_(requests),
        options_(options),
        stops_(options.stop),
        prompts_(requests.size()),
        out_(requests.size()) {
    const int64_t room = model.max_length - options.max_new_tokens;
    if (room < 1) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}: {} new tokens leave no room for a prompt in inputs of at most {} tokens", model.name,
                              options.max_new_tokens, model.max_length))
          .with_hint("ask for fewer new tokens");
    }
    stops_.push_back(model.eos_text);
    generation_.max_new_tokens = options.max_new_tokens;
    generation_.temperature = options.temperature;
    generation_.top_p = options.top_p;
    generation_.top_k = options.top_k;
    generation_.seed = options.seed;
    generation_.stop_ids = model.stop_ids;
    generation_.tokenizer = &model.tokenizer;
    generation_.observer = options.watch.inputs();
    for (const std::string& stop : stops_) add_stop(model, stop, generation_);
    for (size_t i = 0; i < requests.size(); ++i) {
      prompts_[i] = encode_text(model, requests[i].prompt);
      if (prompts_[i].empty()) fail(ErrorKind::kInvalidArgument, "{}: an empty prompt", requests[i].document);
      if (const auto limit = static_cast<size_t>(room); prompts_[i].size() > limit) {
        prompts_[i].erase(prompts_[i].begin(), prompts_[i].end() - static_cast<std::ptrdiff_t>(limit));
        out_[i].truncated = true;
      }
    }
  }

  std::vector<Generated> run() {
    size_t longest = 0;
    for (const auto& prompt : prompts_) longest = std::max(longest, prompt.size());
    const bool ragged =
        options_.watch.observer == nullptr && model_.decoder.runs_ragged(static_cast<int64_t>(longest) + options_.max_new_tokens);
    if (ragged) {
      run_continuously();
    } else {
      run_in_batches();
    }
    return std::move(out_);
  }

 private:
  // What the answers of requests that run together follow from: one of them, or a padded batch.
  std::string key_of(std::string_view method, std::span<const size_t> requests) const {
    JournalKey key(*options_.journal, method);
    for (const size_t request : requests) key.add(prompts_[request]);
    key.add(options_.max_new_tokens).add(static_cast<int64_t>(stops_.size()));
    for (const std::string& stop : stops_) key.add(stop);
    key.add(model_.stop_ids).add(options_.temperature);
    if (options_.temperature > 0) {
      key.add(options_.top_p).add(options_.top_k).add(static_cast<int64_t>(options_.seed));
      for (const size_t request : requests) key.add(static_cast<int64_t>(request));
    }
    return key.hex();
  }

  bool read_journal(std::string_view method, std::span<const size_t> requests) {
    if (options_.journal == nullptr) return false;
    const auto text = options_.journal->find(key_of(method, requests));
    const auto known = text ? parse_generations(*text, requests.size()) : std::nullopt;
    if (!known) return false;
    for (size_t i = 0; i < requests.size(); ++i) finish(requests[i], (*known)[i]);
    return true;
  }

  JournalEntry entry_of(std::string_view method, std::span<const size_t> requests,
                        std::span<const models::GenerationResult> results) const {
    Json list = Json::array();
    for (const models::GenerationResult& result : results) list.push_back({{"ids", result.ids}, {"stopped", result.stopped}});
    return {key_of(method, requests), dump_json(list)};
  }

  void finish(size_t request, const models::GenerationResult& result) {
    const models::Tokenizer& tokenizer = model_.tokenizer;
    Generated& generated = out_[request];
    generated.tokens = static_cast<int64_t>(result.ids.size());
    generated.hit_limit = !result.stopped;
    generated.text = cut_at_stops(tokenizer.decode(result.ids, true), stops_);
    const auto special = std::find_if(result.ids.begin(), result.ids.end(), [&](TokenId id) { return is_special(tokenizer, id); });
    generated.turn = special == result.ids.end()
                         ? generated.text
                         : cut_at_stops(tokenizer.decode(std::vector<TokenId>(result.ids.begin(), special), true), stops_);
    ++done_;
  }

  void tell_progress() const {
    if (options_.progress) options_.progress(done_, static_cast<int64_t>(requests_.size()));
  }

  [[noreturn]] void fail_at(size_t request) const { fail_not_finite(model_.name, "at document " + requests_[request].document); }

  // Prompts of `requests`, in that order, with the numbers by which they draw.
  std::vector<std::vector<TokenId>> take_prompts(const std::vector<size_t>& requests) {
    std::vector<std::vector<TokenId>> prompts;
    generation_.rows.assign(requests.begin(), requests.end());
    for (const size_t request : requests) prompts.push_back(prompts_[request]);
    return prompts;
  }

  void run_continuously() {
    constexpr std::string_view kMethod = "generate_until";
    std::vector<size_t> requests;
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (!read_journal(kMethod, std::span(&i, 1))) requests.push_back(i);
    }
    tell_progress();
    models::ContinuousOptions continuous{.cache_bytes = options_.cache_bytes, .max_rows = options_.max_rows};
    continuous.on_results = [&](std::span<const size_t> which, std::span<const models::GenerationResult> results) {
      std::vector<size_t> ended;
      for (size_t i = 0; i < which.size(); ++i) {
        ended.push_back(requests[which[i]]);
        if (results[i].broken) fail_at(ended.back());
        finish(ended.back(), results[i]);
      }
      if (options_.journal != nullptr) {
        std::vector<JournalEntry> entries;
        for (size_t i = 0; i < ended.size(); ++i)
          entries.push_back(entry_of(kMethod, std::span(ended).subspan(i, 1), results.subspan(i, 1)));
        options_.journal->add(entries);
      }
      tell_progress();
    };
    const auto prompts = take_prompts(requests);
    models::generate_continuously(model_.decoder, prompts, generation_, continuous);
  }

  // For decoders that cannot run rows of different lengths without padding, and for observers: longest prompts first, each batch to
  // its end.
  void run_in_batches() {
    constexpr std::string_view kMethod = "padded generate_until";
    std::vector<size_t> order(requests_.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return prompts_[a].size() > prompts_[b].size(); });
    for (size_t begin = 0; begin < order.size();) {
      const auto longest = static_cast<int64_t>(prompts_[order[begin]].size());
      const int64_t row_bytes = (longest + options_.max_new_tokens) * static_cast<int64_t>(model_.decoder.cache_bytes_per_token());
      const auto rows = static_cast<size_t>(std::clamp<int64_t>(options_.cache_bytes / row_bytes, 1, options_.max_rows));
      size_t end = std::min(order.size(), begin + rows);
      if (options_.watch.wants_equal_lengths(model_.decoder.config())) {
        while (prompts_[order[end - 1]].size() != prompts_[order[begin]].size()) --end;
      }
      const std::vector<size_t> requests(order.begin() + static_cast<std::ptrdiff_t>(begin),
                                         order.begin() + static_cast<std::ptrdiff_t>(end));
      begin = end;
      if (read_journal(kMethod, requests)) {
        tell_progress();
        continue;
      }
      const auto prompts = take_prompts(requests);
      const auto results = models::generate(model_.decoder, prompts, generation_);
      for (size_t i = 0; i < requests.size(); ++i) {
        if (results[i].broken) fail_at(requests[i]);
        std::vector<TokenId> row = prompts[i];
        row.insert(row.end(), results[i].ids.begin(), results[i].ids.begin() + static_cast<std::ptrdiff_t>(results[i].ran));
        options_.watch.tell(row, results[i].ran > 0 ? static_cast<int64_t>(prompts[i].size()) : -1);
        finish(requests[i], results[i]);
      }
      if (options_.journal != nullptr) options_.journal->add(std::vector<JournalEntry>{entry_of(kMethod, requests, results)});
      tell_progress();
    }
  }

  const LanguageModel& model_;
  const std::vector<GenerationRequest>& requests_;
  const GenerateUntilOptions& options_;
  std::vector<std::string> stops_;
  models::GenerationOptions generation_;
  std::vector<std::vector<TokenId>> prompts_;
  std::vector<Generated> out_;
  int64_t done_ = 0;
};

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
  return GenerationRun(model, requests, options).run();
}

}  // namespace salient::eval
