#include "models/gguf/gguf_summary.h"

#include <c10/util/accumulate.h>

#include <algorithm>
#include <cctype>
#include <fstream>
#include <vector>

#include "common/error.h"
#include "common/file.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kMagic = "GGUF";

struct FileType {
  uint32_t id;
  std::string_view name;
};
// enum llama_ftype, https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
constexpr FileType kFileTypes[] = {
    {0, "F32"},     {1, "F16"},     {2, "Q4_0"},     {3, "Q4_1"},    {7, "Q8_0"},       {8, "Q5_0"},    {9, "Q5_1"},
    {10, "Q2_K"},   {11, "Q3_K_S"}, {12, "Q3_K_M"},  {13, "Q3_K_L"}, {14, "Q4_K_S"},    {15, "Q4_K_M"}, {16, "Q5_K_S"},
    {17, "Q5_K_M"}, {18, "Q6_K"},   {19, "IQ2_XXS"}, {20, "IQ2_XS"}, {21, "Q2_K_S"},    {22, "IQ3_XS"}, {23, "IQ3_XXS"},
    {24, "IQ1_S"},  {25, "IQ4_NL"}, {26, "IQ3_S"},   {27, "IQ3_M"},  {28, "IQ2_S"},     {29, "IQ2_M"},  {30, "IQ4_XS"},
    {31, "IQ1_M"},  {32, "BF16"},   {36, "TQ1_0"},   {37, "TQ2_0"},  {38, "MXFP4_MOE"}, {39, "NVFP4"},  {40, "Q1_0"},
};

bool is_float_type(std::string_view name) { return name == "F32" || name == "F16" || name == "BF16" || name == "F64"; }

bool is_embedding(std::string_view name) { return name == "token_embd.weight" || name == "position_embd.weight"; }

std::string text_or_empty(const GgufHeader& header, std::string_view key) {
  const auto* const found = find_gguf_value<std::string>(header, key);
  return found != nullptr ? *found : "";
}

std::string describe_tokenizer(const GgufHeader& header) {
  const std::string model = text_or_empty(header, "tokenizer.ggml.model");
  if (model.empty() || model == "none" || model == "no_vocab") return "";
  std::string text = model;
  if (const std::string words = text_or_empty(header, "tokenizer.ggml.pre"); !words.empty()) text += ", words as " + words;
  if (const auto* const tokens = find_gguf_value<std::vector<std::string>>(header, "tokenizer.ggml.tokens"))
    text += fmt::format(", {} tokens", tokens->size());
  if (header.find("tokenizer.huggingface.json") != nullptr) text += ", tokenizer.json";
  text += header.find("tokenizer.chat_template") != nullptr ? ", chat template" : ", no chat template";
  return text;
}

// llama-quantize notes which matrix it used, not the matrix itself.
std::string describe_importance(const GgufHeader& header) {
  std::vector<std::string> parts;
  if (const std::string file = text_or_empty(header, "quantize.imatrix.file"); !file.empty()) parts.push_back(file);
  if (const std::string data = text_or_empty(header, "quantize.imatrix.dataset"); !data.empty()) parts.push_back("data " + data);
  for (const auto& [key, unit] :
       {std::pair{"quantize.imatrix.entries_count", "weights"}, {"quantize.imatrix.chunks_count", "chunks"}}) {
    const auto count = find_gguf_integers(header, key);
    if (count && count->size() == 1) parts.push_back(fmt::format("{} {}", count->front(), unit));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

void add_tensor(const GgufTensor& tensor, GgufSummary& summary) {
  const quant::GgmlTypeInfo* const type = quant::find_ggml_type(static_cast<uint32_t>(tensor.type));
  const std::string name = type != nullptr ? std::string(type->name) : fmt::format("type {}", static_cast<uint32_t>(tensor.type));
  GgufTypeTotal& total = summary.types[name];
  const auto values = static_cast<uint64_t>(c10::multiply_integers(tensor.shape));
  ++total.tensors;
  total.values += values;
  if (type != nullptr) total.bytes += gguf_data_bytes(tensor);
  summary.parameters += values;
  if (tensor.shape.size() < 2 || is_embedding(tensor.name)) return;
  ++(is_float_type(name) ? summary.float_linears : summary.quantized_linears);
}

bool begins_with_magic(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string begin(kMagic.size(), '\0');
  return file.read(begin.data(), static_cast<std::streamsize>(begin.size())) && begin == kMagic;
}

bool has_extension(const fs::path& path, std::string_view wanted) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return extension == wanted;
}

}  // namespace

bool GgufSummary::is_float() const {
  return std::all_of(types.begin(), types.end(), [](const auto& entry) { return is_float_type(entry.first); });
}

double GgufSummary::bits_per_weight() const {
  uint64_t bytes = 0;
  for (const auto& [type, total] : types) {
    if (total.bytes == 0 && total.values > 0) return 0.0;
    bytes += total.bytes;
  }
  return parameters > 0 ? 8.0 * static_cast<double>(bytes) / static_cast<double>(parameters) : 0.0;
}

GgufSummary summarize_gguf(const GgufHeader& header, const std::string& where) {
  return with_context(where, [&] {
    GgufSummary summary;
    summary.version = header.version;
    summary.kind = text_or_empty(header, "general.type");
    if (summary.kind.empty()) summary.kind = "model";
    summary.architecture = text_or_empty(header, "general.architecture");
    summary.name = text_or_empty(header, "general.name");
    if (const auto* const type = find_gguf_value<uint32_t>(header, "general.file_type"))
      summary.file_type = gguf_file_type_name(*type);
    if (const auto count = find_gguf_integers(header, "split.count"); count && count->size() == 1 && count->front() > 0)
      summary.split_count = static_cast<uint64_t>(count->front());
    summary.tensors = header.tensors.size();
    for (const GgufTensor& tensor : header.tensors) add_tensor(tensor, summary);
    summary.tokenizer = describe_tokenizer(header);
    summary.importance = describe_importance(header);
    return summary;
  });
}

std::optional<GgufSummary> read_gguf_summary(const fs::path& path) {
  if (!begins_with_magic(path)) return std::nullopt;
  const MappedFile file(path);
  return summarize_gguf(parse_gguf_header(file.bytes(), path.string()), path.string());
}

std::string describe_weights(const GgufSummary& summary) {
  std::vector<std::pair<uint64_t, std::string>> counts;  // most first
  for (const auto& [type, total] : summary.types) counts.emplace_back(total.tensors, type);
  std::sort(counts.begin(), counts.end(),
            [](const auto& a, const auto& b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
  std::vector<std::string> texts;
  for (const auto& [count, type] : counts) texts.push_back(fmt::format("{} {}", count, type));
  std::string text = fmt::format("{}{}{}", summary.file_type, summary.file_type.empty() ? "" : ": ", fmt::join(texts, ", "));
  if (const double bits = summary.bits_per_weight(); bits > 0) text += fmt::format("; {:.2f} bits per weight", bits);
  return text;
}

std::string gguf_file_type_name(uint32_t id) {
  constexpr uint32_t kGuessed = 1024;  // a flag of llama.cpp's loader, which some tools leave in
  const auto* const row =
      std::find_if(std::begin(kFileTypes), std::end(kFileTypes), [&](const FileType& type) { return type.id == (id & ~kGuessed); });
  return row != std::end(kFileTypes) ? std::string(row->name) : fmt::format("type {}", id);
}

std::optional<fs::path> find_gguf_model(const fs::path& model) {
  std::error_code ignored;  // what cannot be looked at is reported where it is read
  if (fs::is_regular_file(model, ignored))
    return has_extension(model, ".gguf") || begins_with_magic(model) ? std::optional(model) : std::nullopt;
  std::vector<fs::path> files;
  for (fs::directory_iterator it(model, ignored), end; !ignored && it != end; it.increment(ignored)) {
    if (it->path().filename().string().front() == '.') continue;
    if (has_extension(it->path(), ".safetensors") || it->path().filename() == "model.safetensors.index.json") return std::nullopt;
    if (has_extension(it->path(), ".gguf")) files.push_back(it->path());
  }
  if (files.size() <= 1) return files.empty() ? std::nullopt : std::optional(files.front());
  std::sort(files.begin(), files.end());
  std::vector<std::string> names;
  for (const fs::path& file : files) names.push_back(file.filename().string());
  throw Error(ErrorKind::kInvalidArgument,
              fmt::format("{}: holds {} GGUF files and no safetensors: {}", model.string(), names.size(), fmt::join(names, ", ")))
      .with_hint("name the file instead of its folder");
}

}  // namespace salient::models
