#include "eval/throughput.h"

#include <ATen/Parallel.h>
#include <ATen/ops/argmax.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "common/memory.h"
#include "eval/statistics.h"
#include "quant/kernels/read_memory.h"

namespace salient::eval {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int64_t kShortPrompt = 8;
constexpr int64_t kReadWords = int64_t{1} << 25;  // of 8 bytes: far beyond every cache
constexpr int kReadPasses = 5;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// The id of the largest logit at the last position. Reading it back also waits for the device.
int64_t next_token(const models::Decoder& decoder, const at::Tensor& hidden) {
  return decoder.logits(hidden.narrow(1, hidden.size(1) - 1, 1)).argmax(-1).item<int64_t>();
}

at::Tensor constant_prompt(const LanguageModel& model, int64_t tokens) {
  const int64_t id = std::min<int64_t>(100, model.decoder.config().vocab_size - 1);
  return at::full({1, tokens}, id, at::TensorOptions().dtype(at::kLong).device(model.decoder.options().device));
}

double prompt_seconds(const LanguageModel& model, int64_t tokens) {
  const at::Tensor ids = constant_prompt(model, tokens);
  const auto start = Clock::now();
  next_token(model.decoder, model.decoder.hidden_states(ids));
  return seconds_since(start);
}

// Appends the seconds of each token to `latencies`.
double generation_seconds(const LanguageModel& model, int64_t prompt, int64_t tokens, std::vector<float>& latencies) {
  models::KvCache cache = model.decoder.make_cache(1, prompt + tokens);
  at::Tensor ids = constant_prompt(model, prompt);
  int64_t token = next_token(model.decoder, model.decoder.hidden_states(ids, {}, &cache));
  const auto start = Clock::now();
  for (int64_t i = 0; i < tokens; ++i) {
    const auto begin = Clock::now();
    ids = at::full({1, 1}, token, ids.options());
    token = next_token(model.decoder, model.decoder.hidden_states(ids, {}, &cache));
    latencies.push_back(static_cast<float>(seconds_since(begin)));
  }
  return seconds_since(start);
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

template <typename Run>
double median_seconds(int repeats, Run run) {
  run();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) seconds.push_back(run());
  return median(std::move(seconds));
}

// Bytes a second over several passes: a mean, as a generation's speed is one.
double read_bandwidth(const at::Tensor& memory) {
  const auto start = Clock::now();
  for (int i = 0; i < kReadPasses; ++i) quant::read_memory(memory);
  return static_cast<double>(memory.nbytes()) * kReadPasses / seconds_since(start);
}

uint64_t bytes_per_token(const LanguageModel& model, int64_t generated) {
  const models::DecoderConfig& config = model.decoder.config();
  const bool mixture = std::any_of(config.layers.begin(), config.layers.end(), [](const auto& layer) { return layer.moe; });
  if (config.layers.empty() || mixture || !model.decoder.options().device.is_cpu()) return 0;
  return model.decoder.weight_bytes() - model.decoder.lookup_bytes() +
         model.decoder.cache_bytes_per_token() * static_cast<uint64_t>(generated / 2);
}

void measure_generation(const LanguageModel& model, int64_t prompt, bool with_bandwidth, Throughput& out) {
  std::vector<float> latencies;
  const auto generate = [&] { return generation_seconds(model, prompt, out.generated_tokens, latencies); };
  const auto tokens = static_cast<double>(out.generated_tokens);
  generate();  // warms up
  latencies.clear();
  out.peak_rss_bytes = peak_memory_bytes();  // before the memory that is only there to be read
  at::Tensor memory;
  if (with_bandwidth) memory = at::ones({kReadWords}, at::kLong);
  std::vector<double> speeds;
  std::vector<double> bandwidths;
  std::vector<double> ratios;
  double before = with_bandwidth ? read_bandwidth(memory) : 0.0;
  for (int i = 0; i < out.repeats; ++i) {
    speeds.push_back(tokens / generate());
    if (!with_bandwidth) continue;
    const double after = read_bandwidth(memory);
    bandwidths.push_back((before + after) / 2);
    ratios.push_back(speeds.back() / bandwidths.back());
    before = after;
  }
  out.generation_tokens_per_second = median(std::move(speeds));
  out.latency_tokens = static_cast<int64_t>(latencies.size());
  out.latency_median_seconds = quantile(latencies, 0.5);
  out.latency_p95_seconds = quantile(latencies, 0.95);
  out.latency_p99_seconds = quantile(latencies, 0.99);
  out.bytes_per_token = bytes_per_token(model, out.generated_tokens);
  if (!with_bandwidth) return;
  out.read_bandwidth = median(std::move(bandwidths));
  out.tokens_per_byte_read = median(std::move(ratios));
  out.bandwidth_share = static_cast<double>(out.bytes_per_token) * out.tokens_per_byte_read;
}

}  // namespace

Throughput measure_throughput(const LanguageModel& model, const ThroughputOptions& options) {
  const c10::InferenceMode inference;
  Throughput out;
  out.prompt_tokens = std::clamp<int64_t>(options.prompt_tokens, 1, model.max_length);
  const int64_t prompt = std::clamp<int64_t>(model.max_length / 2, 1, kShortPrompt);
  out.generated_tokens = std::clamp<int64_t>(options.generated_tokens, 1, std::max<int64_t>(1, model.max_length - prompt));
  out.repeats = std::max(1, options.repeats);
  out.threads = at::get_num_threads();
  out.first_token_seconds = median_seconds(out.repeats, [&] { return prompt_seconds(model, out.prompt_tokens); });
  out.prompt_tokens_per_second = static_cast<double>(out.prompt_tokens) / out.first_token_seconds;
  measure_generation(model, prompt, options.read_bandwidth && model.decoder.options().device.is_cpu(), out);
  out.disk_bytes = model.disk_bytes;
  out.memory_bytes = model.decoder.weight_bytes();
  out.no_token_step = model.decoder.why_no_token_step();
  return out;
}

}  // namespace salient::eval
