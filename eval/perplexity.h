// Perplexity of a text under two protocols that give different figures and so never share a name.
//
//   paper      as the GPTQ and AWQ papers measure it: the text is tokenised once without special tokens and cut into windows that do not
//              overlap; in each every token after the first is scored; the tail is dropped; exp of the mean over windows of the mean loss
//   llama.cpp  as llama-perplexity measures it: the text is tokenised with BOS where the model wants one, which also replaces the first
//              token of each window; only the second half of each window is scored; exp of the mean over tokens
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "eval/language_model.h"
#include "eval/progress.h"
#include "eval/request_journal.h"
#include "eval/run_observer.h"
#include "eval/statistics.h"

namespace salient::eval {

struct WindowOptions {
  int64_t window = 0;         // tokens; 0 = min(2048, max_length)
  int64_t limit_windows = 0;  // 0 = all
  int64_t batch_tokens = 2048;
  ProgressCallback progress = {};  // in windows
  RunWatch watch;                  // sees each window
  // Batches of windows that these have are not run again: of the model, and of its base where both are compared.
  const RequestJournal* journal = nullptr;
  const RequestJournal* base_journal = nullptr;
};

// Equal windows, one after the other.
struct TokenWindows {
  int64_t window = 0;
  std::vector<models::TokenId> ids;  // [count() * window]
  int64_t count() const { return static_cast<int64_t>(ids.size()) / window; }
};

// Errors: invalid argument for a window below 2 tokens or above max_length, or a text shorter than one window (says how many tokens
// it has).
TokenWindows paper_windows(const LanguageModel& model, std::string_view text, const WindowOptions& options);
TokenWindows llama_cpp_windows(const LanguageModel& model, std::string_view text, const WindowOptions& options);

// The ids of `count` windows from `begin` on.
std::span<const models::TokenId> ids_of(const TokenWindows& windows, int64_t begin, int64_t count);
// Tells of `count` windows from `begin` on, after they have run.
void tell_windows(const RunWatch& watch, const TokenWindows& windows, int64_t begin, int64_t count);

// Negative log-likelihood, natural logarithm, of every token after the first of each window.
struct WindowLosses {
  int64_t window = 0;
  std::vector<float> losses;  // [windows, window - 1]
  int64_t count() const { return window > 1 ? static_cast<int64_t>(losses.size()) / (window - 1) : 0; }
};
// Errors: check failed for NaN logits, naming model and window.
WindowLosses window_losses(const LanguageModel& model, const TokenWindows& windows, const WindowOptions& options = {});

struct Perplexity {
  Estimate value;
  int64_t windows = 0;
  int64_t tokens = 0;  // scored ones
};
// Standard error: of the mean over windows, since tokens of one window correlate; none for a single window.
Perplexity paper_perplexity(const WindowLosses& losses);
// Standard error as llama-perplexity prints it: over tokens.
Perplexity llama_cpp_perplexity(const WindowLosses& losses);

// Mean loss of each window.
std::vector<double> window_means(const WindowLosses& losses);

}  // namespace salient::eval
