#include "models/decoder/token_step.h"

#include <ATen/Parallel.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "common/cancellation.h"
#include "common/error.h"
#include "models/decoder/decode_attention.h"
#include "models/decoder/mlp.h"
#include "quant/int8_rows.h"
#include "quant/kernels/thread_team.h"

namespace salient::models {
namespace {

using quant::TeamMember;

constexpr int64_t kAheadBytes = 1 << 16;  // of the next product's weights, fetched while waiting: a part of the second level cache

// An RMS norm of rows in float32, or none.
bool is_plain(const Norm& norm) {
  if (!norm.present) return true;
  const at::Tensor& weight = norm.weight;
  return norm.kind == NormKind::kRms && !norm.bias.defined() && weight.defined() && weight.dim() == 1 &&
         weight.scalar_type() == at::kFloat && weight.is_cpu() && weight.is_contiguous();
}

void normalize_row(const Norm& norm, const float* x, int64_t n, float* to) {
  if (norm.present) return rms_norm_row(x, norm.weight.const_data_ptr<float>(), norm.eps, n, to);
  std::copy(x, x + n, to);
}

std::string kind_of(const Linear& linear) {
  if (std::holds_alternative<ByteLinear>(linear)) return "in codes that are dequantized for every product";
  const auto* plain = std::get_if<FloatLinear>(&linear);
  if (plain != nullptr && plain->weight.defined()) {
    const at::ScalarType type = plain->weight.scalar_type();
    if (type == at::kFloat) return "in float32";
    if (type != at::kHalf && type != at::kBFloat16) return fmt::format("in {}", c10::toString(type));
  }
  return plain != nullptr && !plain->weight.defined() ? "not there" : "not as this way reads it";
}

struct NamedLinear {
  std::string_view name;
  const Linear* linear;
};

// Products of one input, or nothing where a linear has none or they want the input prepared in several ways; then with the
// reason, unless there was one before.
std::vector<RowProduct> products_of(const std::vector<NamedLinear>& linears, std::string& why_not) {
  std::vector<RowProduct> products;
  for (const NamedLinear& entry : linears) {
    std::optional<RowProduct> product = RowProduct::of(*entry.linear);
    if (!product || (!products.empty() && !product->accepts_input_of(products.front()))) {
      if (!why_not.empty()) return {};
      why_not = product ? fmt::format("{} wants its input in another form than {}", entry.name, linears.front().name)
                        : fmt::format("{} is {}", entry.name, kind_of(*entry.linear));
      return {};
    }
    products.push_back(*std::move(product));
  }
  return products;
}

int64_t total_width(const std::vector<RowProduct>& products) {
  int64_t width = 0;
  for (const RowProduct& product : products) width += product.out_features();
  return width;
}

int64_t total_tiles(const std::vector<RowProduct>& products) {
  int64_t tiles = 0;
  for (const RowProduct& product : products) tiles += product.tiles();
  return tiles;
}

// Of another decoder's shape it would be read and written out of bounds.
void check_cache(const DecoderConfig& config, const KvCacheLayer& cache, int64_t rows, int64_t past_length) {
  for (const at::Tensor* kept : {&cache.keys, &cache.values}) {
    const bool fits = kept->dim() == 4 && kept->size(0) == rows && kept->size(1) == config.num_key_value_heads &&
                      kept->size(2) > past_length && kept->size(3) == config.head_dim && kept->stride(3) == 1 &&
                      (kept->scalar_type() == at::kFloat || kept->scalar_type() == at::kChar);
    if (fits) continue;
    fail(ErrorKind::kInternal, "one token after {}: the cache is [{}], expected [{}, {}, capacity, {}] of this decoder",
         past_length, fmt::join(kept->sizes(), ", "), rows, config.num_key_value_heads, config.head_dim);
  }
}

// Where the heads of queries, keys or values lie in a product's output.
struct Heads {
  float* data = nullptr;
  int64_t row = 0;  // stride
  int64_t dim = 0;
  int64_t first = 0;      // head of the row
  int64_t per_group = 1;  // neighbours
  int64_t group = 0;      // heads from one group to the next

  const float* at(int64_t r, int64_t head) const {
    return data + r * row + (first + head / per_group * group + head % per_group) * dim;
  }
};

}  // namespace

struct TokenStepMemory {
  TokenStepMemory(const TokenStep* of, const DecoderConfig& config, int64_t row_count, int64_t token_count, int thread_count,
                  int64_t qkv_width, int64_t gate_up_width)
      : owner(of), rows(row_count), capacity(token_count), threads(thread_count) {
    const auto floats = [](int64_t count) { return std::vector<float>(static_cast<size_t>(count)); };
    const int64_t attention_width = config.num_attention_heads * config.head_dim;
    const int64_t group = config.num_attention_heads / config.num_key_value_heads;
    qkv = floats(rows * qkv_width);
    attention = floats(rows * attention_width);
    gate_up = floats(rows * gate_up_width);
    mlp_hidden = floats(rows * config.intermediate_size);
    branch = floats(rows * config.hidden_size);
    for (int t = 0; t < threads; ++t) {
      own.push_back({RowInput(rows, std::max({attention_width, config.hidden_size, config.intermediate_size})),
                     floats((group + 2) * config.head_dim), floats(std::min(group, quant::kMaxQueries) * capacity)});
    }
  }

  bool fits(const TokenStep* of, int64_t row_count, int64_t token_count, int thread_count) const {
    return owner == of && rows >= row_count && capacity >= token_count && threads >= thread_count;
  }

  const TokenStep* owner;
  int64_t rows, capacity;
  int threads;
  std::vector<float> qkv, attention, gate_up, mlp_hidden, branch;  // [rows, ...]
  struct OfThread {
    RowInput input;
    std::vector<float> heads;   // the group's queries and two more
    std::vector<float> shares;  // of attention
  };
  std::vector<OfThread> own;
};

// The work of one thread.
class TokenStepRun {
 public:
  TokenStepRun(const TokenStep& step, const AttentionContext& context, int64_t past_length, std::vector<KvCacheLayer>& caches,
               TokenStepMemory& memory, at::Tensor& hidden, const TeamMember& member)
      : step_(step),
        config_(step.config_),
        context_(context),
        past_(past_length),
        caches_(caches),
        memory_(memory),
        own_(memory.own[static_cast<size_t>(member.index)]),
        rows_(hidden.size(0)),
        hidden_(hidden.mutable_data_ptr<float>()),
        member_(member) {}

  void run() {
    for (size_t block = 0; block < step_.blocks_.size(); ++block) {
      const TokenStep::Block& weights = step_.blocks_[block];
      read_normalized(weights.attention_input, weights.qkv.front());
      multiply(weights.qkv, memory_.qkv.data());
      meet_before(weights.output);
      attend(block);
      member_.meeting.wait(ahead_);
      read(memory_.attention.data(), weights.output.front());
      add_branch(weights.output);
      meet_before(weights.gate_up, member_.part_of(mlp_tiles()).begin);
      read_normalized(weights.mlp_input, weights.gate_up.front());
      find_mlp_hidden(weights.gate_up);
      meet_before(weights.down);
      read(memory_.mlp_hidden.data(), weights.down.front());
      add_branch(weights.down);
      meet_before(step_.blocks_[std::min(block + 1, step_.blocks_.size() - 1)].qkv);
    }
  }

 private:
  // Waits for the others, and fetches meanwhile what this thread reads first of its next products' weights: from tile `first` of
  // all on.
  void meet_before(const std::vector<RowProduct>& next, int64_t first) {
    for (const RowProduct& product : next) {
      if (first < product.tiles()) {
        ahead_ = product.bytes_from(first, kAheadBytes);
        break;
      }
      first -= product.tiles();
    }
    member_.meeting.wait(ahead_);
  }
  void meet_before(const std::vector<RowProduct>& next) { meet_before(next, member_.part_of(total_tiles(next)).begin); }

  int64_t mlp_tiles() const { return (config_.intermediate_size + quant::kTileChannels - 1) / quant::kTileChannels; }

  void read_normalized(const Norm& norm, const RowProduct& product) {
    const int64_t width = config_.hidden_size;
    for (int64_t row = 0; row < rows_; ++row) normalize_row(norm, hidden_ + row * width, width, own_.input.numbers() + row * width);
    own_.input.prepare(rows_, product);
  }

  void read(const float* x, const RowProduct& product) {
    std::copy(x, x + rows_ * product.in_features(), own_.input.numbers());
    own_.input.prepare(rows_, product);
  }

  // This thread's share of the output channels of all; the outputs lie one after the other.
  void multiply(const std::vector<RowProduct>& products, float* y) {
    const TeamMember::Part part = member_.part_of(total_tiles(products));
    int64_t first = 0;
    for (const RowProduct& product : products) {
      product.multiply(own_.input, std::max<int64_t>(0, part.begin - first), std::min(product.tiles(), part.end - first), y);
      first += product.tiles();
      y += rows_ * product.out_features();
    }
  }

  // hidden += the product, in this thread's channels.
  void add_branch(const std::vector<RowProduct>& products) {
    const RowProduct& product = products.front();
    const TeamMember::Part part = member_.part_of(product.tiles());
    product.multiply(own_.input, part.begin, part.end, memory_.branch.data());
    const auto factor = static_cast<float>(config_.residual_multiplier);
    const int64_t width = config_.hidden_size;
    const int64_t last = std::min(part.end * quant::kTileChannels, width);
    for (int64_t row = 0; row < rows_; ++row) {
      float* to = hidden_ + row * width;
      const float* from = memory_.branch.data() + row * width;
      for (int64_t n = part.begin * quant::kTileChannels; n < last; ++n) to[n] += from[n] * factor;
    }
  }

  // The same channels of gate and up, so that their product needs no other thread.
  void find_mlp_hidden(const std::vector<RowProduct>& products) {
    const int64_t width = config_.intermediate_size;
    const int64_t tiles = mlp_tiles();
    const TeamMember::Part part = member_.part_of(tiles);
    const bool fused = products.size() == 1;
    float* gate = memory_.gate_up.data();
    float* up = fused ? gate + width : gate + rows_ * width;
    const int64_t stride = fused ? 2 * width : width;
    products.front().multiply(own_.input, part.begin, part.end, gate);
    if (fused) {
      products.front().multiply(own_.input, tiles + part.begin, tiles + part.end, gate);
    } else {
      products.back().multiply(own_.input, part.begin, part.end, up);
    }
    const int64_t first = part.begin * quant::kTileChannels;
    const int64_t count = std::min(part.end * quant::kTileChannels, width) - first;
    for (int64_t row = 0; row < rows_; ++row)
      silu_product(gate + row * stride + first, up + row * stride + first, count, memory_.mlp_hidden.data() + row * width + first);
  }

  struct QkvHeads {
    Heads queries, keys, values;
  };
  QkvHeads qkv_heads(const std::vector<RowProduct>& products) const {
    const int64_t queries = config_.num_attention_heads;
    const int64_t keys = config_.num_key_value_heads;
    const int64_t dim = config_.head_dim;
    float* data = memory_.qkv.data();
    if (products.size() == 3) {
      float* key_data = data + rows_ * queries * dim;
      return {{data, queries * dim, dim, 0, queries, 0},
              {key_data, keys * dim, dim, 0, keys, 0},
              {key_data + rows_ * keys * dim, keys * dim, dim, 0, keys, 0}};
    }
    const int64_t of_group = queries / config_.qkv_groups;
    const int64_t keys_of_group = keys / config_.qkv_groups;
    const int64_t group = of_group + 2 * keys_of_group;
    const int64_t row = (queries + 2 * keys) * dim;
    return {{data, row, dim, 0, of_group, group},
            {data, row, dim, of_group, keys_of_group, group},
            {data, row, dim, of_group + keys_of_group, keys_of_group, group}};
  }

  // Key heads are shared out: each thread finishes their queries, writes their new key and value, and attends.
  void attend(size_t block) {
    const TokenStep::Block& weights = step_.blocks_[block];
    const LayerConfig& layer = config_.layers[block];
    const QkvHeads heads = qkv_heads(weights.qkv);
    const int64_t kv_heads = config_.num_key_value_heads;
    const int64_t group = config_.num_attention_heads / kv_heads;
    const int64_t dim = config_.head_dim;
    const int64_t total = past_ + 1;
    const at::Tensor mask = select_mask(context_, layer, 1, past_, at::kFloat, at::kCPU).mask;
    const double scale = config_.attention_scale > 0.0 ? config_.attention_scale : 1.0 / std::sqrt(static_cast<double>(dim));
    float* queries = own_.heads.data();
    float* key = queries + group * dim;
    float* normalized = key + dim;
    const TeamMember::Part part = member_.part_of(rows_ * kv_heads);
    for (int64_t item = part.begin; item < part.end; ++item) {
      const int64_t row = item / kv_heads;
      const int64_t head = item % kv_heads;
      for (int64_t i = 0; i < group; ++i)
        place(weights.query, layer, row, heads.queries.at(row, head * group + i), normalized, queries + i * dim);
      place(weights.key, layer, row, heads.keys.at(row, head), normalized, key);
      const KvScheme& scheme = step_.kv_[block];
      const KvCacheLayer& cache = caches_[block];
      const quant::CachedHead keys = write(key, cache.keys, cache.key_scales, scheme.key_scale, row, head);
      const quant::CachedHead values =
          write(heads.values.at(row, head), cache.values, cache.value_scales, scheme.value_scale, row, head);
      const float* added = mask.defined() ? mask.const_data_ptr<float>() + (mask.size(0) == 1 ? 0 : row * mask.stride(0)) : nullptr;
      attend_to_head(queries, dim, group, keys, values, total, added, static_cast<float>(scale), own_.shares.data(),
                     memory_.attention.data() + (row * kv_heads + head) * group * dim);
    }
  }

  // Norm, then rotation.
  void place(const Norm& norm, const LayerConfig& layer, int64_t row, const float* x, float* normalized, float* to) const {
    const int64_t width = config_.head_dim;
    normalize_row(norm, x, width, layer.rope < 0 ? to : normalized);
    if (layer.rope < 0) return;
    const RotaryTable& table = context_.rotary[static_cast<size_t>(layer.rope)];
    const int64_t dim = table.cos.size(3);
    const int64_t angles = table.cos.size(0) == 1 ? 0 : row * dim;
    rotate_head(normalized, table.cos.const_data_ptr<float>() + angles, table.sin.const_data_ptr<float>() + angles, dim, width, to);
  }

  // Writes x at past_ and returns all that is kept of this head.
  quant::CachedHead write(const float* x, const at::Tensor& cache, const at::Tensor& scales, const at::Tensor& stored, int64_t row,
                          int64_t head) const {
    quant::CachedHead kept{.stride = cache.stride(2), .dim = cache.size(3)};
    const int64_t first = row * cache.stride(0) + head * cache.stride(1);
    if (cache.scalar_type() == at::kFloat) {
      float* numbers = cache.mutable_data_ptr<float>() + first;
      std::copy(x, x + kept.dim, numbers + past_ * kept.stride);
      kept.numbers = numbers;
      return kept;
    }
    int8_t* codes = cache.mutable_data_ptr<int8_t>() + first;
    kept.codes = codes;
    int8_t* to = codes + past_ * kept.stride;
    if (stored.defined()) {
      const float* scale = stored.const_data_ptr<float>() + (stored.size(0) == 1 ? 0 : head * stored.stride(0));
      quant::to_int8_row(x, kept.dim, quant::kStableHalfRange, *scale, to);
      kept.scales = scale;
      return kept;
    }
    float* own = scales.mutable_data_ptr<float>() + row * scales.stride(0) + head * scales.stride(1);
    own[past_ * scales.stride(2)] = quant::to_int8_row(x, kept.dim, quant::kStableHalfRange, std::nullopt, to);
    kept.scales = own;
    kept.scale_stride = scales.stride(2);
    return kept;
  }

  const TokenStep& step_;
  const DecoderConfig& config_;
  const AttentionContext& context_;
  const int64_t past_;
  std::vector<KvCacheLayer>& caches_;
  TokenStepMemory& memory_;
  TokenStepMemory::OfThread& own_;
  const int64_t rows_;
  float* hidden_;
  const TeamMember& member_;
  quant::Ahead ahead_;
};

std::optional<TokenStep::Block> TokenStep::plan(const DecoderConfig& config, const LayerConfig& layer, const BlockWeights& weights,
                                                std::string& why_not) {
  const auto none = [](const auto& parts, auto... slots) { return (!parts[static_cast<size_t>(slots)].defined() && ...); };
  const bool plain = layer.attention == AttentionKind::kStandard && !layer.moe &&
                     !has_weight(weights.at(LinearSlot::kOutputGate)) &&
                     none(weights.parameters, ParameterSlot::kSinks, ParameterSlot::kOutputScale) &&
                     !weights.mlp.activation_scales.defined() && !weights.mlp.xielu.alpha_p.defined() &&
                     !weights.at(NormSlot::kAttentionOutput).present && !weights.at(NormSlot::kMlpOutput).present;
  if (!plain || (layer.rope >= 0 && config.ropes[static_cast<size_t>(layer.rope)].pairs != RopePairs::kHalves)) {
    why_not = "its kind of attention, MLP, norms or positions has no such way";
    return std::nullopt;
  }
  Block block{weights.at(NormSlot::kAttentionInput),
              weights.at(NormSlot::kQuery),
              weights.at(NormSlot::kKey),
              weights.at(NormSlot::kMlpInput),
              {},
              {},
              {},
              {}};
  for (const Norm* norm : {&block.attention_input, &block.query, &block.key, &block.mlp_input}) {
    if (is_plain(*norm)) continue;
    why_not = "a norm is no RMS norm in float32";
    return std::nullopt;
  }
  const auto choose = [&](const NamedLinear& fused, const std::vector<NamedLinear>& parts) {
    return has_weight(*fused.linear) ? products_of({fused}, why_not) : products_of(parts, why_not);
  };
  block.qkv = choose({"qkv_proj", &weights.at(LinearSlot::kQkvProj)}, {{"q_proj", &weights.at(LinearSlot::kQProj)},
                                                                       {"k_proj", &weights.at(LinearSlot::kKProj)},
                                                                       {"v_proj", &weights.at(LinearSlot::kVProj)}});
  block.output = products_of({{"o_proj", &weights.at(LinearSlot::kOProj)}}, why_not);
  block.gate_up = choose({"gate_up_proj", &weights.mlp.gate_up}, {{"gate_proj", &weights.mlp.gate}, {"up_proj", &weights.mlp.up}});
  block.down = products_of({{"down_proj", &weights.mlp.down}}, why_not);
  if (block.gate_up.size() == 1 && config.intermediate_size % quant::kTileChannels != 0) {
    why_not = fmt::format("gate_proj and up_proj are one linear, and {} channels do not divide by {}", config.intermediate_size,
                          quant::kTileChannels);
    return std::nullopt;
  }
  if (block.qkv.empty() || block.output.empty() || block.gate_up.empty() || block.down.empty()) return std::nullopt;
  return block;
}

std::shared_ptr<const TokenStep> TokenStep::make(const DecoderConfig& config, const std::vector<BlockWeights>& blocks,
                                                 std::vector<KvScheme> kv, std::string* why_not) {
  const bool plain = config.gated_mlp && is_silu(config.hidden_act) && !config.parallel_residual && !config.residual_from_norm &&
                     !config.query_gate && config.head_norm == HeadNorm::kEachHead && !config.head_norm_after_rope &&
                     config.attention_softcap == 0.0 && config.query_growth.beta == 0.0 && config.qkv_clip == 0.0 &&
                     config.position == PositionKind::kRope && !blocks.empty();
  if (!plain) {
    if (why_not != nullptr) *why_not = fmt::format("{} has parts that this way lacks", config.model_type);
    return nullptr;
  }
  std::shared_ptr<TokenStep> step(new TokenStep(config));
  step->kv_ = std::move(kv);
  for (size_t block = 0; block < blocks.size(); ++block) {
    std::string reason;
    std::optional<Block> planned = plan(config, config.layers[block], blocks[block], reason);
    if (!planned) {
      if (why_not != nullptr) *why_not = fmt::format("{}{}: {}", config.names.block_prefix, block, reason);
      return nullptr;
    }
    step->blocks_.push_back(*std::move(planned));
  }
  return step;
}

void TokenStep::run(const AttentionContext& context, int64_t past_length, std::vector<KvCacheLayer>& caches,
                    std::shared_ptr<TokenStepMemory>& memory, at::Tensor& hidden) const {
  check_cancelled();
  const int threads = at::get_num_threads();
  for (const KvCacheLayer& cache : caches) check_cache(config_, cache, hidden.size(0), past_length);
  const int64_t capacity = caches.front().keys.size(2);
  if (memory == nullptr || !memory->fits(this, hidden.size(0), capacity, threads)) {
    memory = std::make_shared<TokenStepMemory>(this, config_, hidden.size(0), capacity, threads, total_width(blocks_.front().qkv),
                                               total_width(blocks_.front().gate_up));
  }
  quant::run_team(
      threads, [&](const TeamMember& member) { TokenStepRun(*this, context, past_length, caches, *memory, hidden, member).run(); });
}

}  // namespace salient::models
