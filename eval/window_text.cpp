#include "eval/window_text.h"

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "common/json.h"
#include "eval/task_data.h"
#include "models/text/dataset.h"
#include "models/text/utf8.h"

namespace salient::eval {
namespace {

// Any bytes have tokens, and a perplexity that says nothing.
void check_text(std::string_view text, const std::filesystem::path& file) {
  const size_t zero = text.find('\0');
  if (zero == std::string_view::npos && models::is_valid_utf8(text)) return;
  const std::string found = zero == std::string_view::npos ? "bytes that are no UTF-8" : fmt::format("a zero byte at {}", zero);
  throw Error(ErrorKind::kCorruption, fmt::format("{}: found {}, expected a text in UTF-8", file.string(), found))
      .with_hint(
          "name a text file, or JSON lines, CSV or Parquet with a column text; iconv -t utf-8 changes the encoding of a text");
}

}  // namespace

WindowText read_window_text(const std::filesystem::path& file) {
  if (!holds_rows(file)) {
    WindowText out{read_text_file(file), {}};
    check_text(out.text, file);
    out.sha256 = sha256_hex(out.text);
    return out;
  }
  const models::Dataset data = models::read_dataset(file);
  WindowText out{{}, data.sha256};
  for (size_t i = 0; i < data.rows.size(); ++i) {
    if (i > 0) out.text += "\n\n";
    out.text += require<std::string>(data.rows[i], "text", fmt::format("{}:{}", file.string(), data.line_numbers[i]));
  }
  return out;
}

TokenWindows common_windows(const LanguageModel& model, const LanguageModel& base, const WindowText& text,
                            const std::filesystem::path& file, const WindowOptions& options) {
  TokenWindows windows = with_context(file.string(), [&] { return paper_windows(model, text.text, options); });
  WindowOptions same = options;
  same.window = windows.window;
  if (with_context(file.string(), [&] { return paper_windows(base, text.text, same); }).ids == windows.ids) return windows;
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("{} and its base {} tokenise {} differently: their distributions cannot be compared", model.name,
                          base.name, file.string()))
      .with_hint("compare with the model that this one was made from");
}

}  // namespace salient::eval
