// logits, tokenize, render: to compare Salient with other programs, number by number.
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <fstream>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "models/decoder/decoder.h"
#include "models/io/checkpoint.h"
#include "models/io/model_folder.h"
#include "models/text/chat_template.h"
#include "models/text/tokenizer.h"
#include "pipeline/commands/arguments.h"
#include "pipeline/commands/commands.h"
#include "pipeline/commands/runtime_options.h"
#include "pipeline/commands/session.h"

namespace salient::pipeline {
namespace {

std::vector<int64_t> parse_ids(const std::string& text) {
  std::vector<int64_t> ids;
  for (const std::string& part : split(text, ',')) {
    size_t used = 0;
    try {
      ids.push_back(std::stoll(part, &used));
    } catch (const std::exception&) {
      used = 0;
    }
    if (used == 0 || used != part.size())
      fail(ErrorKind::kInvalidArgument, "salient logits: --ids: found '{}', expected numbers separated by commas", part);
  }
  return ids;
}

// NumPy's .npy format 1.0: magic, version, header length, a Python dict padded with spaces to a multiple of 64 bytes, the data.
std::string npy_bytes(const at::Tensor& matrix) {
  std::string header =
      fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", matrix.size(0), matrix.size(1));
  const size_t unpadded = 10 + header.size() + 1;
  header += std::string((64 - unpadded % 64) % 64, ' ') + "\n";
  std::string bytes("\x93NUMPY\x01\x00", 8);
  bytes += static_cast<char>(header.size() & 0xff);
  bytes += static_cast<char>(header.size() >> 8);
  bytes += header;
  bytes.append(static_cast<const char*>(matrix.const_data_ptr()), matrix.nbytes());
  return bytes;
}

}  // namespace

void logits_command(const std::vector<std::string>& words) {
  const Arguments arguments({"logits", "", "Float32 logits [tokens, vocabulary] of one sequence of token ids, as a NumPy file.",
                             "  salient logits --model models/demo --ids 1,2,3 --out logits.npy\n"},
                            with_runtime_rows({{"model", "DIR", "model folder, GGUF file, or org/name in the Hugging Face cache"},
                                               {"ids", "LIST", "token ids: 1,2,3"},
                                               {"out", "FILE", "the .npy file to write"}}),
                            words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const at::NoGradGuard no_grad;
  const models::Checkpoint checkpoint(models::resolve_model(arguments.text("model")));
  const std::vector<int64_t> ids = parse_ids(arguments.text("ids"));
  const models::Decoder decoder = models::Decoder::load(checkpoint, decoder_options(arguments));
  for (const int64_t id : ids) {
    if (id < 0 || id >= decoder.config().vocab_size) {
      fail(ErrorKind::kInvalidArgument, "salient logits: --ids: {} is outside of the vocabulary of {}", id,
           decoder.config().vocab_size);
    }
  }
  const at::Tensor input = at::tensor(ids, at::kLong).unsqueeze(0).to(decoder.options().device);
  const at::Tensor logits = decoder.logits(decoder.hidden_states(input)).squeeze(0).to(at::kFloat).cpu().contiguous();
  write_file(arguments.text("out"), npy_bytes(logits));
}

void tokenize_command(const std::vector<std::string>& words) {
  const Arguments arguments({"tokenize", "", "Token ids of JSON strings: one string a line in, one list of ids a line out.",
                             "  salient tokenize --model models/demo --file strings.jsonl\n"},
                            {{"model", "DIR", "model folder, GGUF file, or org/name in the Hugging Face cache"},
                             {"file", "FILE", "JSON strings, one a line"},
                             {"add-special-tokens", "", "let the post-processor add BOS and the like"}},
                            words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const auto tokenizer = models::Tokenizer::from_folder(models::resolve_model(arguments.text("model")));
  const std::string path = arguments.text("file");
  std::string out;
  int64_t line_number = 0;
  for (const std::string& line : split(read_text_file(path), '\n')) {
    ++line_number;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const std::string where = fmt::format("{}:{}", path, line_number);
    const Json value = parse_json(line, where);
    if (!value.is_string()) fail(ErrorKind::kCorruption, "{}: found {}, expected a JSON string", where, value.type_name());
    out += dump_json(Json(tokenizer.encode(value.get<std::string>(), arguments.flag("add-special-tokens")))) + "\n";
  }
  print_text(out);
}

void render_command(const std::vector<std::string>& words) {
  const Arguments arguments(
      {"render", "", "A model's chat template, rendered over messages; to standard output, nothing added.",
       "  salient render --model models/demo --messages messages.json --add-generation-prompt\n"
       "  salient render --model models/demo --messages messages.json --variables '{\"enable_thinking\": false}'\n"},
      {{"model", "DIR", "model folder, GGUF file, or org/name in the Hugging Face cache"},
       {"messages", "FILE", "JSON: a list of {\"role\", \"content\"}"},
       {"add-generation-prompt", "", "open the assistant's turn"},
       {"template", "NAME", "which of several named templates; default: default"},
       {"variables", "JSON", "further template variables, e.g. tools"}},
      words);
  if (arguments.wants_help()) return print_text(arguments.help());
  apply_common_options(arguments);
  const auto chat =
      models::ChatTemplate::from_folder(models::resolve_model(arguments.text("model")), arguments.text_or("template", "default"));
  models::ChatRenderOptions options;
  options.add_generation_prompt = arguments.flag("add-generation-prompt");
  if (arguments.has("variables")) {
    options.variables = parse_ordered_json(arguments.text("variables"), "--variables");
    if (!options.variables.is_object()) fail(ErrorKind::kInvalidArgument, "salient render: --variables: expected a JSON object");
  }
  const std::string text = chat.render(read_ordered_json_file(arguments.text("messages")), options);
  print_part(text);
}

}  // namespace salient::pipeline
