// A LoRA adapter as PEFT saves it: a folder with adapter_config.json and adapter_model.safetensors, which says of single modules of
// a base model what is added to their weights. https://huggingface.co/docs/peft/package_reference/lora
//
//   W' = W + scale * B A                        A: [r, in], B: [out, r], W: [out, in]
//   scale = lora_alpha / r, with use_rslora lora_alpha / sqrt(r); r and lora_alpha of rank_pattern and alpha_pattern where a
//   pattern
//           ("q_proj", a regular expression) fits the end of the module's name
//   with use_dora: each output's row of W' times lora_magnitude_vector / its Euclidean norm
//   bias' = bias + scale * bias of B            with lora_bias
//
// Names of tensors: "base_model.model." + <module> + ".lora_A.weight", ".lora_B.weight", ".lora_B.bias", ".lora_magnitude_vector";
// of an embedding, whose W is [vocabulary, hidden], ".lora_embedding_A" [r, vocabulary] and ".lora_embedding_B" [hidden, r]; of
// single rows (trainable_token_indices) ".token_adapter.trainable_tokens_delta". Any other name is of a tensor that takes the place
// of the base's: modules_to_save, trained biases, an embedding with more tokens.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/json.h"
#include "models/io/safetensors.h"

namespace salient::models {

// What is added to one module. Tensors by their names in the adapter's file; empty where there is none.
struct AdapterModule {
  std::string module;  // as PEFT calls it: "model.layers.0.self_attn.q_proj"
  std::string a;
  std::string b;
  std::string magnitude;
  std::string bias;
  bool transposed = false;  // W is [in, out]: an embedding, or fan_in_fan_out
  double scale = 1;
};

struct AdapterTokens {
  std::string module;
  std::string values;         // [rows, hidden]
  std::vector<int64_t> rows;  // of the module's weight, that they stand in for
};

struct Adapter {
  std::filesystem::path folder;
  std::string base_model;  // as adapter_config.json has it: a folder or "org/name"; may be empty
  std::string revision;    // of "org/name"; may be empty
  bool dora = false;
  bool ensure_weight_tying = false;  // what is done to a tied embedding is meant for the head, too
  int64_t rank = 0;                  // of modules without a pattern
  double alpha = 0;
  std::shared_ptr<const SafetensorsFile> weights;
  std::vector<AdapterModule> modules;
  std::vector<AdapterTokens> tokens;
  std::map<std::string, std::string> replaced;  // the base's tensor as PEFT calls it -> tensor of the file
  // The same, of modules that the adapter also adds to: the base that it adds to ("....base_layer.weight").
  std::map<std::string, std::string> replaced_base;
};

// A folder with adapter_config.json and no weights of a whole model.
bool is_adapter(const std::filesystem::path& folder);

// Reads the config and the header of the weights, and checks that nothing is in them that would be left out. Errors: not found
// (adapter_model.safetensors); corruption (a file, a pair without its other half, a rank that is not the config's); unsupported, by
// name: other methods than LoRA, initializations that changed the base, keys that change the result and are not known here.
Adapter read_adapter(const std::filesystem::path& folder);

// The base's folder: what set_adapter_base says, else `base_model` as a folder from here or from the adapter's, else in the Hugging
// Face cache. Errors: not found, with all places looked at; unsupported, for a base that is an adapter itself, or a GGUF file.
std::filesystem::path adapter_base(const Adapter& adapter);
// The same of a folder, without a look at the weights.
std::filesystem::path adapter_base(const std::filesystem::path& folder);

// From now on this process takes `base` (a folder or org/name) for the base of an adapter's folder; of an empty `folder`: of all
// that have none of their own; an empty `base` takes it back. A model is named by its folder everywhere, from the tokenizer to the
// store, so this is the one place where another base can be said. Safe from many threads; not while a model of that adapter is
// read.
void set_adapter_base(const std::filesystem::path& folder, const std::string& base);

// {"peft": "LoRA", "rank": 4, "alpha": 8.0, "modules": 12, "base_model": "org/name"}: for metadata and listings.
Json describe_adapter(const Adapter& adapter);
// "LoRA" or "DoRA": what the name of an artifact says of the training. Reads adapter_config.json only.
std::string adapter_method(const std::filesystem::path& folder);
// base_model_name_or_path of adapter_config.json; empty where there is none.
std::string adapter_base_name(const std::filesystem::path& folder);

}  // namespace salient::models
