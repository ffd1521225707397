// What is evaluated: a decoder, its tokenizer and the rules by which text becomes its input.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "models/decoder/decoder.h"
#include "models/text/chat_template.h"
#include "models/text/tokenizer.h"

namespace salient::eval {

// Whether scored text starts with the tokenizer's beginning-of-sequence token. Part of every result: scores of models trained with
// such a token depend on it.
//   kAuto   what the tokenizer's own post-processor does (lm-evaluation-harness since 0.4.10, add_bos_token unset)
//   kAlways as kAuto, and the token is put in front where the post-processor does not (add_bos_token=True)
//   kNever  no special tokens at all (lm-evaluation-harness up to 0.4.9)
// Text that already begins with the token (a rendered chat template) never gets a second one.
enum class BosPolicy { kAuto, kAlways, kNever };
std::string_view to_string(BosPolicy policy);
// "auto", "always" or "never". Errors: invalid argument.
BosPolicy parse_bos_policy(std::string_view name);

struct LanguageModelOptions {
  models::DecoderOptions decoder;
  BosPolicy bos = BosPolicy::kAuto;
  int64_t max_length = 0;  // tokens of one input; 0 = n_positions, max_position_embeddings or n_ctx of config.json, else
                           // model_max_length of tokenizer_config.json, else 2048
  std::string name;        // in reports; empty = the folder's name
  // A TorchScript module is a program: loading it runs what its author wrote, with all rights of this process. Refused without
  // this.
  bool trust_torchscript = false;
};

struct LanguageModel {
  std::string name;
  std::filesystem::path folder;  // of a GGUF file the file
  models::Decoder decoder;
  models::Tokenizer tokenizer;
  std::optional<models::ChatTemplate> chat_template;
  BosPolicy bos = BosPolicy::kAuto;
  int64_t max_length = 0;
  std::string bos_text;  // of tokenizer_config.json; empty = none
  std::string eos_text;
  std::string pad_text;
  std::optional<models::TokenId> bos_id;
  std::optional<models::TokenId> eos_id;
  std::vector<models::TokenId> stop_ids;  // all that end a generation: of the two config files and the tokenizer
  uint64_t disk_bytes = 0;                // of all tensors in the checkpoint
  Json quantization;  // quantization_config of config.json; of a GGUF file as GgufCheckpoint::config() has it; null: none
};

// Loads a checkpoint folder, float or packed, with its tokenizer, and its chat template where there is one; or a TorchScript file,
// or a folder with one and no checkpoint, with the tokenizer that lies beside it; or a GGUF file (find_gguf_model), with the
// tokenizer and template that it holds. Errors: unsupported for TorchScript that is not trusted; those of Checkpoint,
// Decoder::load, ScriptModel::load and Tokenizer::from_folder.
LanguageModel load_language_model(const std::filesystem::path& path, const LanguageModelOptions& options = {});

// The token that stands in front of a text without context: BOS, else EOS.
std::optional<models::TokenId> prefix_token(const LanguageModel& model);

// Ids of scored or prompt text under the model's BOS policy.
std::vector<models::TokenId> encode_text(const LanguageModel& model, std::string_view text);
// Whether encode_text puts BOS in front of ordinary text.
bool adds_bos(const LanguageModel& model);

// {"name", "model_type", "dtype", "device", "quantized", "bos_policy", "adds_bos", "max_length"}: what a figure depends on. Where
// they are not 16 also "activation_bits" and "kv_bits"; of a GGUF file also "gguf": {"file_type", "bits_per_weight",
// "tensor_types"}.
Json describe(const LanguageModel& model);
// "a8 kv8", "kv8", "": the bits in a description that are not 16.
std::string runtime_text(const Json& description);

}  // namespace salient::eval
