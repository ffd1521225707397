#include "models/decoder/decoder_config.h"

#include <algorithm>
#include <utility>

#include "common/error.h"
#include "models/decoder/architecture.h"
#include "models/decoder/mlp.h"
#include "models/decoder/wrappers.h"
#include "models/io/adapter.h"
#include "models/io/checkpoint.h"
#include "models/io/model_files.h"

namespace salient::models {
namespace {

constexpr int64_t kMostLayers = 100'000;

struct DtypeRow {
  std::string_view name;
  at::ScalarType dtype;
};
constexpr DtypeRow kDtypes[] = {
    {"float32", at::kFloat}, {"bfloat16", at::kBFloat16}, {"float16", at::kHalf}, {"float64", at::kDouble}};

// An id, a list of ids or null; negative ids (older files use -1) mean none.
std::vector<int64_t> read_ids(const ConfigReader& config, std::string_view key) {
  std::vector<int64_t> ids = config.integers_or_empty(key);
  std::erase_if(ids, [](int64_t id) { return id < 0; });
  return ids;
}

std::optional<int64_t> read_id(const ConfigReader& config, std::string_view key) {
  const std::vector<int64_t> ids = read_ids(config, key);
  return ids.empty() ? std::nullopt : std::optional(ids.front());
}

at::ScalarType parse_dtype(const ConfigReader& config) {
  const std::string_view key = config.spelling({"dtype", "torch_dtype"});
  std::string name = config.text_or(key, "float32");
  if (name.starts_with("torch.")) name = name.substr(6);
  for (const DtypeRow& row : kDtypes) {
    if (row.name == name) return row.dtype;
  }
  fail(ErrorKind::kUnsupported, "{}: key '{}': dtype '{}' is not supported, only float32, bfloat16, float16 and float64",
       config.where(), key, name);
}

void check_most(const ConfigReader& config, std::string_view what, int64_t found, int64_t most) {
  if (found > most) fail(ErrorKind::kCorruption, "{}: {}: found {}, expected at most {}", config.where(), what, found, most);
}

void read_sizes(const ConfigReader& config, const ConfigDefaults& defaults, DecoderConfig& decoder) {
  decoder.vocab_size = config.size("vocab_size");
  decoder.hidden_size = config.size(config.spelling({"hidden_size", "n_embd", "n_embed", "d_model"}));
  decoder.num_hidden_layers = config.size(config.spelling({"num_hidden_layers", "n_layer", "n_layers", "num_layers"}));
  check_most(config, "key 'num_hidden_layers'", decoder.num_hidden_layers, kMostLayers);
  decoder.layers.resize(static_cast<size_t>(decoder.num_hidden_layers));
  decoder.intermediate_size =
      config.size_or(config.spelling({"intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"}), 4 * decoder.hidden_size);
  check_most(config, "key 'intermediate_size'", decoder.intermediate_size, kMostSize);
  decoder.max_position_embeddings = config.size_or(
      config.spelling({"max_position_embeddings", "n_positions", "max_seq_len", "seq_length"}), defaults.max_position_embeddings);
}

void read_heads(const ConfigReader& config, const ConfigDefaults& defaults, DecoderConfig& decoder) {
  decoder.num_attention_heads = config.size(config.spelling({"num_attention_heads", "n_head", "n_heads"}));
  // A key that is null means as many as there are query heads, whatever the class assumes.
  const bool given = config.object().contains("num_key_value_heads");
  const int64_t fallback = given || defaults.num_key_value_heads == 0 ? decoder.num_attention_heads : defaults.num_key_value_heads;
  decoder.num_key_value_heads = config.size_or("num_key_value_heads", fallback);
  check_most(config, "key 'num_attention_heads'", decoder.num_attention_heads, kMostParts);
  check_most(config, "key 'num_key_value_heads'", decoder.num_key_value_heads, kMostParts);
  if (decoder.num_attention_heads % decoder.num_key_value_heads != 0) {
    fail(ErrorKind::kCorruption, "{}: num_attention_heads {} is not a multiple of num_key_value_heads {}", config.where(),
         decoder.num_attention_heads, decoder.num_key_value_heads);
  }
  if (!config.has("head_dim") && defaults.head_dim == 0 && decoder.hidden_size % decoder.num_attention_heads != 0) {
    fail(ErrorKind::kCorruption, "{}: hidden_size {} is not a multiple of num_attention_heads {}, and there is no head_dim",
         config.where(), decoder.hidden_size, decoder.num_attention_heads);
  }
  const bool null_head_dim =
      config.object().contains("head_dim") && !config.has("head_dim");  // means the quotient, whatever the class assumes
  decoder.head_dim = config.size_or("head_dim", defaults.head_dim != 0 && !null_head_dim
                                                    ? defaults.head_dim
                                                    : std::max<int64_t>(1, decoder.hidden_size / decoder.num_attention_heads));
}

void read_norm(const ConfigReader& config, const ConfigDefaults& defaults, DecoderConfig& decoder) {
  const std::string_view key =
      config.spelling({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon", "layernorm_epsilon"});
  decoder.norm_eps = config.number_or(key, defaults.norm_eps);
  if (!(decoder.norm_eps >= 0.0 && decoder.norm_eps < 1.0)) {
    fail(ErrorKind::kCorruption, "{}: key '{}': found {}, expected a small positive number", config.where(), key, decoder.norm_eps);
  }
}

// Of the text model inside of a multimodal one; empty where there is none.
std::string text_model_type(const ConfigReader& config) {
  const Json* text = config.find("text_config");
  return text != nullptr && text->is_object() ? ConfigReader(*text, config.where() + ": text_config").text_or("model_type", "")
                                              : "";
}

// A head that is there is used even where config.json (or the default of its class) says that there is none, as transformers 5
// does.
void fit_wrapper(const Checkpoint& checkpoint, DecoderConfig& config) {
  const TextSpelling* spelling = find_spelling([&](const std::string& name) { return checkpoint.contains(name); });
  if (spelling != nullptr) set_spelling(config, *spelling);
  for (const char* weight : {".weight", ".weight_packed"}) {
    if (checkpoint.contains(std::string(config.names.lm_head) + weight)) config.tie_word_embeddings = false;
  }
}

void drop_missing_prefix(const Checkpoint& checkpoint, TensorNames& names) {
  const size_t prefix = names.embedding.find('.') + 1;
  if (prefix == 0 || checkpoint.contains(std::string(names.embedding)) ||
      !checkpoint.contains(std::string(names.embedding.substr(prefix))))
    return;
  const std::string_view text = names.embedding.substr(0, prefix);
  for (std::string_view* name :
       {&names.block_prefix, &names.embedding, &names.position_embedding, &names.embedding_norm, &names.final_norm}) {
    if (name->starts_with(text)) name->remove_prefix(prefix);
  }
}

// Widths are products of what the file says; those of tensors and of memory are products of widths, and must not overflow.
void check_widths(const ConfigReader& config, const DecoderConfig& decoder) {
  const int64_t heads = decoder.num_attention_heads;
  const LatentAttentionConfig& latent = decoder.latent;
  const LinearAttentionConfig& linear = decoder.linear_attention;
  const MoeConfig& moe = decoder.moe;
  check_most(config, "number of attention heads", heads, kMostParts);
  check_most(config, "number of key and value heads", decoder.num_key_value_heads, kMostParts);
  check_most(config, "number of linear attention's key heads", linear.num_key_heads, kMostParts);
  check_most(config, "number of linear attention's value heads", linear.num_value_heads, kMostParts);
  check_most(config, "width of linear attention's convolution", linear.convolution, kMostParts);
  check_most(config, "number of experts", moe.num_experts, kMostParts);
  const std::pair<std::string_view, int64_t> widths[] = {
      {"width of the attention heads", heads * decoder.head_dim},
      {"width of the latent attention heads", heads * (latent.qk_nope_head_dim + latent.qk_rope_head_dim + latent.v_head_dim)},
      {"width of the latent keys and values", latent.kv_lora_rank + latent.qk_rope_head_dim},
      {"width of linear attention's keys", linear.num_key_heads * linear.key_head_dim},
      {"width of linear attention's values", linear.num_value_heads * linear.value_head_dim},
      {"width of the feed-forward layers", decoder.intermediate_size},
      {"width of an expert", moe.intermediate_size},
      {"width of the shared experts", moe.shared_intermediate_size},
  };
  for (const auto& [what, width] : widths) check_most(config, what, width, kMostSize);
}

// What must hold whatever the architecture: the forward pass relies on it.
void check(const ConfigReader& config, const DecoderConfig& decoder) {
  if (decoder.names[ParameterSlot::kXieluAlphaP].empty()) check_activation(decoder.hidden_act, config.where());
  for (const LayerConfig& layer : decoder.layers) {
    if (layer.rope >= static_cast<int64_t>(decoder.ropes.size())) {
      fail(ErrorKind::kInternal, "{}: a layer has no rotary embedding {}", config.where(), layer.rope);
    }
  }
  for (const RopeConfig& rope : decoder.ropes) {
    if (rope.dim < 2 || rope.dim % 2 != 0 || rope.dim > std::max(decoder.head_dim, decoder.latent.qk_rope_head_dim)) {
      fail(ErrorKind::kCorruption,
           "{}: the rotary embedding turns {} channels of a head of {} (head_dim, partial_rotary_factor), expected an even number",
           config.where(), rope.dim, decoder.head_dim);
    }
  }
  if (decoder.qkv_groups < 1 || decoder.num_attention_heads % decoder.qkv_groups != 0 ||
      decoder.num_key_value_heads % decoder.qkv_groups != 0) {
    fail(
        ErrorKind::kCorruption,
        "{}: num_attention_heads {} and num_key_value_heads {} cannot lie in the {} groups of this architecture's fused projection",
        config.where(), decoder.num_attention_heads, decoder.num_key_value_heads, decoder.qkv_groups);
  }
  const MoeConfig& moe = decoder.moe;
  if (moe.num_experts > 0 && (moe.experts_per_token < 1 || moe.experts_per_token > moe.num_experts || moe.groups < 1 ||
                              moe.num_experts % moe.groups != 0 || moe.groups_per_token < 1 || moe.groups_per_token > moe.groups)) {
    fail(ErrorKind::kCorruption, "{}: {} experts in {} groups, of which a token goes to {} in {} groups, make no sense",
         config.where(), moe.num_experts, moe.groups, moe.experts_per_token, moe.groups_per_token);
  }
}

// Whether [experts, in, out] fits the shapes of the block's fused tensors.
bool lies_transposed(const Checkpoint& checkpoint, const DecoderConfig& config, const std::string& block) {
  const MoeConfig& moe = config.moe;
  if (config.hidden_size != moe.intermediate_size) {
    return checkpoint.info(block + std::string(config.names.fused_down)).shape ==
           std::vector{moe.num_experts, moe.intermediate_size, config.hidden_size};
  }
  const std::vector<int64_t> transposed{moe.num_experts, config.hidden_size, 2 * moe.intermediate_size};
  return checkpoint.info(block + std::string(config.names.fused_gate_up)).shape == transposed;
}

// transformers saves some models' experts either way: in one tensor for all of them, or each as linears of its own.
void fit_fused_experts(const Checkpoint& checkpoint, DecoderConfig& config) {
  const auto mixture = std::find_if(config.layers.begin(), config.layers.end(), [](const LayerConfig& layer) { return layer.moe; });
  if (mixture == config.layers.end() || config.names.fused_down.empty()) return;
  const std::string block = fmt::format("{}{}.", config.names.block_prefix, mixture - config.layers.begin());
  if (checkpoint.contains(block + std::string(config.names.fused_down))) {
    if (config.moe.fused_either_way) config.moe.fused_transposed = lies_transposed(checkpoint, config, block);
    return;
  }
  for (std::string_view* fused :
       {&config.names.fused_gate_up, &config.names.fused_down, &config.names.fused_gate_up_bias, &config.names.fused_down_bias}) {
    *fused = "";
  }
}

}  // namespace

DecoderConfig parse_decoder_config(const Json& json, const std::string& given_where) {
  const TextConfig text = find_text_config(json, given_where);
  const std::string& where = text.where;
  const ConfigReader config(text.config, where);
  DecoderConfig decoder;
  decoder.wrapper = text.wrapper;
  decoder.model_type = require<std::string>(text.config, "model_type", where);
  const Architecture& architecture =
      with_context(where, [&]() -> const Architecture& { return find_architecture(decoder.model_type, text_model_type(config)); });
  const ConfigDefaults& defaults = architecture.defaults;
  decoder.names = *architecture.names;

  read_sizes(config, defaults, decoder);
  read_heads(config, defaults, decoder);
  read_norm(config, defaults, decoder);
  decoder.hidden_act =
      config.text_or(config.spelling({"hidden_act", "hidden_activation", "activation_function"}), defaults.hidden_act);
  decoder.tie_word_embeddings = config.flag_or("tie_word_embeddings", defaults.tie_word_embeddings);
  const RopeDefaults rope{defaults.rope_theta, defaults.partial_rotary_factor, defaults.rope_pairs, decoder.head_dim};
  if (architecture.rotary) decoder.ropes.push_back(parse_rope(config, rope, decoder.max_position_embeddings));
  if (architecture.configure != nullptr) architecture.configure(config, decoder);
  if (text.text != nullptr && text.text->configure != nullptr) text.text->configure(decoder);
  if (text.wrapper != nullptr) set_spelling(decoder, *text.wrapper->published);
  check_widths(config, decoder);
  check(config, decoder);

  decoder.dtype = parse_dtype(config);
  decoder.bos_token_id = read_id(config, "bos_token_id");
  decoder.eos_token_ids = read_ids(config, "eos_token_id");
  decoder.pad_token_id = read_id(config, "pad_token_id");
  return decoder;
}

void add_generation_config(DecoderConfig& decoder, const Json& generation_config, const std::string& where) {
  if (!generation_config.is_object())
    fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", where, generation_config.type_name());
  const ConfigReader config(generation_config, where);
  for (const int64_t id : read_ids(config, "eos_token_id")) {
    if (std::find(decoder.eos_token_ids.begin(), decoder.eos_token_ids.end(), id) == decoder.eos_token_ids.end())
      decoder.eos_token_ids.push_back(id);
  }
  if (!decoder.bos_token_id) decoder.bos_token_id = read_id(config, "bos_token_id");
  if (!decoder.pad_token_id) decoder.pad_token_id = read_id(config, "pad_token_id");
}

namespace {

DecoderConfig read_folder(const Json& json, const std::filesystem::path& folder) {
  DecoderConfig config = parse_decoder_config(json, model_file(folder, "config.json").string());
  if (const std::filesystem::path generation = model_file(folder, "generation_config.json"); std::filesystem::exists(generation)) {
    add_generation_config(config, read_json_file(generation), generation.string());
  }
  return config;
}

}  // namespace

DecoderConfig load_decoder_config(const std::filesystem::path& folder) {
  if (is_adapter(folder)) return load_decoder_config(Checkpoint(folder));  // which may have more tokens than its base
  return read_folder(read_json_file(folder / "config.json"), folder);
}

DecoderConfig load_decoder_config(const Checkpoint& checkpoint) {
  if (checkpoint.gguf() != nullptr) return parse_decoder_config(checkpoint.config(), checkpoint.folder().string());
  DecoderConfig config = read_folder(checkpoint.config(), checkpoint.folder());
  if (config.wrapper != nullptr) {
    fit_wrapper(checkpoint, config);
  } else {
    drop_missing_prefix(checkpoint, config.names);
  }
  fit_fused_experts(checkpoint, config);
  return config;
}

}  // namespace salient::models
