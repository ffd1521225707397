// What is measured: eval/sensitivity.h.
#include <algorithm>
#include <filesystem>
#include <optional>

#include "common/error.h"
#include "eval/sensitivity.h"
#include "eval/sensitivity_report.h"
#include "eval/window_text.h"
#include "models/io/model_folder.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/runtime_options.h"
#include "pipeline/commands/session.h"
#include "pipeline/hashed_model.h"
#include "pipeline/search_file.h"
#include "pipeline/sensitivity_records.h"
#include "pipeline/store.h"

namespace salient::pipeline {
namespace {

const std::vector<OptionRow> kSensitivityOptions = with_model_rows({
    {"compare-with", "BASE", "the original that QUANTIZED was made from"},
    {"text", "FILE", "text, or rows with a field \"text\""},
    {"by", "WHAT", "block (default), projection (each of each block) or kind (each projection in all blocks at once)"},
    {"limit", "N", "the first N windows of the text; default 16, 0 = all"},
    {"window", "N", "tokens of a window; default: the smaller of 512 and the model's context"},
    {"search", "FILE", "for projections: the scales as quantize --save-search wrote them, where the weights tell them only nearly"},
    {"batch-tokens", "N", "tokens of a forward pass; default 2048"},
    {"max-memory", "SIZE", "of the original's log-probabilities, which are kept; those beyond are computed again; default 1GiB"},
    {"top", "N", "rows of the table; default 0 = all"},
    {"store", "FILE", "database for the results; default runs/salient.db. What is there already is not measured again"},
    {"no-store", "", "neither read nor store results"},
    adapter_base_option(),
    {"json", "", "print the results as JSON"},
});

}  // namespace

void sensitivity_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"sensitivity", "QUANTIZED",
       "Says which block or projection of a quantized model costs most: each is put alone into the original, and the original's "
       "alone\n"
       "into the quantized model; measured is the KL divergence of the next token's distribution from the original's. A killed run "
       "goes\n"
       "on where it was.",
       "  salient sensitivity demo_awq --compare-with models/demo --text models/demo/data/heldout.txt\n"
       "  salient sensitivity demo_awq --compare-with models/demo --text heldout.txt --by projection --limit 8 --json\n"},
      kSensitivityOptions, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("salient sensitivity: {} models are named, expected one", arguments.positional().size()))
        .with_hint("salient sensitivity QUANTIZED --compare-with BASE --text FILE");
  }
  eval::SensitivityOptions options;
  options.by = eval::parse_sensitivity_by(arguments.text_or("by", "block"));
  options.batch_tokens = arguments.integer_or("batch-tokens", options.batch_tokens, 1, 1 << 24);
  options.kept_bytes = parse_size_option(arguments, "max-memory", options.kept_bytes);
  const std::filesystem::path file = arguments.text("text");
  const std::filesystem::path model_path = models::resolve_model(arguments.positional().front());
  const std::filesystem::path base_path = models::resolve_model(arguments.text("compare-with"));
  const eval::WindowText text = eval::read_window_text(file);
  std::optional<SearchResult> search;
  if (arguments.has("search")) {
    search = read_search(arguments.text("search"));
    options.known_scales = [&](const models::ScalingGroup& group) {
      const FoundScales* found = find_scales(*search, group.smooth_name);
      return found != nullptr ? found->scales : at::Tensor();
    };
  }

  const eval::LanguageModelOptions model_options = language_model_options(arguments);
  std::optional<Store> store;
  if (!arguments.flag("no-store")) store.emplace(arguments.text_or("store", "runs/salient.db"));
  // Without a store nobody asks for the hash.
  const auto load = [&](const std::filesystem::path& path, const eval::LanguageModelOptions& with) {
    return store ? load_hashed_model(*store, path, with) : HashedModel{{path, ""}, eval::load_language_model(path, with)};
  };
  const auto [model_files, model] = load(model_path, model_options);
  eval::LanguageModelOptions as_stored = model_options;  // the bits that are asked for are the model's, not the original's
  as_stored.decoder.activation_bits = std::nullopt;
  as_stored.decoder.kv_bits = std::nullopt;
  const auto [base_files, base] = load(base_path, as_stored);
  eval::WindowOptions window_options;
  window_options.window =
      arguments.integer_or("window", std::min(eval::kSensitivityWindow, std::min(model.max_length, base.max_length)), 2, 1 << 20);
  window_options.limit_windows = arguments.integer_or("limit", eval::kSensitivityWindows, 0, 1 << 30);
  const eval::TokenWindows windows = eval::common_windows(model, base, text, file, window_options);

  ProgressLine progress;
  options.progress = [&](int64_t done, int64_t total) { progress.show("sensitivity", "blocks", done, total); };
  eval::Sensitivity found;
  if (store) {
    const SensitivityInputs inputs{model, base, model_files, base_files.hash, windows, text.sha256, search ? search->sha256 : ""};
    found = measure_sensitivity(*store, inputs, options);
  } else {
    found = eval::measure_sensitivity(model, base, windows, options);
  }
  progress.finish();
  if (!arguments.flag("json")) return print_text(eval::to_table(found, arguments.integer_or("top", 0, 0, 1 << 30)));
  Json result = eval::to_json(found);
  result["model"] = eval::describe(model);
  result["base"] = eval::describe(base);
  result["text"] = {{"file", file.string()}, {"sha256", text.sha256}};
  print_json(result);
}

}  // namespace salient::pipeline
