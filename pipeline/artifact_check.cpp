#include "pipeline/artifact_check.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/version.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "common/error.h"
#include "common/hash.h"
#include "common/scratch_folder.h"
#include "models/io/gguf.h"
#include "models/io/safetensors.h"
#include "pipeline/artifact_files.h"
#include "pipeline/model_card.h"
#include "pipeline/quantization_settings.h"
#include "pipeline/quantize_session.h"
#include "pipeline/source_files.h"
#include "pipeline/torch_options.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

Json read_metadata(const fs::path& artifact) {
  const fs::path file = artifact / kMetadataFile;
  if (!fs::exists(file)) {
    throw Error(ErrorKind::kNotFound, fmt::format("{}: not there; it holds the hashes that are checked", file.string()))
        .with_hint("name the folder of an artifact that this program made; of others there is nothing to check against");
  }
  Json metadata = read_json_file(file);
  if (!metadata.is_object()) fail(ErrorKind::kCorruption, "{}: found {}, expected an object", file.string(), metadata.type_name());
  return metadata;
}

// {file name: SHA-256}, as the metadata have them under `key`.
std::map<std::string, std::string> recorded_hashes(const fs::path& artifact, const char* key) {
  const Json metadata = read_metadata(artifact);
  const std::string where = (artifact / kMetadataFile).string();
  const auto hashes = metadata.find(key);
  if (hashes == metadata.end())
    fail(ErrorKind::kUnsupported, "{}: has no '{}'; a version before these hashes, or another program, wrote it", where, key);
  if (!hashes->is_object()) fail(ErrorKind::kCorruption, "{}: {}: found {}, expected an object", where, key, hashes->type_name());
  std::map<std::string, std::string> result;
  for (const auto& [name, hash] : hashes->items()) {
    // Names of files in the folder: nothing else is looked at.
    if (!hash.is_string() || name.empty() || name.find('/') != std::string::npos || name == "..")
      fail(ErrorKind::kCorruption, "{}: {}: found '{}': {}, expected a file of the folder and its SHA-256", where, key, name,
           dump_json(hash));
    result[name] = hash.get<std::string>();
  }
  return result;
}

CheckedFile check_file(const std::string& name, const std::string& expected, const fs::path& file) {
  CheckedFile checked{name, FileState::kMissing, expected, ""};
  if (!fs::exists(file)) return checked;
  checked.found = sha256_file(file);
  checked.state = checked.found == expected ? FileState::kSame : FileState::kChanged;
  return checked;
}

// The settings that the artifact was made with, over what `job` says of files.
void apply_recorded(const Json& metadata, const std::string& where, QuantizeJob& job) {
  Json settings = metadata.at("search");
  for (auto setting = settings.begin(); setting != settings.end();)
    setting = setting->is_null() ? settings.erase(setting) : std::next(setting);
  const QuantizationConfig config =
      make_quantization_config(given_settings(ConfigNode::from_json(settings, where + ": search")), where);
  const Json& record = metadata.at("calibration");
  apply_to_job(config, job);
  job.model.search_output.clear();
  job.model.seed = metadata.at("seed").get<uint64_t>();
  job.model.device = parse_device(metadata.value("device", "cpu"));
  if (!record.contains("max_seq_len")) return;  // made without rows
  job.max_seq_len = record.at("max_seq_len").get<int64_t>();
  job.packing = calibration::parse_packing(record.at("packing").get<std::string>());
  job.long_rows = calibration::parse_long_rows(record.at("long_rows").get<std::string>());
  job.loss_mask = calibration::parse_loss_mask(record.at("loss_mask").get<std::string>());
  job.samples = record.value("samples", int64_t{0});
  job.seed = record.value("seed", job.seed);
  const auto own = record.find("self_generated");
  job.self_generated = own != record.end() ? own->at("share").get<double>() : 0;
  if (own != record.end()) job.seed = own->at("seed").get<uint64_t>();
}

// The files of `job` as the record names them, with the weights and numbers of rows that they had.
void take_sources(const Json& record, QuantizeJob& job) {
  const auto recorded = record.find("sources");
  if (recorded == record.end()) return;
  if (job.sources.empty() && !job.calibration_file.empty())
    job.sources.emplace_back().file = std::exchange(job.calibration_file, {});
  for (calibration::CalibrationSource& source : job.sources) {
    const std::string name = source.file.filename().string();
    const auto of_it = std::find_if(recorded->begin(), recorded->end(), [&](const Json& one) { return one.at("file") == name; });
    if (of_it == recorded->end()) continue;
    if (!of_it->at("weight").is_null()) source.weight = of_it->at("weight").get<double>();
    source.samples = of_it->at("samples").get<int64_t>();
    source.domain = of_it->at("domain").get<std::string>();
  }
}

// "rows.jsonl (SHA-256 fa7c...)" of every file that the rows came from.
std::string calibration_files(const Json& record) {
  std::string text;
  const auto add = [&](const Json& one) {
    text += fmt::format("{}{} (SHA-256 {})", text.empty() ? "" : ", ", one.value("file", "?"), one.value("sha256", "?"));
  };
  if (record.contains("file")) add(record);
  if (const auto sources = record.find("sources"); sources != record.end()) {
    for (const Json& source : *sources) add(source);
  }
  return text;
}

// The one file of the rows, by its recorded hash, where `quantize` and `run` are likely to have left it; empty where it is not
// there.
fs::path find_calibration_file(const fs::path& artifact, const Json& record) {
  if (!record.contains("file") || !record.contains("sha256")) return {};
  const std::string name = fs::path(record.value("file", "")).filename().string();
  const fs::path beside = fs::absolute(artifact).lexically_normal().parent_path();
  std::vector<fs::path> candidates = {name, beside / name};
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(beside / "calibration", ignored)) candidates.push_back(entry.path() / name);
  for (const fs::path& file : candidates) {
    if (fs::is_regular_file(file) && sha256_file(file) == record.value("sha256", "")) return file;
  }
  return {};
}

std::vector<std::string> find_other_inputs(const Json& metadata) {
  std::vector<std::string> other;
  const Json versions = metadata.value("versions", Json::object());
  const auto compare = [&](const char* name, const std::string& here) {
    const std::string there = versions.value(name, "?");
    if (there != here) other.push_back(fmt::format("{} {}, made with {}", name, here, there));
  };
  compare("salient", SALIENT_VERSION);
  compare("libtorch", TORCH_VERSION);
  if (metadata.contains("ranks")) other.push_back(fmt::format("one process, made by {} ranks", dump_json(metadata.at("ranks"))));
  if (other.empty()) other.emplace_back("a setting that the metadata do not hold, such as a search result that was saved");
  return other;
}

// "model.layers.3." of the tensor's name, "blk.3." in GGUF: its block, nothing where it is in none.
std::optional<int64_t> block_of(const std::string& name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  int64_t block = 0;
  size_t at = prefix.size();
  while (at < name.size() && name[at] >= '0' && name[at] <= '9' && block < INT32_MAX) block = 10 * block + (name[at++] - '0');
  return at > prefix.size() && at < name.size() && name[at] == '.' ? std::optional(block) : std::nullopt;
}

bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.const_data_ptr(), b.const_data_ptr(), a.nbytes()) == 0;
}

template <typename File>
void compare_tensor(const File& given, const File& made, const std::string& name, Rederived& result) {
  const at::Tensor expected = given.view(name);
  if (!same_bytes(expected, made.view(name))) result.different.push_back(name);
  ++result.tensors;
  result.bytes += expected.nbytes();
  given.release(name);
  made.release(name);
}

void compare_shard(const fs::path& given_path, const fs::path& made_path, const models::DecoderConfig& config, Rederived& result) {
  if (!fs::exists(made_path)) {
    fail(ErrorKind::kCheckFailed,
         "{}: the same job does not write a file of this name; the artifact is not of this source and these settings",
         given_path.string());
  }
  if (given_path.extension() == ".gguf") {
    const models::GgufFile given(given_path);
    const models::GgufFile made(made_path);
    for (const models::GgufTensor& tensor : given.header().tensors) {
      const auto block = block_of(tensor.name, "blk.");
      if (!block || *block >= result.blocks) continue;  // a head in blocks is made of the last block's output
      if (made.find(tensor.name) == nullptr) {
        result.different.push_back(tensor.name);
      } else {
        compare_tensor(given, made, tensor.name, result);
      }
    }
    return;
  }
  const models::SafetensorsFile given(given_path);
  const models::SafetensorsFile made(made_path);
  for (const auto& [name, info] : given.tensors()) {
    if (const auto block = block_of(name, config.names.block_prefix); block && *block >= result.blocks) continue;
    if (made.tensors().contains(name)) {
      compare_tensor(given, made, name, result);
    } else {
      result.different.push_back(name);
    }
  }
}

}  // namespace

std::string_view to_string(FileState state) {
  switch (state) {
    case FileState::kSame: return "same";
    case FileState::kChanged: return "changed";
    case FileState::kMissing: return "missing";
    case FileState::kUnrecorded: return "not recorded";
  }
  return "same";
}

std::vector<CheckedFile> check_files(const fs::path& artifact, const std::function<void(int64_t, int64_t)>& on_progress) {
  const auto recorded = recorded_hashes(artifact, "files_sha256");
  std::vector<CheckedFile> files;
  for (const auto& [name, hash] : recorded) {
    files.push_back(check_file(name, hash, artifact / name));
    if (on_progress) on_progress(static_cast<int64_t>(files.size()), static_cast<int64_t>(recorded.size()));
  }
  std::vector<CheckedFile> others;
  for (const auto& entry : fs::directory_iterator(artifact)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(".") || name == kMetadataFile || name == kModelCard || recorded.contains(name)) continue;
    others.push_back({name, FileState::kUnrecorded, "", ""});
  }
  std::sort(others.begin(), others.end(), [](const CheckedFile& a, const CheckedFile& b) { return a.name < b.name; });
  files.insert(files.end(), others.begin(), others.end());
  return files;
}

std::vector<CheckedFile> check_source(const fs::path& artifact, const fs::path& source) {
  const auto recorded = recorded_hashes(artifact, "source_sha256");
  const Json found = hash_source_files(source);
  std::vector<CheckedFile> files;
  for (const auto& [name, hash] : recorded) {
    CheckedFile file{name, FileState::kMissing, hash, found.value(name, "")};
    if (!file.found.empty()) file.state = file.found == hash ? FileState::kSame : FileState::kChanged;
    files.push_back(std::move(file));
  }
  for (const auto& [name, hash] : found.items()) {
    if (!recorded.contains(name)) files.push_back({name, FileState::kUnrecorded, "", hash.get<std::string>()});
  }
  return files;
}

Rederived rederive(const RederiveOptions& options) {
  const at::NoGradGuard no_grad;
  const Json metadata = read_metadata(options.artifact);
  const std::string where = (options.artifact / kMetadataFile).string();
  if (metadata.contains("converted_from")) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: was converted from {}, not quantized", options.artifact.string(),
                                                     dump_json(metadata.at("converted_from"))))
        .with_hint("check the artifact that it was made from");
  }
  for (const char* key : {"fingerprint", "search", "calibration", "calibration_ids_sha256", "seed"}) {
    if (!metadata.contains(key)) fail(ErrorKind::kUnsupported, "{}: has no '{}', which a quantization writes", where, key);
  }
  const ScratchFolder scratch(options.scratch);
  QuantizeJob job = options.job;
  const Json& record = metadata.at("calibration");
  try {
    apply_recorded(metadata, where, job);
    take_sources(record, job);
  } catch (const Json::exception& error) {
    fail(ErrorKind::kCorruption, "{}: a setting is missing or of another type than this program writes ({})", where, error.what());
  }
  const std::string files = calibration_files(record);
  if (job.calibration_file.empty() && job.sources.empty()) job.calibration_file = find_calibration_file(options.artifact, record);
  if (!files.empty() && job.calibration_file.empty() && job.sources.empty()) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("{}: was calibrated on rows, and none are given or found", options.artifact.string()))
        .with_hint("name the file with --calib: " + files);
  }
  job.model.output = scratch.path() / "artifact";
  const PreparedJob prepared = prepare_job(job);
  if (Json(hash_tensor(prepared.input.blocks.ids)) != metadata.at("calibration_ids_sha256")) {
    throw Error(ErrorKind::kInvalidArgument, fmt::format("{}: other calibration rows: {} tokens here, {} when it was made",
                                                         options.artifact.string(), prepared.input.blocks.statistics.tokens,
                                                         record.value("tokens", Json::object()).value("tokens", int64_t{0})))
        .with_hint("name the file that it was made with, and the same options for reading it: " + files);
  }
  QuantizeSession session(prepared.model, prepared.input.blocks);
  const QuantizeWork& work = session.work();
  Rederived result;
  result.blocks = std::min(options.blocks, work.blocks());
  result.same_inputs = Json(work.fingerprint) == metadata.at("fingerprint");
  if (!result.same_inputs) result.other_inputs = find_other_inputs(metadata);
  while (session.blocks_done() < result.blocks) session.run_block();
  for (const auto& [name, hash] : recorded_hashes(options.artifact, "files_sha256")) {
    const std::string extension = fs::path(name).extension().string();
    if (extension != ".safetensors" && extension != ".gguf") continue;
    compare_shard(options.artifact / name, work.work / ("." + name + ".partial"), work.config, result);
  }
  return result;
}

}  // namespace salient::pipeline
