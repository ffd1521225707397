#include "pipeline/convert_codes.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "models/decoder/block_layout.h"
#include "models/decoder/wrappers.h"
#include "models/io/checkpoint_writer.h"
#include "models/io/compressed_config.h"
#include "models/io/packed_codes.h"
#include "pipeline/artifact_files.h"
#include "pipeline/quantize_plan.h"
#include "pipeline/stored_range.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

using models::Checkpoint;
using models::LinearSpec;

constexpr std::array kCodeParts = {"qweight",       "qzeros",       "scaled_zeros",      "scales",       "g_idx",
                                   "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx"};
// In the order in which they are tried.
constexpr std::array kScaleDtypes = {at::kHalf, at::kBFloat16, at::kFloat};

// "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.qzeros"; nothing where the tensor is none of a linear in codes.
std::optional<std::string> module_in_codes(const Checkpoint& checkpoint, const std::string& tensor) {
  const size_t dot = tensor.rfind('.');
  if (dot == std::string::npos || std::find(kCodeParts.begin(), kCodeParts.end(), tensor.substr(dot + 1)) == kCodeParts.end())
    return std::nullopt;
  std::string module = tensor.substr(0, dot);
  return models::has_codes(checkpoint, module) ? std::optional(std::move(module)) : std::nullopt;
}

// What the whole model's codes are.
struct Survey {
  std::map<std::string, LinearSpec> linears;      // in codes, by name, without their biases
  std::map<std::string, LinearSetting> settings;  // of the same
  std::vector<std::string> floats;                // linears of the blocks in float
  std::string format;
  std::string asymmetric;                         // the first linear, by name, with a zero point that is not the middle
  std::string lost_zero;                          // with one beside a scale of 0
  std::map<at::ScalarType, std::string> inexact;  // dtypes that do not hold every scale, with a linear whose they do not
};

[[noreturn]] void refuse(const Checkpoint& checkpoint, WeightFormat target, const std::string& why, const std::string& hint) {
  throw Error(ErrorKind::kUnsupported,
              fmt::format("{}: cannot become {} without loss: {}", checkpoint.folder().string(), to_string(target), why))
      .with_hint(hint);
}

constexpr const char* kRequantize = "quantize the float model with `salient quantize --format` instead";

void survey_linear(const Checkpoint& checkpoint, WeightFormat target, LinearSpec spec, Survey& survey) {
  const models::StoredCodes stored = models::load_codes(checkpoint, spec.name, spec.out_features, spec.in_features);
  const models::PackedLayout& layout = stored.layout;
  if (survey.format.empty()) survey.format = layout.format;
  if (layout.format != survey.format) {
    refuse(checkpoint, target, fmt::format("{} is in {}, linears before it in {}", spec.name, layout.format, survey.format),
           kRequantize);
  }
  if (stored.channel_groups.defined()) {
    refuse(checkpoint, target, fmt::format("{}: the channels of a group do not lie together (weight_g_idx)", spec.name),
           kRequantize);
  }
  const auto& [codes, zeros, scales] = stored.weight;
  const at::Tensor shifted = zeros.ne(int64_t{1} << (layout.bits - 1));
  if (survey.asymmetric.empty() && shifted.any().item<bool>()) survey.asymmetric = spec.name;
  if (survey.lost_zero.empty() && scales.eq(0).logical_and(shifted).any().item<bool>()) survey.lost_zero = spec.name;
  for (const at::ScalarType dtype : kScaleDtypes) {
    if (!survey.inexact.contains(dtype) && !scales.to(dtype).to(at::kFloat).equal(scales)) survey.inexact[dtype] = spec.name;
  }
  survey.settings[spec.name] = {layout.bits, layout.group_size, true};
  spec.bias = false;
  survey.linears[spec.name] = std::move(spec);
}

Survey survey_model(const Checkpoint& checkpoint, const models::DecoderConfig& config, WeightFormat target) {
  Survey survey;
  const auto add = [&](const std::vector<LinearSpec>& specs) {
    for (const LinearSpec& spec : specs) {
      if (models::has_codes(checkpoint, spec.name)) {
        survey_linear(checkpoint, target, spec, survey);
      } else {
        survey.floats.push_back(spec.name);
      }
    }
  };
  for (int64_t block = 0; block < config.num_hidden_layers; ++block) {
    const models::BlockLayout layout = models::block_layout(config, block);
    add(layout.linears);
    for (int64_t expert = 0; expert < layout.experts; ++expert) add(models::expert_layout(config, block, expert));
  }
  for (const std::string& name : checkpoint.names()) {
    const auto module = module_in_codes(checkpoint, name);
    if (!module || survey.linears.contains(*module)) continue;
    refuse(checkpoint, target, fmt::format("{} is in codes and no linear of the decoder's blocks, which alone it holds", *module),
           kRequantize);
  }
  // One group in every row, of rows of several widths: called one group a channel.
  const auto one_group = [&](const auto& entry) { return entry.second.in_features == survey.settings.at(entry.first).group_size; };
  std::set<int64_t> widths;
  for (const auto& [name, spec] : survey.linears) widths.insert(spec.in_features);
  if (widths.size() > 1 && std::all_of(survey.linears.begin(), survey.linears.end(), one_group)) {
    for (auto& [name, setting] : survey.settings) setting.group_size = -1;
  }
  for (auto& [name, setting] : survey.settings) setting.zero_point = !survey.asymmetric.empty();
  return survey;
}

// Which specification the target's config.json is to have; refuses what the target cannot hold.
quant::QuantizationSpec check_survey(const Checkpoint& checkpoint, const Survey& survey, WeightFormat target) {
  const WeightFormatRow& row = row_of(target);
  if (survey.linears.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: no linear is in codes, there is nothing to convert to {}", checkpoint.folder().string(), row.name))
        .with_hint(fmt::format("a float model is rounded by: salient quantize --model {} --format {}", checkpoint.folder().string(),
                               row.name));
  }
  if (survey.format == row.name)
    fail(ErrorKind::kInvalidArgument, "{}: is in the format {} already", checkpoint.folder().string(), row.name);
  if (!survey.asymmetric.empty() && !row.zero_points) {
    refuse(checkpoint, target, fmt::format("{} has zero points other than the middle, the format stores none", survey.asymmetric),
           "only symmetric codes fit: quantize the float model with --symmetric");
  }
  if (!survey.lost_zero.empty() && target == WeightFormat::kAwqGemvFast) {
    refuse(checkpoint, target, fmt::format("{} has a scale of 0, with which the format loses the zero point", survey.lost_zero),
           kRequantize);
  }
  const LinearSetting& first = survey.settings.begin()->second;
  const quant::QuantizationSpec spec{.weight_bits = first.bits, .group_size = first.group_size, .zero_point = first.zero_point};
  with_context(checkpoint.folder().string(), [&] {
    check_format(target, spec);
    for (const auto& [name, linear] : survey.linears) check_linear(target, spec, linear, survey.settings.at(name));
  });
  return spec;
}

// Of the scales: the dtype of the target's other floats where they are exact in it.
at::ScalarType scale_dtype(const Checkpoint& checkpoint, const models::DecoderConfig& config, const Survey& survey,
                           WeightFormat target) {
  const at::ScalarType usual = packed_dtype(config, target);
  if (!survey.inexact.contains(usual)) return usual;
  if (row_of(target).awq_version.empty()) {
    for (const at::ScalarType dtype : kScaleDtypes) {
      if (!survey.inexact.contains(dtype)) return dtype;
    }
  }
  refuse(checkpoint, target, fmt::format("scales of {} are not exact in {}", survey.inexact.at(usual), dtype_text(usual)),
         kRequantize);
}

// By file and place in it; without scales of a KV cache, which no other format has a place for.
std::vector<std::string> stored_order(const Checkpoint& checkpoint) {
  std::vector<std::string> names = checkpoint.names();
  std::erase_if(names, [](const std::string& name) { return name.ends_with(".k_scale") || name.ends_with(".v_scale"); });
  const auto place = [&](const std::string& name) {
    return std::tuple(checkpoint.file_of(name), checkpoint.info(name).begin, name);
  };
  std::sort(names.begin(), names.end(), [&](const auto& a, const auto& b) { return place(a) < place(b); });
  return names;
}

// The source's, but for what it says of the quantization.
Json converted_config(Json config, const Json& quantization) {
  for (const char* key : {"quantization_config", "compression_config"}) {
    config.erase(key);
    if (const auto text = config.find(models::kTextKey); text != config.end() && text->is_object()) text->erase(key);
  }
  config["quantization_config"] = quantization;
  return config;
}

// What the source says of how its codes were chosen stays true; what it says of its files does not.
void write_metadata(const Checkpoint& checkpoint, const Survey& survey, WeightFormat target, const std::string& config_text,
                    const fs::path& folder) {
  const fs::path file = checkpoint.folder() / kMetadataFile;
  if (!fs::exists(file)) return;
  Json metadata = read_json_file(file);
  if (!metadata.is_object())
    fail(ErrorKind::kCorruption, "{}: expected an object, found a JSON {}", file.string(), metadata.type_name());
  if (metadata.contains("fingerprint")) {  // no quantization would write these bytes
    metadata["fingerprint"] = sha256_hex(dump_json({{"converted", metadata["fingerprint"]}, {"to", to_string(target)}}));
  }
  metadata["converted_from"] = survey.format;
  metadata["format"] = to_string(target);
  metadata["readers"] = row_of(target).readers;
  metadata["files_sha256"] =
      hash_files(folder, [](const std::string& name) { return name.ends_with(".safetensors") || name.ends_with(".index.json"); });
  metadata["files_sha256"]["config.json"] = sha256_hex(config_text);
  write_file(folder / kMetadataFile, dump_json(metadata, 2) + "\n");
}

std::vector<std::string> notes_of(const Checkpoint& checkpoint, const models::DecoderConfig& config, WeightFormat target) {
  std::vector<std::string> notes;
  const bool awq = !row_of(target).awq_version.empty();
  if (awq && config.dtype != at::kHalf) {
    notes.push_back(fmt::format("what is not in codes stays {}; AutoAWQ's kernels run in float16: load with that dtype",
                                dtype_text(config.dtype)));
  }
  const auto quantization = checkpoint.config().find("quantization_config");
  if (!awq || quantization == checkpoint.config().end() || !quantization->is_object()) return notes;
  const auto cache = quantization->find("kv_cache_scheme");
  const bool activations = models::read_compressed_config(*quantization, "config.json").activations;
  if (activations || (cache != quantization->end() && !cache->is_null()))
    notes.emplace_back("input_activations and kv_cache_scheme of the source have no place in this format: left out");
  return notes;
}

}  // namespace

ConvertResult convert_codes(const Checkpoint& checkpoint, WeightFormat target, const fs::path& folder, uint64_t max_shard_bytes) {
  const at::NoGradGuard no_grad;
  const models::DecoderConfig config = models::load_decoder_config(checkpoint);
  const Survey survey = survey_model(checkpoint, config, target);
  const quant::QuantizationSpec spec = check_survey(checkpoint, survey, target);
  const at::ScalarType dtype = scale_dtype(checkpoint, config, survey, target);

  const std::vector<std::string> names = stored_order(checkpoint);
  std::vector<models::PlannedTensor> planned;
  std::set<std::string> seen;
  for (const std::string& name : names) {
    const auto module = module_in_codes(checkpoint, name);
    if (!module) {
      planned.push_back({name, checkpoint.info(name).dtype, checkpoint.info(name).shape});
    } else if (seen.insert(*module).second) {
      const auto tensors = planned_tensors(target, survey.linears.at(*module), survey.settings.at(*module), dtype);
      planned.insert(planned.end(), tensors.begin(), tensors.end());
    }
  }
  const models::ShardPlan plan = models::plan_shards(planned, max_shard_bytes);
  models::CheckpointWriter writer(folder, plan);
  for (const std::string& name : names) {
    const auto module = module_in_codes(checkpoint, name);
    if (!module) {
      writer.put(name, checkpoint.view(name));
      checkpoint.release(name);
    } else if (seen.erase(*module) == 1) {
      const LinearSpec& linear = survey.linears.at(*module);
      const models::StoredCodes stored = models::load_codes(checkpoint, *module, linear.out_features, linear.in_features);
      for (const auto& [part, tensor] : packed_tensors(target, *module, stored.weight, survey.settings.at(*module), dtype))
        writer.put(part, tensor);
    }
  }
  writer.finish();

  const Json quantization = quantization_config(target, spec, survey.settings,
                                                float_modules(config, target, survey.floats, plan_kept(checkpoint, config)));
  const std::string config_text = dump_json(converted_config(checkpoint.config(), quantization), 2) + "\n";
  write_metadata(checkpoint, survey, target, config_text, folder);
  write_file(folder / "config.json", config_text);
  ConvertResult result{
      {}, plan.total_bytes, static_cast<int64_t>(survey.linears.size()), survey.format, notes_of(checkpoint, config, target)};
  for (const auto& shard : plan.shards) result.files.emplace_back(shard.file);
  return result;
}

}  // namespace salient::pipeline
