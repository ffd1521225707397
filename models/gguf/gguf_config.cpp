#include "models/gguf/gguf_config.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "common/error.h"
#include "models/decoder/rope.h"
#include "models/gguf/gguf_graphs.h"

namespace salient::models {
namespace {

// The number that was written with as few digits: 1e-6 and not 9.99999997e-07.
double short_number(float value) { return std::strtod(fmt::format("{}", value).c_str(), nullptr); }

class ConfigBuilder {
 public:
  explicit ConfigBuilder(const GgufFile& file)
      : file_(file), architecture_(gguf_value<std::string>(file.header(), "general.architecture")) {
    const bool experts = integer_or("expert_count", 0) > 0;
    for (const GgufGraph& graph : gguf_graphs()) {
      // Several rows may be one architecture there: the mixture is told by its experts.
      if (graph.architecture == architecture_ && graph.mixture == experts && graph_ == nullptr) graph_ = &graph;
    }
    if (graph_ != nullptr) return;
    std::string list;
    for (const GgufGraph& graph : gguf_graphs()) {
      if (list.find(graph.architecture) == std::string::npos) list += (list.empty() ? "" : ", ") + std::string(graph.architecture);
    }
    fail(ErrorKind::kUnsupported, "general.architecture '{}'{} cannot be read, only {}", architecture_,
         experts ? " with experts" : "", list);
  }

  Json build() {
    config_["model_type"] = graph_->model_type;
    add_sizes();
    add_attention();
    add_ropes();
    add_mixture();
    add_gemma();
    add_multipliers();
    add_token_ids();
    config_["tie_word_embeddings"] = file_.find("output.weight") == nullptr;
    config_["torch_dtype"] = "float32";
    return std::move(config_);
  }

 private:
  std::string key(std::string_view suffix) const { return fmt::format("{}.{}", architecture_, suffix); }

  // One number, or the same one for each layer.
  std::optional<int64_t> find_integer(std::string_view suffix) const {
    const std::optional<std::vector<int64_t>> found = find_gguf_integers(file_.header(), key(suffix));
    if (!found || found->empty()) return std::nullopt;
    if (std::any_of(found->begin(), found->end(), [&](int64_t value) { return value != found->front(); }))
      fail(ErrorKind::kUnsupported, "metadata '{}': numbers that differ by layer are not supported", key(suffix));
    return found->front();
  }
  int64_t integer_or(std::string_view suffix, int64_t fallback) const { return find_integer(suffix).value_or(fallback); }
  int64_t integer(std::string_view suffix) const {
    const std::optional<int64_t> found = find_integer(suffix);
    if (!found) fail(ErrorKind::kCorruption, "metadata '{}' is missing", key(suffix));
    return *found;
  }
  std::optional<double> find_number(std::string_view suffix) const {
    const float* const found = find_gguf_value<float>(file_.header(), key(suffix));
    return found != nullptr ? std::optional(short_number(*found)) : std::nullopt;
  }

  int64_t head_dim() const {
    return integer_or("attention.key_length", integer("embedding_length") / std::max<int64_t>(1, integer("attention.head_count")));
  }

  void add_sizes() {
    const GgufTensor* const embedding = file_.find("token_embd.weight");
    if (embedding == nullptr || embedding->shape.size() != 2)
      fail(ErrorKind::kCorruption, "tensor 'token_embd.weight' is missing or no matrix");
    config_["vocab_size"] = embedding->shape[0];
    config_["max_position_embeddings"] = integer("context_length");
    config_["hidden_size"] = integer("embedding_length");
    const int64_t blocks = integer("block_count");
    if (blocks > static_cast<int64_t>(file_.header().tensors.size())) {
      fail(ErrorKind::kCorruption, "metadata '{}': found {}, expected no more than the file's {} tensors", key("block_count"),
           blocks, file_.header().tensors.size());
    }
    config_["num_hidden_layers"] = blocks;
    // Mixtures without dense layers may leave it out.
    config_["intermediate_size"] = graph_->mixture ? integer_or("feed_forward_length", integer_or("expert_feed_forward_length", 1))
                                                   : integer("feed_forward_length");
  }

  void add_attention() {
    const int64_t heads = integer("attention.head_count");
    if (heads < 1) fail(ErrorKind::kCorruption, "metadata '{}': found {}, expected 1 or more", key("attention.head_count"), heads);
    config_["num_attention_heads"] = heads;
    config_["num_key_value_heads"] = integer_or("attention.head_count_kv", heads);
    config_["head_dim"] = head_dim();
    const bool layer_norm = graph_->norm == NormKind::kLayer;
    const auto eps = find_number(layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon");
    if (!eps)
      fail(ErrorKind::kCorruption, "metadata '{}' is missing",
           key(layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon"));
    config_[layer_norm ? "norm_epsilon" : "rms_norm_eps"] = *eps;
    config_["hidden_act"] = graph_->activation;
    if (graph_->activation == "gelu_pytorch_tanh") config_["hidden_activation"] = graph_->activation;

    const bool bias = file_.find("blk.0.attn_q.bias") != nullptr;
    config_[graph_->model_type == "qwen2_moe" ? "qkv_bias" : "attention_bias"] = bias;
    config_["mlp_bias"] = file_.find("blk.0.ffn_up.bias") != nullptr;
    config_["use_bias"] = bias;
    config_["sliding_window"] = graph_->window != GgufWindow::kNone ? Json(integer_or("attention.sliding_window", 4096)) : Json();
  }

  void add_ropes() {
    const double fallback = architecture_ == "gemma3" ? 1e6 : 1e4;
    config_["rope_theta"] = find_number("rope.freq_base").value_or(fallback);
    const int64_t rotated = integer_or("rope.dimension_count", head_dim());
    if (rotated != head_dim()) config_["partial_rotary_factor"] = static_cast<double>(rotated) / static_cast<double>(head_dim());
    if (architecture_ == "gemma3") config_["rope_local_base_freq"] = find_number("rope.freq_base_swa").value_or(1e4);

    const std::string* const written = find_gguf_value<std::string>(file_.header(), key("rope.scaling.type"));
    const std::string type = written != nullptr ? *written : "linear";  // llama.cpp's default
    if (file_.find("rope_freqs.weight") != nullptr) return add_divisors("rope_freqs.weight", "rope_freqs.weight");
    if (type == "longrope" || file_.find("rope_factors_long.weight") != nullptr)
      return add_divisors("rope_factors_short.weight", "rope_factors_long.weight");
    const double factor = find_number("rope.scaling.factor").value_or(1.0);
    if (type == "none" || factor == 0.0 || factor == 1.0) return;
    Json scaling{{"rope_type", type}, {"factor", factor}};
    if (type == "yarn") {
      scaling["original_max_position_embeddings"] = integer_or("rope.scaling.original_context_length", integer("context_length"));
      if (const auto magnitude = find_number("rope.scaling.attn_factor"))
        scaling["attention_factor"] = *magnitude * yarn_magnitude(factor, 1.0);
      if (const auto beta = find_number("rope.scaling.yarn_beta_fast")) scaling["beta_fast"] = *beta;
      if (const auto beta = find_number("rope.scaling.yarn_beta_slow")) scaling["beta_slow"] = *beta;
    } else if (type != "linear") {
      fail(ErrorKind::kUnsupported, "metadata '{}': '{}' is not supported, only none, linear, yarn and longrope",
           key("rope.scaling.type"), type);
    }
    config_["rope_scaling"] = std::move(scaling);
  }

  void add_divisors(const std::string& short_tensor, const std::string& long_tensor) {
    const auto list = [&](const std::string& name) {
      const at::Tensor values = file_.read(name).contiguous();
      const float* const data = values.const_data_ptr<float>();
      return std::vector<float>(data, data + values.numel());
    };
    config_["rope_scaling"] = {
        {"rope_type", "longrope"},
        {"short_factor", list(short_tensor)},
        {"long_factor", list(long_tensor)},
        {"factor", 1.0},
        {"original_max_position_embeddings", integer_or("rope.scaling.original_context_length", integer("context_length"))},
        {"attention_factor", find_number("rope.scaling.attn_factor").value_or(1.0)}};
  }

  void add_mixture() {
    if (!graph_->mixture) return;
    const GgufTensor* const down = file_.find("blk.0.ffn_down_exps.weight");
    if (down == nullptr || down->shape.size() != 3)
      fail(ErrorKind::kCorruption, "tensor 'blk.0.ffn_down_exps.weight' is missing or not stacked");
    const int64_t experts = integer("expert_count");
    if (experts != down->shape[0]) {
      fail(ErrorKind::kCorruption, "metadata '{}': found {}, expected the {} of tensor '{}'", key("expert_count"), experts,
           down->shape[0], down->name);
    }
    const bool mixtral = graph_->model_type == "mixtral";
    config_[mixtral ? "num_local_experts" : "num_experts"] = experts;
    config_["num_experts_per_tok"] = integer("expert_used_count");
    config_[mixtral ? "intermediate_size" : "moe_intermediate_size"] = down->shape[2];
    config_["norm_topk_prob"] = graph_->normalized_experts;
    config_["decoder_sparse_step"] = 1;
    if (!graph_->shared_expert) return;
    const GgufTensor* const shared = file_.find("blk.0.ffn_up_shexp.weight");
    if (shared == nullptr || shared->shape.empty()) fail(ErrorKind::kCorruption, "tensor 'blk.0.ffn_up_shexp.weight' is missing");
    config_["shared_expert_intermediate_size"] = shared->shape[0];
  }

  void add_gemma() {
    if (graph_->attention_scale != GgufAttentionScale::kGemma) return;
    const bool large = integer("block_count") == (graph_->window == GgufWindow::kHalf ? 46 : 62);
    config_["query_pre_attn_scalar"] = large ? integer("embedding_length") / integer("attention.head_count") : head_dim();
    const bool gemma2 = graph_->attention_softcap;
    config_["attn_logit_softcapping"] = gemma2 ? Json(find_number("attn_logit_softcapping").value_or(50.0)) : Json();
    const double cap = find_number("final_logit_softcapping").value_or(gemma2 ? 30.0 : 0.0);
    config_["final_logit_softcapping"] = cap > 0.0 ? Json(cap) : Json();
  }

  void add_multipliers() {
    if (!graph_->written_multipliers) return;
    const double head_scale = 1.0 / std::sqrt(static_cast<double>(head_dim()));
    config_["attention_multiplier"] = find_number("attention.scale").value_or(head_scale);
    config_["embedding_multiplier"] = find_number("embedding_scale").value_or(1.0);
    config_["residual_multiplier"] = find_number("residual_scale").value_or(1.0);
    config_["logits_scaling"] = find_number("logit_scale").value_or(1.0);
  }

  void add_token_ids() {
    for (const auto& [name, suffix] : {std::pair{"bos_token_id", "bos"}, {"eos_token_id", "eos"}, {"pad_token_id", "padding"}}) {
      const auto* const id = find_gguf_value<uint32_t>(file_.header(), fmt::format("tokenizer.ggml.{}_token_id", suffix));
      config_[name] = id != nullptr ? Json(*id) : Json();
    }
    // Chat models end their turn with another token than the text's end.
    if (const auto* const turn = find_gguf_value<uint32_t>(file_.header(), "tokenizer.ggml.eot_token_id");
        turn != nullptr && config_["eos_token_id"].is_number())
      config_["eos_token_id"] = Json::array({config_["eos_token_id"], *turn});
  }

  const GgufFile& file_;
  std::string architecture_;
  const GgufGraph* graph_ = nullptr;
  Json config_ = Json::object();
};

}  // namespace

Json config_from_gguf(const GgufFile& file) {
  return with_context(file.path().string(), [&] { return ConfigBuilder(file).build(); });
}

}  // namespace salient::models
