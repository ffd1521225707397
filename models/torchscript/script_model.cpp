#include "models/torchscript/script_model.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/zeros.h>
#include <c10/core/ScalarType.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "common/cancellation.h"
#include "common/error.h"
#include "models/io/model_file_probe.h"

namespace salient::models {
namespace {

namespace fs = std::filesystem;
namespace jit = torch::jit;

constexpr std::string_view kExtensions[] = {".pt", ".pth", ".ts"};
constexpr const char* kExtraFiles[] = {"config.json", "salient.json"};

// libtorch's optimizer compiles a graph anew for the first shapes that it sees: half a second for a decoder of 4 blocks on one
// core, after which the same work took as long as before. The switch belongs to the thread.
struct WithoutOptimizer : jit::GraphOptimizerEnabledGuard {
  WithoutOptimizer() : jit::GraphOptimizerEnabledGuard(false) {}
};

// libtorch's errors end in a trace of its own frames.
std::string first_lines(const std::exception& error) {
  std::string text = error.what();
  if (const size_t end = text.find("\nException raised from"); end != std::string::npos) text.resize(end);
  return text.substr(0, 1000);
}

// Logits in what a forward returned.
at::Tensor find_logits(const c10::IValue& value, const std::string& where) {
  if (value.isTensor()) return value.toTensor();
  if (value.isTuple() && !value.toTupleRef().elements().empty()) return find_logits(value.toTupleRef().elements()[0], where);
  if (value.isList() && !value.toListRef().empty()) return find_logits(value.toListRef().front(), where);
  if (value.isGenericDict()) {
    const auto dictionary = value.toGenericDict();
    if (const auto found = dictionary.find(c10::IValue("logits")); found != dictionary.end())
      return find_logits(found->value(), where);
  }
  fail(ErrorKind::kUnsupported,
       "{}: forward gives {}, expected logits: a tensor, a tuple that begins with one, or a dictionary with \"logits\"", where,
       value.tagKind());
}

// Whether forward asks for an attention mask. Errors: unsupported for other arguments that must be given.
bool check_arguments(const jit::Module& module, const std::string& where) {
  const auto method = module.find_method("forward");
  if (!method) fail(ErrorKind::kUnsupported, "{}: the module has no forward, expected forward(input_ids) -> logits", where);
  const std::vector<c10::Argument>& arguments = method->function().getSchema().arguments();  // the first is the module itself
  bool wants_mask = false;
  for (size_t i = 2; i < arguments.size(); ++i) {
    if (arguments[i].default_value()) continue;
    if (i == 2 && arguments[i].name().find("mask") != std::string::npos) {
      wants_mask = true;
      continue;
    }
    fail(ErrorKind::kUnsupported, "{}: forward wants '{}', expected forward(input_ids) or forward(input_ids, attention_mask)",
         where, arguments[i].name());
  }
  if (arguments.size() < 2) fail(ErrorKind::kUnsupported, "{}: forward takes nothing, expected forward(input_ids)", where);
  return wants_mask;
}

}  // namespace

struct ScriptModel::Module {
  jit::Module module;

  // Parameters and buffers, each storage once.
  template <typename Visit>
  void visit_weights(Visit visit) const {
    std::set<const void*> seen;
    const auto each = [&](const at::Tensor& tensor) {
      if (tensor.defined() && seen.insert(tensor.storage().unsafeGetStorageImpl()).second) visit(tensor);
    };
    for (const auto& tensor : module.parameters()) each(tensor);
    for (const auto& tensor : module.buffers()) each(tensor);
  }
};

fs::path find_torchscript_file(const fs::path& path) {
  if (!fs::exists(path)) fail(ErrorKind::kNotFound, "{}: there is no such file or folder", path.string());
  if (!fs::is_directory(path)) return path;
  std::vector<fs::path> found;
  for (const auto& entry : fs::directory_iterator(path)) {
    const std::string extension = entry.path().extension().string();
    if (std::find(std::begin(kExtensions), std::end(kExtensions), extension) == std::end(kExtensions)) continue;
    if (entry.is_regular_file() && is_torchscript(entry.path())) found.push_back(entry.path());
  }
  if (found.size() == 1) return found.front();
  std::sort(found.begin(), found.end());
  std::string names;
  for (const fs::path& file : found) names += fmt::format("{}{}", names.empty() ? "" : ", ", file.filename().string());
  throw Error(ErrorKind::kNotFound, fmt::format("{}: {} TorchScript files (.pt, .pth, .ts){}, expected one", path.string(),
                                                found.size(), names.empty() ? "" : ": " + names))
      .with_hint("name the file itself");
}

ScriptModel ScriptModel::load(const fs::path& path, at::Device device) {
  ScriptModel model;
  model.path_ = find_torchscript_file(path);
  model.device_ = device;
  const std::string where = model.path_.string();
  jit::ExtraFilesMap extra;
  for (const char* name : kExtraFiles) extra[name];
  try {
    model.module_ = std::make_shared<Module>(Module{jit::load(where, device, extra)});
  } catch (const std::exception& error) {
    throw Error(ErrorKind::kCorruption, fmt::format("{}: torch.jit.load refuses it: {}", where, first_lines(error)))
        .with_hint(
            "save the module with torch.jit.save(torch.jit.script(model) or torch.jit.trace(model, ids), path); its operators must "
            "be libtorch's own");
  }
  for (const auto& [name, content] : extra) {
    if (!content.empty()) model.extra_files_[name] = content;
  }
  jit::Module& module = model.module_->module;
  if (module.hasattr("training")) module.eval();
  model.wants_mask_ = check_arguments(module, where);
  model.has_step_ = module.find_method("make_cache") && module.find_method("step");
  model.vocab_size_ = model.run(at::zeros({1, 1}, at::kLong)).size(2);
  return model;
}

uint64_t ScriptModel::weight_bytes() const {
  uint64_t total = 0;
  module_->visit_weights([&](const at::Tensor& tensor) { total += tensor.nbytes(); });
  return total;
}

at::ScalarType ScriptModel::dtype() const {
  std::map<at::ScalarType, uint64_t> bytes;
  module_->visit_weights([&](const at::Tensor& tensor) {
    if (tensor.is_floating_point()) bytes[tensor.scalar_type()] += tensor.nbytes();
  });
  const auto most = std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most == bytes.end() ? at::kFloat : most->first;
}

at::Tensor ScriptModel::run(const at::Tensor& ids) const {
  check_cancelled();
  const at::NoGradGuard no_grad;
  const WithoutOptimizer without_optimizer;
  const std::string where = path_.string();
  const at::Tensor input = ids.to(device_);
  std::vector<c10::IValue> arguments = {input};
  if (wants_mask_) arguments.emplace_back(at::ones_like(input));
  c10::IValue result;
  try {
    result = module_->module.forward(std::move(arguments));
  } catch (const std::exception& error) {
    fail(ErrorKind::kCheckFailed, "{}: forward of ids [{}] fails: {}", where, fmt::join(ids.sizes(), ", "), first_lines(error));
  }
  const at::Tensor logits = find_logits(result, where);
  if (logits.dim() != 3 || !logits.is_floating_point() || logits.size(0) != ids.size(0) || logits.size(1) != ids.size(1)) {
    fail(ErrorKind::kCheckFailed, "{}: forward of ids [{}] gives {} [{}], expected logits [{}, {}, vocabulary]", where,
         fmt::join(ids.sizes(), ", "), c10::toString(logits.scalar_type()), fmt::join(logits.sizes(), ", "), ids.size(0),
         ids.size(1));
  }
  return logits.to(at::kFloat);
}

at::Tensor ScriptModel::logits(const at::Tensor& ids, const at::Tensor& attention_mask) const {
  if (ids.dim() != 2 || ids.scalar_type() != at::kLong || ids.numel() == 0) {
    fail(ErrorKind::kInvalidArgument, "TorchScript model: ids must be int64 [batch, tokens] and not empty, found {} of [{}]",
         c10::toString(ids.scalar_type()), fmt::join(ids.sizes(), ", "));
  }
  const int64_t lowest = ids.min().item<int64_t>();
  const int64_t highest = ids.max().item<int64_t>();
  if (lowest < 0 || highest >= vocab_size_) {
    fail(ErrorKind::kInvalidArgument, "TorchScript model: token id {} is outside the vocabulary of {}",
         lowest < 0 ? lowest : highest, vocab_size_);
  }
  if (!attention_mask.defined()) return run(ids);
  if (attention_mask.scalar_type() != at::kBool || attention_mask.sizes() != ids.sizes()) {
    fail(ErrorKind::kInvalidArgument, "TorchScript model: the attention mask must be bool [{}], found {} of [{}]",
         fmt::join(ids.sizes(), ", "), c10::toString(attention_mask.scalar_type()), fmt::join(attention_mask.sizes(), ", "));
  }
  return run_padded(ids, attention_mask.to(ids.device()));
}

at::Tensor ScriptModel::run_padded(const at::Tensor& ids, const at::Tensor& real) const {
  const at::NoGradGuard no_grad;
  const int64_t longest = std::max<int64_t>(1, real.sum(1).max().item<int64_t>());
  const at::Tensor padding = real.logical_not();
  const at::Tensor order = padding.to(at::kByte).argsort(/*stable=*/true, 1).narrow(1, 0, longest);
  const at::Tensor found = run(ids.gather(1, order));
  at::Tensor logits = at::zeros({ids.size(0), ids.size(1), vocab_size_}, found.options());
  logits.scatter_(1, order.to(found.device()).unsqueeze(2).expand({-1, -1, vocab_size_}), found);
  return logits.masked_fill_(padding.to(found.device()).unsqueeze(2), 0.0);
}

std::vector<at::Tensor> ScriptModel::make_cache(int64_t batch, int64_t capacity) const {
  const at::NoGradGuard no_grad;
  const WithoutOptimizer without_optimizer;
  return module_->module.get_method("make_cache")({batch, capacity}).toTensorVector();
}

at::Tensor ScriptModel::step(const at::Tensor& ids, const std::vector<at::Tensor>& cache, int64_t position) const {
  const at::NoGradGuard no_grad;
  const WithoutOptimizer without_optimizer;
  return module_->module.get_method("step")({ids.to(device_), cache, position}).toTensor().to(at::kFloat);
}

}  // namespace salient::models
