#include "models/io/merge_adapter.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/index_copy.h>
#include <ATen/ops/linalg_vector_norm.h>

#include <array>
#include <optional>
#include <string_view>

#include "common/error.h"
#include "models/decoder/decoder_config.h"
#include "models/decoder/wrappers.h"

namespace salient::models {
namespace {

// What the text model's tensors begin with, in PEFT's names and in files: the same module in a wrapper, in a bare model, as
// transformers renames it.
constexpr std::array<std::string_view, 5> kRoots = {"model.language_model.", "language_model.model.", "language_model.", "model.",
                                                    ""};

at::ScalarType computed_dtype(const at::Tensor& tensor) { return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat; }

class Merger {
 public:
  Merger(Checkpoint& checkpoint, const Adapter& adapter)
      : checkpoint_(checkpoint),
        adapter_(adapter),
        config_(checkpoint.config()),
        decoder_(load_decoder_config(checkpoint)),
        embedding_(decoder_.names.embedding),
        head_(std::string(decoder_.names.lm_head) + ".weight"),
        file_(checkpoint.add_file(adapter.weights->path())),
        what_(fmt::format("merged with {}", adapter.weights->path().string())) {}

  void merge() {
    for (const auto& [name, stored] : adapter_.replaced_base) replace(name, stored);
    if (decoder_.tie_word_embeddings) part_head();
    for (const auto& [name, stored] : adapter_.replaced) replace(name, stored);
    if (decoder_.tie_word_embeddings && has_own_head_) set_text_key("tie_word_embeddings", false);
    fit_vocabulary();
    std::map<std::string, TensorChange> changes;
    for (const AdapterModule& module : adapter_.modules) {
      const std::string name = find(module.module + ".weight", module.a);
      changes[name] = weight_change(module, name);
      if (module.bias.empty()) continue;
      const std::string bias = find(module.module + ".bias", module.bias);
      changes[bias] = bias_change(module, bias);
    }
    for (const AdapterTokens& tokens : adapter_.tokens) {
      const std::string name = find(tokens.module + ".weight", tokens.values);
      if (changes.contains(name)) fail_module(tokens.values, "is of a module that has matrices, too");
      changes[name] = rows_change(tokens, name);
    }
    checkpoint_.change(std::move(changes), std::move(config_));
  }

 private:
  [[noreturn]] void fail_module(const std::string& tensor, const std::string& what) const {
    fail(ErrorKind::kCorruption, "{}: tensor '{}' {}", adapter_.weights->path().string(), tensor, what);
  }

  std::optional<std::string> try_find(const std::string& name) const {
    if (checkpoint_.contains(name)) return name;
    for (const std::string_view root : kRoots) {
      if (!name.starts_with(root)) continue;
      for (const std::string_view other : kRoots) {
        std::string candidate = std::string(other) + name.substr(root.size());
        if (checkpoint_.contains(candidate)) return candidate;
      }
    }
    return std::nullopt;
  }

  // The base's name of what PEFT calls `name`; `tensor` of the adapter is about it.
  std::string find(const std::string& name, const std::string& tensor) const {
    if (const auto found = try_find(name)) return *found;
    const std::string module = name.substr(0, name.rfind('.'));
    for (const char* packed : {".qweight", ".weight_packed", ".weight.absmax"}) {
      if (try_find(module + packed)) fail_packed(module);
    }
    try {
      checkpoint_.info(name);
    } catch (Error& error) {
      throw error.with_hint(fmt::format(
          "{}: tensor '{}' belongs to another base model; --adapter-base DIR (model.base of a config) names the right one",
          adapter_.weights->path().string(), tensor));
    }
    return name;
  }

  [[noreturn]] void fail_packed(const std::string& module) const {
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: its base is quantized: the weights of '{}' in {} are packed, and an adapter is merged into floats",
                            checkpoint_.folder().string(), module, adapter_base(adapter_).string()))
        .with_hint("--adapter-base DIR (model.base of a config) names the float checkpoint that the base was made from");
  }

  bool is_embedding(const std::string& name) const { return try_find(name) == embedding_; }
  bool is_head(const std::string& name) const {
    return name == head_ || try_find(name) == head_ || name.ends_with("lm_head.weight");
  }

  void replace(const std::string& name, const std::string& stored) {
    const std::string target = is_head(name) ? head_ : find(name, stored);
    const std::vector<int64_t>& given = adapter_.weights->info(stored).shape;
    const bool rows_may_differ = target == head_ || target == embedding_;
    if (checkpoint_.contains(target)) {
      const std::vector<int64_t>& expected = checkpoint_.info(target).shape;
      const bool fits = rows_may_differ ? given.size() == 2 && expected.size() == 2 && given[1] == expected[1] : given == expected;
      if (!fits) fail_module(stored, fmt::format("is [{}], the base's is [{}]", fmt::join(given, ", "), fmt::join(expected, ", ")));
    }
    checkpoint_.show(target, file_, stored);
  }

  // A head that was the embedding becomes one of its own where only one of the two is changed, or each in another way.
  void part_head() {
    const auto names = [&](auto&& is_it) {
      for (const AdapterModule& module : adapter_.modules) {
        if (is_it(module.module + ".weight")) return true;
      }
      return false;
    };
    const auto replaced = [&](auto&& is_it) -> const std::string* {
      for (const auto& [name, stored] : adapter_.replaced) {
        if (is_it(name)) return &stored;
      }
      return nullptr;
    };
    const auto embedding = [&](const std::string& name) { return is_embedding(name); };
    const auto head = [&](const std::string& name) { return is_head(name); };
    const auto tokens_of_head = std::any_of(adapter_.tokens.begin(), adapter_.tokens.end(),
                                            [&](const AdapterTokens& tokens) { return is_head(tokens.module + ".weight"); });
    const std::string* new_embedding = replaced(embedding);
    const std::string* new_head = replaced(head);
    const bool changes_head = names(head) || new_head != nullptr || tokens_of_head;
    const bool changes_embedding = names(embedding) || new_embedding != nullptr;
    if (!changes_head && !(changes_embedding && !adapter_.ensure_weight_tying)) return;
    // PEFT saves a resized embedding under both names.
    if (new_head != nullptr && new_embedding != nullptr && !names(head) && !names(embedding) && !tokens_of_head &&
        same(*new_head, *new_embedding))
      return;
    has_own_head_ = true;
    checkpoint_.show_original(head_, embedding_);
  }

  bool same(const std::string& a, const std::string& b) const {
    const TensorInfo& left = adapter_.weights->info(a);
    const TensorInfo& right = adapter_.weights->info(b);
    return left.dtype == right.dtype && left.shape == right.shape &&
           at::equal(adapter_.weights->view(a), adapter_.weights->view(b));
  }

  void set_text_key(const char* key, const Json& value) {
    if (config_.contains(key) || !config_.contains(kTextKey)) config_[key] = value;
    if (config_.contains(kTextKey) && config_[std::string(kTextKey)].is_object()) config_[std::string(kTextKey)][key] = value;
  }

  void fit_vocabulary() {
    for (const std::string& name : {embedding_, head_}) {
      if (name == head_ && !checkpoint_.contains(name)) continue;
      const std::vector<int64_t>& shape = checkpoint_.info(name).shape;
      if (shape.size() != 2)
        fail(ErrorKind::kCorruption, "{}: tensor '{}' is [{}], expected two dimensions", checkpoint_.file_of(name).string(), name,
             fmt::join(shape, ", "));
    }
    const int64_t rows = checkpoint_.info(embedding_).shape.at(0);
    if (checkpoint_.contains(head_) && checkpoint_.info(head_).shape.at(0) != rows) {
      throw Error(ErrorKind::kCorruption, fmt::format("{}: with the adapter the embedding has {} tokens and the head {}",
                                                      adapter_.weights->path().string(), rows, checkpoint_.info(head_).shape.at(0)))
          .with_hint("save both with the adapter: modules_to_save, or save_embedding_layers=True");
    }
    if (rows == decoder_.vocab_size) return;
    if (!adapter_.replaced.empty() || !adapter_.replaced_base.empty()) set_text_key("vocab_size", rows);
  }

  void check_float(const AdapterModule& module, const std::string& name) const {
    if (!at::isFloatingType(checkpoint_.info(name).dtype)) fail_packed(module.module);
  }

  TensorChange weight_change(const AdapterModule& module, const std::string& name) const {
    check_float(module, name);
    const int64_t out = adapter_.weights->info(module.b).shape[0];
    const int64_t in = adapter_.weights->info(module.a).shape[1];
    const std::vector<int64_t> fitting = module.transposed ? std::vector<int64_t>{in, out} : std::vector<int64_t>{out, in};
    const std::vector<int64_t>& shape = checkpoint_.info(name).shape;
    if (shape != fitting) {
      fail_module(module.a, fmt::format("and its lora_B are of a weight [{}], the base's '{}' is [{}]", fmt::join(fitting, ", "),
                                        name, fmt::join(shape, ", ")));
    }
    if (!module.magnitude.empty() && adapter_.weights->info(module.magnitude).shape != std::vector<int64_t>{out})
      fail_module(module.magnitude,
                  fmt::format("is [{}], expected [{}]", fmt::join(adapter_.weights->info(module.magnitude).shape, ", "), out));
    TensorChange change{shape, {}, what_};
    change.apply = [weights = adapter_.weights, module](const at::Tensor& before, bool) {
      const at::ScalarType dtype = computed_dtype(before);
      const at::Tensor a = weights->view(module.a).to(dtype);
      const at::Tensor b = weights->view(module.b).to(dtype);
      at::Tensor merged = before.to(dtype, /*non_blocking=*/false, /*copy=*/true);
      // No product B A beside the sum.
      if (module.transposed) {
        merged.addmm_(a.t(), b.t(), 1, module.scale);
      } else {
        merged.addmm_(b, a, 1, module.scale);
      }
      if (!module.magnitude.empty()) {
        const int64_t over = module.transposed ? 0 : 1;
        const at::Tensor norms = at::linalg_vector_norm(merged, 2, over, /*keepdim=*/true);
        merged.mul_(weights->view(module.magnitude).to(dtype).unsqueeze(over) / norms);
      }
      for (const std::string* read : {&module.a, &module.b}) weights->release(*read);
      return merged;
    };
    return change;
  }

  TensorChange bias_change(const AdapterModule& module, const std::string& name) const {
    const std::vector<int64_t>& shape = checkpoint_.info(name).shape;
    if (adapter_.weights->info(module.bias).shape != shape)
      fail_module(module.bias,
                  fmt::format("is [{}], the base's '{}' is [{}]", fmt::join(adapter_.weights->info(module.bias).shape, ", "), name,
                              fmt::join(shape, ", ")));
    TensorChange change{shape, {}, what_};
    change.apply = [weights = adapter_.weights, module](const at::Tensor& before, bool) {
      const at::ScalarType dtype = computed_dtype(before);
      return at::Tensor(before.to(dtype) + weights->view(module.bias).to(dtype) * module.scale);
    };
    return change;
  }

  TensorChange rows_change(const AdapterTokens& tokens, const std::string& name) const {
    const std::vector<int64_t>& shape = checkpoint_.info(name).shape;
    const std::vector<int64_t>& given = adapter_.weights->info(tokens.values).shape;
    if (shape.size() != 2 || shape[1] != given[1])
      fail_module(tokens.values,
                  fmt::format("is [{}], the base's '{}' is [{}]", fmt::join(given, ", "), name, fmt::join(shape, ", ")));
    for (const int64_t row : tokens.rows) {
      if (row >= shape[0]) fail_module(tokens.values, fmt::format("has a row for token {}, the base has {} tokens", row, shape[0]));
    }
    TensorChange change{shape, {}, what_};
    change.apply = [weights = adapter_.weights, tokens](const at::Tensor& before, bool) {
      const at::ScalarType dtype = computed_dtype(before);
      std::vector<int64_t> rows = tokens.rows;
      const at::Tensor index = at::from_blob(rows.data(), {static_cast<int64_t>(rows.size())}, at::kLong);
      return at::index_copy(before.to(dtype), 0, index, weights->view(tokens.values).to(dtype));
    };
    return change;
  }

  Checkpoint& checkpoint_;
  const Adapter& adapter_;
  Json config_;
  DecoderConfig decoder_;  // of the base
  std::string embedding_;
  std::string head_;
  size_t file_;  // of the adapter's weights, in the checkpoint
  std::string what_;
  bool has_own_head_ = false;
};

}  // namespace

void merge_adapter(Checkpoint& checkpoint, const Adapter& adapter) { Merger(checkpoint, adapter).merge(); }

}  // namespace salient::models
