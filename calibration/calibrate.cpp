#include "calibration/calibrate.h"

#include <algorithm>
#include <set>
#include <unordered_set>

#include "calibration/sampling.h"
#include "common/error.h"
#include "common/hash.h"
#include "common/text.h"
#include "models/io/model_files.h"
#include "models/text/chat_template.h"
#include "models/text/dataset.h"

namespace salient::calibration {
namespace fs = std::filesystem;
namespace {

struct DrawnTexts {
  std::vector<std::string> texts;
  std::vector<int64_t> rows;
  std::set<std::string> layouts;
  bool used_template = false;
  int64_t duplicates = 0;
  int64_t blank = 0;
  int64_t unrenderable = 0;
  std::string first_reason;
};

DrawnTexts draw_texts(const models::Dataset& data, const models::ChatTemplate* chat_template, const CalibrateOptions& options,
                      int64_t wanted) {
  DrawnTexts drawn;
  std::unordered_set<std::string> seen;
  RowSampler sampler(static_cast<int64_t>(data.rows.size()), options.seed);
  while (static_cast<int64_t>(drawn.texts.size()) < wanted) {
    const auto number = sampler.next();
    if (!number) break;
    const auto index = static_cast<size_t>(*number);
    const Json& row = data.rows[index];
    const std::string where = fmt::format("{}:{}", data.path.string(), data.line_numbers[index]);
    std::string text;
    RowShape shape;
    try {
      shape = detect_shape(row, options.render.fields, where);
      const Json& question = row[shape.question];
      if (question.is_string() && is_blank(question.get_ref<const std::string&>())) {
        ++drawn.blank;
        continue;
      }
      text = render_row(row, shape, options.render, chat_template, where);
    } catch (const Error& error) {
      if (!options.allow_broken) throw;
      if (drawn.unrenderable++ == 0) drawn.first_reason = error.message();
      continue;
    }
    if (is_blank(text)) {
      ++drawn.blank;
      continue;
    }
    if (!seen.insert(text).second) {
      ++drawn.duplicates;
      if (!options.keep_duplicates) continue;
    }
    drawn.layouts.insert(std::string(to_string(shape.layout)));
    drawn.used_template |= shape.layout != RowLayout::kText && chat_template != nullptr;
    drawn.texts.push_back(std::move(text));
    drawn.rows.push_back(*number);
  }
  if (drawn.texts.empty()) {
    throw Error(
        ErrorKind::kInvalidArgument,
        fmt::format("{}: no usable row: {} of {} rows are blank, {} cannot be rendered{}; 0 tokens found, at least {} are needed",
                    data.path.string(), drawn.blank, data.rows.size(), drawn.unrenderable,
                    drawn.first_reason.empty() ? "" : " (" + drawn.first_reason + ")", options.min_tokens))
        .with_code("CALIBRATION_TOO_SHORT");
  }
  return drawn;
}

std::vector<std::string> notes_of(const models::Dataset& data, const DrawnTexts& drawn, const CalibrationRecord& record,
                                  const CalibrateOptions& options, bool has_template, int64_t wanted) {
  std::vector<std::string> notes;
  const auto note = [&](bool when, std::string text) {
    if (when) notes.push_back(std::move(text));
  };
  note(data.skipped > 0, fmt::format("{} broken lines were skipped: {}", data.skipped, fmt::join(data.broken, "; ")));
  note(data.replaced_utf8 > 0, fmt::format("{} ill-formed UTF-8 sequences were replaced by U+FFFD", data.replaced_utf8));
  note(drawn.unrenderable > 0,
       fmt::format("{} rows could not be rendered and were skipped: {}", drawn.unrenderable, drawn.first_reason));
  note(drawn.blank > 0, fmt::format("{} blank rows were skipped", drawn.blank));
  note(options.samples && *options.samples > record.dataset_rows,
       fmt::format("{} rows were asked for, but the set has {}: all are used", options.samples.value_or(0), record.dataset_rows));
  note(drawn.duplicates > 0, fmt::format("{} drawn rows repeat an earlier text; {}", drawn.duplicates,
                                         options.keep_duplicates ? "they are kept" : "further rows were drawn instead"));
  note(record.samples < wanted,
       fmt::format("only {} of {} wanted rows are left after duplicates and skipped rows", record.samples, wanted));
  const bool only_text = drawn.layouts == std::set<std::string>{"text"};
  note(only_text, "the rows hold ready text and are taken as they are: content mode and system prompt have no effect");
  note(!only_text && !has_template, "the model has no chat template: the turns are joined by line feeds");
  note(record.truncated > 0, fmt::format("{} of {} texts have more than {} tokens and become several rows", record.truncated,
                                         record.samples, record.max_seq_len));
  return notes;
}

}  // namespace

CalibrateResult calibrate(const CalibrateOptions& options) {
  if (options.samples && *options.samples < 1) {
    fail(ErrorKind::kInvalidArgument, "calibration samples: found {}, expected at least 1", *options.samples);
  }
  const std::string dataset = options.dataset.empty() ? options.source.stem().string() : options.dataset;
  calibration_stem({dataset, 0});  // a bad name is told before the work
  const models::Dataset data =
      models::read_dataset(options.source, {.format = options.format, .allow_broken = options.allow_broken});
  const models::Tokenizer tokenizer = models::Tokenizer::from_folder(options.model_folder);
  std::optional<models::ChatTemplate> chat_template;
  if (!options.chat_template.empty()) {
    chat_template = models::ChatTemplate::from_file(options.chat_template, options.model_folder);
  } else if (models::ChatTemplate::exists_in(options.model_folder)) {
    chat_template = models::ChatTemplate::from_folder(options.model_folder);
  }

  const auto rows = static_cast<int64_t>(data.rows.size());
  const int64_t wanted = sample_size(options.samples, rows);
  DrawnTexts drawn = draw_texts(data, chat_template ? &*chat_template : nullptr, options, wanted);
  TokenRowOptions row_options;
  row_options.max_seq_len = options.max_seq_len;
  row_options.from_chat_template = drawn.used_template;
  const TokenRows tokens = tokenize_rows(drawn.texts, tokenizer, row_options);
  with_context(options.source.string(), [&] { require_tokens(tokens, tokens.tokens, options.min_tokens); });

  CalibrateResult result;
  CalibrationRecord& record = result.record;
  record.dataset = dataset;
  record.dataset_rows = rows;
  record.source_file = options.source.filename().string();
  record.source_sha256 = data.sha256;
  record.source_skipped_lines = data.skipped;
  record.source_replaced_utf8 = data.replaced_utf8;
  record.size = options.samples ? fmt::format("{}", *options.samples) : "auto";
  record.seed = options.seed;
  record.row_numbers = drawn.rows;
  for (const int64_t row : drawn.rows) record.line_numbers.push_back(data.line_numbers[static_cast<size_t>(row)]);
  record.layout = fmt::format("{}", fmt::join(drawn.layouts, "+"));
  record.content = to_string(options.render.content);
  record.system_prompt = options.render.system_prompt;
  if (drawn.used_template) record.template_sha256 = chat_template->sha256();
  record.tokenizer_sha256 = sha256_file(models::model_file(options.model_folder, "tokenizer.json"));
  record.samples = static_cast<int64_t>(drawn.texts.size());
  record.texts_sha256 = texts_sha256(drawn.texts);
  record.tokens = count_tokens(tokens.lengths);
  record.max_seq_len = options.max_seq_len;
  record.truncated = tokens.split;
  record.duplicates = drawn.duplicates;
  result.notes = notes_of(data, drawn, record, options, chat_template.has_value(), wanted);

  const fs::path base = options.output_folder / calibration_stem({dataset, rows});
  result.texts_file = base.string() + ".jsonl";
  result.record_file = base.string() + ".record.json";
  std::vector<FileBytes> files = {{result.texts_file, jsonl_form(drawn.texts)}};
  if (options.write_txt) {
    result.txt_file = base.string() + ".txt";
    files.push_back({result.txt_file, txt_form(drawn.texts)});
  }
  files.push_back({result.record_file, record_form(record)});
  write_files(files, options.overwrite);
  return result;
}

}  // namespace salient::calibration
