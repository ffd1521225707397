#include "common/error.h"
#include "common/json.h"
#include "fuzz/fuzz_targets.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/decoder_config.h"
#include "models/io/detect.h"
#include "models/jinja/json_text.h"
#include "models/jinja/template.h"
#include "models/text/regex.h"
#include "models/text/tokenizer.h"

namespace salient::fuzz {

void fuzz_config(std::span<const std::byte> bytes) {
  const auto file = fuzz_file("config.json", bytes);
  try {
    (void)models::detect_model(file.parent_path());
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kInternal) throw;
  }
  const models::DecoderConfig config = models::load_decoder_config(file.parent_path());
  if (config.num_hidden_layers > 0) (void)models::block_layout(config, config.num_hidden_layers - 1);
}

void fuzz_tokenizer(std::span<const std::byte> bytes) {
  const auto tokenizer = models::Tokenizer::from_file(fuzz_file("tokenizer.json", bytes));
  const auto ids = tokenizer.encode("The 3 answers: caf\xC3\xA9,  \n\ttabs \xF0\x9F\x98\x80 <|im_end|>", true);
  (void)tokenizer.decode(ids, /*skip_special_tokens=*/false);
}

// A pattern, and behind its first line the text that it is looked for in.
void fuzz_regex(std::span<const std::byte> bytes) {
  const std::string_view text = as_text(bytes);
  const size_t end = text.find('\n');
  const models::Regex regex(text.substr(0, end), "tokenizer.json");
  const std::string_view subject =
      end == std::string_view::npos ? "a bb ccc aaaaaaaaaaaaaaaaaaaaaaaaab 123 !?" : text.substr(end + 1);
  size_t before = 0;
  // find_all wants well-formed UTF-8, as the tokenizer makes it.
  for (const char c : subject) {
    if (static_cast<unsigned char>(c) >= 0x80) return;
  }
  for (const models::TextRange& range : regex.find_all(subject)) {
    if (range.begin < before || range.end < range.begin || range.end > subject.size())
      fail(ErrorKind::kInternal, "match {} to {} of {} bytes", range.begin, range.end, subject.size());
    before = range.end;
  }
}

void fuzz_template(std::span<const std::byte> bytes) {
  const models::jinja::Template parsed = models::jinja::Template::parse(as_text(bytes), "chat_template.jinja");
  const OrderedJson messages = OrderedJson::parse(
      R"([{"role": "system", "content": "Be short."}, {"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}])");
  models::jinja::RenderOptions options;
  options.limits.steps = 100'000;
  options.limits.bytes = size_t{1} << 20;
  (void)parsed.render({{"messages", models::jinja::from_json(messages)},
                       {"add_generation_prompt", models::jinja::Value(true)},
                       {"bos_token", models::jinja::Value(std::string("<s>"))},
                       {"eos_token", models::jinja::Value(std::string("</s>"))}},
                      options);
}

}  // namespace salient::fuzz
