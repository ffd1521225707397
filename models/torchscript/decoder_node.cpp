#include "models/torchscript/decoder_node.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "common/memory.h"
#include "models/decoder/attention_context.h"
#include "models/decoder/block_weights.h"
#include "models/decoder/embedding.h"
#include "models/torchscript/attention_source.h"
#include "models/torchscript/block_node.h"
#include "models/torchscript/block_parts.h"
#include "models/torchscript/norm_node.h"
#include "models/torchscript/rotary_node.h"
#include "models/torchscript/script_text.h"

namespace salient::models {
namespace {

using Bounds = std::pair<int64_t, int64_t>;  // sliding window, chunk

Bounds bounds_of(const LayerConfig& layer) { return {layer.sliding_window, layer.attention_chunk}; }

// The masks that the blocks need, each once, in the order in which they come.
std::vector<Bounds> distinct_bounds(const DecoderConfig& config) {
  std::vector<Bounds> all;
  for (const LayerConfig& layer : config.layers) {
    if (std::find(all.begin(), all.end(), bounds_of(layer)) == all.end()) all.push_back(bounds_of(layer));
  }
  return all;
}

// mask(positions, position, window, chunk): additive [1, heads or 1, tokens, total], or None where plain causal attention is meant.
std::string mask_source(const DecoderConfig& config, at::ScalarType dtype) {
  const bool alibi = config.position == PositionKind::kAlibi;
  const std::string to = dtype_literal(dtype);
  std::string text;
  add_line(text, "def mask(self, positions: Tensor, position: int, window: int, chunk: int) -> Optional[Tensor]:");
  add_line(text, "  tokens = positions.size(1)");
  add_line(text, "  total = position + tokens");
  add_line(text, "  bounded = (window > 0 and total > window) or (chunk > 0 and total > chunk)");
  if (!alibi) {
    add_line(text, "  if not bounded and {}:", attends_explicitly(config) ? "tokens == 1" : "(tokens == 1 or position == 0)");
    add_line(text, "    return None");
  }
  add_line(text, "  query = positions.view([-1, 1])");
  add_line(text, "  key = torch.arange(total, device=positions.device).view([1, -1])");
  add_line(text, "  visible = key <= query");
  add_line(text, "  if window > 0:");
  add_line(text, "    visible = torch.logical_and(visible, key > query - window)");
  add_line(text, "  if chunk > 0:");
  add_line(text, "    visible = torch.logical_and(visible, torch.floor_divide(key, chunk) == torch.floor_divide(query, chunk))");
  add_line(text, "  hidden = torch.logical_not(visible).view([1, 1, tokens, total])");
  add_line(text,
           "  mask = torch.zeros([1, 1, tokens, total], dtype={}, device=positions.device).masked_fill(hidden, float(\"-inf\"))",
           to);
  if (alibi) {
    const std::string_view rounded = config.alibi_bfloat16 ? ".to(15).to(6)" : "";
    add_line(text, "  bias = self.alibi_slopes.view([1, -1, 1, 1]) * key.view([1, 1, 1, -1]).to(6){}", rounded);
    add_line(text, "  mask = mask + (bias{} * {}).to({})", rounded, real_literal(config.alibi_multiplier), to);
  }
  add_line(text, "  return mask");
  return text;
}

// float32 [heads]: the bias that key 1 has over key 0.
at::Tensor alibi_slopes(const DecoderConfig& config) {
  DecoderConfig plain = config;
  plain.alibi_multiplier = 1.0;
  plain.ropes.clear();
  const AttentionContext context = make_attention_context(plain, at::arange(2, at::kLong).unsqueeze(0), 0, {}, at::kFloat);
  return context.mask.select(0, 0).select(1, 1).select(1, 1).contiguous();
}

std::string hidden_states_source(const NodeSource& source, bool positions_table, bool embedding_norm, bool final_norm) {
  const DecoderConfig& config = source.config;
  const std::string to = dtype_literal(source.dtype);
  std::string text;
  add_line(text, "def hidden_states(self, input_ids: Tensor, cache: List[Tensor], position: int) -> Tensor:");
  add_line(text, "  ids = input_ids.to(self.embed_tokens.device)");
  add_line(text, "  total = position + ids.size(1)");
  add_line(text, "  positions = torch.arange(position, total, device=ids.device).unsqueeze(0)");
  add_line(text, "  x = torch.embedding(self.embed_tokens, ids).to({})", to);
  if (config.embedding_multiplier != 1.0) {
    const double rounded = at::tensor(config.embedding_multiplier, at::TensorOptions(source.dtype)).item<double>();
    add_line(text, "  x = x * {}", real_literal(rounded));
  }
  if (positions_table)
    add_line(text, "  x = x + torch.embedding(self.embed_positions, positions + {}).to({})", config.position_offset, to);
  if (embedding_norm) add_line(text, "  x = self.embedding_norm.forward(x)");

  add_line(text, "  none = torch.zeros([0], dtype={}, device=ids.device)", to);
  for (size_t i = 0; i < config.ropes.size(); ++i)
    add_line(text, "  cos_{}, sin_{} = getattr(self.rotary, \"{}\").forward(positions, total)", i, i, i);
  if (const QueryGrowth& growth = config.query_growth; growth.beta != 0.0) {
    add_line(text, "  periods = torch.floor((positions + {}).to(6) / {})", growth.shift,
             real_literal(static_cast<double>(growth.period)));
    add_line(text, "  growth = (torch.log(1.0 + periods) * {} + 1.0).to({}).unsqueeze(1).unsqueeze(-1)", real_literal(growth.beta),
             to);
  }
  const std::vector<Bounds> masks = distinct_bounds(config);
  for (size_t i = 0; i < masks.size(); ++i)
    add_line(text, "  mask_{} = self.mask(positions, position, {}, {})", i, masks[i].first, masks[i].second);
  for (size_t block = 0; block < config.layers.size(); ++block) {
    const LayerConfig& layer = config.layers[block];
    const auto mask = std::find(masks.begin(), masks.end(), bounds_of(layer)) - masks.begin();
    const std::string angles = layer.rope < 0 ? "none, none" : fmt::format("cos_{}, sin_{}", layer.rope, layer.rope);
    add_line(text, "  x = getattr(self.layers, \"{}\").forward(x, {}, {}, mask_{}, cache, {}, position)", block, angles,
             config.query_growth.beta != 0.0 ? "growth" : "none", mask, block);
  }
  add_line(text, "  return {}", final_norm ? "self.norm.forward(x)" : "x");
  return text;
}

std::string interface_source(const NodeSource& source) {
  const DecoderConfig& config = source.config;
  const bool latent = config.latent.kv_lora_rank > 0;
  const int64_t heads = latent ? config.num_attention_heads : config.num_key_value_heads;
  const int64_t key_dim = latent ? config.latent.qk_nope_head_dim + config.latent.qk_rope_head_dim : config.head_dim;
  const int64_t value_dim = latent ? config.latent.v_head_dim : config.head_dim;
  std::string text;
  add_line(text, "def logits(self, hidden: Tensor) -> Tensor:");
  add_line(text, "  y = self.lm_head.forward(hidden).to(6)");
  if (config.logit_multiplier != 1.0) add_line(text, "  y = y * {}", real_literal(config.logit_multiplier));
  if (config.logit_softcap > 0.0) {
    const std::string cap = real_literal(config.logit_softcap);
    add_line(text, "  y = torch.tanh(y / {}) * {}", cap, cap);
  }
  add_line(text, "  return y");
  add_line(text, "def forward(self, input_ids: Tensor) -> Tensor:");
  add_line(text, "  cache: List[Tensor] = []");
  add_line(text, "  return self.logits(self.hidden_states(input_ids, cache, 0))");
  add_line(text, "def make_cache(self, batch: int, capacity: int) -> List[Tensor]:");
  add_line(text, "  cache: List[Tensor] = []");
  add_line(text, "  for block in range({}):", config.layers.size());
  for (const int64_t dim : {key_dim, value_dim})
    add_line(text, "    cache.append(torch.zeros([batch, {}, capacity, {}], dtype={}, device=self.embed_tokens.device))", heads,
             dim, dtype_literal(source.dtype));
  add_line(text, "  return cache");
  add_line(text, "def step(self, input_ids: Tensor, cache: List[Tensor], position: int) -> Tensor:");
  add_line(text, "  hidden = self.hidden_states(input_ids, cache, position)");
  add_line(text, "  return self.logits(hidden.select(1, -1))");
  return text;
}

// The token table: a view of the checkpoint where it lies there in a type that weights may have, once load() has refused NaN.
at::Tensor token_table(const NodeSource& source) {
  const Checkpoint& checkpoint = source.checkpoint;
  const std::string name(source.config.names.embedding);
  const at::ScalarType stored = checkpoint.info(name).dtype;
  const bool keep = stored == at::kFloat || stored == at::kBFloat16 || stored == at::kHalf;
  const at::Tensor table = checkpoint.load(name, {source.config.vocab_size, source.config.hidden_size}, keep ? stored : at::kFloat);
  return keep ? checkpoint.view(name) : source.scratch.keep(table);
}

ScriptNode head_node(const NodeSource& source, const at::Tensor& tokens) {
  const DecoderConfig& config = source.config;
  const std::string name(config.names.lm_head);
  if (config.tie_word_embeddings) {
    const at::Tensor bias =
        config.lm_head_bias ? source.checkpoint.load(name + ".bias", {config.vocab_size}, source.dtype) : at::Tensor();
    return float_linear_node(tokens, bias);
  }
  LinearSpec spec;
  spec.name = name;
  spec.out_features = config.vocab_size;
  spec.in_features = config.hidden_size;
  spec.bias = config.lm_head_bias;
  return linear_node(source, spec);
}

}  // namespace

ScriptNode decoder_node(const NodeSource& source) {
  const at::NoGradGuard no_grad;
  const DecoderConfig& config = source.config;
  const Checkpoint& checkpoint = source.checkpoint;
  ScriptNode node;
  node.kind = "Decoder";
  const at::Tensor tokens = token_table(source);
  node.buffers.emplace_back("embed_tokens", tokens);
  const std::string positions(config.names.position_embedding);
  if (!positions.empty())
    node.buffers.emplace_back("embed_positions",
                              checkpoint.load(positions, {config.learned_positions, config.hidden_size}, source.dtype));
  if (config.position == PositionKind::kAlibi) node.buffers.emplace_back("alibi_slopes", alibi_slopes(config));
  const std::string_view embedding_norm = config.names.embedding_norm;
  if (!embedding_norm.empty())
    node.children.emplace_back("embedding_norm",
                               norm_node(load_norm(checkpoint, hidden_norm(config, embedding_norm), source.dtype, at::kCPU)));
  if (!config.ropes.empty()) {
    ScriptNode rotary{"RotaryList", "", {}, {}};
    for (size_t i = 0; i < config.ropes.size(); ++i)
      rotary.children.emplace_back(std::to_string(i), rotary_node(config.ropes[i], source.dtype));
    node.children.emplace_back("rotary", std::move(rotary));
  }
  ScriptNode layers{"BlockList", "", {}, {}};
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    layers.children.emplace_back(std::to_string(block), block_node(source, block));
    return_free_memory();
  }
  node.children.emplace_back("layers", std::move(layers));
  const Norm final_norm = load_final_norm(checkpoint, config, source.dtype, at::kCPU);
  if (final_norm.present) node.children.emplace_back("norm", norm_node(final_norm));
  node.children.emplace_back("lm_head", head_node(source, tokens));
  node.source = mask_source(config, source.dtype) +
                hidden_states_source(source, !positions.empty(), !embedding_norm.empty(), final_norm.present) +
                interface_source(source);
  return node;
}

}  // namespace salient::models
