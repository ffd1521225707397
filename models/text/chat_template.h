// A model's chat template (Jinja2), rendered as transformers' apply_chat_template(tokenize=False) renders it.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "common/json.h"

namespace salient::models {

// Where calibration and evaluation let a template's clock stand, so that the same run gives the same texts on any day: the date
// that Llama 3's template itself falls back to.
inline constexpr std::string_view kFixedTemplateDate = "2024-07-26";

struct ChatRenderOptions {
  bool add_generation_prompt = false;
  // Further template variables, e.g. {"tools": [...], "enable_thinking": false, "documents": [...]}. Keys here win over the
  // built-in ones. "strftime_now": a moment such as "2024-07-26" or "2024-07-26T13:45:00" at which the template's clock stands;
  // without it templates that write the date render differently every day.
  OrderedJson variables = OrderedJson::object();
};

// Immutable and safe to use from many threads.
class ChatTemplate {
 public:
  // `origin` names the source in errors. `special_tokens`: bos_token, eos_token, pad_token, unk_token as strings, where the model
  // has them.
  static ChatTemplate parse(std::string source, std::string origin, OrderedJson special_tokens = OrderedJson::object());

  // chat_template.jinja, else "chat_template" of tokenizer_config.json (a string, or a list of {name, template} of which `name` is
  // taken, default "default"). Special tokens come from tokenizer_config.json, else special_tokens_map.json. Where find_gguf_model
  // (models/gguf/gguf_summary.h) finds a GGUF file: tokenizer.chat_template, tokenizer.chat_template.<name> and the tokens in it.
  // Errors: not found (no template: the hint says what to do), corruption, unsupported construct with file and line.
  static ChatTemplate from_folder(const std::filesystem::path& folder, std::string_view name = "default");
  static bool exists_in(const std::filesystem::path& folder);
  // A Jinja file, with the special tokens of a model folder. Errors: as from_folder.
  static ChatTemplate from_file(const std::filesystem::path& file, const std::filesystem::path& folder);

  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;
  ~ChatTemplate();

  // `messages`: a list of {"role": ..., "content": ...}. As in transformers, a message's "reasoning_content", "thinking" or
  // "reasoning" (the first that is not null) fills "reasoning_content", and "thinking" where that is missing. Errors: invalid
  // argument for raise_exception and for undefined values used as values, with line.
  std::string render(const OrderedJson& messages, const ChatRenderOptions& options = {}) const;

  const std::string& source() const;
  const OrderedJson& special_tokens() const;  // the variables that parse() was given, or from_folder found
  std::string sha256() const;                 // of the source text

 private:
  struct Parts;
  explicit ChatTemplate(std::unique_ptr<const Parts> parts);
  std::unique_ptr<const Parts> parts_;
};

}  // namespace salient::models
