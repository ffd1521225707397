#include "eval/divergence.h"

#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "eval/token_scores.h"

namespace salient::eval {
namespace {

void require_same_vocabulary(const LanguageModel& model, const LanguageModel& base) {
  if (model.decoder.config().vocab_size != base.decoder.config().vocab_size) {
    fail(ErrorKind::kInvalidArgument, "{} has {} tokens, its base {} has {}: a divergence needs one vocabulary", model.name,
         model.decoder.config().vocab_size, base.name, base.decoder.config().vocab_size);
  }
}

// Appends the first window - 1 of every window's values.
void append_losses(const std::vector<float>& log_probs, int64_t window, const LanguageModel& model, int64_t first_window,
                   std::vector<float>& losses) {
  for (size_t i = 0; i < log_probs.size(); ++i) {
    if (!std::isfinite(log_probs[i])) {
      fail(ErrorKind::kCheckFailed, "{}: NaN or infinite logits in window {}: the model is broken, its scores mean nothing", model.name,
           first_window + static_cast<int64_t>(i) / window);
    }
    if (static_cast<int64_t>(i) % window != window - 1) losses.push_back(-log_probs[i]);
  }
}

void append_floats(const at::Tensor& values, std::vector<float>& out) {
  const at::Tensor host = values.to(at::kCPU).contiguous();
  out.insert(out.end(), host.const_data_ptr<float>(), host.const_data_ptr<float>() + host.numel());
}

template <typename Value>
Estimate mean_by_window(const std::vector<Value>& values, int64_t window) {
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

}  // namespace

PositionComparison compare_positions(const LanguageModel& model, const LanguageModel& base, const TokenWindows& windows,
                                     const WindowOptions& options) {
  require_same_vocabulary(model, base);
  const c10::InferenceMode inference;
  const int64_t window = windows.window;
  const int64_t count = windows.count();
  const int64_t rows = std::max<int64_t>(1, options.batch_tokens / window);
  // Both models' log-probabilities and their product exist at a time.
  const int64_t slice = std::max<int64_t>(1, positions_per_slice(model.decoder.config().vocab_size) / 2);
  PositionComparison out{{window, {}}, {window, {}}, {}, {}};
  for (int64_t begin = 0; begin < count; begin += rows) {
    const int64_t batch = std::min(rows, count - begin);
    const at::Tensor ids = at::from_blob(const_cast<models::TokenId*>(windows.ids.data() + begin * window), {batch, window}, at::kInt)
                               .to(model.decoder.options().device, at::kLong);
    at::Tensor targets = at::zeros_like(ids);  // the last position of a window predicts nothing that is known
    targets.narrow(1, 0, window - 1).copy_(ids.narrow(1, 1, window - 1));
    targets = targets.reshape({-1, 1});
    const at::Tensor model_hidden = model.decoder.hidden_states(ids, {}, nullptr, {options.watch.inputs(), {}}).flatten(0, 1);
    tell_windows(options.watch, windows, begin, batch);
    const at::Tensor base_hidden = base.decoder.hidden_states(ids.to(base.decoder.options().device)).flatten(0, 1);
    std::vector<float> model_log_probs;
    std::vector<float> base_log_probs;
    for (int64_t at = 0; at < batch * window; at += slice) {
      const int64_t n = std::min(slice, batch * window - at);
      const at::Tensor wanted = targets.narrow(0, at, n);
      const at::Tensor q = at::log_softmax(model.decoder.logits(model_hidden.narrow(0, at, n)), 1);
      const at::Tensor p = at::log_softmax(base.decoder.logits(base_hidden.narrow(0, at, n)), 1).to(q.device());
      append_floats(q.gather(1, wanted), model_log_probs);
      append_floats(p.gather(1, wanted), base_log_probs);
      const at::Tensor same = p.argmax(1).eq(q.argmax(1)).to(at::kCPU).contiguous();
      out.same_top.insert(out.same_top.end(), same.const_data_ptr<bool>(), same.const_data_ptr<bool>() + n);
      append_floats(p.sub(q).mul_(p.exp()).sum(1), out.kl);
    }
    append_losses(model_log_probs, window, model, begin, out.model.losses);
    append_losses(base_log_probs, window, base, begin, out.base.losses);
    if (options.progress) options.progress(begin + batch, count);
  }
  return out;
}

Divergence summarize(const PositionComparison& comparison) {
  Divergence out;
  const int64_t window = comparison.model.window;
  out.kl = mean_by_window(comparison.kl, window);
  out.same_top = mean_by_window(comparison.same_top, window);
  if (comparison.model.count() > 1) {
    out.ln_ppl_ratio = paired_difference(window_means(comparison.model), window_means(comparison.base));
  } else {
    out.ln_ppl_ratio = paired_difference(std::vector<double>(comparison.model.losses.begin(), comparison.model.losses.end()),
                                         std::vector<double>(comparison.base.losses.begin(), comparison.base.losses.end()));
  }
  std::vector<float> sorted = comparison.kl;
  out.kl_median = quantile(sorted, 0.5);
  out.kl_p99 = quantile(sorted, 0.99);
  out.kl_max = quantile(sorted, 1.0);
  out.positions = static_cast<int64_t>(comparison.kl.size());
  return out;
}

}  // namespace salient::eval
