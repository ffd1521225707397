#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "common/memory.h"
#include "common/text.h"
#include "eval/throughput.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/runtime_options.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {
namespace {

using Clock = std::chrono::steady_clock;

const std::vector<OptionRow> kRows = with_runtime_rows({
    {"prompt-tokens", "N", "of the prompt; default 512"},
    {"generation-tokens", "N", "generated one after the other; default 128"},
    {"repeats", "N", "measurements of each, after one that is not counted; the median counts; default 3"},
    {"json", "", "print the figures as JSON"},
});

// Weights that one generated token reads, and the KV cache in the middle of the measurement. 0 where that is not known: of a mixture of experts, which
// reads what its router chooses, and of a module of others.
uint64_t bytes_per_token(const eval::LanguageModel& model, int64_t generated) {
  const models::DecoderConfig& config = model.decoder.config();
  if (config.layers.empty() || std::any_of(config.layers.begin(), config.layers.end(), [](const auto& layer) { return layer.moe; })) return 0;
  return model.decoder.weight_bytes() - model.decoder.lookup_bytes() + model.decoder.cache_bytes_per_token() * static_cast<uint64_t>(generated / 2);
}

}  // namespace

void bench_command(const std::vector<std::string>& words) {
  const Arguments arguments({"bench", "MODEL",
                             "Speed and memory of a model on this machine, as llama-bench measures them: a prompt at once (pp), then tokens one by one (tg), "
                             "batch size 1.\n"
                             "Bytes that a token reads, over its time, as a share of the bandwidth with which the same threads read memory, say how much "
                             "there is left to gain.",
                             "  salient bench demo_awq\n"
                             "  salient bench demo_awq --activation-bits 8 --threads 2 --json\n"},
                            kRows, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("salient bench: {} models are named, expected one", arguments.positional().size()))
        .with_hint("salient bench MODEL");
  }
  eval::LanguageModelOptions options;
  options.decoder = decoder_options(arguments);
  eval::ThroughputOptions measured;
  measured.prompt_tokens = arguments.integer_or("prompt-tokens", 512, 1, 1 << 20);
  measured.generated_tokens = arguments.integer_or("generation-tokens", 128, 1, 1 << 20);
  measured.read_bandwidth = true;
  measured.repeats = static_cast<int>(arguments.integer_or("repeats", 3, 1, 1000));

  const auto start = Clock::now();
  const eval::LanguageModel model = eval::load_language_model(models::resolve_model(arguments.positional().front()), options);
  const double load_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const uint64_t loaded_rss = peak_memory_bytes();
  const eval::Throughput found = eval::measure_throughput(model, measured);
  const uint64_t bytes = options.decoder.device == at::kCPU ? bytes_per_token(model, found.generated_tokens) : 0;
  const double share = static_cast<double>(bytes) * found.tokens_per_byte_read;

  Json result = {{"model", eval::describe(model)},
                 {"threads", found.threads},
                 {"load_seconds", load_seconds},
                 {"prompt_tokens", found.prompt_tokens},
                 {"prompt_tokens_per_second", found.prompt_tokens_per_second},
                 {"generated_tokens", found.generated_tokens},
                 {"generation_tokens_per_second", found.generation_tokens_per_second},
                 {"disk_bytes", found.disk_bytes},
                 {"weight_bytes", found.memory_bytes},
                 {"kv_bytes_per_token", model.decoder.cache_bytes_per_token()},
                 {"peak_rss_after_load_bytes", loaded_rss},
                 {"peak_rss_bytes", found.peak_rss_bytes},
                 {"read_bandwidth_bytes_per_second", found.read_bandwidth}};
  if (bytes > 0) {
    result["bytes_per_token"] = bytes;
    result["bandwidth_share"] = share;
  }
  if (arguments.flag("json")) return print_json(result);
  const std::string runtime = eval::runtime_text(result["model"]);
  std::string text = fmt::format("{}{}, {} threads: loaded in {:.1f} s, {} of weights, peak memory {}\n", model.name, runtime.empty() ? "" : " " + runtime,
                                 found.threads, load_seconds, human_bytes(found.memory_bytes), human_bytes(found.peak_rss_bytes));
  text += fmt::format("pp{:<5} {:>9.1f} tokens/s\n", found.prompt_tokens, found.prompt_tokens_per_second);
  text += fmt::format("tg{:<5} {:>9.1f} tokens/s", found.generated_tokens, found.generation_tokens_per_second);
  if (bytes > 0) {
    text += fmt::format(", {} a token: {:.0f} % of the {:.1f} GB/s with which memory is read", human_bytes(bytes), 100 * share, found.read_bandwidth / 1e9);
    if (share > 1) text += " (they stay in the caches)";
  }
  print_text(text);
}

}  // namespace salient::pipeline
