#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"
#include "eval/generate_until.h"
#include "models/decoder/generation.h"
#include "models/io/model_folder.h"
#include "models/text/dataset.h"
#include "models/text/text_stream.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/runtime_options.h"
#include "pipeline/commands/session.h"
#include "pipeline/online_calibration.h"

namespace salient::pipeline {
namespace {

constexpr int64_t kCacheBytes = int64_t{1} << 30;  // of keys and values of prompts that run together
constexpr int64_t kMaxRows = 16;
constexpr size_t kShownPrompt = 60;  // bytes in the line above an answer

const std::vector<OptionRow> kGenerateOptions = with_model_rows({
    {"prompt", "TEXT", "a prompt; may be given several times", true},
    {"prompts", "FILE", "prompts from a file: the lines of a .txt, or rows with prompt, question, problem, text, or messages"},
    {"apply-chat-template", "", "put prompts into the model's chat template as the user's message"},
    {"system-prompt", "TEXT", "the system message, with the chat template"},
    {"max-new-tokens", "N", "of an answer; default 256"},
    {"temperature", "T", "0 (default): the likeliest token every time; 1: as the model says; above: more even"},
    {"top-k", "N", "draw among the N likeliest tokens; 0 (default): among all"},
    {"top-p", "P", "draw among the likeliest tokens that together reach P; 1 (default): among all"},
    {"seed", "N", "of the draws; default 0. Prompt i draws the same whatever the others are"},
    {"stop", "TEXT", "end an answer before this text; may be given several times", true},
    {"bos", "POLICY", "auto (default: as the tokenizer does), always or never"},
    adapter_base_option(),
    {"record", "FILE.jsonl", "online calibration: add prompts and answers to this calibration record, for the next quantization"},
    {"record-rows", "N", "rows that a record keeps, a sample of all; 0: every row; default 128"},
    {"json", "", "print a list of {prompt, text, prompt_tokens, new_tokens, finish}"},
});

struct Prompt {
  std::string shown;  // as it was given
  std::string input;  // what is tokenized
};

double number_or(const Arguments& arguments, const std::string& name, double fallback, double least, double most) {
  if (!arguments.has(name)) return fallback;
  const std::string found = arguments.text(name);
  double value = 0;
  size_t used = 0;
  try {
    value = std::stod(found, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (found.empty() || used != found.size() || !std::isfinite(value) || value < least || value > most) {
    fail(ErrorKind::kInvalidArgument, "salient generate: --{}: found '{}', expected a number from {} to {}", name, found, least,
         most);
  }
  return value;
}

class PromptReader {
 public:
  PromptReader(const Arguments& arguments, const eval::LanguageModel& model) : arguments_(arguments), model_(model) {
    if (arguments.has("system-prompt") && !arguments.flag("apply-chat-template") && !arguments.has("prompts")) {
      fail(ErrorKind::kInvalidArgument, "salient generate: --system-prompt needs --apply-chat-template");
    }
  }

  std::vector<Prompt> read() const {
    std::vector<Prompt> prompts;
    for (const std::string& text : arguments_.values("prompt")) prompts.push_back(from_text(text));
    if (arguments_.has("prompts")) {
      const models::Dataset data = models::read_dataset(arguments_.text("prompts"));
      for (size_t i = 0; i < data.rows.size(); ++i) {
        const std::string where = fmt::format("{}:{}", data.path.string(), data.line_numbers[i]);
        prompts.push_back(with_context(where, [&] { return from_row(data.rows[i]); }));
      }
    }
    if (prompts.empty()) {
      throw Error(ErrorKind::kInvalidArgument, "salient generate: no prompt is given").with_hint("--prompt TEXT or --prompts FILE");
    }
    return prompts;
  }

 private:
  Prompt from_text(const std::string& text) const {
    if (!arguments_.flag("apply-chat-template")) return {text, text};
    OrderedJson messages = OrderedJson::array();
    if (arguments_.has("system-prompt")) messages.push_back({{"role", "system"}, {"content", arguments_.text("system-prompt")}});
    messages.push_back({{"role", "user"}, {"content", text}});
    return {text, render(messages)};
  }

  Prompt from_row(const Json& row) const {
    if (const auto messages = row.find("messages"); messages != row.end() && messages->is_array() && !messages->empty()) {
      OrderedJson list = OrderedJson::parse(messages->dump());
      const bool has_system = list.front().is_object() && list.front().value("role", "") == "system";
      if (arguments_.has("system-prompt") && !has_system) {
        list.insert(list.begin(), OrderedJson({{"role", "system"}, {"content", arguments_.text("system-prompt")}}));
      }
      const OrderedJson& last = list.back();
      const bool is_text = last.is_object() && last.contains("content") && last["content"].is_string();
      return {is_text ? last["content"].get<std::string>() : last.dump(), render(list)};
    }
    for (const char* key : {"prompt", "question", "problem", "text"}) {
      if (const auto found = row.find(key); found != row.end() && found->is_string()) return from_text(found->get<std::string>());
    }
    std::vector<std::string> keys;
    for (const auto& [key, value] : row.items()) keys.push_back(key);
    fail(ErrorKind::kCorruption,
         "found the keys {}, expected a text \"prompt\", \"question\", \"problem\" or \"text\", or a list \"messages\"",
         fmt::join(keys, ", "));
  }

  std::string render(const OrderedJson& messages) const {
    if (!model_.chat_template) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}: a chat template is wanted, but {} has none", model_.name, model_.folder.string()))
          .with_hint("generate without the chat template");
    }
    models::ChatRenderOptions options;
    options.add_generation_prompt = true;
    options.variables["strftime_now"] = models::kFixedTemplateDate;
    return model_.chat_template->render(messages, options);
  }

  const Arguments& arguments_;
  const eval::LanguageModel& model_;
};

// Writes an answer while it is generated. What may turn out to be the beginning of a stop text waits.
class TerminalAnswer {
 public:
  TerminalAnswer(const models::Tokenizer& tokenizer, const std::vector<std::string>& stops) : stream_(tokenizer), stops_(stops) {
    for (const std::string& stop : stops) held_ = std::max(held_, stop.size() - 1);
  }
  void push(models::TokenId id) {
    waiting_ += stream_.push(id);
    if (waiting_.size() > held_ && eval::cut_at_stops(waiting_, stops_).size() == waiting_.size()) write(waiting_.size() - held_);
  }
  void finish() {
    waiting_ = eval::cut_at_stops(waiting_ + stream_.finish(), stops_);
    write(waiting_.size());
    print_part("\n");
  }

 private:
  void write(size_t bytes) {
    print_part(std::string_view(waiting_).substr(0, bytes));
    waiting_.erase(0, bytes);
  }

  models::TextStream stream_;
  const std::vector<std::string>& stops_;
  size_t held_ = 0;  // bytes
  std::string waiting_;
};

std::vector<std::vector<models::TokenId>> encode(const eval::LanguageModel& model, const std::vector<Prompt>& prompts) {
  std::vector<std::vector<models::TokenId>> rows;
  for (const Prompt& prompt : prompts) {
    rows.push_back(eval::encode_text(model, prompt.input));
    if (!rows.back().empty()) continue;
    const auto first = eval::prefix_token(model);
    if (!first) fail(ErrorKind::kInvalidArgument, "salient generate: an empty prompt, and {} has no first token", model.name);
    rows.back() = {*first};
  }
  return rows;
}

std::string first_line(const std::string& text) {
  std::string line = text.substr(0, std::min(text.find('\n'), kShownPrompt));
  while (!line.empty() && line.size() < text.size() && (static_cast<unsigned char>(text[line.size()]) & 0xC0) == 0x80)
    line.pop_back();
  return line.size() < text.size() ? line + "..." : line;
}

}  // namespace

void generate_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"generate", "MODEL",
       "Lets a model, float or quantized, go on from prompts. On a terminal the answer to a single prompt appears word by word. "
       "The same options give\n"
       "the same text. MODEL is a folder, a GGUF or TorchScript file, or org/name in the Hugging Face cache.",
       "  salient generate models/demo --prompt \"There are three\" --max-new-tokens 40\n"
       "  salient generate demo_awq --prompts questions.jsonl --apply-chat-template --temperature 0.7 --top-p 0.9 --seed 1 --json\n"
       "  salient generate models/demo --prompts questions.txt --record answers.jsonl    # calibration data for the next "
       "quantization\n"},
      kGenerateOptions, words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  if (arguments.positional().size() != 1) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("salient generate: {} models are named, expected one", arguments.positional().size()))
        .with_hint("salient generate MODEL --prompt TEXT");
  }
  models::GenerationOptions options;
  options.max_new_tokens = arguments.integer_or("max-new-tokens", 256, 1, 1 << 20);
  options.temperature = number_or(arguments, "temperature", 0.0, 0.0, 100.0);
  options.top_k = arguments.integer_or("top-k", 0, 0, 1 << 30);
  options.top_p = number_or(arguments, "top-p", 1.0, 1e-9, 1.0);
  options.seed = static_cast<uint64_t>(arguments.integer_or("seed", 0, 0, INT64_MAX));
  options.stop_strings = arguments.values("stop");
  const eval::LanguageModelOptions model_options = language_model_options(arguments);

  const eval::LanguageModel model = eval::load_language_model(models::resolve_model(arguments.positional().front()), model_options);
  const std::vector<Prompt> prompts = PromptReader(arguments, model).read();
  const std::vector<std::vector<models::TokenId>> rows = encode(model, prompts);
  options.stop_ids = model.stop_ids;
  options.tokenizer = &model.tokenizer;
  std::optional<OnlineCalibration> recorder;
  eval::RunWatch watch;
  if (arguments.has("record")) {
    recorder.emplace(OnlineCalibrationOptions{.file = arguments.text("record"),
                                              .max_rows = arguments.integer_or("record-rows", 128, 0, 1 << 30)},
                     model);
    watch = {&recorder->observer(), "generate"};
    options.observer = watch.inputs();
  }
  std::optional<TerminalAnswer> terminal;
  if (prompts.size() == 1 && !arguments.flag("json") && ::isatty(STDOUT_FILENO) != 0) {
    terminal.emplace(model.tokenizer, options.stop_strings);
    options.on_token = [&](size_t, models::TokenId id) { terminal->push(id); };
  }

  Json output = Json::array();
  for (size_t begin = 0; begin < rows.size();) {
    size_t end = begin;
    size_t longest = 0;
    const auto fits = [&](const std::vector<models::TokenId>& row) {
      const auto tokens = static_cast<int64_t>(std::max(longest, row.size())) + options.max_new_tokens;
      const int64_t bytes =
          static_cast<int64_t>(end - begin + 1) * tokens * static_cast<int64_t>(model.decoder.cache_bytes_per_token());
      const bool same = !watch.wants_equal_lengths(model.decoder.config()) || row.size() == rows[begin].size();
      return end == begin || (bytes <= kCacheBytes && same && static_cast<int64_t>(end - begin) < kMaxRows);
    };
    while (end < rows.size() && fits(rows[end])) longest = std::max(longest, rows[end++].size());
    options.rows.resize(end - begin);
    std::iota(options.rows.begin(), options.rows.end(), begin);
    const auto results = models::generate(
        model.decoder, {rows.begin() + static_cast<std::ptrdiff_t>(begin), rows.begin() + static_cast<std::ptrdiff_t>(end)},
        options);
    for (size_t i = begin; i < end; ++i) {
      const models::GenerationResult& result = results[i - begin];
      std::vector<models::TokenId> row = rows[i];
      row.insert(row.end(), result.ids.begin(), result.ids.begin() + static_cast<std::ptrdiff_t>(result.ran));
      watch.tell(row, result.ran > 0 ? static_cast<int64_t>(rows[i].size()) : -1);
      const std::string text = eval::cut_at_stops(model.tokenizer.decode(result.ids, true), options.stop_strings);
      if (arguments.flag("json")) {
        output.push_back({{"prompt", prompts[i].shown},
                          {"text", text},
                          {"prompt_tokens", rows[i].size()},
                          {"new_tokens", result.ids.size()},
                          {"finish", result.stopped ? "stop" : "length"}});
      } else if (terminal) {
        terminal->finish();
      } else {
        print_text((prompts.size() > 1 ? fmt::format("--- {}: {}\n", i + 1, first_line(prompts[i].shown)) : "") + text + "\n");
      }
    }
    begin = end;
  }
  if (recorder) print_note(describe(recorder->finish(), arguments.text("record")));
  if (arguments.flag("json")) print_json(output);
}

}  // namespace salient::pipeline
