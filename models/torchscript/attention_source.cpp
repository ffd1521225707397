#include "models/torchscript/attention_source.h"

#include <cmath>

#include "models/torchscript/rotary_node.h"
#include "models/torchscript/script_text.h"

namespace salient::models {
namespace {

// Logits that are in memory at a time.
constexpr int64_t kLogitElements = int64_t{1} << 25;

int64_t query_head_dim(const DecoderConfig& config, const LayerConfig& layer) {
  return layer.attention == AttentionKind::kLatent ? config.latent.qk_nope_head_dim + config.latent.qk_rope_head_dim
                                                   : config.head_dim;
}

// attend(q, k, v, mask): [batch, heads, tokens, head_dim] -> [batch, tokens, heads * value head_dim]
void add_attend(std::string& text, const BlockParts& parts) {
  const DecoderConfig& config = parts.config;
  const auto head_dim = static_cast<double>(query_head_dim(config, parts.layer()));
  const std::string scale = real_literal(config.attention_scale > 0.0 ? config.attention_scale : 1.0 / std::sqrt(head_dim));
  const bool latent = parts.layer().attention == AttentionKind::kLatent;
  const int64_t group = latent ? 1 : config.num_attention_heads / config.num_key_value_heads;
  add_line(text, "def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Optional[Tensor]) -> Tensor:");
  add_line(text, "  batch = q.size(0)");
  add_line(text, "  tokens = q.size(2)");
  const bool open = attends_explicitly(config);
  if (!open && group > 1 && config.position != PositionKind::kAlibi) {
    // One new token: the query heads of a key head become its queries, which avoids copying the cache for each of them.
    add_line(text, "  if tokens == 1:");
    add_line(text, "    grouped = q.reshape([batch, k.size(1), {}, q.size(3)])", group);
    add_line(text,
             "    return torch.scaled_dot_product_attention(grouped, k, v, mask, 0.0, False, scale={}).reshape([batch, 1, -1])",
             scale);
  }
  if (group > 1) {
    add_line(text, "  k = torch.repeat_interleave(k, {}, 1)", group);
    add_line(text, "  v = torch.repeat_interleave(v, {}, 1)", group);
  }
  if (!open) {
    add_line(text, "  causal = tokens > 1 and mask is None");
    add_line(text, "  y = torch.scaled_dot_product_attention(q, k, v, mask, 0.0, causal, scale={})", scale);
    add_line(text, "  return y.transpose(1, 2).reshape([batch, tokens, -1])");
    return;
  }
  add_line(text, "  step = max(1, {} // (batch * q.size(1) * k.size(2)))", kLogitElements);
  add_line(text, "  parts: List[Tensor] = []");
  add_line(text, "  for begin in range(0, tokens, step):");
  add_line(text, "    count = min(step, tokens - begin)");
  add_line(text, "    logits = torch.matmul(q.narrow(2, begin, count), k.transpose(2, 3)) * {}", scale);
  if (config.attention_softcap > 0.0) {
    const std::string cap = real_literal(config.attention_softcap);
    add_line(text, "    logits = torch.tanh(logits / {}) * {}", cap, cap);
  }
  add_line(text, "    if mask is not None:");
  add_line(text, "      logits = logits + mask.narrow(2, begin, count)");
  if (parts.has(ParameterSlot::kSinks)) {
    add_line(text, "    sinks = self.sinks.to(logits.dtype).view([1, -1, 1, 1]).expand([batch, q.size(1), count, 1])");
    add_line(text, "    logits = torch.cat([logits, sinks], 3)");
  }
  add_line(text, "    share = torch.softmax(logits, -1, 6).to(v.dtype).narrow(3, 0, k.size(2))");
  add_line(text, "    parts.append(torch.matmul(share, v))");
  add_line(text, "  return torch.cat(parts, 2).transpose(1, 2).reshape([batch, tokens, -1])");
}

void add_with_cache(std::string& text) {
  add_line(text, "def with_cache(self, new: Tensor, cache: List[Tensor], slot: int, position: int) -> Tensor:");
  add_line(text, "  if len(cache) == 0:");
  add_line(text, "    return new");
  add_line(text, "  cache[slot].narrow(2, position, new.size(2)).copy_(new)");
  add_line(text, "  return cache[slot].narrow(2, 0, position + new.size(2))");
}

// Leaves q, k, v [batch, tokens, heads, head_dim], and gate where there is one.
void add_projections(std::string& text, const BlockParts& parts) {
  const DecoderConfig& config = parts.config;
  const int64_t dim = config.head_dim;
  const auto split = [&](std::string_view name, std::string_view from) {
    add_line(text, "  {} = {}.reshape([batch, tokens, -1, {}])", name, from, dim);
  };
  if (parts.has(LinearSlot::kQkvProj)) {
    const int64_t queries = config.num_attention_heads / config.qkv_groups;
    const int64_t keys = config.num_key_value_heads / config.qkv_groups;
    add_line(text, "  qkv = self.qkv_proj.forward(x).view([batch, tokens, {}, {}, {}])", config.qkv_groups, queries + 2 * keys,
             dim);
    split("q", fmt::format("qkv.narrow(3, 0, {})", queries));
    split("k", fmt::format("qkv.narrow(3, {}, {})", queries, keys));
    split("v", fmt::format("qkv.narrow(3, {}, {})", queries + keys, keys));
  } else {
    if (config.query_gate) {
      add_line(text, "  both = self.q_proj.forward(x).view([batch, tokens, {}, {}])", config.num_attention_heads, 2 * dim);
      add_line(text, "  gate = both.narrow(3, {}, {}).reshape([batch, tokens, -1])", dim, dim);
      split("q", fmt::format("both.narrow(3, 0, {})", dim));
    } else {
      split("q", "self.q_proj.forward(x)");
    }
    split("k", "self.k_proj.forward(x)");
    split("v", "self.v_proj.forward(x)");
  }
  if (parts.has(LinearSlot::kOutputGate)) add_line(text, "  gate = self.gate.forward(x)");
}

// Norm, clip and rotation of the queries or the keys; leaves `name` [batch, heads, tokens, head_dim].
void add_placing(std::string& text, const BlockParts& parts, std::string_view name, NormSlot norm) {
  const DecoderConfig& config = parts.config;
  const auto turn = [&] {
    if (parts.rope() != nullptr) add_line(text, "  {} = self.rotate({}, cos, sin)", name, name);
  };
  const auto normalize = [&] {
    if (parts.has(norm)) {
      const std::string module = fmt::format("self.{}.forward", norm == NormSlot::kQuery ? "q_norm" : "k_norm");
      if (config.head_norm == HeadNorm::kWholeWidth) {
        add_line(text, "  {} = {}({}.flatten(2)).view({}.size())", name, module, name, name);
      } else {
        add_line(text, "  {} = {}({})", name, module, name);
      }
    }
    if (config.qkv_clip > 0.0)
      add_line(text, "  {} = torch.clamp({}, {}, {})", name, name, real_literal(-config.qkv_clip), real_literal(config.qkv_clip));
  };
  const auto swap = [&] { add_line(text, "  {} = {}.transpose(1, 2)", name, name); };
  if (config.head_norm_after_rope) {
    swap();
    turn();
    swap();
    normalize();
    swap();
  } else {
    normalize();
    swap();
    turn();
  }
}

void add_standard(std::string& text, const BlockParts& parts) {
  const DecoderConfig& config = parts.config;
  add_projections(text, parts);
  add_placing(text, parts, "q", NormSlot::kQuery);
  if (parts.grows()) add_line(text, "  q = q * growth");
  add_placing(text, parts, "k", NormSlot::kKey);
  if (config.qkv_clip > 0.0)
    add_line(text, "  v = torch.clamp(v, {}, {})", real_literal(-config.qkv_clip), real_literal(config.qkv_clip));
  add_line(text, "  k = self.with_cache(k, cache, 2 * index, position)");
  add_line(text, "  v = self.with_cache(v.transpose(1, 2), cache, 2 * index + 1, position)");
  add_line(text, "  y = self.attend(q, k, v, mask)");
  if (config.query_gate || parts.has(LinearSlot::kOutputGate)) add_line(text, "  y = y * torch.sigmoid(gate)");
}

void add_latent(std::string& text, const BlockParts& parts) {
  const LatentAttentionConfig& latent = parts.config.latent;
  const int64_t nope = latent.qk_nope_head_dim;
  const int64_t turned = latent.qk_rope_head_dim;
  const auto turn = [&](std::string_view name) {
    if (parts.rope() != nullptr) add_line(text, "  {} = self.rotate({}, cos, sin)", name, name);
  };
  const auto by_head = [&](std::string_view name, std::string_view from, int64_t dim) {
    add_line(text, "  {} = {}.view([batch, tokens, -1, {}]).transpose(1, 2)", name, from, dim);
  };
  by_head("q",
          latent.q_lora_rank == 0 ? "self.q_proj.forward(x)"
                                  : "self.q_b_proj.forward(self.q_latent_norm.forward(self.q_a_proj.forward(x)))",
          nope + turned);
  add_line(text, "  q_place = q.narrow(3, {}, {})", nope, turned);
  turn("q_place");
  add_line(text, "  q = torch.cat([q.narrow(3, 0, {}), q_place], 3)", nope);
  add_line(text, "  compressed = self.kv_a_proj.forward(x)");
  add_line(text, "  latent = self.kv_latent_norm.forward(compressed.narrow(2, 0, {}))", latent.kv_lora_rank);
  by_head("kv", "self.kv_b_proj.forward(latent)", nope + latent.v_head_dim);
  add_line(text, "  k_place = compressed.narrow(2, {}, {}).unsqueeze(1)", latent.kv_lora_rank, turned);
  turn("k_place");
  add_line(text, "  k = torch.cat([kv.narrow(3, 0, {}), k_place.expand([-1, {}, -1, -1])], 3)", nope,
           parts.config.num_attention_heads);
  add_line(text, "  k = self.with_cache(k, cache, 2 * index, position)");
  add_line(text, "  v = self.with_cache(kv.narrow(3, {}, {}), cache, 2 * index + 1, position)", nope, latent.v_head_dim);
  add_line(text, "  y = self.attend(q, k, v, mask)");
}

}  // namespace

std::string attention_source(const BlockParts& parts) {
  const bool latent = parts.layer().attention == AttentionKind::kLatent;
  std::string text;
  if (const RopeConfig* rope = parts.rope())
    text += rotate_source(*rope, latent ? parts.config.latent.qk_rope_head_dim : parts.config.head_dim);
  add_with_cache(text);
  add_attend(text, parts);
  add_line(text, "def attention(self, x: Tensor, {}) -> Tensor:", kContextParameters);
  add_line(text, "  batch = x.size(0)");
  add_line(text, "  tokens = x.size(1)");
  latent ? add_latent(text, parts) : add_standard(text, parts);
  add_line(text, "  return self.o_proj.forward(y)");
  return text;
}

}  // namespace salient::models
