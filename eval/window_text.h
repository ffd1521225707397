// Text that is scored in windows: perplexity, divergence, sensitivity.
#pragma once

#include <filesystem>
#include <string>

#include "eval/language_model.h"
#include "eval/perplexity.h"

namespace salient::eval {

struct WindowText {
  std::string text;
  std::string sha256;  // of the file
};

// One text, or rows (JSON lines, CSV, ...) whose "text" fields are joined by blank lines, as the papers join those of WikiText.
// Errors: not found, io, corruption: file and line.
WindowText read_window_text(const std::filesystem::path& file);

// paper_windows of the model, which must be those of the base, too. Errors: those of paper_windows, naming the file; invalid
// argument where the tokens differ.
TokenWindows common_windows(const LanguageModel& model, const LanguageModel& base, const WindowText& text,
                            const std::filesystem::path& file, const WindowOptions& options);

}  // namespace salient::eval
