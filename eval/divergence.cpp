#include "eval/divergence.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

#include "common/error.h"
#include "eval/memory_pieces.h"
#include "eval/token_scores.h"

namespace salient::eval {
namespace {

void require_same_vocabulary(const LanguageModel& model, const LanguageModel& base) {
  if (model.decoder.config().vocab_size != base.decoder.config().vocab_size) {
    fail(ErrorKind::kInvalidArgument, "{} has {} tokens, its base {} has {}: a divergence needs one vocabulary", model.name,
         model.decoder.config().vocab_size, base.name, base.decoder.config().vocab_size);
  }
}

void require_finite(const LanguageModel& model, const std::vector<float>& log_probs, int64_t window, int64_t first_window) {
  const auto broken = std::find_if(log_probs.begin(), log_probs.end(), [](float x) { return !std::isfinite(x); });
  if (broken == log_probs.end()) return;
  fail_not_finite(model.name, fmt::format("in window {}", first_window + (broken - log_probs.begin()) / window));
}

// Appends the first window - 1 of every window's values.
void append_losses(const std::vector<float>& log_probs, int64_t window, std::vector<float>& losses) {
  for (size_t i = 0; i < log_probs.size(); ++i) {
    if (static_cast<int64_t>(i) % window != window - 1) losses.push_back(-log_probs[i]);
  }
}

void append_floats(const at::Tensor& values, std::vector<float>& out) {
  const at::Tensor host = values.to(at::kCPU).contiguous();
  out.insert(out.end(), host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel());
}

template <typename Values>
Estimate mean_of_windows(const Values& values, int64_t window) {
  const auto length = static_cast<size_t>(window);
  if (values.size() == length) return mean(std::vector<double>(values.begin(), values.end()));
  std::vector<double> means;
  for (size_t begin = 0; begin < values.size(); begin += length) {
    double sum = 0;
    for (size_t i = 0; i < length; ++i) sum += values[begin + i];
    means.push_back(sum / static_cast<double>(length));
  }
  return mean(means);
}

// What both models say at every position of some windows.
struct Positions {
  std::vector<float> model_log_probs;  // of the next token; of a window's last position of token 0, which nobody asks for
  std::vector<float> base_log_probs;
  std::vector<float> kl;
  std::vector<float> same_top;  // 1 or 0

  auto parts() { return std::array{&model_log_probs, &base_log_probs, &kl, &same_top}; }
};

// [tokens, hidden_size] of the base, which runs only where its states were not kept when another model was compared with it.
at::Tensor base_states(const LanguageModel& base, const TokenWindows& windows, int64_t begin, int64_t count, const at::Tensor& ids,
                       const RequestJournal* journal) {
  const auto run = [&] { return base.decoder.hidden_states(ids.to(base.decoder.options().device)).flatten(0, 1); };
  // What an external decoder gives are logits.
  if (journal == nullptr || !journal->find_states || base.decoder.is_external()) return run();
  const at::ScalarType dtype = base.decoder.options().dtype;
  const int64_t hidden_size = base.decoder.config().hidden_size;
  const std::string key = JournalKey(*journal, "hidden states").add(windows.window).add(ids_of(windows, begin, count)).hex();
  if (std::optional<std::string> kept = journal->find_states(key)) {
    const int64_t tokens = count * windows.window;
    if (kept->size() == static_cast<size_t>(tokens * hidden_size) * c10::elementSize(dtype))
      return at::from_blob(kept->data(), {tokens, hidden_size}, dtype).clone().to(base.decoder.options().device);
  }
  at::Tensor states = run();
  if (states.scalar_type() == dtype && states.size(1) == hidden_size) {
    const at::Tensor host = states.to(at::kCPU).contiguous();
    journal->keep_states(key, {static_cast<const char*>(host.const_data_ptr()), host.nbytes()});
  }
  return states;
}

Positions run_windows(const LanguageModel& model, const LanguageModel& base, const TokenWindows& windows, int64_t begin,
                      int64_t count, const WindowOptions& options) {
  const int64_t window = windows.window;
  // Both models' log-probabilities and their product exist at a time.
  const int64_t slice = std::max<int64_t>(1, positions_per_slice(model.decoder.config().vocab_size) / 2);
  const at::Tensor ids =
      at::from_blob(const_cast<models::TokenId*>(ids_of(windows, begin, count).data()), {count, window}, at::kInt)
          .to(model.decoder.options().device, at::kLong);
  at::Tensor targets = at::zeros_like(ids);
  targets.narrow(1, 0, window - 1).copy_(ids.narrow(1, 1, window - 1));
  targets = targets.reshape({-1, 1});
  const at::Tensor model_hidden = model.decoder.hidden_states(ids, {}, nullptr, {options.watch.inputs(), {}}).flatten(0, 1);
  tell_windows(options.watch, windows, begin, count);
  const at::Tensor base_hidden = base_states(base, windows, begin, count, ids, options.base_journal);
  Positions out;
  for (int64_t at = 0; at < count * window; at += slice) {
    const int64_t n = std::min(slice, count * window - at);
    const at::Tensor wanted = targets.narrow(0, at, n);
    const at::Tensor q = at::log_softmax(model.decoder.logits(model_hidden.narrow(0, at, n)), 1);
    const at::Tensor p = at::log_softmax(base.decoder.logits(base_hidden.narrow(0, at, n)), 1).to(q.device());
    append_floats(q.gather(1, wanted), out.model_log_probs);
    append_floats(p.gather(1, wanted), out.base_log_probs);
    append_divergence(p, q, out.kl, out.same_top);
  }
  return out;
}

// Nothing where the journals have not got it.
std::optional<Positions> parse_positions(const std::string& bytes, size_t count) {
  const auto values = parse_floats(bytes, 4 * count);
  if (!values) return std::nullopt;
  Positions out;
  auto from = values->begin();
  for (std::vector<float>* part : out.parts()) {
    part->assign(from, from + static_cast<std::ptrdiff_t>(count));
    from += static_cast<std::ptrdiff_t>(count);
  }
  return out;
}

std::string journal_bytes(Positions positions) {
  std::string bytes;
  for (const std::vector<float>* part : positions.parts()) bytes += float_bytes(*part);
  return bytes;
}

}  // namespace

void append_divergence(const at::Tensor& base, const at::Tensor& model, std::vector<float>& kl, std::vector<float>& same_top) {
  append_floats(base.argmax(1).eq(model.argmax(1)).to(at::kFloat), same_top);
  // sum p (ln p - ln q) = sum p (e^d - 1 - d) with d = ln q - ln p, as both sum to 1. No term is negative, and rounding of the
  // log-probabilities counts with its square: in float32 the first form is only good to 1e-7 nats, less than a projection of a good
  // model costs. A large d may overflow where p vanishes.
  const at::Tensor p = base.exp();
  const at::Tensor d = model.sub(base);
  append_floats(at::where(d.lt(1), p.mul(d.expm1().sub_(d)), model.exp().sub_(p).sub_(p.mul(d))).sum(1), kl);
}

Estimate mean_by_window(std::span<const float> values, int64_t window) { return mean_of_windows(values, window); }

PositionComparison compare_positions(const LanguageModel& model, const LanguageModel& base, const TokenWindows& windows,
                                     const WindowOptions& options) {
  require_same_vocabulary(model, base);
  const c10::InferenceMode inference;
  const int64_t window = windows.window;
  const int64_t count = windows.count();
  const int64_t rows = std::max<int64_t>(1, options.batch_tokens / window);
  const bool journaled = options.journal != nullptr && options.base_journal != nullptr;
  PositionComparison out{{window, {}}, {window, {}}, {}, {}};
  MemoryPieces pieces(options.watch.observer == nullptr);
  for (int64_t begin = 0; begin < count; begin += rows) {
    const int64_t batch = std::min(rows, count - begin);
    std::optional<Positions> positions;
    std::string key;
    if (journaled) {
      key = JournalKey(*options.journal, "divergence")
                .add(options.base_journal->model)
                .add(window)
                .add(ids_of(windows, begin, batch))
                .hex();
      if (const auto known = options.journal->find(key)) positions = parse_positions(*known, static_cast<size_t>(batch * window));
    }
    if (!positions) {
      positions.emplace();
      pieces.run(begin, batch, [&](int64_t first, int64_t some) {
        Positions found = run_windows(model, base, windows, first, some, options);
        const auto parts = found.parts();
        for (size_t i = 0; i < parts.size(); ++i) {
          std::vector<float>& to = *positions->parts()[i];
          to.insert(to.end(), parts[i]->begin(), parts[i]->end());
        }
      });
      require_finite(model, positions->model_log_probs, window, begin);
      require_finite(base, positions->base_log_probs, window, begin);
      if (journaled) options.journal->add(std::vector<JournalEntry>{{key, journal_bytes(*positions)}});
    }
    append_losses(positions->model_log_probs, window, out.model.losses);
    append_losses(positions->base_log_probs, window, out.base.losses);
    out.kl.insert(out.kl.end(), positions->kl.begin(), positions->kl.end());
    out.same_top.insert(out.same_top.end(), positions->same_top.begin(), positions->same_top.end());
    if (options.progress) options.progress(begin + batch, count);
  }
  return out;
}

namespace {

void add_delta_p(const PositionComparison& comparison, Divergence& out) {
  std::vector<double> deltas;
  std::vector<double> squares;
  for (size_t i = 0; i < comparison.model.losses.size(); ++i) {
    deltas.push_back(std::exp(-double{comparison.model.losses[i]}) - std::exp(-double{comparison.base.losses[i]}));
    squares.push_back(deltas.back() * deltas.back());
  }
  out.scored = static_cast<int64_t>(deltas.size());
  out.delta_p = mean_of_windows(deltas, comparison.model.window - 1);
  const Estimate square = mean_of_windows(squares, comparison.model.window - 1);
  const double rms = std::sqrt(square.value);
  out.delta_p_rms.value = rms;
  if (square.stderr_of_mean) out.delta_p_rms.stderr_of_mean = rms > 0 ? *square.stderr_of_mean / (2 * rms) : 0;
  for (size_t i = 0; i < kDeltaPercentiles.size(); ++i) out.delta_p_percentiles[i] = quantile(deltas, kDeltaPercentiles[i] / 100.0);
}

}  // namespace

Divergence summarize(const PositionComparison& comparison) {
  Divergence out;
  const int64_t window = comparison.model.window;
  out.kl = mean_of_windows(comparison.kl, window);
  out.same_top = mean_of_windows(comparison.same_top, window);
  if (comparison.model.count() > 1) {
    out.ln_ppl_ratio = paired_difference(window_means(comparison.model), window_means(comparison.base));
  } else {
    out.ln_ppl_ratio = paired_difference(std::vector<double>(comparison.model.losses.begin(), comparison.model.losses.end()),
                                         std::vector<double>(comparison.base.losses.begin(), comparison.base.losses.end()));
  }
  std::vector<float> sorted = comparison.kl;
  out.kl_median = quantile(sorted, 0.5);
  out.kl_p90 = quantile(sorted, 0.9);
  out.kl_p95 = quantile(sorted, 0.95);
  out.kl_p99 = quantile(sorted, 0.99);
  out.kl_p999 = quantile(sorted, 0.999);
  out.kl_max = quantile(sorted, 1.0);
  out.positions = static_cast<int64_t>(comparison.kl.size());
  add_delta_p(comparison, out);
  return out;
}

}  // namespace salient::eval
