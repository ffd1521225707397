#include <chrono>
#include <filesystem>
#include <optional>

#include "common/error.h"
#include "common/memory.h"
#include "common/text.h"
#include "eval/throughput.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/runtime_options.h"
#include "pipeline/commands/session.h"
#include "pipeline/evaluation_records.h"
#include "pipeline/hashed_model.h"
#include "pipeline/store.h"

namespace salient::pipeline {
namespace {

using Clock = std::chrono::steady_clock;

const std::vector<OptionRow> kBenchOptions = with_model_rows({
    {"prompt-tokens", "N", "of the prompt; default 512"},
    {"generation-tokens", "N", "generated one after the other; default 128"},
    {"repeats", "N", "measurements of each, after one that is not counted; the median counts; default 3"},
    {"store", "FILE", "also put the figures into this database"},
    adapter_base_option(),
    {"json", "", "print the figures as JSON"},
});

std::string milliseconds(double seconds) { return fmt::format("{:.3g}", 1000 * seconds); }

}  // namespace

void bench_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"bench", "MODEL",
       "Speed and memory of a model on this machine, as llama-bench measures them: a prompt at once (pp), then tokens one by one "
       "(tg), "
       "batch size 1;\n"
       "how long the first token takes, and each token after it: median, 95 % and 99 %.\n"
       "Bytes that a token reads, over its time, as a share of the bandwidth with which the same threads read memory, say how much "
       "there is left to gain.",
       "  salient bench demo_awq\n"
       "  salient bench demo_awq --activation-bits 8 --threads 2 --json\n"},
      kBenchOptions, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("salient bench: {} models are named, expected one", arguments.positional().size()))
        .with_hint("salient bench MODEL");
  }
  const eval::LanguageModelOptions options = language_model_options(arguments);
  eval::ThroughputOptions measured;
  measured.prompt_tokens = arguments.integer_or("prompt-tokens", 512, 1, 1 << 20);
  measured.generated_tokens = arguments.integer_or("generation-tokens", 128, 1, 1 << 20);
  measured.repeats = static_cast<int>(arguments.integer_or("repeats", 3, 1, 1000));

  const std::filesystem::path path = models::resolve_model(arguments.positional().front());
  std::optional<Store> store;
  if (arguments.has("store")) store.emplace(arguments.text("store"));
  double load_seconds = 0;
  const auto load = [&](const std::filesystem::path& from, const eval::LanguageModelOptions& with) {
    const auto start = Clock::now();
    eval::LanguageModel loaded = eval::load_language_model(from, with);
    load_seconds = std::chrono::duration<double>(Clock::now() - start).count();
    return loaded;
  };
  // Without a store nobody asks for the hash.
  const auto [files, model] =
      store ? load_hashed_model(*store, path, options, "", load) : HashedModel{{path, ""}, load(path, options)};
  const uint64_t loaded_rss = peak_memory_bytes();
  const eval::Throughput found = eval::measure_throughput(model, measured);
  const Json description = eval::describe(model);
  if (store) {
    check_unchanged(*store, files, "while it was measured");
    Transaction transaction(*store);
    record_throughput(*store, std::nullopt, model.name, description, files, found);
    transaction.commit();
  }

  Json result = {{"model", description},
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
  result["first_token_seconds"] = found.first_token_seconds;
  result["token_latency_median_seconds"] = found.latency_median_seconds;
  result["token_latency_p95_seconds"] = found.latency_p95_seconds;
  result["token_latency_p99_seconds"] = found.latency_p99_seconds;
  result["token_latencies"] = found.latency_tokens;
  result["token_step"] = found.no_token_step.empty();
  if (!found.no_token_step.empty()) result["no_token_step"] = found.no_token_step;
  if (found.bytes_per_token > 0) {
    result["bytes_per_token"] = found.bytes_per_token;
    result["bandwidth_share"] = found.bandwidth_share;
  }
  if (arguments.flag("json")) return print_json(result);
  const std::string runtime = eval::runtime_text(description);
  std::string text = fmt::format("{}{}, {} threads: loaded in {:.1f} s, {} of weights, peak memory {}\n", model.name,
                                 runtime.empty() ? "" : " " + runtime, found.threads, load_seconds, human_bytes(found.memory_bytes),
                                 human_bytes(found.peak_rss_bytes));
  text += fmt::format("pp{:<5} {:>9.1f} tokens/s, {} ms to the first token\n", found.prompt_tokens, found.prompt_tokens_per_second,
                      milliseconds(found.first_token_seconds));
  text += fmt::format("tg{:<5} {:>9.1f} tokens/s", found.generated_tokens, found.generation_tokens_per_second);
  if (found.bytes_per_token > 0) {
    text += fmt::format(", {} a token: {:.0f} % of the {:.1f} GB/s with which memory is read", human_bytes(found.bytes_per_token),
                        100 * found.bandwidth_share, found.read_bandwidth / 1e9);
    if (found.bandwidth_share > 1) text += " (they stay in the caches)";
  }
  text += fmt::format("\nms a token: median {}, 95 % {}, 99 % {}, over {} tokens\n", milliseconds(found.latency_median_seconds),
                      milliseconds(found.latency_p95_seconds), milliseconds(found.latency_p99_seconds), found.latency_tokens);
  text += found.no_token_step.empty()
              ? "single tokens: one team of threads through all blocks\n"
              : fmt::format("single tokens: block by block, operator by operator ({})\n", found.no_token_step);
  print_text(text);
}

}  // namespace salient::pipeline
