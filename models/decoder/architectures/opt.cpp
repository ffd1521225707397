// OPT.
#include "common/error.h"
#include "models/decoder/architectures/families.h"

namespace salient::models {
namespace {

constexpr TensorNames make_opt_names() {
  TensorNames names;
  names.block_prefix = "model.decoder.layers.";
  names.embedding = "model.decoder.embed_tokens.weight";
  names.position_embedding = "model.decoder.embed_positions.weight";
  names.final_norm = "model.decoder.final_layer_norm";
  names.mlp = "";
  names[LinearSlot::kQProj] = "self_attn.q_proj";
  names[LinearSlot::kKProj] = "self_attn.k_proj";
  names[LinearSlot::kVProj] = "self_attn.v_proj";
  names[LinearSlot::kOProj] = "self_attn.out_proj";
  names[LinearSlot::kUpProj] = "fc1";
  names[LinearSlot::kDownProj] = "fc2";
  names[NormSlot::kAttentionInput] = "self_attn_layer_norm";
  names[NormSlot::kMlpInput] = "final_layer_norm";
  return names;
}

constexpr int64_t kPositionOffset = 2;  // the table's first rows are for padding

}  // namespace

constexpr TensorNames kOptNames = make_opt_names();

void configure_opt(const ConfigReader& config, DecoderConfig& decoder) {
  config.require_flag("do_layer_norm_before", true, "norms after the residual (OPT 350M) are not built");
  if (const int64_t width = config.size_or("word_embed_proj_dim", decoder.hidden_size); width != decoder.hidden_size) {
    fail(ErrorKind::kUnsupported,
         "{}: key 'word_embed_proj_dim': {} is not supported, only hidden_size {}: projections of embeddings (OPT 350M) are not "
         "built",
         config.where(), width, decoder.hidden_size);
  }
  set_layer_norms(decoder, /*bias=*/true);
  set_plain_mlp(decoder);
  set_learned_positions(decoder, kPositionOffset);
  decoder.norm_affine = config.flag_or("layer_norm_elementwise_affine", true);
  if (config.flag_or("_remove_final_layer_norm", false)) decoder.names.final_norm = "";
  decoder.qkv_bias = decoder.o_bias = decoder.mlp_bias = config.flag_or("enable_bias", true);
}

}  // namespace salient::models
