// A random model with layers as wide as the products of large models want them, and room for several blocks of queries.
#pragma once

#include "support/golden_checkpoint.h"

namespace salient::test {

// A case for write_golden_checkpoint: Qwen3 with two layers of 256 channels, 512 ids and positions. `changes` go into its config.
inline Json wide_model(const Json& changes = Json::object()) {
  Json config = {{"model_type", "qwen3"},  {"hidden_size", 256},       {"intermediate_size", 384},
                 {"num_hidden_layers", 2}, {"num_attention_heads", 4}, {"num_key_value_heads", 2},
                 {"head_dim", 64},         {"vocab_size", 512},        {"max_position_embeddings", 512},
                 {"rope_theta", 10000.0},  {"rms_norm_eps", 1e-6},     {"tie_word_embeddings", false}};
  config.update(changes);
  Json tensors = Json::array();
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, double offset, double scale) {
    tensors.push_back({name, shape, offset, scale});
  };
  add("model.embed_tokens.weight", {512, 256}, 0.0, 1.0);
  add("model.norm.weight", {256}, 1.0, 0.1);
  add("lm_head.weight", {512, 256}, 0.0, 0.3);
  for (int layer = 0; layer < 2; ++layer) {
    const std::string block = fmt::format("model.layers.{}.", layer);
    for (const char* norm : {"input_layernorm", "post_attention_layernorm"}) add(block + norm + ".weight", {256}, 1.0, 0.1);
    for (const char* norm : {"self_attn.q_norm", "self_attn.k_norm"}) add(block + norm + ".weight", {64}, 1.0, 0.1);
    add(block + "self_attn.q_proj.weight", {256, 256}, 0.0, 0.12);
    add(block + "self_attn.k_proj.weight", {128, 256}, 0.0, 0.12);
    add(block + "self_attn.v_proj.weight", {128, 256}, 0.0, 0.12);
    add(block + "self_attn.o_proj.weight", {256, 256}, 0.0, 0.12);
    add(block + "mlp.gate_proj.weight", {384, 256}, 0.0, 0.12);
    add(block + "mlp.up_proj.weight", {384, 256}, 0.0, 0.12);
    add(block + "mlp.down_proj.weight", {256, 384}, 0.0, 0.1);
  }
  return {{"config", config}, {"tensors", tensors}};
}

}  // namespace salient::test
