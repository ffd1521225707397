#include "eval/perplexity.h"

#include <ATen/ops/from_blob.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "eval/memory_pieces.h"
#include "eval/token_scores.h"

namespace salient::eval {
namespace {

TokenWindows cut(const LanguageModel& model, std::vector<models::TokenId> ids, const WindowOptions& options) {
  const int64_t window = options.window > 0 ? options.window : std::min<int64_t>(2048, model.max_length);
  if (window < 2 || window > model.max_length) {
    fail(ErrorKind::kInvalidArgument, "window {}: {} takes from 2 to {} tokens", window, model.name, model.max_length);
  }
  int64_t count = static_cast<int64_t>(ids.size()) / window;
  if (count == 0) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("the text has {} tokens, one window needs {}", ids.size(), window))
        .with_hint("take a longer text or a smaller window");
  }
  if (options.limit_windows > 0) count = std::min(count, options.limit_windows);
  ids.resize(static_cast<size_t>(count * window));
  return {window, std::move(ids)};
}

}  // namespace

TokenWindows paper_windows(const LanguageModel& model, std::string_view text, const WindowOptions& options) {
  return cut(model, model.tokenizer.encode(text, false), options);
}

TokenWindows llama_cpp_windows(const LanguageModel& model, std::string_view text, const WindowOptions& options) {
  const bool bos = adds_bos(model);
  TokenWindows windows = cut(model, encode_text(model, text), options);
  if (bos) {
    for (int64_t w = 0; w < windows.count(); ++w) windows.ids[static_cast<size_t>(w * windows.window)] = *model.bos_id;
  }
  return windows;
}

void tell_windows(const RunWatch& watch, const TokenWindows& windows, int64_t begin, int64_t count) {
  const auto length = static_cast<size_t>(windows.window);
  for (auto w = static_cast<size_t>(begin); w < static_cast<size_t>(begin + count); ++w)
    watch.tell(std::span(windows.ids).subspan(w * length, length));
}

std::span<const models::TokenId> ids_of(const TokenWindows& windows, int64_t begin, int64_t count) {
  return std::span(windows.ids).subspan(static_cast<size_t>(begin * windows.window), static_cast<size_t>(count * windows.window));
}

namespace {

// Losses of `count` windows from `begin` on.
std::vector<float> batch_losses(const LanguageModel& model, const TokenWindows& windows, int64_t begin, int64_t count,
                                const WindowOptions& options) {
  const int64_t window = windows.window;
  const at::Tensor ids =
      at::from_blob(const_cast<models::TokenId*>(ids_of(windows, begin, count).data()), {count, window}, at::kInt)
          .to(model.decoder.options().device, at::kLong);
  const at::Tensor hidden =
      model.decoder.hidden_states(ids, {}, nullptr, {options.watch.inputs(), {}}).narrow(1, 0, window - 1).flatten(0, 1);
  tell_windows(options.watch, windows, begin, count);
  std::vector<float> losses = score_tokens(model.decoder, hidden, ids.narrow(1, 1, window - 1).reshape({-1}), false).log_probs;
  for (size_t i = 0; i < losses.size(); ++i) {
    if (!std::isfinite(losses[i]))
      fail_not_finite(model.name, fmt::format("in window {}", begin + static_cast<int64_t>(i) / (window - 1)));
    losses[i] = -losses[i];
  }
  return losses;
}

}  // namespace

WindowLosses window_losses(const LanguageModel& model, const TokenWindows& windows, const WindowOptions& options) {
  const c10::InferenceMode inference;
  const int64_t window = windows.window;
  const int64_t count = windows.count();
  const int64_t rows = std::max<int64_t>(1, options.batch_tokens / window);
  WindowLosses out{window, {}};
  out.losses.reserve(static_cast<size_t>(count * (window - 1)));
  MemoryPieces pieces(options.watch.observer == nullptr);
  for (int64_t begin = 0; begin < count; begin += rows) {
    const int64_t batch = std::min(rows, count - begin);
    std::optional<std::vector<float>> losses;
    std::string key;
    if (options.journal != nullptr) {
      key = JournalKey(*options.journal, "window losses").add(window).add(ids_of(windows, begin, batch)).hex();
      if (const auto known = options.journal->find(key)) losses = parse_floats(*known, static_cast<size_t>(batch * (window - 1)));
    }
    if (!losses) {
      losses.emplace();
      pieces.run(begin, batch, [&](int64_t first, int64_t some) {
        const std::vector<float> part = batch_losses(model, windows, first, some, options);
        losses->insert(losses->end(), part.begin(), part.end());
      });
      if (options.journal != nullptr) options.journal->add(std::vector<JournalEntry>{{key, float_bytes(*losses)}});
    }
    out.losses.insert(out.losses.end(), losses->begin(), losses->end());
    if (options.progress) options.progress(begin + batch, count);
  }
  return out;
}

std::vector<double> window_means(const WindowLosses& losses) {
  const auto scored = static_cast<size_t>(losses.window - 1);
  std::vector<double> means;
  for (size_t begin = 0; begin < losses.losses.size(); begin += scored) {
    double sum = 0;
    for (size_t i = 0; i < scored; ++i) sum += losses.losses[begin + i];
    means.push_back(sum / static_cast<double>(scored));
  }
  return means;
}

Perplexity paper_perplexity(const WindowLosses& losses) {
  const Estimate loss = mean(window_means(losses));
  Perplexity out{{std::exp(loss.value), std::nullopt}, losses.count(), static_cast<int64_t>(losses.losses.size())};
  if (loss.stderr_of_mean) out.value.stderr_of_mean = out.value.value * *loss.stderr_of_mean;
  return out;
}

Perplexity llama_cpp_perplexity(const WindowLosses& losses) {
  // Loss i of a window belongs to token i + 1; scored are the tokens after position window / 2.
  const int64_t first = losses.window / 2;
  double sum = 0;
  double squares = 0;
  int64_t tokens = 0;
  for (int64_t w = 0; w < losses.count(); ++w) {
    for (int64_t i = first; i < losses.window - 1; ++i, ++tokens) {
      const double loss = losses.losses[static_cast<size_t>(w * (losses.window - 1) + i)];
      sum += loss;
      squares += loss * loss;
    }
  }
  if (tokens == 0)
    fail(ErrorKind::kInvalidArgument, "window {}: too short for the llama.cpp protocol, which scores its second half",
         losses.window);
  const auto n = static_cast<double>(tokens);
  const double average = sum / n;
  Perplexity out{{std::exp(average), std::nullopt}, losses.count(), tokens};
  if (tokens > 1) out.value.stderr_of_mean = out.value.value * std::sqrt(std::max(0.0, squares / n - average * average) / (n - 1));
  return out;
}

}  // namespace salient::eval
