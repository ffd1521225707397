#include "pipeline/model_card.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/text.h"
#include "common/yaml.h"
#include "models/io/adapter.h"
#include "pipeline/card_header.h"
#include "pipeline/markdown.h"
#include "pipeline/measured_quality.h"
#include "pipeline/quantize_progress.h"
#include "pipeline/warning_digest.h"
#include "pipeline/weight_formats.h"
#include "pipeline/work_folder.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr std::array kCarried = {"license", "license_name", "license_link", "language", "pipeline_tag"};

struct Engine {
  std::string_view name;
  std::string_view language;  // of the code
  std::string_view code;      // "MODEL" stands for the folder or the repository
};

constexpr Engine kTransformers = {"transformers", "python",
                                  "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
                                  "tokenizer = AutoTokenizer.from_pretrained(\"MODEL\")\n"
                                  "model = AutoModelForCausalLM.from_pretrained(\"MODEL\", device_map=\"auto\")"};
constexpr Engine kVllm = {"vLLM", "sh", "vllm serve MODEL"};
constexpr Engine kSglang = {"SGLang", "sh", "python -m sglang.launch_server --model-path MODEL"};
constexpr Engine kAutoAwq = {"AutoAWQ", "python",
                             "from awq import AutoAWQForCausalLM\n"
                             "model = AutoAWQForCausalLM.from_quantized(\"MODEL\", fuse_layers=False)"};
// Kernels of AutoAWQ that are run on this layout and rearrange it when it is loaded.
constexpr Engine kAutoAwqExllama = {"AutoAWQ with ExLlama's kernels", "python",
                                    "from awq import AutoAWQForCausalLM\n"
                                    "model = AutoAWQForCausalLM.from_quantized(\"MODEL\", fuse_layers=False, use_exllama_v2=True)"};
constexpr Engine kAutoAwqIpex = {"AutoAWQ with IPEX, on Intel CPUs and GPUs", "python",
                                 "from awq import AutoAWQForCausalLM\n"
                                 "model = AutoAWQForCausalLM.from_quantized(\"MODEL\", fuse_layers=False, use_ipex=True)"};
constexpr Engine kCompressedTensors = {"transformers (with the package compressed-tensors)", "python", kTransformers.code};
constexpr Engine kLlamaCpp = {"llama.cpp", "sh", "llama-cli -m MODEL/FILE.gguf -p \"Once\""};
constexpr Engine kLlamaCppPython = {"llama-cpp-python", "python",
                                    "from llama_cpp import Llama\n"
                                    "model = Llama(\"MODEL/FILE.gguf\")"};
constexpr Engine kLlamaQuantize = {"llama.cpp's quantizer", "sh", "llama-quantize MODEL/FILE.gguf MODEL/Q4_K_M.gguf Q4_K_M"};
constexpr Engine kTorch = {"torch.jit", "python",
                           "import torch\n"
                           "model = torch.jit.load(\"MODEL/model.pt\")\n"
                           "logits = model(torch.tensor([[1, 2, 3]]))"};

constexpr std::array kGemmEngines = {kTransformers, kVllm, kSglang, kAutoAwq, kAutoAwqExllama, kAutoAwqIpex};
constexpr std::array kAwqEngines = {kAutoAwq};
constexpr std::array kCompressedEngines = {kCompressedTensors, kVllm, kSglang};
constexpr std::array kFloatEngines = {kTransformers, kVllm, kSglang};
constexpr std::array kGgufEngines = {kLlamaCpp, kLlamaCppPython};
constexpr std::array kGgufFloatEngines = {kLlamaCpp, kLlamaCppPython, kLlamaQuantize};
constexpr std::array kTorchEngines = {kTorch};

struct FormatRow {
  std::string_view prefix;   // of the format's name; the longest that fits counts
  std::string_view library;  // library_name; "" = none
  std::string_view tag;
  std::span<const Engine> engines;
};
constexpr std::array kFormats = {
    FormatRow{"awq-gemm", "transformers", "awq", kGemmEngines},
    FormatRow{"awq-", "transformers", "awq", kAwqEngines},
    FormatRow{"compressed-tensors", "transformers", "compressed-tensors", kCompressedEngines},
    FormatRow{"gguf-f16", "", "gguf", kGgufFloatEngines},
    FormatRow{"gguf-bf16", "", "gguf", kGgufFloatEngines},
    FormatRow{"gguf", "", "gguf", kGgufEngines},
    FormatRow{"torchscript", "", "torchscript", kTorchEngines},
    FormatRow{"", "transformers", "", kFloatEngines},  // floats
};

const FormatRow& row_of_format(std::string_view format) {
  return *std::find_if(kFormats.begin(), kFormats.end(), [&](const FormatRow& row) { return format.starts_with(row.prefix); });
}

const Json& part(const Json& json, std::string_view key) {
  static const Json kNothing = Json::object();
  if (!json.is_object() || !json.contains(key) || !json.at(key).is_object()) return kNothing;
  return json.at(key);
}

std::string text_of(const Json& json, std::string_view key) {
  if (!json.is_object() || !json.contains(key) || !json.at(key).is_string()) return "";
  return json.at(key).get<std::string>();
}

// "model.layers.3.mlp.experts.7.down_proj" -> "down_proj".
std::string kind_of(const std::string& linear) { return linear.substr(linear.rfind('.') + 1); }

bool is_quantized(const Json& metadata) { return metadata.is_object() && metadata.contains("method"); }

// Scalars as JSON: YAML reads those.
std::string header(const Json& metadata, const FormatRow& row, const Json& figures) {
  const Json& source = part(metadata, "source");
  std::string text = "---\n";
  const auto add = [&](std::string_view key, const Json& value) { text += fmt::format("{}: {}\n", key, dump_json(value)); };
  if (const std::string base = text_of(source, "base_model"); !base.empty()) {
    add("base_model", base);
    add("base_model_relation", "quantized");
  }
  if (!row.library.empty()) add("library_name", row.library);
  for (const char* key : kCarried) {
    if (source.contains(key)) add(key, source.at(key));
  }
  Json tags = {"salient"};
  if (!row.tag.empty()) tags.push_back(row.tag);
  if (is_quantized(metadata)) {
    tags.push_back("quantized");
    const Json& spec = part(metadata, "spec");
    if (row.tag == "awq" && spec.contains("weight_bits")) tags.push_back(fmt::format("{}-bit", dump_json(spec.at("weight_bits"))));
  }
  add("tags", tags);
  return text + model_index(model_name(metadata), figures) + "---\n";
}

std::string settings_section(const Json& metadata, std::string_view format) {
  std::vector<std::vector<std::string>> rows = {{"format", markdown_text(format)}};
  const Json& spec = part(metadata, "spec");
  const Json& search = part(metadata, "search");
  const auto add = [&](const char* label, const Json& from, std::string_view key) {
    if (from.is_object() && from.contains(key) && !from.at(key).is_null()) rows.push_back({label, markdown_value(from.at(key))});
  };
  if (const std::string base = text_of(part(metadata, "source"), "base_model"); !base.empty())
    rows.push_back({"made from", markdown_text(base)});
  if (const Json& adapter = part(part(metadata, "source"), "adapter"); !adapter.empty()) {
    rows.push_back(
        {"with the adapter", markdown_text(fmt::format("{} of rank {}, alpha {}, {} modules", text_of(adapter, "peft"),
                                                       adapter.value("rank", Json()).dump(), adapter.value("alpha", Json()).dump(),
                                                       adapter.value("modules", Json()).dump()))});
  }
  add("method", metadata, "method");
  add("bits of a weight", search, "bits");
  add("mean bits of a weight", metadata, "mean_bits");
  add("group size", search, "group_size");
  add("zero points", search, "zero_point");
  add("lm_head", search, "lm_head");
  add("then rounded again to", metadata, "rounded_again");
  if (search.value("pad_intermediate", Json(0)) != 0) add("width of MLPs padded to", search, "pad_intermediate");
  add("scales", search, "scale");
  add("clipping", search, "clip");
  add("rounding", search, "rounding");
  if (const std::string file = text_of(search, "search"); !file.empty())
    rows.push_back({"search result from", markdown_text(fs::path(file).filename().string())});
  if (spec.is_object() && search.empty()) add("specification", metadata, "spec");
  add("Salient", part(metadata, "versions"), "salient");
  return "## Quantization\n\n" + markdown_table({"Setting", "Value"}, rows);
}

std::string calibration_section(const Json& metadata) {
  const Json& record = part(metadata, "calibration");
  const Json& coverage = part(record, "coverage");
  if (record.empty()) return "## Calibration\n\nNone: scales and clip ranges were given.\n";
  std::vector<std::vector<std::string>> rows;
  const auto add = [&](const char* label, const Json& from, std::string_view key) {
    if (from.contains(key) && !from.at(key).is_null()) rows.push_back({label, markdown_value(from.at(key))});
  };
  add("file", record, "file");
  if (record.contains("sources") && record.at("sources").is_array()) {
    for (const Json& source : record.at("sources")) add("file", source, "file");
  }
  add("rows", coverage, "rows");
  add("tokens", metadata, "calibration_tokens");
  add("blocks", metadata, "calibration_blocks");
  add("tokens of a block", record, "max_seq_len");
  add("seed", metadata, "seed");
  std::string text = "## Calibration\n\n" + markdown_table({"", ""}, rows);
  if (!coverage.contains("domains") || !coverage.at("domains").is_array() || coverage.at("domains").empty()) return text;
  std::vector<std::vector<std::string>> domains;
  for (const Json& domain : coverage.at("domains"))
    domains.push_back({markdown_text(text_of(domain, "name")), markdown_value(domain.value("rows", Json())),
                       markdown_value(domain.value("tokens", Json()))});
  return text + "\n" + markdown_table({"Domain", "Rows", "Tokens"}, domains);
}

std::string error_section(const std::vector<LinearReport>& reports) {
  struct Sum {
    int64_t linears = 0;
    int64_t counted = 0;
    double ratios = 0;
  };
  std::map<std::string, Sum> sums;
  for (const LinearReport& report : reports) {
    Sum& sum = sums[kind_of(report.name)];
    ++sum.linears;
    if (!(report.rtn_error > 0) || !(report.error >= 0)) continue;
    ++sum.counted;
    sum.ratios += report.error / report.rtn_error;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [kind, sum] : sums) {
    const double mean = sum.counted > 0 ? sum.ratios / static_cast<double>(sum.counted) : 1.0;
    rows.push_back({markdown_text(kind), std::to_string(sum.linears), fmt::format("{:.2g}", mean)});
  }
  return "## Error of the linears\n\nThe mean squared change of a linear's output on the calibration tokens, as a share of what "
         "rounding to nearest leaves; the mean over\n"
         "the linears of a kind.\n\n" +
         markdown_table({"Linear", "Count", "Error / rounding to nearest"}, rows);
}

bool asks_for_runtime_bits(const Json& metadata, std::string_view format) {
  const Json& search = part(metadata, "search");
  return format == "compressed-tensors" && search.contains("write_runtime_bits") && search.at("write_runtime_bits") == Json(true);
}

bool packs_zero_points(const Json& metadata, std::string_view format) {
  const Json& search = part(metadata, "search");
  return format == "compressed-tensors" && search.contains("zero_point") && search.at("zero_point") == Json(true);
}

std::string loading_section(const FormatRow& row, const Json& metadata, std::string_view format) {
  const bool rounds = asks_for_runtime_bits(metadata, format);  // activations or the KV cache, which few engines can
  std::string text = "## How to load it\n\n`MODEL` stands for this folder or repository.\n";
  for (const Engine& engine : row.engines) {
    if (!rounds || &engine == &row.engines.front())
      text += fmt::format("\n{}:\n\n```{}\n{}\n```\n", engine.name, engine.language, engine.code);
  }
  if (packs_zero_points(metadata, format)) {
    text +=
        "\nPacked zero points load in transformers 5.17 with compressed-tensors 0.19. transformers 5.23 with 0.20 wants, for a "
        "folder with one scheme, "
        "`quantization_config=CompressedTensorsConfig(dequantize=True)`.\n";
  }
  if (rounds) {
    text +=
        "\n`config.json` asks for 8-bit integers of activations or the KV cache (`input_activations`, `kv_cache_scheme`). "
        "transformers computes that while the "
        "package decompresses weights as it runs, not with `dequantize=True`; vLLM and SGLang have no kernels for it.\n";
  }
  return text;
}

std::string warning_section(const std::vector<LinearReport>& reports) {
  const std::vector<std::string> lines = warning_lines(reports);
  if (lines.empty()) return "";
  std::string text = "## Warnings\n\n";
  constexpr std::string_view kWord = "warning, ";
  for (const std::string_view line : lines)
    text += fmt::format("- {}\n", markdown_text(line.starts_with(kWord) ? line.substr(kWord.size()) : line));
  return text;
}

std::vector<LinearReport> reports_of(const Json& metadata) {
  std::vector<LinearReport> reports;
  if (!metadata.is_object() || !metadata.contains("layers") || !metadata.at("layers").is_array()) return reports;
  for (const Json& layer : metadata.at("layers")) reports.push_back(linear_report_from_json(layer, "layers"));
  return reports;
}

// Nothing was rounded.
bool only_smoothed(const Json& metadata) {
  const auto made = parse_weight_format(text_of(part(metadata, "search"), "format"));
  return made && !row_of(*made).rounds;
}

// As quantize_model names what it stores.
std::string format_of(const Json& metadata) {
  const std::string format = text_of(metadata, "format");
  const std::string of_search = text_of(part(metadata, "search"), "format");
  return format == "float" && !of_search.empty() ? of_search : format;
}

// ".../models--org--name/snapshots/<commit>" -> "org/name".
std::string hub_name(const fs::path& folder) {
  constexpr std::string_view kModels = "models--";
  if (folder.parent_path().filename() != "snapshots") return "";
  const std::string repository = folder.parent_path().parent_path().filename().string();
  const size_t between = repository.find("--", kModels.size());
  if (!repository.starts_with(kModels) || between == std::string::npos) return "";
  return repository.substr(kModels.size(), between - kModels.size()) + "/" + repository.substr(between + 2);
}

}  // namespace

std::string model_name(const Json& metadata) {
  const std::string name = text_of(part(metadata, "source"), "name");
  return name.empty() ? "model" : name;
}

Json describe_source(const fs::path& model_folder) {
  const fs::path folder = fs::absolute(model_folder).lexically_normal();
  const std::string hub = hub_name(folder);
  Json source = Json::object();
  source["name"] =
      !hub.empty() ? hub.substr(hub.find('/') + 1) : (folder.has_filename() ? folder : folder.parent_path()).filename().string();
  if (!hub.empty()) source["base_model"] = hub;
  if (models::is_adapter(folder)) {
    source["adapter"] = models::describe_adapter(models::read_adapter(folder));
    const std::string base = hub_name(fs::absolute(models::adapter_base(folder)).lexically_normal());
    if (!base.empty() && !source.contains("base_model")) source["base_model"] = base;
  }
  const Json given = read_card_header(folder / kModelCard);
  for (const char* key : kCarried) {
    if (given.is_object() && given.contains(key) && !given.at(key).is_null()) source[key] = given.at(key);
  }
  return source;
}

std::string model_card(const Json& metadata, std::string_view given_format) {
  const std::string format = given_format.empty() ? format_of(metadata) : std::string(given_format);
  const FormatRow& row = row_of_format(format);
  const std::vector<LinearReport> reports = reports_of(metadata);
  const std::string name = model_name(metadata);
  const Json figures = metadata.is_object() ? metadata.value("evaluation", Json()) : Json();
  std::string text = header(metadata, row, figures);
  text += fmt::format("\n# {}, {}\n\n", markdown_text(name), markdown_text(format.empty() ? "float" : format));
  text += is_quantized(metadata) ? fmt::format("{}, {} by Salient.\n\n", markdown_text(name),
                                               only_smoothed(metadata) ? "smoothed for quantizers that follow" : "quantized")
                                 : fmt::format("{}, in another format, written by Salient.\n\n", markdown_text(name));
  if (is_quantized(metadata)) {
    text += settings_section(metadata, format) + "\n";
    text += calibration_section(metadata) + "\n";
    if (!reports.empty() && !part(metadata, "calibration").empty()) text += error_section(reports) + "\n";
  }
  text += quality_section(figures) + "\n" + loading_section(row, metadata, format);
  if (const std::string warnings = warning_section(reports); !warnings.empty()) text += "\n" + warnings;
  return text;
}

std::string export_card(const fs::path& model_folder, std::string_view format) {
  const fs::path metadata_file = model_folder / kMetadataFile;
  Json metadata = fs::exists(metadata_file) ? read_json_file(metadata_file) : Json::object();
  if (!metadata.is_object())
    fail(ErrorKind::kCorruption, "{}: expected an object, found a JSON {}", metadata_file.string(), metadata.type_name());
  if (!metadata.contains("source")) metadata["source"] = describe_source(model_folder);
  // Of other weights than these, unless the same codes are only arranged otherwise.
  const auto target = parse_weight_format(format);
  if (!target || !row_of(*target).convertible()) metadata.erase("evaluation");
  if (target && row_of(*target).rounds && !row_of(*target).convertible() && metadata.contains("layers")) {
    metadata.erase("layers");  // errors of other codes than these
    metadata["rounded_again"] = format;
  }
  return with_context(metadata_file.string(), [&] { return model_card(metadata, format); });
}

}  // namespace salient::pipeline
