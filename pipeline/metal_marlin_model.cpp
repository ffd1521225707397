// awq_quantize_model and its inverse: which tensors of which files, one at a time.
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <memory>
#include <optional>
#include <set>

#include "common/error.h"
#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "models/io/npz.h"
#include "models/io/safetensors.h"
#include "models/io/safetensors_header.h"
#include "pipeline/metal_marlin.h"

namespace salient::metal_marlin {
namespace {

namespace fs = std::filesystem;
using models::NpzFile;
using models::SafetensorsFile;

constexpr std::string_view kMetadataArray = "awq_metadata";
constexpr std::string_view kSkippedParts[] = {"embed", "norm", "bias", "lm_head"};
constexpr std::string_view kAwqStem = ".awq";

struct Entry {
  std::string name;
  at::ScalarType dtype;
  std::vector<int64_t> shape;
};

// One file of tensors, of either format.
class WeightFile {
 public:
  explicit WeightFile(const fs::path& path) : path_(path) {
    if (path.extension() == ".npz") {
      npz_.emplace(path);
      for (const std::string& name : npz_->names()) {
        const models::NpyHeader header = npz_->header(name);
        if (name != kMetadataArray) entries_.push_back({name, header.dtype, header.shape});
      }
      if (npz_->contains(std::string(kMetadataArray))) {
        const at::Tensor text = npz_->read(std::string(kMetadataArray));
        if (text.scalar_type() == at::kByte) {
          const Json json = parse_json({static_cast<const char*>(text.const_data_ptr()), static_cast<size_t>(text.numel())},
                                       path.string() + ": awq_metadata");
          for (const auto& [key, value] : json.items())
            metadata_[key] = value.is_string() ? value.get<std::string>() : value.dump();
        }
      }
    } else if (path.extension() == ".safetensors") {
      safetensors_ = std::make_unique<SafetensorsFile>(path);
      metadata_ = safetensors_->metadata();
      for (const auto& [name, info] : safetensors_->tensors()) entries_.push_back({name, info.dtype, info.shape});
    } else {
      fail(ErrorKind::kInvalidArgument, "{}: expected a .safetensors or .npz file, or a folder of .safetensors files",
           path.string());
    }
    for (const Entry& entry : entries_) names_.insert(entry.name);
  }

  const fs::path& path() const { return path_; }
  bool is_npz() const { return npz_.has_value(); }
  const std::vector<Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  bool contains(const std::string& name) const { return names_.contains(name); }
  at::Tensor read(const std::string& name) const { return npz_ ? npz_->read(name) : safetensors_->view(name); }
  void release(const std::string& name) const {
    if (safetensors_) safetensors_->release(name);
  }
  // "model" for model.safetensors and model.awq.safetensors.
  std::string stem() const {
    std::string stem = path_.stem().string();
    if (stem.size() > kAwqStem.size() && stem.ends_with(kAwqStem)) stem.resize(stem.size() - kAwqStem.size());
    return stem;
  }

 private:
  fs::path path_;
  std::optional<NpzFile> npz_;
  std::unique_ptr<SafetensorsFile> safetensors_;
  std::vector<Entry> entries_;
  std::set<std::string> names_;
  std::map<std::string, std::string> metadata_;
};

std::vector<fs::path> weight_files(const fs::path& model_path) {
  if (!fs::exists(model_path)) fail(ErrorKind::kNotFound, "{}: no such file or folder", model_path.string());
  if (!fs::is_directory(model_path)) return {model_path};
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(model_path)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (files.empty()) fail(ErrorKind::kNotFound, "{}: no .safetensors files in this folder", model_path.string());
  std::sort(files.begin(), files.end());
  return files;
}

// Writes the planned tensors in their order, in either format.
class OutputFile {
 public:
  OutputFile(const fs::path& path, bool compressed) : path_(path) {
    if (path.extension() == ".npz") npz_.emplace(path, compressed);
  }
  // safetensors need to know all of them before the first.
  void plan(const std::vector<models::PlannedTensor>& tensors, const std::map<std::string, std::string>& metadata) {
    if (npz_) return;
    file_.emplace(path_);
    file_->write(with_context(path_.string(), [&] { return models::make_safetensors_header(tensors, metadata); }));
  }
  void write(const std::string& name, const at::Tensor& tensor) {
    // NumPy has no bfloat16; every one of its values is a float32.
    if (npz_) return npz_->add(name, tensor.scalar_type() == at::kBFloat16 ? tensor.to(at::kFloat) : tensor);
    const at::Tensor data = tensor.contiguous();
    if (data.numel() > 0) file_->write(std::span(static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()));
  }
  void write_metadata(const std::map<std::string, std::string>& metadata) {
    if (!npz_) return;
    const std::string text = dump_json(Json(metadata));
    at::Tensor bytes = at::empty({static_cast<int64_t>(text.size())}, at::kByte);
    std::copy(text.begin(), text.end(), bytes.mutable_data_ptr<uint8_t>());
    npz_->add(std::string(kMetadataArray), bytes);
  }
  void commit() { npz_ ? npz_->commit() : file_->commit(); }

 private:
  fs::path path_;
  std::optional<models::NpzWriter> npz_;
  std::optional<AtomicFile> file_;
};

std::string lower(std::string text) {
  for (char& letter : text) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  return text;
}

struct MatrixPlan {
  bool quantize = false;
  bool out_in = false;
  int64_t in_features = 0;
  int64_t out_features = 0;
  std::string activations;  // their name; empty: none
};

MatrixPlan plan_matrix(const Entry& entry, bool npz, const AwqModelOptions& options) {
  MatrixPlan plan;
  const std::string name = lower(entry.name);
  if (entry.shape.size() != 2 || name.find("weight") == std::string::npos || !at::isFloatingType(entry.dtype)) return plan;
  for (const std::string_view part : kSkippedParts) {
    if (name.find(part) != std::string::npos) return plan;
  }
  plan.out_in = options.layout == WeightLayout::kOutIn || (options.layout == WeightLayout::kAuto && !npz);
  plan.in_features = entry.shape[plan.out_in ? 1 : 0];
  plan.out_features = entry.shape[plan.out_in ? 0 : 1];
  const int64_t group = options.quantize.group_size == -1 ? plan.in_features : options.quantize.group_size;
  if (group <= 0)
    fail(ErrorKind::kInvalidArgument, "group_size is {}, expected a multiple of 8 or -1", options.quantize.group_size);
  plan.quantize = plan.in_features > 0 && plan.out_features > 0 && plan.in_features % group == 0 && plan.in_features % 8 == 0 &&
                  plan.out_features % 8 == 0;
  return plan;
}

// Finds the activations of each matrix and checks their width, before any work is done.
class Activations {
 public:
  explicit Activations(const fs::path& path) : file_(path) {}

  std::string find(const Entry& entry, int64_t in_features) const {
    std::string name = entry.name;
    const std::string_view suffix = ".weight";
    if (!file_.contains(name)) {
      if (!name.ends_with(suffix)) return "";
      name.resize(name.size() - suffix.size());
      if (!file_.contains(name)) return "";
    }
    const models::NpyHeader header = file_.header(name);
    if (header.shape.empty() || header.shape.back() != in_features) {
      throw Error(ErrorKind::kInvalidArgument,
                  fmt::format("{}: activations '{}' are [{}], but '{}' has {} input channels", file_.path().string(),
                              one_line(name), fmt::join(header.shape, ", "), entry.name, in_features))
          .with_hint("when the weights are stored the other way round, say so: --weight-layout in_out or out_in");
    }
    return name;
  }
  at::Tensor read(const std::string& name) const { return file_.read(name); }
  const std::vector<std::string>& names() const { return file_.names(); }
  const fs::path& path() const { return file_.path(); }

 private:
  NpzFile file_;
};

// One plan for each entry of the file. Errors: not found, for matrices without activations where they must have some.
std::vector<MatrixPlan> plan_file(const WeightFile& file, const Activations& activations, const AwqModelOptions& options) {
  std::vector<MatrixPlan> plans;
  std::vector<std::string> missing;
  for (const Entry& entry : file.entries()) {
    MatrixPlan plan = plan_matrix(entry, file.is_npz(), options);
    if (plan.quantize) {
      plan.activations = activations.find(entry, plan.in_features);
      if (plan.activations.empty()) missing.push_back(entry.name);
    }
    plans.push_back(plan);
  }
  if (!missing.empty() && !options.allow_missing) {
    throw Error(ErrorKind::kNotFound, fmt::format("{}: no activations for {} matrices of {}, the first is '{}'{}",
                                                  activations.path().string(), missing.size(), file.path().string(),
                                                  missing.front(), did_you_mean(missing.front(), activations.names())))
        .with_hint(
            "name each array as its matrix, with or without \".weight\"; or round those without to nearest: --allow-missing");
  }
  return plans;
}

at::Tensor read_in_out(const WeightFile& file, const std::string& name, bool out_in) {
  const at::Tensor stored = file.read(name);
  return out_in ? stored.t() : stored;
}

std::map<std::string, std::string> make_metadata(const AwqModelOptions& options, bool out_in) {
  return {{"format", "pt"},
          {"quant_type", std::string(kAwqQuantType)},
          {"group_size", fmt::format("{}", options.quantize.group_size)},
          {"salient_ratio", fmt::format("{}", options.quantize.salient_ratio)},
          {"activation_method", std::string(to_string(options.quantize.activation_method))},
          {"q_scale_axis", "in"},
          {"weight_layout", out_in ? "out_in" : "in_out"}};
}

std::vector<models::PlannedTensor> planned_tensors(const WeightFile& file, const std::vector<MatrixPlan>& plans,
                                                   int64_t group_size) {
  std::vector<models::PlannedTensor> planned;
  for (size_t i = 0; i < plans.size(); ++i) {
    const Entry& entry = file.entries()[i];
    const MatrixPlan& plan = plans[i];
    if (!plan.quantize) {
      planned.push_back({entry.name, entry.dtype, entry.shape});
      continue;
    }
    const int64_t groups = group_size == -1 ? 1 : plan.in_features / group_size;
    planned.push_back({entry.name, at::kUInt32, {plan.in_features / 8, plan.out_features}});
    planned.push_back({entry.name + ".scales", at::kHalf, {groups, plan.out_features}});
    planned.push_back({entry.name + ".zeros", at::kHalf, {groups, plan.out_features}});
    planned.push_back({entry.name + ".q_scale", at::kHalf, {plan.in_features}});
  }
  return planned;
}

bool writes_one_npz(const fs::path& output) { return output.extension() == ".npz"; }

AwqQuantizeOptions nearest_only(AwqQuantizeOptions options) {
  options.salient_ratio = 0;
  return options;
}

}  // namespace

WeightLayout parse_weight_layout(std::string_view name) {
  if (name == "auto") return WeightLayout::kAuto;
  if (name == "in_out") return WeightLayout::kInOut;
  if (name == "out_in") return WeightLayout::kOutIn;
  fail(ErrorKind::kInvalidArgument, "weight layout '{}', expected auto (default), in_out or out_in", name);
}

Json awq_quantize_model(const fs::path& model_path, const fs::path& output_path, const fs::path& activations_path,
                        const AwqModelOptions& options) {
  const std::vector<fs::path> paths = weight_files(model_path);
  const Activations activations(activations_path);
  for (const fs::path& path : paths)
    plan_file(WeightFile(path), activations, options);  // everything is found before anything is written

  int64_t quantized = 0, skipped = 0, nearest = 0;
  uint64_t original_bytes = 0, quantized_bytes = 0;
  Json layers = Json::array();
  Json files = Json::array();
  std::optional<OutputFile> one;
  if (!options.dry_run && writes_one_npz(output_path)) one.emplace(output_path, options.compressed);
  bool out_in = false;

  for (const fs::path& path : paths) {
    const WeightFile file(path);
    const std::vector<MatrixPlan> plans = plan_file(file, activations, options);
    out_in = options.layout == WeightLayout::kOutIn || (options.layout == WeightLayout::kAuto && !file.is_npz());
    const fs::path target = one || writes_one_npz(output_path)
                                ? output_path
                                : output_path / (file.stem() + std::string(kAwqStem) + path.extension().string());
    if (options.verbose) log_info("awq file={} target={}", path.string(), target.string());
    std::optional<OutputFile> own;
    if (!options.dry_run && !one) {
      if (fs::exists(target) && fs::equivalent(target, path))
        fail(ErrorKind::kInvalidArgument, "{}: would be written over itself; choose another output", path.string());
      own.emplace(target, options.compressed);
      own->plan(planned_tensors(file, plans, options.quantize.group_size), make_metadata(options, out_in));
    }
    OutputFile* output = one ? &*one : own ? &*own : nullptr;
    for (size_t i = 0; i < plans.size(); ++i) {
      const Entry& entry = file.entries()[i];
      const MatrixPlan& plan = plans[i];
      if (!plan.quantize) {
        ++skipped;
        if (output != nullptr) output->write(entry.name, file.read(entry.name));
        file.release(entry.name);
        continue;
      }
      ++quantized;
      if (plan.activations.empty()) ++nearest;
      Json layer = {{"name", entry.name}, {"in_features", plan.in_features}, {"out_features", plan.out_features}};
      if (output != nullptr) {
        const AwqResult result = with_context(fmt::format("{}: '{}'", path.string(), entry.name), [&] {
          const at::Tensor weights = read_in_out(file, entry.name, plan.out_in);
          if (plan.activations.empty()) return awq_quantize(weights, at::ones({plan.in_features}), nearest_only(options.quantize));
          return awq_quantize(weights, activations.read(plan.activations), options.quantize);
        });
        output->write(entry.name, result.Q);
        output->write(entry.name + ".scales", result.scales);
        output->write(entry.name + ".zeros", result.zeros);
        output->write(entry.name + ".q_scale", result.q_scale);
        original_bytes += static_cast<uint64_t>(plan.in_features * plan.out_features) * c10::elementSize(entry.dtype);
        quantized_bytes += result.Q.nbytes() + result.scales.nbytes() + result.zeros.nbytes() + result.q_scale.nbytes();
        layer["quantization_error"] = result.quantization_error;
        if (!plan.activations.empty()) {
          layer["output_error"] = result.output_error;
          layer["rtn_output_error"] = result.rtn_output_error;
        }
        layer["salient_channels"] = result.salient_channels;
        layer["scaled_channels"] = result.scaled_channels;
        if (options.verbose) {
          log_info("awq tensor={} in={} out={} error={:.6g} rtn_error={:.6g} scaled={}", entry.name, plan.in_features,
                   plan.out_features, result.output_error, result.rtn_output_error, result.scaled_channels);
        }
      }
      file.release(entry.name);
      layers.push_back(std::move(layer));
    }
    if (own) {
      own->write_metadata(make_metadata(options, out_in));
      own->commit();
    }
    if (!one && !options.dry_run) files.push_back(target.string());
  }
  if (one) {
    one->write_metadata(make_metadata(options, out_in));
    one->commit();
    files.push_back(output_path.string());
  }
  const double ratio = quantized_bytes > 0 ? static_cast<double>(original_bytes) / static_cast<double>(quantized_bytes) : 1.0;
  if (options.verbose) log_info("awq quantized={} skipped={} compression={:.2f}", quantized, skipped, ratio);
  return {{"quantized_count", quantized},
          {"skipped_count", skipped},
          {"rounded_to_nearest", nearest},
          {"original_bytes", original_bytes},
          {"quantized_bytes", quantized_bytes},
          {"compression_ratio", ratio},
          {"quant_type", std::string(kAwqQuantType)},
          {"group_size", options.quantize.group_size},
          {"salient_ratio", options.quantize.salient_ratio},
          {"activation_method", std::string(to_string(options.quantize.activation_method))},
          {"files", files},
          {"layers", layers}};
}

Json awq_dequantize_model(const fs::path& model_path, const fs::path& output_path, at::ScalarType weights_dtype) {
  int64_t dequantized = 0, kept = 0;
  Json files = Json::array();
  for (const fs::path& path : weight_files(model_path)) {
    const WeightFile file(path);
    const auto it = file.metadata().find("weight_layout");
    const bool out_in = it != file.metadata().end() && it->second == "out_in";
    // Without our metadata the file is Metal Marlin's own, whose q_scale belongs to the outputs.
    const bool of_outputs = it == file.metadata().end();
    std::set<std::string> parts;
    std::vector<models::PlannedTensor> planned;
    for (const Entry& entry : file.entries()) {
      const bool whole =
          file.contains(entry.name + ".scales") && file.contains(entry.name + ".zeros") && file.contains(entry.name + ".q_scale");
      if (!whole) continue;
      for (const char* part : {".scales", ".zeros", ".q_scale"}) parts.insert(entry.name + part);
      parts.insert(entry.name);
    }
    for (const Entry& entry : file.entries()) {
      if (!parts.contains(entry.name)) {
        planned.push_back({entry.name, entry.dtype, entry.shape});
      } else if (parts.contains(entry.name + ".scales")) {
        if (entry.shape.size() != 2)
          fail(ErrorKind::kCorruption, "{}: '{}' is [{}], expected packed codes [in/8, out]", path.string(), entry.name,
               fmt::join(entry.shape, ", "));
        const int64_t in = entry.shape[0] * 8;
        planned.push_back({entry.name, weights_dtype,
                           out_in ? std::vector<int64_t>{entry.shape[1], in} : std::vector<int64_t>{in, entry.shape[1]}});
      }
    }
    const fs::path target = output_path / (file.stem() + path.extension().string());
    if (fs::exists(target))
      fail(ErrorKind::kInvalidArgument, "{}: is there already; choose another output folder", target.string());
    OutputFile output(target, /*compressed=*/false);
    output.plan(planned, {{"format", "pt"}});
    for (const models::PlannedTensor& tensor : planned) {
      if (!parts.contains(tensor.name)) {
        ++kept;
        output.write(tensor.name, file.read(tensor.name));
      } else {
        ++dequantized;
        const at::Tensor weight = with_context(fmt::format("{}: '{}'", path.string(), tensor.name), [&] {
          const at::Tensor packed = file.read(tensor.name);
          const at::Tensor scales = file.read(tensor.name + ".scales");
          const int64_t in = packed.size(0) * 8;
          if (scales.dim() != 2 || scales.size(0) == 0 || in % scales.size(0) != 0)
            fail(ErrorKind::kCorruption, "scales do not divide {} input channels into groups", in);
          const AwqMeta meta{in, packed.size(1), in / scales.size(0), std::string(kAwqQuantType)};
          return awq_dequantize(packed, scales, file.read(tensor.name + ".zeros"), file.read(tensor.name + ".q_scale"), meta,
                                weights_dtype, of_outputs);
        });
        output.write(tensor.name, out_in ? weight.t().contiguous() : weight);
      }
      file.release(tensor.name);
    }
    output.commit();
    files.push_back(target.string());
  }
  return {{"dequantized_count", dequantized}, {"kept_count", kept}, {"files", files}};
}

void for_each_matrix(const fs::path& model_path, const fs::path& activations_path, const AwqModelOptions& options,
                     const std::function<void(const ModelMatrix&)>& visit) {
  const Activations activations(activations_path);
  for (const fs::path& path : weight_files(model_path)) {
    const WeightFile file(path);
    const std::vector<MatrixPlan> plans = plan_file(file, activations, options);
    for (size_t i = 0; i < plans.size(); ++i) {
      if (!plans[i].quantize) continue;
      const std::string& name = file.entries()[i].name;
      visit({name, read_in_out(file, name, plans[i].out_in),
             plans[i].activations.empty() ? at::Tensor() : activations.read(plans[i].activations)});
      file.release(name);
    }
  }
}

}  // namespace salient::metal_marlin
