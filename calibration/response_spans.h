// Where in a rendered conversation the assistant's answers stand.
//
// Three ways, the first that fits:
//   1. The template marks them: {% generation %} ... {% endgeneration %}, the block that transformers' return_assistant_tokens_mask
//   reads.
//   2. Turn by turn: the text that the turn adds to the rendering of the turns before it with add_generation_prompt, so the answer
//   and the token
//      that ends it, without white space behind that. Holds where both renderings are beginnings of the whole one.
//   3. The answer's own text, found by rendering it with marks around, and the end-of-turn token behind it.
// The result is checked against the plain rendering byte by byte; where none fits there is an error, never a guess.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "models/text/chat_template.h"

namespace salient::calibration {

// Bytes [begin, end) of a text.
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
  bool operator==(const TextSpan&) const = default;
};

struct RenderedConversation {
  std::string text;
  std::vector<TextSpan> responses;  // in order, none empty
};

// Marks around an answer in a rendered text.
struct ResponseMarkers {
  std::string opening;  // "<|im_start|>assistant\n"
  std::string closing;  // "<|im_end|>", part of the answer
};

class ResponseFinder {
 public:
  // Without a chat template in the folder only in_text() can find answers. Errors: those of ChatTemplate::from_folder.
  static ResponseFinder from_folder(const std::filesystem::path& folder);
  // `special_tokens`: as in ChatTemplate::parse.
  static ResponseFinder from_source(std::string source, std::string origin,
                                    const OrderedJson& special_tokens = OrderedJson::object());

  const models::ChatTemplate* chat_template() const { return chat_template_ ? &*chat_template_ : nullptr; }

  // Errors: those of ChatTemplate::render; internal without a template; unsupported, with `where`: no way to tell where a turn's
  // answer lies.
  RenderedConversation render(const OrderedJson& messages, const models::ChatRenderOptions& options, std::string_view where) const;

  // Answers in a text that was rendered elsewhere: by the marks that this model's template writes, else by those of well-known
  // templates (ChatML, Llama 3, Gemma, Phi, DeepSeek, Mistral). An answer without a closing mark goes to the text's end. Empty when
  // there is none.
  std::vector<TextSpan> in_text(std::string_view text) const;

 private:
  ResponseFinder() = default;

  std::optional<models::ChatTemplate> chat_template_;
  std::optional<models::ChatTemplate> marked_template_;  // answers between marks; there when the template has generation blocks
  std::optional<ResponseMarkers> markers_;
};

}  // namespace salient::calibration
