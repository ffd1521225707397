#include "pipeline/importance.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <array>
#include <map>
#include <vector>

#include "common/memory.h"
#include "models/decoder/router.h"
#include "models/gguf/gguf_tensors.h"
#include "pipeline/activation_file.h"
#include "pipeline/calibration_pass.h"
#include "quant/fixed_parts.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

// Taking turns as a block's input and output.
constexpr std::array kHiddenFiles = {"imatrix_hidden_0.bin", "imatrix_hidden_1.bin"};

using models::InputId;
using models::LinearSpec;

struct SquareSum {
  at::Tensor sum;  // float64 [features]
  double tokens = 0;

  void add(const at::Tensor& rows) {  // [tokens, features]
    const at::Tensor squares = quant::sum_of_rows(rows.to(at::kDouble).square());
    sum = sum.defined() ? sum + squares : squares;
    tokens += static_cast<double>(rows.size(0));
  }
};

// What the linears of one block read; the shared input of experts by expert as well, since each sees tokens of its own.
class BlockSums {
 public:
  BlockSums(const models::DecoderConfig& config, const models::BlockLayout& layout) : config_(config), layout_(layout) {}

  models::BlockObserver observer() {
    return [this](InputId input, const at::Tensor& x) { add(input, x); };
  }

  void set_batch(const CalibrationPass::Batch& batch) { batch_ = &batch; }
  // Of a mixture, before its experts run.
  void set_routing(models::Routing routing, const at::Tensor& mlp_input) {
    routing_ = std::move(routing);
    mlp_input_ = mlp_input.flatten(0, -2);
    counted_ = at::zeros({mlp_input_.size(0)}, at::TensorOptions(at::kBool).device(mlp_input_.device()));
    if (batch_->counted.defined()) {
      counted_.index_fill_(0, batch_->counted, true);
    } else {
      counted_.fill_(true);
    }
  }

  // Of each linear outside of the experts, by its name.
  std::map<std::string, SquareSum> by_linear() const {
    std::map<std::string, SquareSum> result;
    for (const LinearSpec& spec : layout_.linears) {
      if (const auto found = sums_.find(spec.input); found != sums_.end()) result[spec.name] = found->second;
    }
    for (int64_t expert = 0; expert < layout_.experts; ++expert) {
      for (const LinearSpec& spec : models::expert_layout(config_, layout_.block, expert)) {
        const bool hidden = spec.input.slot == models::InputSlot::kMlpHidden;
        const std::map<int64_t, SquareSum>& of = hidden ? expert_hidden_ : expert_input_;
        const auto found = of.find(expert);
        result[spec.name] = found != of.end() ? found->second : SquareSum{at::zeros({spec.in_features}, at::kDouble), 0};
      }
    }
    return result;
  }

 private:
  void add(InputId input, const at::Tensor& x) {
    const at::Tensor rows = x.flatten(0, -2);
    if (input.mlp < 0) return sums_[input].add(batch_->counted.defined() ? rows.index_select(0, batch_->counted) : rows);
    // Rows in the order of rows_of_expert.
    const models::ExpertRows of_expert = models::rows_of_expert(routing_, input.mlp);
    const at::Tensor counted = counted_.index_select(0, of_expert.rows);
    expert_hidden_[input.mlp].add(rows.index({counted}));
    at::Tensor read = mlp_input_.index_select(0, of_expert.rows);
    if (config_.moe.weight_input) read = read * of_expert.weights.unsqueeze(1);
    expert_input_[input.mlp].add(read.index({counted}));
  }

  const models::DecoderConfig& config_;
  const models::BlockLayout& layout_;
  const CalibrationPass::Batch* batch_ = nullptr;
  models::Routing routing_;
  at::Tensor mlp_input_;  // [rows, hidden_size]
  at::Tensor counted_;    // bool [rows]
  std::map<InputId, SquareSum> sums_;
  std::map<int64_t, SquareSum> expert_input_;
  std::map<int64_t, SquareSum> expert_hidden_;
};

// Reads the block's input from `input`, writes its output to `output`.
std::map<std::string, SquareSum> measure_block(const models::Checkpoint& checkpoint, const models::DecoderConfig& config,
                                               const CalibrationPass& pass, int64_t block, const ActivationFile& input,
                                               ActivationFile& output) {
  const models::BlockLayout layout = models::block_layout(config, block);
  const models::BlockWeights weights =
      models::to_device(models::load_block(checkpoint, config, block, at::kFloat, at::kCPU), pass.device());
  BlockSums sums(config, layout);
  const models::BlockObserver observer = sums.observer();
  pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
    sums.set_batch(batch);
    const models::AttentionCall call = pass.call(weights, block, observer);
    const models::AttentionHalf half = models::attention_half(call, input.read(batch.begin, batch.count).to(pass.device()));
    if (layout.experts > 0) sums.set_routing(models::route(config, weights, half.mlp_input.flatten(0, -2)), half.mlp_input);
    const at::Tensor mlp = models::mlp_half(call, half.mlp_input);
    output.write(batch.begin, models::finish_block(call, half.residual, mlp));
  });
  return sums.by_linear();
}

// A file that goes with the object.
struct HiddenFile {
  HiddenFile(fs::path at, std::vector<int64_t> shape) : path(std::move(at)), file(ActivationFile::create(path, std::move(shape))) {}
  ~HiddenFile() {
    std::error_code ignored;
    fs::remove(path, ignored);
  }
  HiddenFile(const HiddenFile&) = delete;
  HiddenFile& operator=(const HiddenFile&) = delete;

  fs::path path;
  ActivationFile file;
};

}  // namespace

bool is_importance_work(const std::string& name) {
  return std::find(kHiddenFiles.begin(), kHiddenFiles.end(), name) != kHiddenFiles.end();
}

models::Imatrix measure_importance(const models::Checkpoint& checkpoint, const calibration::TokenBlocks& tokens,
                                   const ImportanceOptions& options) {
  const at::NoGradGuard no_grad;
  const models::DecoderConfig config = models::load_decoder_config(checkpoint);
  const models::GgufPlan plan = models::plan_gguf_tensors(config);
  const CalibrationPass pass(config, tokens, options.device, options.batch_tokens);
  const std::vector<int64_t> shape = {pass.rows(), pass.width(), config.hidden_size};
  HiddenFile first(options.work_folder / kHiddenFiles[0], shape);
  HiddenFile second(options.work_folder / kHiddenFiles[1], shape);
  embed_tokens(checkpoint, config, tokens.ids, pass.rows_of_batch(), first.file);
  std::map<std::string, SquareSum> sums;  // by linear
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    if (options.on_progress) options.on_progress(block, config.num_hidden_layers);
    const bool even = block % 2 == 0;
    sums.merge(measure_block(checkpoint, config, pass, block, even ? first.file : second.file, even ? second.file : first.file));
    return_free_memory();
  }
  if (options.on_progress) options.on_progress(config.num_hidden_layers, config.num_hidden_layers);

  models::Imatrix result;
  result.chunk_count = pass.rows();
  result.chunk_size = pass.width();
  constexpr std::string_view kWeight = ".weight";
  for (const models::GgufTensorPlan& tensor : plan.tensors) {
    std::vector<at::Tensor> rows;
    std::vector<float> counts;
    for (const std::string& source : tensor.sources) {
      const auto found = source.ends_with(kWeight) ? sums.find(source.substr(0, source.size() - kWeight.size())) : sums.end();
      if (found == sums.end()) break;  // no linear of a block
      rows.push_back(found->second.sum.cpu().to(at::kFloat));
      counts.push_back(static_cast<float>(found->second.tokens));
    }
    if (rows.empty()) continue;
    result.entries[tensor.name] = {at::stack(rows), at::tensor(counts)};
  }
  return result;
}

}  // namespace salient::pipeline
